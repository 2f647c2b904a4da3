//! `tollgate reprocess`: run handlers and billing tables again for many events, or give them to a
//! consumer again. What is done, and noted of it, is `http::admin::actions`'.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::json;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use super::Misconfigured;
use super::database::{act, connect, said};
use super::filter::FilterArgs;
use super::flags::SettingFlags;
use super::terminal::{confirm, harmless, second};
use crate::clock::Clock;
use crate::http::admin::{AdminError, actions};
use crate::store::reprocess::{self, Again, MOST, Selection};

/// Events of one call, unless asked otherwise.
const USUAL: i64 = 1000;

/// Run handlers and billing tables for events of the log again, or give these to a consumer again
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate reprocess --type invoice.paid --since 1d --dry-run
  tollgate reprocess --type invoice.paid --since 1d --yes
  tollgate reprocess --type 'customer.*' --handler 'customer.* app.on_customer' --no-tables --yes
  tollgate reprocess --status dead --no-handlers --yes
  tollgate reprocess --type 'invoice.*' --since 1h --consumer mailer --yes

Without --handler all handlers run that want an event's type, and what one did before it does a second
time. The gateway does it, from now on: tollgate handlers failures shows what is left. A consumer gets
what its own filter lets through, and events of Tollgate's own (tollgate.*) only if it names them. Without
--yes it asks first, and where nobody can be asked it does nothing.

Exit codes: 0 done, or nothing fits; 1 it failed, or the answer was no; 2 wrongly asked.")]
pub struct ReprocessArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    what: What,
    /// Most events, the newest that fit, up to 10000
    #[arg(long, default_value_t = USUAL, value_parser = clap::value_parser!(i64).range(1..=MOST))]
    limit: i64,
    /// Only say how many events that would be
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do not ask before it is done
    #[arg(long)]
    yes: bool,
    /// JSON, one object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: SettingFlags,
}

/// What is done with them.
#[derive(Debug, clap::Args)]
struct What {
    /// Run this handler; may be repeated [default: all that want the type]
    #[arg(long = "handler", value_name = "NAME")]
    handlers: Vec<String>,
    /// Run no handlers
    #[arg(long, conflicts_with = "handlers")]
    no_handlers: bool,
    /// Leave the billing tables as they are
    #[arg(long)]
    no_tables: bool,
    /// Give the events to this consumer again, and do nothing else
    #[arg(long, value_name = "NAME", conflicts_with_all = ["handlers", "no_handlers", "no_tables"])]
    consumer: Option<String>,
}

impl What {
    /// What is done with handlers and tables.
    fn again(&self) -> Again {
        let all = self.handlers.is_empty() && !self.no_handlers;
        Again { projection: !self.no_tables, handlers: (!all).then(|| self.handlers.clone()) }
    }

    /// The same in words.
    fn deed(&self) -> String {
        if let Some(consumer) = &self.consumer {
            return format!("give them to {} again", harmless(consumer));
        }
        let handlers = match self.handlers.as_slice() {
            _ if self.no_handlers => None,
            [] => Some("all handlers that want their types".to_owned()),
            named => Some(format!("the handlers {}", harmless(&named.join(", ")))),
        };
        let tables = (!self.no_tables).then(|| "billing tables".to_owned());
        let all: Vec<_> = tables.into_iter().chain(handlers).collect();
        format!("run {} again for them", all.join(" and "))
    }
}

/// # Errors
/// If what is asked for is not there, or makes no sense.
pub async fn run(args: ReprocessArgs) -> anyhow::Result<ExitCode> {
    let filter = args.filter.filter(Clock::system().now());
    let filter = filter.map_err(|wrong| Misconfigured(wrong.to_string()))?;
    if args.what.consumer.is_none() && args.what.no_tables && args.what.no_handlers {
        let nothing = "with --no-tables and --no-handlers there is nothing to do";
        return Err(Misconfigured(nothing.to_owned()).into());
    }
    let mut connection = connect(&args.flags).await?;
    must_be_there(&mut connection, &args.what).await?;
    let mut transaction = connection.begin().await?;
    let which = said(reprocess::select(&mut transaction, &filter, args.limit).await)?;
    transaction.commit().await?;
    drop(connection);
    if args.dry_run || which.is_empty() {
        if args.json {
            say!("{}", dry(&which));
        } else {
            say!("{}", words(&which));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let question = format!("{}: {}?", words(&which), args.what.deed());
    if !confirm(&question, args.yes)? {
        return Ok(ExitCode::FAILURE);
    }
    let what = filter.words();
    let told =
        act(&args.flags, async |connection, me| done(connection, me, &args, &which, &what).await);
    say!("{}", told.await?);
    Ok(ExitCode::SUCCESS)
}

/// A name mistyped is told before anything is looked for.
async fn must_be_there(connection: &mut PgConnection, what: &What) -> anyhow::Result<()> {
    if let Some(consumer) = &what.consumer {
        super::consumers::must_exist(connection, consumer).await?;
    }
    let unknown = reprocess::unknown_handlers(connection, &what.handlers).await;
    if let Some(name) = said(unknown)?.first() {
        anyhow::bail!("there is no handler {name:?}: see tollgate handlers list");
    }
    Ok(())
}

async fn done(
    connection: &mut PgConnection,
    me: &str,
    args: &ReprocessArgs,
    which: &Selection,
    what: &str,
) -> Result<String, AdminError> {
    let events = which.len();
    if let Some(consumer) = &args.what.consumer {
        let done = actions::replay(connection, me, which, consumer, what).await?;
        if args.json {
            return Ok(json!({
                "events": events, "due": done.due, "open": done.open, "gone": done.gone,
                "excluded": done.excluded,
            })
            .to_string());
        }
        let mut words = format!("{events} events: {} will be handed out again", done.due);
        for (count, rest) in [
            (done.open, "are still to come"),
            (done.gone, "are gone from the log"),
            (done.excluded, "are left out by its filter"),
        ] {
            if count > 0 {
                let _ = write!(words, ", {count} {rest}");
            }
        }
        return Ok(words);
    }
    let asked = actions::reprocess(connection, me, which, &args.what.again(), what).await?;
    Ok(if args.json {
        json!({ "events": events, "asked": asked }).to_string()
    } else {
        format!("{events} events: {asked} things will be done again (tollgate handlers failures)")
    })
}

fn words(which: &Selection) -> String {
    match which.oldest() {
        None => "no events fit".to_owned(),
        Some(oldest) if which.complete => {
            format!("{} events fit, the oldest of {}", which.len(), second(oldest))
        }
        Some(oldest) => format!(
            "the {} newest events that fit, back to {} (there are more: --limit, or --until for these)",
            which.len(),
            second(oldest)
        ),
    }
}

fn dry(which: &Selection) -> serde_json::Value {
    let oldest = which.oldest().map(OffsetDateTime::unix_timestamp);
    json!({ "events": which.len(), "complete": which.complete, "oldest": oldest })
}
