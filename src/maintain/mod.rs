//! What must be done to the log now and then, one file per duty. Each has an interval, a bound on
//! what it does at once, and a `run_once` that a test can step. Every replica runs all of them.

pub mod history;
pub mod partitions;
pub mod rescue;
pub mod retention;
pub mod traffic;

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// How often the duties are done. They are cheap when there is nothing to do.
const INTERVAL: Duration = Duration::from_hours(1);

/// Wait before the next try after one that failed, for example on a busy table.
const RETRY: Duration = Duration::from_mins(1);

/// Does all duties, at once and then every `INTERVAL`, until told to stop.
pub async fn run(pool: PgPool, keep: Option<Duration>, clock: Clock, stop: CancellationToken) {
    loop {
        let made = partitions::run_once(&pool, &clock).await;
        let dropped = retention::run_once(&pool, keep, &clock).await;
        let forgotten = history::run_once(&pool, &clock).await;
        let faded = traffic::run_once(&pool, &clock).await;
        let pause = match made.and(dropped).and(forgotten).and(faded) {
            Ok(()) => INTERVAL,
            Err(error) => {
                tracing::warn!(%error, "maintenance failed, trying again in a minute");
                RETRY
            }
        };
        // Only the sleep is cut short: a statement is always awaited to its end.
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}
