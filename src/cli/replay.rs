//! `tollgate replay`: arguments, progress bar, summary as table or JSON, exit code.
//! Loading, planning and sending stand in `crate::replay`.

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Url;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::database::connect;
use super::flags::SettingFlags;
use super::replay_log::{self, LogArgs};
use super::terminal::{confirm, harmless};
use super::{Misconfigured, table};
use crate::clock::Clock;
use crate::replay::report::Group;
use crate::replay::{Options, Pace, Plan, Report, Sender, Target, plan, source};
use crate::settings::parse;
use crate::stripe::signature::SigningSecret;

const EXAMPLES: &str = "\
Examples:
  Send one event to the gateway on this machine:
    tollgate replay invoice.paid.json --secret whsec_…

  Send a directory twice over, out of order and as new events, as Stripe may on a bad day:
    tollgate replay events/ --unique-ids --shuffle 7 --duplicates 100

  Send what the Stripe API lists, at 50 events/s, to another machine:
    stripe events list --limit 100 > page.json
    tollgate replay page.json --rate 50 --to https://hooks.example.com/webhooks/stripe

  Check in a script that everything was taken:
    cat events.jsonl | tollgate replay - --json | jq .recorded

  Send what this gateway has in its log to another receiver, after a look at what that would be:
    tollgate replay --from-log --type 'invoice.*' --since 1h --dry-run
    tollgate replay --from-log --type 'invoice.*' --since 1h --to https://hooks.example.com/webhooks/stripe --yes

From the log come the bytes that Stripe sent, oldest first, signed anew; up to 1000000 events, of which
only the keys are kept in memory. Events of Tollgate's own (tollgate.*) come if a --type names them.

Exit codes: 0 every delivery was answered with 2xx, 1 one was not, 2 wrong arguments.";

/// Send events to a gateway the way Stripe does
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReplayArgs {
    /// Event files (.json: one event, an array or a page of Stripe's list; .jsonl, .ndjson: one
    /// event per line), directories of them, or - for one event per line on standard input
    #[arg(required_unless_present = "from_log", value_name = "PATH")]
    paths: Vec<PathBuf>,

    #[command(flatten)]
    log: LogArgs,

    /// Where to send them
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/webhooks/stripe")]
    #[arg(value_parser = target_url)]
    to: Url,

    /// Signing secret of that endpoint, or file:PATH; of several, comma-separated, the first
    #[arg(long, value_name = "SECRET", env = "STRIPE_WEBHOOK_SECRET", hide_env_values = true)]
    #[arg(required_unless_present = "dry_run")]
    secret: Option<String>,

    /// Send in random order; the same seed gives the same order
    #[arg(long, value_name = "SEED")]
    shuffle: Option<u64>,

    /// Send this percentage of the events a second time, at random places later on
    #[arg(long, value_name = "PCT", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u8).range(..=100))]
    duplicates: u8,

    /// Give each event a fresh id, so that the gateway takes it for a new one
    #[arg(long)]
    unique_ids: bool,

    /// Deliveries under way at a time, each on a connection of its own
    #[arg(long, value_name = "N", default_value = "16")]
    concurrency: NonZeroUsize,

    /// Deliveries per second, kept up whether or not answers come, as long as no more than
    /// --concurrency are under way; latency counts from the time a delivery was due. Without it: as
    /// fast as answers come
    #[arg(long, value_name = "R", value_parser = interval)]
    rate: Option<Duration>,

    /// How often to try again after a 503 (in the time its Retry-After gives) or no answer
    #[arg(long, value_name = "N", default_value_t = 5)]
    retries: u32,

    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    flags: SettingFlags,
}

fn target_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err("it must begin with http:// or https://".into()),
    }
}

/// The time between two deliveries at a rate in deliveries per second.
fn interval(rate: &str) -> Result<Duration, String> {
    let fits = |rate: &f64| (0.001..=1_000_000.0).contains(rate);
    let rate = rate.parse().ok().filter(fits).ok_or("expected a number from 0.001 to 1000000")?;
    Ok(Duration::from_secs_f64(1.0 / rate))
}

/// Sends the events and prints what became of them.
///
/// # Errors
/// If nothing can be sent: unreadable events, no events, an unusable secret.
pub async fn run(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    if args.log.from_log {
        return from_log(args).await;
    }
    if args.log.filter.is_given() {
        return Err(Misconfigured("filters are for --from-log, not for files".to_owned()).into());
    }
    let sender = args.sender()?;
    let events = source::load(&args.paths, io::stdin().lock())?;
    if events.is_empty() {
        bail!("there are no events in what you named: nothing was sent");
    }
    let plan = Plan::new(events, &args.options());

    args.warn_of_nobody().await;
    let bar = progress_bar(plan.deliveries().len());
    let report = sender.send(&plan, &on_interrupt(), |so_far| show(&bar, so_far)).await;
    bar.finish_and_clear();
    told(&report, args.json)
}

/// The same with events of the log, after a look at which they are.
async fn from_log(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let filter = args.log.filter.filter(Clock::system().now());
    let filter = filter.map_err(|wrong| Misconfigured(wrong.to_string()))?;
    let sender = if args.log.dry_run { None } else { Some(args.sender()?) };
    let mut connection = connect(&args.flags).await?;
    let chosen = replay_log::choose(&mut connection, &filter).await?;
    let Some(sender) = sender else {
        let said = if args.json { chosen.json().to_string() } else { chosen.words() };
        writeln!(io::stdout().lock(), "{said}")?;
        return Ok(ExitCode::SUCCESS);
    };
    if chosen.is_empty() {
        bail!("there are no events in the log that fit: nothing was sent");
    }
    if !args.log.yes {
        eprintln!("{}", chosen.words());
    }
    let options = args.options();
    let deliveries = plan::order(chosen.len(), &options).len();
    if !confirm(&format!("Make {deliveries} deliveries to {}?", args.to), args.log.yes)? {
        return Ok(ExitCode::FAILURE);
    }
    args.warn_of_nobody().await;
    let (planned, deliveries, reading) = chosen.deliveries(connection, options);
    let bar = progress_bar(planned);
    let stop = on_interrupt();
    let report = sender.send_from(deliveries, planned, &stop, |so_far| show(&bar, so_far)).await;
    bar.finish_and_clear();
    let code = told(&report, args.json)?;
    reading.await?.context("the log could not be read to the end")?;
    Ok(code)
}

impl ReplayArgs {
    fn sender(&self) -> anyhow::Result<Sender> {
        let secret = signing_secret(self.secret.as_deref().unwrap_or_default())?;
        let target = Target { url: self.to.clone(), secret };
        let (concurrency, interval, retries) = (self.concurrency, self.rate, self.retries);
        let pace = Pace { concurrency, interval, retries };
        Ok(Sender::new(target, pace, Clock::system())?)
    }

    /// Says so if nobody listens there yet: each delivery is tried again for a while, in silence.
    async fn warn_of_nobody(&self) {
        let addresses = self.to.socket_addrs(|| None).unwrap_or_default();
        if let Err(error) = tokio::net::TcpStream::connect(&*addresses).await {
            let host = self.to.host_str().unwrap_or_default();
            eprintln!("nobody answers at {host} yet ({error}); trying all the same");
        }
    }

    fn options(&self) -> Options {
        #[allow(clippy::disallowed_methods, reason = "fresh with each run: that is what it is for")]
        let unique_ids = self.unique_ids.then(rand::random);
        Options { shuffle: self.shuffle, duplicates: self.duplicates, unique_ids }
    }
}

/// Prints what became of it; the exit code says whether all is well.
fn told(report: &Report, json: bool) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", summary_json(report))?;
    } else {
        writeln!(out, "{}", summary(report))?;
    }
    Ok(if report.complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Stripe signs with all secrets while one is rolled; a gateway is content with any of them.
fn signing_secret(text: &str) -> Result<SigningSecret, Misconfigured> {
    let text = parse::secret_text(text)
        .map_err(|expected| Misconfigured(format!("the signing secret {expected}")))?;
    let first = text.split(',').next().unwrap_or_default();
    first.parse().map_err(|error| {
        Misconfigured(format!("{error}: give one with --secret or in STRIPE_WEBHOOK_SECRET"))
    })
}

/// A token that Ctrl-C cancels.
fn on_interrupt() -> CancellationToken {
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        // Without a handler Ctrl-C ends the process, as it would anyway.
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    stop
}

/// On standard error if that is a terminal; otherwise hidden.
pub(super) fn progress_bar(planned: usize) -> ProgressBar {
    const TEMPLATE: &str = "{wide_bar} {pos}/{len} {per_sec} {msg} {eta}";
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(TEMPLATE).expect("the template is well-formed");
    ProgressBar::new(u64::try_from(planned).unwrap_or(u64::MAX)).with_style(style)
}

pub(super) fn show(bar: &ProgressBar, so_far: &Report) {
    bar.set_position(u64::try_from(so_far.sent()).unwrap_or(u64::MAX));
    let lost = so_far.refused() + so_far.failed();
    if lost > 0 {
        bar.set_message(format!("{lost} refused or failed"));
    }
}

/// The summary for people. Rows that only matter when something is out of the ordinary are left
/// out when it is not.
pub(super) fn summary(report: &Report) -> String {
    let always = [
        ("sent", report.sent()),
        ("recorded", report.recorded),
        ("duplicate", report.duplicate),
        ("quarantined", report.quarantined),
        ("refused", report.refused()),
    ];
    let if_any = [
        ("2xx, not from Tollgate", report.accepted),
        ("failed (no answer)", report.failed()),
        ("not sent", report.planned - report.sent()),
        ("retries", usize::try_from(report.retries).unwrap_or(usize::MAX)),
    ];
    let mut table = table::plain();
    for (name, count) in always.into_iter().chain(if_any.into_iter().filter(|row| row.1 > 0)) {
        table.add_row([name.to_owned(), count.to_string()]);
    }
    table.add_row(["elapsed s".to_owned(), format!("{:.2}", report.elapsed.as_secs_f64())]);
    table.add_row(["events/s".to_owned(), format!("{:.0}", report.rate())]);
    for (name, per_mille) in [("p50 ms", 500), ("p99 ms", 990), ("max ms", 1000)] {
        table.add_row([name.to_owned(), format!("{:.2}", milliseconds(report, per_mille))]);
    }
    table::align_right(&mut table, &[1]);
    let mut text = table::text(&table);
    if !report.refusals.is_empty() || !report.failures.is_empty() {
        text.push_str("\n\n");
        text.push_str(&table::text(&reasons(report)));
    }
    text
}

/// Why deliveries were not taken, a row for each reason.
fn reasons(report: &Report) -> Table {
    let mut table = table::plain();
    table.set_header(["status", "code", "count", "first", "detail"]);
    let mut add = |status: String, code: &str, group: &Group| {
        let (count, origin) = (group.count.to_string(), harmless(&group.origin.to_string()));
        let detail = harmless(first_sentence(&group.detail));
        table.add_row([&status, &harmless(code), &count, &origin, &detail]);
    };
    for ((status, code), group) in &report.refusals {
        add(status.to_string(), if code.is_empty() { "-" } else { code }, group);
    }
    for (kind, group) in &report.failures {
        add("-".into(), kind, group);
    }
    table
}

fn first_sentence(text: &str) -> &str {
    text.split_once(". ").map_or(text, |(first, _)| first)
}

fn milliseconds(report: &Report, per_mille: usize) -> f64 {
    report.latency(per_mille).as_secs_f64() * 1e3
}

/// The summary for scripts: all figures, always.
fn summary_json(report: &Report) -> Value {
    let reason = |status: Option<u16>, code: &str, group: &Group| {
        json!({
            "status": status, "code": code, "count": group.count,
            "first": group.origin.to_string(), "detail": group.detail,
        })
    };
    let refused =
        report.refusals.iter().map(|((status, code), it)| reason(Some(*status), code, it));
    let failed = report.failures.iter().map(|(kind, it)| reason(None, kind, it));
    json!({
        "planned": report.planned,
        "sent": report.sent(),
        "recorded": report.recorded,
        "duplicate": report.duplicate,
        "quarantined": report.quarantined,
        "accepted": report.accepted,
        "refused": report.refused(),
        "failed": report.failed(),
        "retries": report.retries,
        "elapsed_s": report.elapsed.as_secs_f64(),
        "events_per_s": report.rate(),
        "p50_ms": milliseconds(report, 500),
        "p99_ms": milliseconds(report, 990),
        "max_ms": milliseconds(report, 1000),
        "reasons": refused.chain(failed).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: ReplayArgs,
    }

    #[test]
    fn a_rate_becomes_a_time_between_deliveries() {
        assert_eq!(interval("50"), Ok(Duration::from_millis(20)));
        for wrong in ["0", "-1", "NaN", "inf", "fast"] {
            assert!(interval(wrong).is_err());
        }
    }

    #[test]
    fn arguments_are_checked_and_have_the_stated_defaults() {
        Command::command().debug_assert();
        let parse = |more: &[&str]| {
            let all = ["replay", "e.json", "--secret", "whsec_a"].into_iter();
            Command::try_parse_from(all.chain(more.iter().copied())).map(|command| command.args)
        };
        let args = parse(&[]).unwrap();
        assert_eq!(args.to.as_str(), "http://127.0.0.1:8080/webhooks/stripe");
        assert_eq!((args.concurrency.get(), args.retries, args.duplicates), (16, 5, 0));
        for wrong in [["--duplicates", "101"], ["--concurrency", "0"], ["--to", "ftp://x/"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn of_rolled_secrets_the_first_signs() {
        let sign = |text: &str| signing_secret(text).unwrap().sign(1, b"{}");
        assert_eq!(sign("whsec_a,whsec_b"), sign("whsec_a"));
        assert!(signing_secret(" ").is_err());
    }

    #[test]
    fn the_plain_summary_shows_what_matters() {
        let report = Report { planned: 3, recorded: 2, ..Report::default() };
        let text = summary(&report);
        assert!(text.contains("recorded") && text.contains("not sent"), "{text}");
        assert!(!text.contains("retries"), "{text}");
    }
}
