//! `tollgate dead-letters`: events that consumers could not take, to look at, retry or discard.
//! When an event becomes one is decided in the database.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::consumers::must_exist;
use super::database::{act, connect, said};
use super::flags::SettingFlags;
use super::table;
use super::terminal::harmless;
use crate::http::admin::actions;
use crate::store::consumer_admin::{self, Selection};

/// Most that are listed where nothing else is said.
const SHOWN: i64 = 100;

/// Look at, retry or discard events that consumers could not take
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate dead-letters list --consumer app
  tollgate dead-letters show app 4711
  tollgate dead-letters retry app 4711
  tollgate dead-letters retry app --since 2026-01-31T12:00:00Z
  tollgate dead-letters discard app --all

The events themselves stay in the log, whatever is done here.")]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The newest
    List {
        /// Only this consumer's
        #[arg(long)]
        consumer: Option<String>,
        /// Most that are listed
        #[arg(long, default_value_t = SHOWN)]
        limit: i64,
        /// JSON, one array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: SettingFlags,
    },
    /// One, with the attempts at it
    Show {
        consumer: String,
        position: i64,
        /// JSON, one object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: SettingFlags,
    },
    /// Hand out again, with all their attempts
    Retry(Which),
    /// Forget
    Discard(Which),
}

#[derive(Debug, clap::Args)]
#[group(id = "which", required = true, multiple = false, args = ["position", "since", "all"])]
struct Which {
    consumer: String,
    /// This one
    position: Option<i64>,
    /// Those that died since: 2026-01-31T12:00:00Z
    #[arg(long, value_parser = time_of)]
    since: Option<OffsetDateTime>,
    /// All of the consumer
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    flags: SettingFlags,
}

impl Which {
    fn selection(&self) -> Selection<'_> {
        let (position, since) = (self.position, self.since);
        Selection { consumer: &self.consumer, position, since, until: None }
    }
}

fn time_of(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|error| format!("expected a time such as 2026-01-31T12:00:00Z: {error}"))
}

pub async fn run(args: DeadLettersArgs) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::List { consumer, limit, json, flags } => {
            list(consumer.as_deref(), limit, json, &flags).await?;
        }
        Action::Show { consumer, position, json, flags } => {
            show(&consumer, position, json, &flags).await?;
        }
        Action::Retry(which) => {
            let done = act(&which.flags, async |connection, me| {
                actions::retry_dead_letters(connection, me, which.selection()).await
            });
            say!("{} will be tried again now", done.await?);
        }
        Action::Discard(which) => {
            let done = act(&which.flags, async |connection, me| {
                actions::discard_dead_letters(connection, me, which.selection()).await
            });
            say!("{} discarded", done.await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(
    consumer: Option<&str>,
    limit: i64,
    json: bool,
    flags: &SettingFlags,
) -> anyhow::Result<()> {
    let mut connection = connect(flags).await?;
    if let Some(name) = consumer {
        must_exist(&mut connection, name).await?;
    }
    let rows = said(consumer_admin::dead_letters(&mut connection, consumer, None, limit).await)?;
    if json {
        say!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    let columns =
        ["consumer", "position", "event_id", "type", "attempts", "reason", "died_at", "error"];
    let mut lines = table::plain();
    lines.set_header(columns.map(|name| name.replace('_', " ")));
    for row in &rows {
        lines.add_row(columns.map(|name| table::cell(row.get(name))));
    }
    say!("{}", table::text(&lines));
    Ok(())
}

async fn show(
    consumer: &str,
    position: i64,
    json: bool,
    flags: &SettingFlags,
) -> anyhow::Result<()> {
    let mut connection = connect(flags).await?;
    must_exist(&mut connection, consumer).await?;
    let letters = said(
        consumer_admin::dead_letters(&mut connection, Some(consumer), Some(position), 1).await,
    )?;
    let Some(mut letter) = letters.into_iter().next() else {
        anyhow::bail!("{consumer} has no dead letter at position {position}");
    };
    let attempts = said(consumer_admin::attempts(&mut connection, consumer, position).await)?;
    if json {
        let attempts = attempts.into_iter().map(Value::Object).collect();
        letter.insert("history".to_owned(), Value::Array(attempts));
        say!("{}", serde_json::to_string_pretty(&letter)?);
        return Ok(());
    }
    for (name, value) in &letter {
        say!("{:<10} {}", name.replace('_', " "), table::cell(Some(value)));
    }
    for attempt in &attempts {
        let part = |name| table::cell(attempt.get(name));
        say!(
            "\nattempt {} at {}: {} {}",
            part("attempt"),
            part("at"),
            part("verdict"),
            part("status")
        );
        say!("  {}", part("error"));
        for line in attempt.get("answer").and_then(Value::as_str).unwrap_or_default().lines() {
            say!("  | {}", harmless(line));
        }
    }
    Ok(())
}
