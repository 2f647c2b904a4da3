//! What the commands that ask Stripe share: key, client, the way down on Ctrl-C.
//! What they ask is `sync`'s.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing_appender::non_blocking::WorkerGuard;

use super::Misconfigured;
use super::flags::SettingFlags;
use crate::clock::Clock;
use crate::settings::StripeSettings;
use crate::startup::{Backend, stripe};
use crate::store::migrations::{self, SchemaState};
use crate::sync::{Accounts, Client, Context, SyncError};
use crate::{shutdown, telemetry};

/// Seconds to wait for another process that does the same.
const PATIENCE: u32 = 60;

/// A command's connection to Stripe and to the database.
pub(super) struct Asking {
    pub context: Context,
    pub stripe: StripeSettings,
    pub clock: Clock,
    _log: WorkerGuard,
}

impl Asking {
    pub(super) async fn start(flags: &SettingFlags) -> anyhow::Result<Self> {
        let (settings, _) = flags.settings()?;
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
        let state = migrations::state(&mut backend.direct.connect().await?).await?;
        if let SchemaState::Behind { .. } = state {
            anyhow::bail!("{state}");
        }
        let clock = Clock::system();
        let context = stripe::for_command(&settings, &stripe, &backend, &clock, &stop)?;
        Ok(Self { context, stripe, clock, _log: log })
    }

    /// Whose objects: connected accounts, too, if the settings or the command say so.
    pub(super) fn accounts(&self, connected: bool) -> Accounts {
        if connected { Accounts::Connected } else { self.stripe.accounts }
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
