//! `tollgate tail`: events on the terminal, as they come or since a time. Follows the log by
//! position, so it misses and repeats nothing, also when the database is away for a while.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{sleep, timeout};

use super::flags::SettingFlags;
use super::terminal::{harmless, no_colour, on_one_line, second};
use super::when::Since;
use crate::clock::Clock;
use crate::consume::wake::{Wake, Waker};
use crate::shutdown;
use crate::startup::Backend;
use crate::store::StoreError;
use crate::store::connect::Database;
use crate::store::handlers::Pattern;
use crate::store::reading::{self, Page, ReadEvent, Wanted};

/// Longest wait for a page; after that the connection counts as lost.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits before trying the database again, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Wait after being woken, so that a busy log is read some events at a time and not one by one. Too
/// short for a person to see.
const GATHER: Duration = Duration::from_millis(20);

/// Show events as they come
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate tail
  tollgate tail --type 'invoice.*' --type customer.created
  tollgate tail --since 1h --once
  tollgate tail --since 2026-01-01T00:00:00Z --json | jq -c '.event.data.object'

A line has the time of receipt in UTC, type, event, object and connected account. --json prints one
object per line: position, id, type, object, object_type, account, livemode, created, api_version,
received_at, and under event the body. Ctrl-C ends it; so does a reader that goes away.")]
pub struct TailArgs {
    /// Only these types: invoice.paid, invoice.* or *; may be repeated
    #[arg(long = "type", value_name = "PATTERN")]
    types: Vec<Pattern>,
    /// Begin with what was received since: 1h ago, 2026-01-01T00:00:00Z, or earliest [default: now]
    #[arg(long, value_name = "WHEN")]
    since: Option<Since>,
    /// One JSON object per line, with the whole event
    #[arg(long)]
    json: bool,
    /// End where the log ends instead of waiting for more
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    flags: SettingFlags,
}

pub async fn run(args: TailArgs) -> anyhow::Result<ExitCode> {
    let settings = args.flags.settings()?;
    let stop = shutdown::on_signal()?;
    let direct = Backend::attach(&settings.database)?.direct;
    let since = args.since.and_then(|since| since.time(Clock::system().now()));
    let start = match (args.since, since) {
        (None, _) => Start::Now,
        (Some(_), None) => Start::Earliest,
        (Some(_), Some(time)) => Start::At(time),
    };
    let form = match (args.json, io::stdout().is_terminal()) {
        (true, _) => Form::Json,
        (false, terminal) => Form::Plain { colour: terminal && !no_colour() },
    };
    let waker = (!args.once).then(|| {
        let (wake, _) = Wake::start(direct.clone(), settings.consuming.poll, stop.clone());
        wake.subscribe()
    });
    let wanted = Wanted::new(&args.types, since, args.json);
    let tail = Tail { direct, start, wanted, form, connection: None, place: None };
    // Cancelled wherever it is: that drops the connection.
    stop.run_until_cancelled(tail.follow(waker)).await.unwrap_or(Ok(()))?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Clone, Copy, Debug)]
enum Start {
    Now,
    Earliest,
    At(OffsetDateTime),
}

struct Tail {
    direct: Database,
    start: Start,
    wanted: Wanted,
    form: Form,
    connection: Option<PgConnection>,
    /// Everything up to this position has been looked at; none before the first look.
    place: Option<i64>,
}

impl Tail {
    /// Prints until the end of the log, or, if there is a waker, until nobody reads any more.
    async fn follow(mut self, mut waker: Option<Waker>) -> anyhow::Result<()> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.next_page().await {
                Ok(page) => {
                    if std::mem::replace(&mut pause, FIRST_PAUSE) > FIRST_PAUSE {
                        eprintln!("tollgate: the database is there again");
                    }
                    match self.form.print(&page.events) {
                        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                        printed => printed?,
                    }
                    self.place = page.reached.or(self.place);
                    let Some(waker) = &mut waker else {
                        if page.reached.is_none() {
                            return Ok(());
                        }
                        continue;
                    };
                    if page.reached.is_none() {
                        waker.next().await;
                        sleep(GATHER).await;
                    }
                }
                // To ask again would not help, or nobody wants to wait.
                Err(error) if waker.is_none() || error.is_about_statement() => {
                    return Err(anyhow::Error::new(error)
                        .context(format!("cannot read {}", self.direct.describe())));
                }
                Err(error) => {
                    if pause == FIRST_PAUSE {
                        eprintln!("tollgate: trying {} again: {error}", self.direct.describe());
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// The events after the place, on a connection that is made if there is none. It is put back
    /// only after success.
    async fn next_page(&mut self) -> Result<Page, StoreError> {
        let read = async {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.direct.connect().await?,
            };
            let place = match (self.place, self.start) {
                (Some(place), _) => place,
                (None, Start::Earliest) => 0,
                (None, Start::Now) => reading::latest(&mut connection).await?,
                (None, Start::At(time)) => reading::position_before(&mut connection, time).await?,
            };
            self.place = Some(place);
            let page = reading::page(&mut connection, place, &self.wanted).await?;
            self.connection = Some(connection);
            Ok(page)
        };
        timeout(PAGE_TIMEOUT, read).await.unwrap_or(Err(StoreError::TimedOut))
    }
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Plain { colour: bool },
    Json,
}

impl Form {
    fn print(self, events: &[ReadEvent]) -> io::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let mut out = io::BufWriter::new(io::stdout().lock());
        for event in events {
            match self {
                Self::Plain { colour } => writeln!(out, "{}", plain(event, colour))?,
                Self::Json => writeln!(out, "{}", json(event))?,
            }
        }
        out.flush()
    }
}

/// `2026-11-21 20:43:56   --> invoice.paid [evt_1] in_1 acct_1 (test)`, as `stripe listen` shows it.
fn plain(event: &ReadEvent, colour: bool) -> String {
    let (dim, bold, off) = if colour { ("\x1b[2m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    let mut line = format!(
        "{dim}{}{off}   --> {bold}{}{off} {dim}[{}]{off}",
        second(event.received_at),
        harmless(&event.event_type),
        harmless(&event.id),
    );
    for part in [event.object_id.as_deref(), Some(event.account.as_str())].into_iter().flatten() {
        if !part.is_empty() {
            line.push(' ');
            line.push_str(&harmless(part));
        }
    }
    line.push_str(if event.livemode { " (live)" } else { " (test)" });
    line
}

/// What `--json` says of an event: the notification's members, and more.
#[derive(Serialize)]
struct Line<'a> {
    position: i64,
    id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    object: Option<&'a str>,
    object_type: Option<&'a str>,
    account: Option<&'a str>,
    livemode: bool,
    created: i64,
    api_version: Option<&'a str>,
    received_at: Option<String>,
    event: Option<&'a RawValue>,
}

fn json(event: &ReadEvent) -> String {
    let body = on_one_line(event.raw.as_deref().unwrap_or_default());
    let line = Line {
        position: event.position,
        id: &event.id,
        event_type: &event.event_type,
        object: event.object_id.as_deref(),
        object_type: event.object_type.as_deref(),
        account: Some(event.account.as_str()).filter(|account| !account.is_empty()),
        livemode: event.livemode,
        created: event.created.unix_timestamp(),
        api_version: event.api_version.as_deref(),
        received_at: event.received_at.format(&Rfc3339).ok(),
        // The log holds nothing but JSON.
        event: serde_json::from_slice(&body).ok(),
    };
    serde_json::to_string(&line).expect("texts and numbers are always JSON")
}
