//! `tollgate backfill`: fills the billing tables with what Stripe has. How that is done, and how it
//! goes on after an interruption, stands in `sync::backfill`.

use std::process::ExitCode;

use super::Misconfigured;
use super::stripe::{AskArgs, Asking, patiently, spinner};
use super::table;
use super::terminal::harmless;
use super::when::Since;
use crate::stripe::resources::{ALL, Resource};
use crate::sync::backfill::{Plan, Progress, backfill};

/// Fill the billing tables with what Stripe has
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate backfill
  tollgate backfill --only customers,subscriptions,invoices
  tollgate backfill --since 90d --json

For whoever has used Stripe for longer than Tollgate. Lists every kind of object that has a table,
also canceled subscriptions, and writes down those whose rows are missing or different. What was
interrupted goes on where it was; a run that finds nothing new writes nothing. Objects come as events
of the type tollgate.snapshot, which handlers and consumers with the pattern * do not get: nothing
happened, somebody looked. Payment methods, tax ids and entitlements are asked for customer by
customer, a request each.

Exit codes: 0 complete, 1 it failed, 2 wrongly asked.")]
pub struct BackfillArgs {
    /// Only these tables, comma-separated
    #[arg(long, value_name = "TABLES", value_delimiter = ',')]
    only: Vec<String>,
    /// Only objects that were made since: 90d, 2026-01-31 [default: all there are]
    #[arg(long, value_name = "WHEN")]
    since: Option<Since>,
    #[command(flatten)]
    asked: AskArgs,
}

pub async fn run(args: BackfillArgs) -> anyhow::Result<ExitCode> {
    let kinds = kinds(&args.only)?;
    let asking = Asking::start(&args.asked).await?;
    let since = args.since.and_then(|since| since.time(asking.clock.now()));
    let plan = Plan { kinds, since, accounts: asking.accounts() };
    let bar = spinner();
    let show = |progress: &Progress| bar.set_message(line(progress));
    let done =
        patiently(&asking.context.client, async || backfill(&asking.context, &plan, show).await)
            .await;
    bar.finish_and_clear();
    asking.end().await;
    let done = done?;
    if args.asked.json {
        for progress in &done {
            say!("{}", serde_json::to_string(progress)?);
        }
    } else {
        say!("{}", counts(&done));
    }
    let failed: Vec<_> = done.iter().filter(|progress| progress.error.is_some()).collect();
    for Progress { account, kind, error, .. } in &failed {
        let error = error.as_deref().unwrap_or_default();
        eprintln!("tollgate: {} {kind}: {}", harmless(account), harmless(error));
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The kinds of these tables, all if none is named.
fn kinds(only: &[String]) -> anyhow::Result<Vec<&'static Resource>> {
    if only.is_empty() {
        return Ok(ALL.iter().collect());
    }
    let named = |name: &String| {
        Resource::named(name.trim()).ok_or_else(|| {
            let all: Vec<_> = ALL.iter().map(|resource| resource.table).collect();
            let wrong = format!("{name} is no table that can be filled: {}", all.join(", "));
            Misconfigured(wrong).into()
        })
    };
    only.iter().map(named).collect()
}

fn line(progress: &Progress) -> String {
    let Progress { account, kind, listed, written, .. } = progress;
    let whose = if account.is_empty() { String::new() } else { format!("{account} ") };
    format!("{}{kind}: {listed} listed, {written} written", harmless(&whose))
}

fn counts(done: &[Progress]) -> String {
    let mut counts = table::plain();
    counts.set_header(["account", "table", "listed", "written"]);
    for Progress { account, kind, listed, written, .. } in done {
        counts.add_row([harmless(account), kind.clone(), listed.to_string(), written.to_string()]);
    }
    table::align_right(&mut counts, &[2, 3]);
    table::text(&counts)
}
