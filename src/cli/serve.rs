//! `tollgate serve`: runs the gateway until a signal.

use std::process::ExitCode;

use super::Misconfigured;
use super::flags::SettingFlags;
use crate::clock::Clock;
use crate::startup::Gateway;
use crate::{shutdown, telemetry};

/// Take Stripe's deliveries until SIGTERM or Ctrl-C
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  STRIPE_WEBHOOK_SECRET=whsec_… tollgate serve
  DATABASE_URL=postgres://app@db/app tollgate serve --listen 0.0.0.0:8080
  STRIPE_WEBHOOK_SECRET=$(stripe listen --print-secret) tollgate serve --log-format json

SIGTERM ends it without losing or cutting off a delivery; a second signal ends it at once.")]
pub struct ServeArgs {
    #[command(flatten)]
    flags: SettingFlags,
}

pub async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let (settings, warnings) = args.flags.settings_and_warnings()?;
    if settings.endpoints.is_empty() {
        return Err(Misconfigured(
            "no signing secret is set: put the endpoint's whsec_… into STRIPE_WEBHOOK_SECRET (it stands on the \
             Dashboard's webhook page; for the Stripe CLI, `stripe listen --print-secret` shows it)"
                .into(),
        )
        .into());
    }
    let _log = telemetry::start(&settings.log)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // Before anything is started, so that an early signal is not missed.
    let stop = shutdown::on_signal()?;
    if let Some(gateway) = Gateway::start(settings, Clock::system(), &stop).await? {
        gateway.run_until(stop).await?;
    }
    Ok(ExitCode::SUCCESS)
}
