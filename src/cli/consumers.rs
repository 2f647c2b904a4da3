//! `tollgate consumers`: programs that see every event, and where the gateway delivers to.
//! What the values may be is checked in the database.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use sqlx::PgConnection;

use super::database::{act, connect, said};
use super::flags::SettingFlags;
use super::table;
use crate::http::admin::actions::{self, NewConsumer};
use crate::store::consumer_admin::{self, ConsumerOptions, TargetOptions};
use crate::store::handlers::Pattern;

/// Make, change, pause, rewind and list consumers: programs that see every event
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate consumers create mailer --type 'invoice.*' --start earliest
  tollgate consumers create app --ordering object --url http://localhost:3000/webhooks
  tollgate consumers create bus --url nats://localhost:4222 --subject stripe
  tollgate consumers list
  tollgate consumers alter app --concurrency 4 --rate 50
  tollgate consumers reset mailer --to '2026-01-31 12:00Z'

A consumer without --url is claimed from in SQL: tollgate.claim, ack, nack (docs/CONSUMERS.md).
With --url the gateway delivers: it POSTs the original bytes, signed in Stripe's way with a secret of
the consumer's own (shown when it is made, and by tollgate consumers secret), or publishes to NATS.")]
pub struct ConsumersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a consumer
    Create(CreateArgs),
    /// How they do: lag, in flight, retrying, dead
    List(ListArgs),
    /// Change what is given, leave the rest
    Alter(AlterArgs),
    /// Have workers claim in SQL again what the gateway delivered
    Untarget(Named),
    /// Show the signing secrets of a push
    Secret(Named),
    /// Hand out no more; what is under way may end
    Pause {
        name: String,
        /// Why, for those who look at it later
        #[arg(long)]
        because: Option<String>,
        #[command(flatten)]
        flags: SettingFlags,
    },
    /// Hand out again, and close the circuit breaker
    Resume(Named),
    /// Go to another place in the log: back to see events again, forward to skip them
    Reset {
        name: String,
        /// latest, earliest, a time such as '2026-01-31 12:00Z', or a position
        #[arg(long)]
        to: String,
        #[command(flatten)]
        flags: SettingFlags,
    },
    /// End a consumer, with its retries and dead letters
    Drop(Named),
}

#[derive(Debug, clap::Args)]
struct Named {
    name: String,
    #[command(flatten)]
    flags: SettingFlags,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only this one
    name: Option<String>,
    /// JSON, one array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: SettingFlags,
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// Letters, digits, dots, dashes and underscores, at most 64
    name: String,
    /// Where to begin: latest, earliest, a time such as '2026-01-31 12:00Z', or a position
    #[arg(long, default_value = "latest")]
    start: String,
    #[command(flatten)]
    consumer: ConsumerFlags,
    #[command(flatten)]
    target: TargetFlags,
    #[command(flatten)]
    flags: SettingFlags,
}

#[derive(Debug, clap::Args)]
struct AlterArgs {
    name: String,
    #[command(flatten)]
    consumer: ConsumerFlags,
    #[command(flatten)]
    target: TargetFlags,
    #[command(flatten)]
    flags: SettingFlags,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Ordering {
    /// Any order
    None,
    /// Events of one Stripe object one after the other
    Object,
}

#[derive(Debug, clap::Args)]
struct ConsumerFlags {
    /// Only these types: invoice.paid, invoice.* or *; may be repeated [default: *]
    #[arg(long = "type", value_name = "PATTERN")]
    types: Vec<Pattern>,
    /// Whether events of one object come one after the other [default: none]
    #[arg(long)]
    ordering: Option<Ordering>,
    /// Attempts until an event is a dead letter [default: 20]
    #[arg(long)]
    max_attempts: Option<i32>,
    /// How long a claim is a worker's own [default: 30s]
    #[arg(long, value_parser = humantime::parse_duration)]
    lease: Option<Duration>,
    /// Wait after the first failed attempt, doubled after each further one [default: 5s]
    #[arg(long, value_parser = humantime::parse_duration)]
    retry_first: Option<Duration>,
    /// The longest such wait [default: 1h]
    #[arg(long, value_parser = humantime::parse_duration)]
    retry_most: Option<Duration>,
}

impl ConsumerFlags {
    fn options(&self) -> ConsumerOptions {
        let types = self.types.iter().map(|pattern| pattern.as_str().to_owned()).collect();
        ConsumerOptions {
            types: Some(types).filter(|types: &Vec<_>| !types.is_empty()),
            ordering: self.ordering.map(|ordering| match ordering {
                Ordering::None => "none".to_owned(),
                Ordering::Object => "object".to_owned(),
            }),
            max_attempts: self.max_attempts,
            lease: seconds(self.lease),
            retry_first: seconds(self.retry_first),
            retry_most: seconds(self.retry_most),
        }
    }
}

#[derive(clap::Args)]
struct TargetFlags {
    /// Have the gateway deliver: http://, https://, nats:// or tls://
    #[arg(long)]
    url: Option<String>,
    /// Signing secret of a push, whsec_…; twice while one is rolled [default: a new one]
    #[arg(long)]
    secret: Vec<String>,
    /// Longest that one attempt may take [default: 10s]
    #[arg(long, value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Most events under way at once, over all replicas [default: 16]
    #[arg(long)]
    concurrency: Option<i32>,
    /// Most attempts per second, over all replicas; 0 for no limit [default: no limit]
    #[arg(long)]
    rate: Option<f64>,
    /// How many of them may come at once after a quiet time [default: those of one second]
    #[arg(long)]
    burst: Option<i32>,
    /// What NATS subjects begin with [default: stripe]
    #[arg(long)]
    subject: Option<String>,
    /// Failures in a row after which the circuit breaker opens [default: 10]
    #[arg(long)]
    breaker_after: Option<i32>,
    /// How long it stays open at first [default: 5s]
    #[arg(long, value_parser = humantime::parse_duration)]
    breaker_wait: Option<Duration>,
}

impl std::fmt::Debug for TargetFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TargetFlags")
    }
}

impl TargetFlags {
    /// None if nothing is given.
    fn options(self) -> Option<TargetOptions> {
        let given = self.url.is_some()
            || !self.secret.is_empty()
            || self.timeout.is_some()
            || self.concurrency.is_some()
            || self.rate.is_some()
            || self.burst.is_some()
            || self.subject.is_some()
            || self.breaker_after.is_some()
            || self.breaker_wait.is_some();
        given.then(|| TargetOptions {
            url: self.url,
            secrets: Some(self.secret).filter(|secrets| !secrets.is_empty()),
            timeout: seconds(self.timeout),
            concurrency: self.concurrency,
            rate: self.rate,
            burst: self.burst,
            subject: self.subject,
            breaker_after: self.breaker_after,
            breaker_wait: seconds(self.breaker_wait),
        })
    }
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

pub async fn run(args: ConsumersArgs) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Create(args) => create(args).await?,
        Action::List(args) => list(&args).await?,
        Action::Alter(args) => alter(args).await?,
        Action::Untarget(Named { name, flags }) => {
            act(&flags, async |connection, me| actions::unset_target(connection, me, &name).await)
                .await?;
            println!("{name} is claimed from in SQL now");
        }
        Action::Secret(Named { name, flags }) => {
            let mut connection = connect(&flags).await?;
            must_exist(&mut connection, &name).await?;
            let secrets = consumer_admin::secrets(&mut connection, &name).await?;
            if secrets.is_empty() {
                anyhow::bail!("{name:?} is not pushed to: only pushes are signed");
            }
            println!("{}", secrets.join("\n"));
        }
        Action::Pause { name, because, flags } => {
            act(&flags, async |connection, me| {
                actions::pause(connection, me, &name, because.as_deref()).await
            })
            .await?;
            println!("paused {name}");
        }
        Action::Resume(Named { name, flags }) => {
            act(&flags, async |connection, me| actions::resume(connection, me, &name).await)
                .await?;
            println!("resumed {name}");
        }
        Action::Reset { name, to, flags } => {
            let rewound = act(&flags, async |connection, me| {
                actions::rewind(connection, me, &name, &to).await
            });
            let cursor = rewound.await?;
            println!("{name} goes on after position {cursor}");
        }
        Action::Drop(Named { name, flags }) => {
            act(&flags, async |connection, me| actions::drop_consumer(connection, me, &name).await)
                .await?;
            println!("dropped {name}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let CreateArgs { name, start, consumer, target, flags } = args;
    let new = NewConsumer { name, start, options: consumer.options(), target: target.options() };
    let made =
        act(&flags, async |connection, me| actions::create_consumer(connection, me, &new).await);
    let (cursor, secret) = made.await?;
    println!("made {}, which begins after position {cursor}", new.name);
    tell_secret(secret);
    Ok(())
}

async fn alter(args: AlterArgs) -> anyhow::Result<()> {
    let AlterArgs { name, consumer, target, flags } = args;
    let (options, target) = (consumer.options(), target.options());
    let altered = act(&flags, async |connection, me| {
        actions::alter_consumer(connection, me, &name, &options, target.as_ref()).await
    });
    tell_secret(altered.await?);
    println!("changed {name}");
    Ok(())
}

fn tell_secret(secret: Option<String>) {
    if let Some(secret) = secret {
        println!("it is signed with {secret}");
    }
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let mut connection = connect(&args.flags).await?;
    if let Some(name) = &args.name {
        must_exist(&mut connection, name).await?;
    }
    let rows = said(consumer_admin::status(&mut connection, args.name.as_deref()).await)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    let columns = [
        "name",
        "kind",
        "state",
        "types",
        "lag_events",
        "lag_seconds",
        "in_flight",
        "retrying",
        "deferred",
        "dead",
    ];
    let mut lines = table::plain();
    lines.set_header(columns.map(|name| name.replace('_', " ")));
    for row in &rows {
        lines.add_row(columns.map(|name| match row.get(name) {
            Some(seconds) if name == "lag_seconds" => {
                format!("{:.1}", seconds.as_f64().unwrap_or(0.0))
            }
            value => table::cell(value),
        }));
    }
    table::align_right(&mut lines, &[4, 5, 6, 7, 8, 9]);
    println!("{}", table::text(&lines));
    for row in rows.iter().filter(|row| row.get("paused_because").is_some_and(|why| !why.is_null()))
    {
        println!(
            "{} is paused: {}",
            table::cell(row.get("name")),
            table::cell(row.get("paused_because"))
        );
    }
    Ok(())
}

/// Nothing to show is one thing, a name mistyped another.
pub(super) async fn must_exist(connection: &mut PgConnection, name: &str) -> anyhow::Result<()> {
    if !said(consumer_admin::exists(connection, name).await)? {
        anyhow::bail!("there is no consumer {name:?}: see tollgate consumers list");
    }
    Ok(())
}
