//! `tollgate rebuild`: computes the billing tables anew from the log.

use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::flags::SettingFlags;
use super::table;
use super::terminal::harmless;
use crate::startup::Backend;
use crate::store::rebuild;
use crate::telemetry;

/// Longest that one statement may take, but for the last step.
const STATEMENT_LIMIT: Duration = Duration::from_mins(10);

/// Compute the billing tables anew from the log, while the gateway goes on
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate rebuild
  tollgate rebuild --table invoices

Prints how many rows of each table were not what the log says; 0 everywhere is what to expect. The
tables change in one transaction at the end, for which writing to them pauses. Rows of objects
whose events retention has dropped are left as they are; states that no table can hold are left out,
as they were when they came, and named. Rows are compared by their objects: typed columns that
somebody changed by hand are not looked at.")]
pub struct RebuildArgs {
    /// Only this table of the schema stripe
    #[arg(long)]
    table: Option<String>,
    #[command(flatten)]
    flags: SettingFlags,
}

pub async fn run(args: RebuildArgs) -> anyhow::Result<ExitCode> {
    let settings = args.flags.settings()?;
    let _log = telemetry::start(&settings.log)?;
    let backend = Backend::attach(&settings.database)?;
    let mut connection = backend.direct.connect_writer(STATEMENT_LIMIT).await?;
    // Draws nothing unless standard error is a terminal.
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} events  {eta} left")?);
    let done = rebuild::rebuild(&mut connection, args.table.as_deref(), |progress| {
        bar.set_length(progress.end.unsigned_abs());
        bar.set_position(progress.position.unsigned_abs());
    })
    .await?;
    bar.finish_and_clear();
    let mut counts = table::plain();
    counts.set_header(["table", "rows changed"]);
    for (name, rows) in &done.changed {
        counts.add_row([name.clone(), rows.to_string()]);
    }
    table::align_right(&mut counts, &[1]);
    say!("{}", table::text(&counts));
    for key in &done.left_out {
        let (table, id) = (key.table, harmless(&key.id));
        say!("no table can hold every state of {id} in {table}: see its failures");
    }
    Ok(ExitCode::SUCCESS)
}
