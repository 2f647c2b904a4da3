//! The command line: one file per subcommand, and what they share. Commands speak on standard
//! output, logs go to standard error, and exit codes mean: 0 done, 1 it failed, 2 wrongly asked.

/// Writes a line to standard output, which need not be read to its end: `head` does not.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::terminal::say(format_args!($($text)*)) };
}

mod backfill;
mod check;
mod completions;
mod consumer_flags;
mod consumers;
mod database;
mod dead_letters;
mod demo;
mod events;
mod filter;
mod fixtures;
mod flags;
mod handlers;
mod healthcheck;
mod man;
mod migrate;
mod psql;
mod rebuild;
mod reconcile;
mod replay;
mod replay_log;
mod reprocess;
mod serve;
mod status;
mod stripe;
mod table;
mod tail;
mod terminal;
mod tokens;
mod verify;
mod when;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::http::admin::AdminError;
use crate::store::browse::BrowseError;

/// Exit code when the command line or the configuration is wrong, as clap's own.
const USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "tollgate",
    version,
    about = "A Stripe webhook gateway: each signed event becomes one committed Postgres transaction",
    after_help = "Examples:
  tollgate demo                                    see it work, with a database of its own
  STRIPE_WEBHOOK_SECRET=whsec_… tollgate serve     take Stripe's deliveries on 127.0.0.1:8080
  tollgate check                                   is the configuration right, the database there?

Exit codes: 0 done, 1 it failed, 2 the command line or the configuration is wrong."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Demo(demo::DemoArgs),
    Migrate(migrate::MigrateArgs),
    Check(check::CheckArgs),
    Healthcheck(healthcheck::HealthcheckArgs),
    Psql(psql::PsqlArgs),
    Handlers(handlers::HandlersArgs),
    Consumers(consumers::ConsumersArgs),
    DeadLetters(dead_letters::DeadLettersArgs),
    Rebuild(rebuild::RebuildArgs),
    Reconcile(reconcile::ReconcileArgs),
    Backfill(backfill::BackfillArgs),
    Verify(verify::VerifyArgs),
    Status(status::StatusArgs),
    Events(events::EventsArgs),
    Tail(tail::TailArgs),
    Tokens(tokens::TokensArgs),
    Replay(replay::ReplayArgs),
    Reprocess(reprocess::ReprocessArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    #[command(hide = true)]
    Fixtures(fixtures::FixturesArgs),
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&error.into()),
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Migrate(args) => migrate::run(args).await,
            Command::Check(args) => check::run(args).await,
            Command::Healthcheck(args) => healthcheck::run(args).await,
            Command::Psql(args) => psql::run(&args),
            Command::Handlers(args) => handlers::run(args).await,
            Command::Consumers(args) => consumers::run(args).await,
            Command::DeadLetters(args) => dead_letters::run(args).await,
            Command::Rebuild(args) => rebuild::run(args).await,
            Command::Reconcile(args) => reconcile::run(args).await,
            Command::Backfill(args) => backfill::run(args).await,
            Command::Verify(args) => verify::run(args).await,
            Command::Status(args) => status::run(args).await,
            Command::Events(args) => events::run(args).await,
            Command::Tail(args) => tail::run(args).await,
            Command::Tokens(args) => tokens::run(args).await,
            Command::Replay(args) => replay::run(args).await,
            Command::Reprocess(args) => reprocess::run(args).await,
            Command::Completions(args) => completions::run(&args),
            Command::Man(args) => man::run(&args),
            Command::Fixtures(args) => fixtures::run(&args),
        }
    });
    match done {
        Ok(_) if terminal::left_unsaid() => ExitCode::FAILURE,
        done => done.unwrap_or_else(|error| report(&error)),
    }
}

/// The configuration is wrong; its problems have been told already or stand in the message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misconfigured(String);

fn report(error: &anyhow::Error) -> ExitCode {
    // Whoever closed standard error does not want to know; eprintln would panic.
    let _ = writeln!(std::io::stderr(), "tollgate: {error:#}");
    let wrongly_asked = error.is::<Misconfigured>()
        || matches!(error.downcast_ref(), Some(BrowseError::Invalid(_)))
        || matches!(error.downcast_ref(), Some(AdminError::Invalid(_)));
    if wrongly_asked { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
}
