//! The figures of all measurements: their medians, as a table or as JSON.
//! How they come about stands in `client` and `usage`.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;
use tollgate::replay::report::quantile;

use crate::client::{Answers, Server};
use crate::usage::{Usage, Watch};

/// A combination to be measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub connections: usize,
    /// Percentage of repeated events.
    pub duplicates: u32,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections, {} % duplicates", self.connections, self.duplicates)
    }
}

/// The figures of one measurement, or the medians of several.
#[derive(Clone)]
pub struct Figures {
    /// Events answered with 2xx in a second.
    rate: f64,
    /// p50, p99, p99.9 of their latency in milliseconds.
    latencies: [f64; 3],
    non_2xx: f64,
    errors: f64,
    /// One for each watch; empty where nothing could be read.
    costs: Vec<Cost>,
}

#[derive(Clone, Copy)]
struct Cost {
    /// CPU time for each event answered with 2xx, in microseconds; not finite if there was none.
    cpu: f64,
    /// Peak in MB.
    memory: f64,
}

/// Thousandths of the latencies shown.
const QUANTILES: [usize; 3] = [500, 990, 999];

impl Figures {
    pub fn new(answers: &Answers, duration: Duration, usages: Option<&[Usage]>) -> Self {
        let events = float(answers.latencies.len());
        let cost = |usage: &Usage| Cost {
            cpu: usage.cpu.as_secs_f64() * 1e6 / events,
            memory: float(usize::try_from(usage.peak_memory >> 10).unwrap_or(usize::MAX)) / 1024.0,
        };
        Self {
            rate: events / duration.as_secs_f64(),
            latencies: QUANTILES.map(|per_mille| {
                f64::from(quantile(&answers.latencies, per_mille).unwrap_or_default()) / 1e3
            }),
            non_2xx: float(answers.non_2xx),
            errors: float(answers.errors),
            costs: usages.unwrap_or_default().iter().map(cost).collect(),
        }
    }

    /// Each figure's median, on its own. There must be at least one.
    fn medians(all: &[Self]) -> Self {
        let of = |figure: &dyn Fn(&Self) -> f64| median(all.iter().map(figure).collect());
        // A round in which nothing could be read leaves the column out.
        let watched = all.iter().map(|one| one.costs.len()).min().unwrap_or_default();
        Self {
            rate: of(&|one| one.rate),
            latencies: [0, 1, 2].map(|index| of(&|one| one.latencies[index])),
            non_2xx: of(&|one| one.non_2xx),
            errors: of(&|one| one.errors),
            costs: (0..watched)
                .map(|index| Cost {
                    cpu: of(&|one| one.costs[index].cpu),
                    memory: of(&|one| one.costs[index].memory),
                })
                .collect(),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, _] = self.latencies;
        write!(f, "{:.0} events/s, p50 {p50:.2} ms, p99 {p99:.2} ms", self.rate)
    }
}

/// All measurements.
pub struct Results {
    servers: Vec<String>,
    watches: Vec<String>,
    rows: Vec<Row>,
}

/// All rounds of one combination on one server.
struct Row {
    cell: Cell,
    server: String,
    rounds: Vec<Figures>,
}

impl Results {
    pub fn new(servers: &[Server], watches: &[Watch]) -> Self {
        Self {
            servers: servers.iter().map(|server| server.name.clone()).collect(),
            watches: watches.iter().map(|watch| watch.name.clone()).collect(),
            rows: Vec::new(),
        }
    }

    pub fn add(&mut self, cell: Cell, server: &Server, figures: Figures) {
        let found = self.rows.iter_mut().find(|row| row.cell == cell && row.server == server.name);
        if let Some(row) = found {
            row.rounds.push(figures);
        } else {
            let server = server.name.clone();
            self.rows.push(Row { cell, server, rounds: vec![figures] });
        }
    }

    /// Each row's medians, and its events/s in relation to the first server's.
    fn medians(&self) -> Vec<(&Row, Figures, f64)> {
        let medians: Vec<_> =
            self.rows.iter().map(|row| (row, Figures::medians(&row.rounds))).collect();
        let first = |cell: Cell| {
            medians.iter().find(|(row, _)| row.cell == cell).map_or(0.0, |(_, it)| it.rate)
        };
        medians
            .iter()
            .map(|(row, figures)| (*row, figures.clone(), figures.rate / first(row.cell)))
            .collect()
    }

    /// What the watch `index` cost; nothing if it is named after another server than the row's.
    fn cost(&self, row: &Row, figures: &Figures, index: usize) -> Option<Cost> {
        let name = &self.watches[index];
        let elsewhere = *name != row.server && self.servers.contains(name);
        figures.costs.get(index).copied().filter(|cost| !elsewhere && cost.cpu.is_finite())
    }

    pub fn print_table(&self) -> anyhow::Result<()> {
        let compared = self.servers.len() > 1;
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let mut header: Vec<String> = Vec::new();
        if compared {
            header.extend(["target".into(), "ratio".into()]);
        }
        header.extend(
            ["conns", "dup %", "events/s", "p50 ms", "p99 ms", "p99.9 ms", "non-2xx", "errors"]
                .map(String::from),
        );
        for name in &self.watches {
            header.extend([format!("{name}\nCPU µs/event"), format!("{name}\npeak MB")]);
        }
        table.set_header(header);
        for (row, figures, ratio) in self.medians() {
            let mut cells = Vec::new();
            if compared {
                cells.extend([row.server.clone(), format!("{ratio:.2}")]);
            }
            cells.extend([row.cell.connections.to_string(), row.cell.duplicates.to_string()]);
            cells.push(format!("{:.0}", figures.rate));
            cells.extend(figures.latencies.map(|latency| format!("{latency:.2}")));
            cells.extend([figures.non_2xx, figures.errors].map(|count| format!("{count:.0}")));
            for index in 0..self.watches.len() {
                cells.extend(match self.cost(row, &figures, index) {
                    Some(cost) => [format!("{:.1}", cost.cpu), format!("{:.0}", cost.memory)],
                    None => ["-".to_owned(), "-".to_owned()],
                });
            }
            table.add_row(cells);
        }
        for column in table.column_iter_mut().skip(usize::from(compared)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        Ok(writeln!(io::stdout(), "{table}")?)
    }

    /// What the last server did of what the CPU that the watch of its name left would have done at the
    /// first one's rate.
    pub fn print_shares(&self) -> anyhow::Result<()> {
        let cores = std::thread::available_parallelism().map_or(1.0, |cores| float(cores.get()));
        let (medians, mut out) = (self.medians(), io::stdout());
        for pair in medians.chunks_exact(2) {
            let [(alone, first, _), (row, beside, _)] = pair else { continue };
            let own = self.watches.iter().position(|watch| *watch == row.server);
            let cost = own.and_then(|index| self.cost(row, beside, index));
            let Some(cost) = cost else { continue };
            let taken = cost.cpu * beside.rate / 1e6;
            let rest = first.rate * (cores - taken) / cores;
            writeln!(
                out,
                "{}: {} took {taken:.2} of {cores} cores; of the {rest:.0} events/s that the rest would take at the \
                 rate of {}, {:.0} were taken: {:.0} %",
                row.cell,
                row.server,
                alone.server,
                beside.rate,
                100.0 * beside.rate / rest
            )?;
        }
        Ok(())
    }

    pub fn print_json(&self) -> anyhow::Result<()> {
        for (row, figures, ratio) in self.medians() {
            let [p50, p99, p999] = figures.latencies;
            let costs: serde_json::Map<_, _> = (0..self.watches.len())
                .filter_map(|index| {
                    let cost = self.cost(row, &figures, index)?;
                    let cost = json!({"cpu_us_per_event": cost.cpu, "peak_mb": cost.memory});
                    Some((self.watches[index].clone(), cost))
                })
                .collect();
            let line = json!({
                "target": row.server,
                "connections": row.cell.connections,
                "duplicates_pct": row.cell.duplicates,
                "rounds": row.rounds.len(),
                "events_per_s": figures.rate,
                "ratio": ratio,
                "p50_ms": p50,
                "p99_ms": p99,
                "p999_ms": p999,
                "non_2xx": figures.non_2xx,
                "errors": figures.errors,
                "processes": costs,
            });
            writeln!(io::stdout(), "{line}")?;
        }
        Ok(())
    }
}

/// Exact up to four thousand million, which no run reaches.
fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The middle one, or the mean of the two in the middle; 0 of none.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => 0.0,
        count if count % 2 == 1 => figures[count / 2],
        count => f64::midpoint(figures[count / 2 - 1], figures[count / 2]),
    }
}
