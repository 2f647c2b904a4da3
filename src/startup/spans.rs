//! Starts the export of traces, and ends it: a gateway without traces is better than none.
//! What is traced is up to the parts.

use std::time::Duration;

use anyhow::anyhow;

use crate::clock::Clock;
use crate::traces::{TraceOptions, Traces};

/// How long the collector of traces may hold up the end.
const LAST_SPANS: Duration = Duration::from_secs(5);

pub(super) async fn start(options: Option<TraceOptions>, clock: &Clock) -> Traces {
    let Some(options) = options else {
        return Traces::off();
    };
    match Traces::start(options, clock.clone()).await {
        Ok(traces) => traces,
        Err(error) => {
            let error = anyhow!(error);
            tracing::error!(error = format!("{error:#}"), "there will be no traces");
            Traces::off()
        }
    }
}

/// Sends what still waits, as far as the collector lets it.
pub(super) async fn stop(traces: Traces, shutdown_timeout: Duration) {
    if let Err(error) = traces.stop(shutdown_timeout.min(LAST_SPANS)).await {
        tracing::warn!(%error, "the last traces are lost");
    }
}
