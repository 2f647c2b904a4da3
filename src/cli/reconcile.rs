//! `tollgate reconcile`: compares the log with Stripe's list of events by hand, and prints what was
//! missing. How that is done stands in `sync::reconcile`.

use std::process::ExitCode;

use super::stripe::{AskArgs, Asking, patiently};
use super::table;
use super::terminal::{harmless, second};
use super::when::Since;
use crate::store::handlers::Pattern;
use crate::sync::reconcile::{Report, Scope, reconcile};

/// Fetch events that no webhook brought
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate reconcile
  tollgate reconcile --since 3d --dry-run
  tollgate reconcile --since 30d --type 'invoice.*' --json

A gateway with STRIPE_API_KEY does this by itself when it starts and every TOLLGATE_RECONCILE_INTERVAL,
from where it came to the last time. Stripe lists events for 30 days. What is missing goes through
billing tables and handlers like any other event, with the source `reconcile`. A restricted key needs
to read Events (and Connected accounts, with --connect); docs/OPERATING.md has the list.

Exit codes: 0 compared, whether or not something was missing, 1 it failed or another process is doing
it now, 2 wrongly asked.")]
pub struct ReconcileArgs {
    /// From then on: 3d, 2026-01-31, 2026-01-31T12:00:00Z [default: where the last run came to]
    #[arg(long, value_name = "WHEN")]
    since: Option<Since>,
    /// Only these types: invoice.paid, invoice.*; may be repeated, or comma-separated
    #[arg(long = "type", alias = "types", value_name = "PATTERN", value_delimiter = ',')]
    types: Vec<Pattern>,
    /// Only say what is missing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asked: AskArgs,
}

pub async fn run(args: ReconcileArgs) -> anyhow::Result<ExitCode> {
    let asking = Asking::start(&args.asked).await?;
    let scope = Scope {
        since: args.since.map(|since| since.time_or_epoch(asking.clock.now())),
        types: args.types,
        dry_run: args.dry_run,
        accounts: asking.accounts(),
    };
    let reports =
        patiently(&asking.context.client, async || reconcile(&asking.context, &scope).await).await;
    asking.end().await;
    let reports = reports?;
    for report in &reports {
        if args.asked.json {
            say!("{}", serde_json::to_string(report)?);
        } else {
            tell(report, args.dry_run);
        }
    }
    let failed = reports.iter().any(|report| report.error.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn tell(report: &Report, dry_run: bool) {
    let whose = match report.account.as_str() {
        "" => "own account".to_owned(),
        account => harmless(account),
    };
    let (events, listed) = (report.events(), report.listed);
    let done = if dry_run { "missing" } else { "fetched" };
    say!("{whose}: {listed} events compared, {events} {done}");
    if let (Some(since), Some(until)) = (report.since, report.until) {
        say!("  made from {} to {}", second(since), second(until));
        let mut types = table::plain();
        for (name, count) in &report.found {
            types.add_row([format!("  {}", harmless(name)), count.to_string()]);
        }
        table::align_right(&mut types, &[1]);
        say!("{}", table::text(&types));
    }
    if report.rejected > 0 {
        say!("  {} refused by a handler with the policy reject", report.rejected);
    }
    if report.quarantined > 0 {
        say!("  {} that the database cannot hold, in quarantine", report.quarantined);
    }
    if let Some(error) = &report.error {
        say!("  not to the end: {}", harmless(error));
    }
}
