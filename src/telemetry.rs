//! Where logs go and how they look. What is logged is up to each part, at its boundary.

use std::io::{IsTerminal, stderr};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::settings::LogSettings;

/// Lines that may wait for a slow terminal or pipe; beyond that they are dropped, because a stuck
/// log must not hold up money.
const BUFFERED_LINES: usize = 16 * 1024;

/// Starts logging to standard error; standard output is for what a command has to say. Keep the
/// guard: dropping it writes out what is still buffered.
///
/// # Errors
/// If the filter is malformed or logging was started before.
pub fn start(settings: &LogSettings) -> anyhow::Result<WorkerGuard> {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(BUFFERED_LINES)
        .lossy(true)
        .finish(stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(settings.filter.parse::<EnvFilter>()?)
        .with_writer(writer)
        .with_target(false);
    let started = if settings.json {
        builder.json().flatten_event(true).with_span_list(false).try_init()
    } else {
        builder
            .with_ansi(stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .try_init()
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot start: {error}"))?;
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        log_panic(panic);
        // Where the log does not take it, or the whole trace is wanted.
        if !tracing::enabled!(tracing::Level::ERROR) || std::env::var_os("RUST_BACKTRACE").is_some()
        {
            told(panic);
        }
    }));
    Ok(guard)
}

/// A panic is a line like any other, for whoever reads lines and not what a process leaves behind.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or_default();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "panic: {message}");
}
