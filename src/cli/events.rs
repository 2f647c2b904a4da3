//! `tollgate events`: what is in the log, by any filter: as a list, one by one, or as files to send
//! again. How events are found is `store::browse`'s.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::database::{connect, said};
use super::filter::FilterArgs;
use super::flags::SettingFlags;
use super::table;
use super::terminal::{harmless, on_one_line, second};
use crate::clock::Clock;
use crate::store::browse::event::{self, EventDetail};
use crate::store::browse::events::{self, EventLine};
use crate::store::browse::page::{MOST, USUAL};
use crate::store::browse::timeline::{Timeline, timeline};
use crate::store::browse::{EventFilter, PageRequest};

/// Find, show and export events
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate events list
  tollgate events list --type 'invoice.*' --since 1h
  tollgate events list --customer cus_NffrFeUfNV2Hib --status failing --json
  tollgate events show evt_1
  tollgate events show evt_1 --raw | jq .data.object
  tollgate events export --type 'invoice.*' --since 2026-01-01 > events.jsonl

A filter that is not given does not matter; several must all fit. Times are those that Stripe gives:
2026-01-31T12:00:00Z, 2026-01-31 or, ago, 1h. What was exported is sent again by tollgate replay.")]
pub struct EventsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The newest that fit
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// Most that are listed
        #[arg(long, default_value_t = USUAL)]
        limit: i64,
        /// JSON, one array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: SettingFlags,
    },
    /// One, with what became of it and its body
    Show {
        id: String,
        /// JSON, one object
        #[arg(long)]
        json: bool,
        /// Nothing but the body, byte for byte as it came
        #[arg(long, conflicts_with = "json")]
        raw: bool,
        #[command(flatten)]
        flags: SettingFlags,
    },
    /// The bodies of all that fit, one to a line, newest first
    Export {
        #[command(flatten)]
        filter: FilterArgs,
        /// Most that are written; all, if not given
        #[arg(long)]
        limit: Option<i64>,
        #[command(flatten)]
        flags: SettingFlags,
    },
}

pub async fn run(args: EventsArgs) -> anyhow::Result<ExitCode> {
    let now = Clock::system().now();
    match args.action {
        Action::List { filter, limit, json, flags } => {
            let filter = filter.filter(now)?;
            list(&mut connect(&flags).await?, &filter, limit, json).await?;
        }
        Action::Show { id, json, raw, flags } => {
            show(&mut connect(&flags).await?, &id, json, raw).await?;
        }
        Action::Export { filter, limit, flags } => {
            let filter = filter.filter(now)?;
            export(&mut connect(&flags).await?, &filter, limit.unwrap_or(i64::MAX)).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All that fit, page by page, `most` at most; `take` says false when it has enough.
async fn each_page(
    connection: &mut PgConnection,
    filter: &EventFilter,
    most: i64,
    mut take: impl AsyncFnMut(&mut PgConnection, Vec<EventLine>) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let mut left = most;
    let mut cursor = None;
    while left > 0 {
        let request = PageRequest::new(Some(left.min(MOST)), cursor)?;
        // What the queries set counts until their transaction ends.
        let mut transaction = connection.begin().await?;
        let page = events::list(&mut transaction, filter, &request).await?;
        transaction.commit().await?;
        left -= i64::try_from(page.items.len()).unwrap_or(left);
        if !take(connection, page.items).await? || page.next.is_none() {
            break;
        }
        cursor = page.next;
    }
    Ok(())
}

async fn list(
    connection: &mut PgConnection,
    filter: &EventFilter,
    limit: i64,
    json: bool,
) -> anyhow::Result<()> {
    let mut all = Vec::new();
    each_page(connection, filter, limit, async |_, page| {
        all.extend(page);
        Ok(true)
    })
    .await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    let mut lines = table::plain();
    lines.set_header(["created", "type", "event", "object", "account", "mode", "status"]);
    for event in all {
        lines.add_row([
            second(event.created),
            harmless(&event.event_type),
            harmless(&event.id),
            harmless(event.object_id.as_deref().unwrap_or_default()),
            harmless(&event.account),
            if event.livemode { "live" } else { "test" }.to_owned(),
            event.status,
        ]);
    }
    say!("{}", table::text(&lines));
    Ok(())
}

async fn export(
    connection: &mut PgConnection,
    filter: &EventFilter,
    most: i64,
) -> anyhow::Result<()> {
    each_page(connection, filter, most, async |connection, page| {
        let bodies = said(event::bodies(connection, &page).await)?;
        let mut out = io::BufWriter::new(io::stdout().lock());
        let written = bodies.iter().try_for_each(|body| {
            out.write_all(&on_one_line(body))?;
            out.write_all(b"\n")
        });
        match written.and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            written => Ok(written.map(|()| true)?),
        }
    })
    .await
}

async fn show(
    connection: &mut PgConnection,
    id: &str,
    json: bool,
    raw: bool,
) -> anyhow::Result<()> {
    let mut transaction = connection.begin().await?;
    let Some(found) = said(event::find(&mut transaction, id, None).await)? else {
        anyhow::bail!("there is no event {id:?} in the log");
    };
    if raw {
        let mut out = io::stdout();
        out.write_all(&found.raw)?;
        // At the end of the program nobody would hear that the disk is full.
        out.flush()?;
        return Ok(());
    }
    let story = said(timeline(&mut transaction, found.event.clone(), &found.raw).await)?;
    transaction.commit().await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&json!({"event": found, "timeline": story}))?);
        return Ok(());
    }
    tell(&found, &story);
    Ok(())
}

fn tell(found: &EventDetail, story: &Timeline) {
    let event = &found.event;
    let mode = if event.livemode { "live" } else { "test" };
    for (name, value) in [
        ("event", event.id.as_str()),
        ("type", &event.event_type),
        ("object", event.object_id.as_deref().unwrap_or("-")),
        ("account", &event.account),
        ("mode", mode),
        ("version", event.api_version.as_deref().unwrap_or("-")),
        ("endpoint", &event.endpoint),
        ("source", &event.source),
        ("status", &event.status),
    ] {
        say!("{name:<10} {}", harmless(value));
    }
    say!("");
    let mut steps = table::plain();
    for step in &story.steps {
        let at = step.at.map(second).unwrap_or_default();
        let cells = [step.what, step.of.as_str(), step.looks, step.detail.as_str()];
        steps.add_row(std::iter::once(at).chain(cells.map(harmless)));
    }
    say!("{}\n", table::text(&steps));
    for line in String::from_utf8_lossy(&found.raw).lines() {
        say!("{}", harmless(line));
    }
}
