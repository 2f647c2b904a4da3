//! `tollgate handlers`: the user's SQL functions that run in the transaction of an event, and what
//! of them failed.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use sqlx::PgConnection;

use super::database::{act, connect};
use super::flags::SettingFlags;
use super::table;
use super::terminal::harmless;
use crate::http::admin::actions;
use crate::store::failures::{self, Discarded};
use crate::store::handlers::{self, NewHandler, Policy};

/// Most failures that are listed.
const FAILURES_SHOWN: i64 = 100;

/// Register, list and drop SQL functions that run in the transaction of an event
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate handlers register invoice.paid 'app.on_invoice_paid(jsonb)'
  tollgate handlers register 'customer.*' 'app.on_customer(jsonb)' --policy reject --timeout 500ms
  tollgate handlers list
  tollgate handlers failures
  tollgate handlers retry --name 'invoice.paid app.on_invoice_paid'
  tollgate handlers discard --name 'invoice.paid app.on_invoice_paid'
  tollgate handlers drop 'invoice.paid app.on_invoice_paid'

In SQL: tollgate.register_handler, tollgate.drop_handler, tollgate.handlers, tollgate.failures.")]
pub struct HandlersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Have a function called with every new event whose type fits
    Register(RegisterArgs),
    /// What is registered
    List(Plain),
    /// End the calls of a handler
    Drop {
        /// The handler's name, as list shows it
        name: String,
        #[command(flatten)]
        flags: SettingFlags,
    },
    /// What failed and will be tried again, or was given up
    Failures(Plain),
    /// Try again now: one failure, all of a handler, or all
    Retry {
        /// The number of one failure
        #[arg(long)]
        failure: Option<i64>,
        /// All failures of this handler
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        flags: SettingFlags,
    },
    /// Forget one failure, or all of a handler, which may be registered no more
    Discard(DiscardArgs),
}

#[derive(Debug, clap::Args)]
#[group(id = "which", required = true, multiple = false, args = ["failure", "name"])]
struct DiscardArgs {
    /// The number of one failure
    #[arg(long)]
    failure: Option<i64>,
    /// All failures of this handler
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    flags: SettingFlags,
}

impl DiscardArgs {
    fn which(&self) -> Discarded {
        match self.failure {
            Some(failure) => Discarded::One(failure),
            None => Discarded::Handler(self.name.clone().unwrap_or_default()),
        }
    }
}

#[derive(Debug, clap::Args)]
struct Plain {
    #[command(flatten)]
    flags: SettingFlags,
}

#[derive(Debug, clap::Args)]
struct RegisterArgs {
    /// invoice.paid, invoice.* or *
    pattern: String,
    /// The function with its schema and argument: app.on_invoice_paid(jsonb)
    function: String,
    /// What to call it; by default the pattern and the function
    #[arg(long)]
    name: Option<String>,
    /// What happens to an event when it fails: recorded all the same, or refused with a 500
    #[arg(long, value_enum, default_value = "park")]
    policy: PolicyArg,
    /// Longest that a call may take, up to 1m
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Calls for one event until it is given up, the first included
    #[arg(long, default_value_t = 12)]
    max_attempts: i32,
    #[command(flatten)]
    flags: SettingFlags,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PolicyArg {
    Park,
    Reject,
}

pub async fn run(args: HandlersArgs) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Register(args) => {
            let handler = NewHandler {
                pattern: &args.pattern,
                function: &args.function,
                name: args.name.as_deref(),
                policy: match args.policy {
                    PolicyArg::Park => Policy::Park,
                    PolicyArg::Reject => Policy::Reject,
                },
                timeout: args.timeout,
                max_attempts: args.max_attempts,
            };
            let made = act(&args.flags, async |connection, me| {
                actions::register_handler(connection, me, &handler).await
            });
            let name = made.await?;
            say!("registered {name}");
        }
        Action::List(args) => list(&mut connect(&args.flags).await?).await?,
        Action::Drop { name, flags } => {
            act(&flags, async |connection, me| actions::drop_handler(connection, me, &name).await)
                .await?;
            say!("dropped {name}");
        }
        Action::Failures(args) => list_failures(&mut connect(&args.flags).await?).await?,
        Action::Retry { failure, name, flags } => {
            let due = act(&flags, async |connection, me| {
                actions::retry_failures(connection, me, failure, name.as_deref()).await
            });
            let due = due.await?;
            say!("{due} will be tried again now");
        }
        Action::Discard(args) => {
            let gone = act(&args.flags, async |connection, me| {
                actions::discard_failures(connection, me, &args.which()).await
            });
            say!("{} discarded", gone.await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(connection: &mut PgConnection) -> anyhow::Result<()> {
    let mut lines = table::plain();
    lines.set_header(["name", "pattern", "function", "policy", "timeout", "attempts"]);
    for handler in handlers::registered(connection).await?.handlers {
        lines.add_row([
            handler.name,
            handler.pattern.as_str().to_owned(),
            handler.function,
            handler.policy.as_str().to_owned(),
            humantime::format_duration(handler.timeout).to_string(),
            handler.max_attempts.to_string(),
        ]);
    }
    say!("{}", table::text(&lines));
    Ok(())
}

async fn list_failures(connection: &mut PgConnection) -> anyhow::Result<()> {
    let mut lines = table::plain();
    lines.set_header(["failure", "stage", "handler", "event", "type", "attempts", "next", "error"]);
    for line in failures::newest(connection, FAILURES_SHOWN).await? {
        let next = line.next_attempt.map_or("given up".to_owned(), |at| at.to_string());
        lines.add_row([
            line.failure.to_string(),
            line.stage,
            line.handler,
            harmless(&line.event_id),
            harmless(&line.event_type),
            line.attempts.to_string(),
            next,
            harmless(&line.error),
        ]);
    }
    say!("{}", table::text(&lines));
    Ok(())
}
