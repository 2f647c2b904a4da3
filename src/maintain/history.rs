//! Forgets old attempts of consumers' targets, and the traces of old events. What they were attempts
//! at stays: deliveries that wait, and dead letters, are never dropped by themselves.

use std::time::Duration;

use sqlx::PgPool;

use crate::clock::Clock;
use crate::store::{StoreError, consumers, traces};

/// How long an attempt or a trace is kept: as long as Stripe itself shows events.
const KEPT: Duration = Duration::from_hours(30 * 24);

/// Rows deleted in one statement, and statements in one run.
const ROWS_AT_ONCE: i32 = 10_000;
const STATEMENTS_AT_ONCE: usize = 100;

/// Forgets attempts that ended, and traces that were recorded, more than `KEPT` ago.
pub async fn run_once(pool: &PgPool, clock: &Clock) -> Result<(), StoreError> {
    let before = clock.now() - KEPT;
    for _ in 0..STATEMENTS_AT_ONCE {
        if consumers::forget_attempts(pool, before, ROWS_AT_ONCE).await? == 0 {
            break;
        }
    }
    for _ in 0..STATEMENTS_AT_ONCE {
        if traces::forget(pool, before, ROWS_AT_ONCE).await? == 0 {
            break;
        }
    }
    Ok(())
}
