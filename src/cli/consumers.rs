//! `tollgate consumers`: programs that see every event, and where the gateway delivers to.
//! What the values may be is checked in the database.

use std::process::ExitCode;

use clap::Subcommand;
use sqlx::PgConnection;

use super::consumer_flags::{ConsumerFlags, FilterFlags, Part, TargetFlags, filter_of};
use super::database::{act, connect, said};
use super::flags::SettingFlags;
use super::table;
use super::terminal::harmless;
use crate::http::admin::actions::{self, NewConsumer};
use crate::store::consumer_admin;

/// Make, change, pause, rewind and list consumers: programs that see every event
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate consumers create mailer --type 'invoice.*' --start earliest
  tollgate consumers create app --ordering object --url http://localhost:3000/webhooks
  tollgate consumers create bus --url nats://localhost:4222 --subject stripe
  tollgate consumers list
  tollgate consumers alter app --concurrency 4 --rate 50
  tollgate consumers create shop --metadata app=shop --livemode live --account platform
  tollgate consumers alter shop --account acct_1 --account acct_2 --unset metadata
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
    filter: FilterFlags,
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
    filter: FilterFlags,
    /// Do without this part of the filter from now on; may be repeated
    #[arg(long, value_name = "PART")]
    unset: Vec<Part>,
    #[command(flatten)]
    target: TargetFlags,
    #[command(flatten)]
    flags: SettingFlags,
}

pub async fn run(args: ConsumersArgs) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Create(args) => create(args).await?,
        Action::List(args) => list(&args).await?,
        Action::Alter(args) => alter(args).await?,
        Action::Untarget(Named { name, flags }) => {
            act(&flags, async |connection, me| actions::unset_target(connection, me, &name).await)
                .await?;
            say!("{name} is claimed from in SQL now");
        }
        Action::Secret(Named { name, flags }) => {
            let mut connection = connect(&flags).await?;
            must_exist(&mut connection, &name).await?;
            let secrets = consumer_admin::secrets(&mut connection, &name).await?;
            if secrets.is_empty() {
                anyhow::bail!("{name:?} is not pushed to: only pushes are signed");
            }
            say!("{}", secrets.join("\n"));
        }
        Action::Pause { name, because, flags } => {
            act(&flags, async |connection, me| {
                actions::pause(connection, me, &name, because.as_deref()).await
            })
            .await?;
            say!("paused {name}");
        }
        Action::Resume(Named { name, flags }) => {
            act(&flags, async |connection, me| actions::resume(connection, me, &name).await)
                .await?;
            say!("resumed {name}");
        }
        Action::Reset { name, to, flags } => {
            let rewound = act(&flags, async |connection, me| {
                actions::rewind(connection, me, &name, &to).await
            });
            let cursor = rewound.await?;
            say!("{name} goes on after position {cursor}");
        }
        Action::Drop(Named { name, flags }) => {
            act(&flags, async |connection, me| actions::drop_consumer(connection, me, &name).await)
                .await?;
            say!("dropped {name}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let CreateArgs { name, start, consumer, filter, target, flags } = args;
    let options = consumer.options(filter.filter(&[])?);
    let new = NewConsumer { name, start, options, target: target.options() };
    let made =
        act(&flags, async |connection, me| actions::create_consumer(connection, me, &new).await);
    let (cursor, secret) = made.await?;
    say!("made {}, which begins after position {cursor}", new.name);
    tell_secret(secret);
    Ok(())
}

async fn alter(args: AlterArgs) -> anyhow::Result<()> {
    let AlterArgs { name, consumer, filter, unset, target, flags } = args;
    let (options, target) = (consumer.options(filter.filter(&unset)?), target.options());
    let altered = act(&flags, async |connection, me| {
        actions::alter_consumer(connection, me, &name, &options, target.as_ref()).await
    });
    tell_secret(altered.await?);
    say!("changed {name}");
    Ok(())
}

fn tell_secret(secret: Option<String>) {
    if let Some(secret) = secret {
        say!("it is signed with {secret}");
    }
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let mut connection = connect(&args.flags).await?;
    if let Some(name) = &args.name {
        must_exist(&mut connection, name).await?;
    }
    let rows = said(consumer_admin::status(&mut connection, args.name.as_deref()).await)?;
    if args.json {
        say!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    let columns = [
        "name",
        "kind",
        "state",
        "types",
        "filter",
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
            _ if name == "filter" => harmless(&filter_of(row)),
            value => table::cell(value),
        }));
    }
    table::align_right(&mut lines, &[5, 6, 7, 8, 9, 10]);
    say!("{}", table::text(&lines));
    for row in rows.iter().filter(|row| row.get("paused_because").is_some_and(|why| !why.is_null()))
    {
        say!(
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
