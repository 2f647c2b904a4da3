//! The order in which the gateway goes down, as phases that its parts look at, and the signals
//! that start it. What each phase does to which part is wired in `startup`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Whether shutdown has begun. Readiness and the `Connection` header follow it.
#[derive(Clone, Debug, Default)]
pub struct Phase(Arc<AtomicBool>);

impl Phase {
    /// True from the first signal on.
    pub fn draining(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub fn begin_draining(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Exit code after a second signal: 128 + SIGINT, as shells report it.
const ABORTED: i32 = 130;

/// Cancels the token on SIGTERM, SIGINT, or SIGHUP, which comes when a terminal is closed; ends the
/// process at once on a second one.
///
/// # Errors
/// If signal handlers cannot be installed.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let token = CancellationToken::new();
    let requested = token.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hang_up.recv() => {}
            }
            if first {
                tracing::info!("shutting down; a second signal aborts");
                requested.cancel();
            } else {
                tracing::warn!(
                    "aborted by a second signal; an embedded database goes on, until the next start takes it over"
                );
                #[allow(clippy::disallowed_methods, reason = "asked to end at once")]
                std::process::exit(ABORTED);
            }
        }
    });
    Ok(token)
}
