//! `tollgate verify`: compares the billing tables with Stripe and mends them if asked. How that is
//! done stands in `sync::verify`.

use std::process::ExitCode;

use super::Misconfigured;
use super::stripe::{AskArgs, Asking, patiently, spinner};
use super::table;
use super::terminal::harmless;
use crate::stripe::resources::{ALL, Resource};
use crate::sync::verify::{Check, Verdict, verify};

/// Compare the billing tables with Stripe, object by object
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate verify --sample 200
  tollgate verify --table subscriptions --fix
  tollgate verify --json | jq '.drifts[].id'

Without --sample it lists everything that Stripe has, a hundred objects a request, and looks up what
is in a table but not in a list. --fix writes down how Stripe shows what differs, as a snapshot that
stands above all events before it. Objects that Stripe's API does not give by id are counted as
unchecked.

Exit codes: 0 tables and Stripe agree, or do so now, 1 they do not, or it failed, 2 wrongly asked.")]
pub struct VerifyArgs {
    /// Only this table of the schema stripe
    #[arg(long)]
    table: Option<String>,
    /// Only so many rows, at random
    #[arg(long, value_name = "N")]
    sample: Option<u32>,
    /// Mend what differs
    #[arg(long)]
    fix: bool,
    #[command(flatten)]
    asked: AskArgs,
}

pub async fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    if let Some(table) = &args.table
        && table != "objects"
        && Resource::named(table).is_none()
    {
        let all: Vec<_> = ALL.iter().map(|resource| resource.table).collect();
        let wrong = format!("there is no billing table {table}: {}, objects", all.join(", "));
        return Err(Misconfigured(wrong).into());
    }
    let asking = Asking::start(&args.asked).await?;
    let check = Check {
        table: args.table,
        sample: args.sample,
        fix: args.fix,
        accounts: asking.accounts(),
    };
    let bar = spinner();
    let show = |checked| bar.set_message(format!("{checked} compared"));
    let done =
        patiently(&asking.context.client, async || verify(&asking.context, &check, show).await)
            .await;
    bar.finish_and_clear();
    asking.end().await;
    let verdict = done?;
    if args.asked.json {
        say!("{}", serde_json::to_string(&verdict)?);
    } else {
        tell(&verdict, args.fix);
    }
    let agree = verdict.unmended == 0 && verdict.refused.is_empty();
    Ok(if agree { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(verdict: &Verdict, fix: bool) {
    if !verdict.drifts.is_empty() {
        let mut lines = table::plain();
        lines.set_header(["table", "account", "id", "what"]);
        for drift in &verdict.drifts {
            let outcome = match (fix, drift.mended) {
                (false, _) => "",
                (true, true) => ": mended",
                (true, false) => ": NOT mended",
            };
            let what = format!("{}{outcome}", harmless(&drift.what));
            let (account, id) = (harmless(&drift.account), harmless(&drift.id));
            lines.add_row([drift.table.clone(), account, id, what]);
        }
        say!("{}", table::text(&lines));
    }
    for refused in &verdict.refused {
        say!("{}", harmless(refused));
    }
    let Verdict { checked, unchecked, differ, .. } = verdict;
    say!("{checked} compared, {unchecked} unchecked, {differ} differ");
}
