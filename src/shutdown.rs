//! The order in which the gateway goes down, as phases that its parts look at, and the signals
//! that start it. What each phase does to which part is wired in `startup`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
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
/// process at once on a second SIGTERM or SIGINT. Not on a SIGHUP: the shell and the kernel send one each.
/// Whoever had it ignored, as `nohup` does, goes on.
///
/// # Errors
/// If signal handlers cannot be installed.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = if hang_up_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
    let token = CancellationToken::new();
    let requested = token.clone();
    tokio::spawn(async move {
        let mut begun = false;
        loop {
            let may_abort = tokio::select! {
                _ = terminate.recv() => true,
                _ = interrupt.recv() => true,
                () = next(&mut hang_up) => false,
            };
            if begun && may_abort {
                tracing::warn!(
                    "aborted by a second signal; an embedded database goes on, until the next start takes it over"
                );
                #[allow(clippy::disallowed_methods, reason = "asked to end at once")]
                std::process::exit(ABORTED);
            }
            if !begun {
                tracing::info!("shutting down; a second signal aborts");
                requested.cancel();
            }
            begun = true;
        }
    });
    Ok(token)
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether we were started with SIGHUP ignored, as far as the system tells
/// (<https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>).
fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    // Signals count from 1, bits from 0.
    ignored.is_some_and(|set| set & 1 == 1)
}
