//! Tables for people: plain columns, no frames, so that they read well anywhere.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use super::terminal::harmless;

/// A table without lines.
pub fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Puts the figures of these columns under each other.
pub fn align_right(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// The table as text, without the blanks that fill its last column.
pub fn text(table: &Table) -> String {
    // Whatever was forgotten to be made harmless, is so here.
    let lines: Vec<_> = table.lines().map(|line| harmless(line.trim_end())).collect();
    lines.join("\n")
}

/// A value as one line on a terminal. What others wrote may hold anything: it is shown, not obeyed.
pub fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => harmless(text),
        Some(Value::Array(all)) => {
            all.iter().map(|one| cell(Some(one))).collect::<Vec<_>>().join(" ")
        }
        Some(other) => harmless(&other.to_string()),
    }
}
