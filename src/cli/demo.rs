//! `tollgate demo`: the whole gateway on a database of its own, fed with sample events through its
//! real endpoint, and what to try next.

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use super::flags::{SettingFlags, misconfigured};
use super::{Misconfigured, replay, table};
use crate::clock::Clock;
use crate::embedded::{self, EmbeddedError};
use crate::fixtures::{SEED, START, stories};
use crate::replay::{Options, Pace, Plan, Report, Sender, Target, source};
use crate::settings::layers::Origin;
use crate::settings::{default_data_dir, parse};
use crate::startup::Gateway;
use crate::store::{migrations, status};
use crate::{shutdown, telemetry};

/// The order in which the sample events are sent, and how many of them twice.
const SHUFFLE: u64 = 7;
const DUPLICATES: u8 = 30;

/// See it work: a database of its own, sample events through the real endpoint, what to try next
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate demo            stays up until Ctrl-C
  tollgate demo --once     exits after the summary
  STRIPE_WEBHOOK_SECRET=$(stripe listen --print-secret) tollgate demo

It keeps its data in a folder of its own (demo below the data directory) and never touches
DATABASE_URL. A port that is taken is replaced by a free one. What another build or another Postgres
left there is put aside (demo.old).")]
pub struct DemoArgs {
    /// Exit after the summary
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    flags: SettingFlags,
}

pub async fn run(mut args: DemoArgs) -> anyhow::Result<ExitCode> {
    let secret = format!("whsec_demo_{}", hex::encode(random_bytes()));
    let own_folder = prepare(&mut args, &secret)?;
    let settings = args.flags.settings()?;
    let _log = telemetry::start(&settings.log)?;
    let stop = shutdown::on_signal()?;
    say!("Starting a private Postgres and the gateway …");
    let data_dir = settings.database.data_dir.clone();
    let Some(gateway) = start(&args.flags, own_folder.as_deref(), &stop).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    let url = format!("http://{}/webhooks/stripe", gateway.address());

    let report = send_samples(&url, &secret, &stop).await?;
    say!("\nWhat was sent\n{}", replay::summary(&report));
    say!("\nWhat is in the database now\n{}", contents(gateway.pool()).await?);
    if report.recorded == 0 && report.complete() {
        say!("\nNothing is new: all of it was recorded by an earlier demo, and is recognised.");
    }
    if args.once {
        stop.cancel();
    } else if !stop.is_cancelled() {
        let data_dir = data_dir.display();
        say!("\n{}", next_steps(&url, &gateway, &secret, &data_dir.to_string()));
    }
    gateway.run_until(stop).await?;
    Ok(if report.complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Starts the gateway. A demonstration is to work whatever ran here before: what another build or
/// another Postgres left in `own_folder` is put aside.
async fn start(
    flags: &SettingFlags,
    own_folder: Option<&Path>,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Gateway>> {
    loop {
        let (settings, _) = flags.settings_and_warnings()?;
        let started = Box::pin(Gateway::start(settings, Clock::system(), stop)).await;
        match (started, own_folder) {
            (Err(error), Some(folder)) if is_of_others(&error) => {
                let aside = embedded::put_aside(folder)?.display().to_string();
                say!("{error:#}.\nThat data is now in {aside}; starting afresh …");
            }
            (started, _) => return started,
        }
    }
}

fn is_of_others(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(migrations::of_another_build)
        || matches!(error.downcast_ref(), Some(EmbeddedError::OtherMajor { .. }))
}

/// The settings of a demonstration, where the user has not chosen others. Returns the folder of its
/// data if that is the demonstration's own.
fn prepare(args: &mut DemoArgs, secret: &str) -> anyhow::Result<Option<PathBuf>> {
    let layers = args.flags.layers().map_err(|problems| misconfigured(&problems))?;
    let flags = &mut args.flags;
    // Sample events do not belong into the user's database.
    if flags.get("database_url").is_none() {
        flags.set("database_url", "");
    }
    // Nor into the one that serve keeps.
    let mut own_folder = None;
    if flags.get("data_dir").is_none() {
        let dir =
            layers.get("data_dir").map_or_else(default_data_dir, |dir| dir.text.clone().into());
        let folder = own_folder.insert(dir.join("demo"));
        flags.set("data_dir", folder.to_string_lossy());
    }
    // The database that was asked for is not in it.
    if flags.get("database_url").is_some_and(|url| !url.is_empty()) {
        own_folder = None;
    }
    if layers.get("log").is_some_and(|log| log.origin == Origin::Default) {
        flags.set("log", "warn");
    }
    // A key or a collector of the environment is another gateway's, and so is its database's port.
    for key in ["stripe_api_key", "otlp_endpoint", "pg_port"] {
        if flags.get(key).is_none() {
            flags.set(key, "");
        }
    }
    if args.once {
        flags.set("drain", "0s");
    }
    let secrets = match layers.get("stripe_webhook_secret") {
        Some(own) => format!("{secret},{}", parse::secret_text(&own.text).map_err(Misconfigured)?),
        None => secret.to_owned(),
    };
    flags.set("stripe_webhook_secret", secrets);
    for listener in ["listen", "admin_listen"] {
        let address = layers.get(listener).and_then(|set| parse::address(&set.text).ok());
        if let Some(address) = address {
            flags.set(listener, free_or_other(address).to_string());
        }
    }
    Ok(own_folder)
}

/// The address itself, or the same with any free port.
fn free_or_other(address: SocketAddr) -> SocketAddr {
    match TcpListener::bind(address) {
        Ok(_) => address,
        Err(_) => SocketAddr::new(address.ip(), 0),
    }
}

#[allow(clippy::disallowed_methods, reason = "a secret is to be unpredictable")]
fn random_bytes() -> [u8; 16] {
    rand::random()
}

/// Replays the sample events over HTTP: out of order, some twice, as Stripe may.
async fn send_samples(url: &str, secret: &str, stop: &CancellationToken) -> anyhow::Result<Report> {
    let events = source::from_stories(&stories(SEED, START));
    let options = Options { shuffle: Some(SHUFFLE), duplicates: DUPLICATES, unique_ids: None };
    let plan = Plan::new(events, &options);
    say!(
        "Sending {} sample events to {url}: shuffled, and {DUPLICATES} % of them twice",
        plan.deliveries().len()
    );
    let target = Target { url: url.parse()?, secret: secret.parse()? };
    let pace =
        Pace { concurrency: NonZeroUsize::MIN.saturating_add(15), interval: None, retries: 5 };
    let sender = Sender::new(target, pace, Clock::system())?;
    let bar = replay::progress_bar(plan.deliveries().len());
    let report = sender.send(&plan, stop, |so_far| replay::show(&bar, so_far)).await;
    bar.finish_and_clear();
    Ok(report)
}

async fn contents(pool: &sqlx::PgPool) -> anyhow::Result<String> {
    let mut counts = table::plain();
    counts.set_header(["object", "event types", "events", "objects"]);
    let (mut events, mut objects) = (0, 0);
    for row in status::object_counts(pool).await? {
        let name = row.object_type.unwrap_or_else(|| "(no object)".into());
        counts.add_row([
            name,
            row.event_types.to_string(),
            row.events.to_string(),
            row.objects.to_string(),
        ]);
        events += row.events;
        objects += row.objects;
    }
    counts.add_row(["all".to_owned(), String::new(), events.to_string(), objects.to_string()]);
    table::align_right(&mut counts, &[1, 2, 3]);
    let quarantined = status::quarantined(pool).await?;
    Ok(format!("{}\nin quarantine: {quarantined}", table::text(&counts)))
}

fn next_steps(url: &str, gateway: &Gateway, secret: &str, data_dir: &str) -> String {
    let address = gateway.address();
    let dashboard = gateway
        .admin_address()
        .map_or_else(|| "off".to_owned(), |address| format!("http://{address}/"));
    format!(
        r#"The gateway is up until Ctrl-C.
  dashboard   {dashboard}
  deliveries  {url}
  readiness   http://{address}/readyz
  secret      {secret}

Try next
  Look into the log:
    tollgate psql --data-dir '{data_dir}' -- -c 'SELECT position, type, object_id FROM tollgate.events ORDER BY position DESC LIMIT 10'

  Ask the billing tables (docs/TABLES.md lists them):
    tollgate psql --data-dir '{data_dir}' -- -c 'SELECT * FROM stripe.mrr' -c 'SELECT * FROM stripe.revenue_daily'

  Send an event of your own:
    body='{{"id":"evt_hello","object":"event","type":"demo.hello"}}'; t=$(date +%s)
    curl -i {url} -d "$body" -H "Stripe-Signature: t=$t,v1=$(printf '%s.%s' "$t" "$body" | openssl dgst -sha256 -hmac {secret} | sed 's/.* //')"

  Take real test events (restart as `STRIPE_WEBHOOK_SECRET=$(stripe listen --print-secret) tollgate demo` first):
    stripe listen --all-snapshot --forward-to {url}
    stripe trigger invoice.paid"#
    )
}
