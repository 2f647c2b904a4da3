//! What the commands that ask Stripe share: key, client, the way down on Ctrl-C.
//! What they ask is `sync`'s.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing_appender::non_blocking::WorkerGuard;

use super::Misconfigured;
use super::database::current_schema;
use super::flags::SettingFlags;
use crate::clock::Clock;
use crate::startup::{Backend, stripe};
use crate::sync::{Accounts, Client, Context, SyncError};
use crate::{shutdown, telemetry};

/// Seconds to wait for another process that does the same.
const PATIENCE: u32 = 60;

/// The flags that all of them have.
#[derive(Debug, clap::Args)]
pub(super) struct AskArgs {
    /// Of connected accounts, too [default: TOLLGATE_STRIPE_CONNECT]
    #[arg(long)]
    connect: bool,
    /// JSON, one object to a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    flags: SettingFlags,
}

/// A command's connection to Stripe and to the database.
pub(super) struct Asking {
    pub context: Context,
    pub clock: Clock,
    accounts: Accounts,
    _log: WorkerGuard,
}

impl Asking {
    pub(super) async fn start(args: &AskArgs) -> anyhow::Result<Self> {
        let settings = args.flags.settings()?;
        let Some(stripe) = settings.stripe.clone() else {
            return Err(Misconfigured(
                "no API key is set: put a restricted key that may read (rk_…, Dashboard, Developers, API keys) into \
                 STRIPE_API_KEY"
                    .into(),
            )
            .into());
        };
        let log = telemetry::start(&settings.log)?;
        let stop: CancellationToken = shutdown::on_signal()?;
        let backend = Backend::attach(&settings.database)?;
        current_schema(&mut backend.direct.connect().await?).await?;
        let clock = Clock::system();
        let context = stripe::for_command(&settings, &stripe, &backend, &clock, &stop)?;
        // Connected ones, too, if the settings or the command say so.
        let accounts = if args.connect { Accounts::Connected } else { stripe.accounts };
        Ok(Self { context, clock, accounts, _log: log })
    }

    /// Whose events and objects to ask for.
    pub(super) fn accounts(&self) -> Accounts {
        self.accounts
    }

    /// Writes what still waits.
    pub(super) async fn end(self) {
        self.context.inlet.close().await;
    }
}

/// Does something that one process at a time may do, when it is this one's turn.
pub(super) async fn patiently<T>(
    client: &Client,
    mut work: impl AsyncFnMut() -> Result<T, SyncError>,
) -> Result<T, SyncError> {
    let mut waited = 0;
    loop {
        match work().await {
            Err(SyncError::Busy) if waited < PATIENCE => {
                if waited == 0 {
                    tracing::info!("another process is doing this now, waiting");
                }
                waited += 1;
                client.sleep(Duration::from_secs(1)).await?;
            }
            done => return done,
        }
    }
}

/// A spinner on a terminal, with a line of words; nothing elsewhere.
pub(super) fn spinner() -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
