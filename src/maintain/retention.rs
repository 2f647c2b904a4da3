//! Forgets events that are older than they have to be kept: whole months at a time.
//! Off unless a retention is set. That it is long enough is checked in `settings`.

use std::time::Duration;

use sqlx::PgPool;

use super::partitions::next_month;
use crate::clock::Clock;
use crate::store::{StoreError, maintenance};

/// Most months dropped in one run.
const MONTHS_AT_ONCE: usize = 12;

/// Rows deleted in one statement, and statements in one run.
const ROWS_AT_ONCE: i64 = 10_000;
const STATEMENTS_AT_ONCE: usize = 100;

/// Drops every month whose last day is out of retention, and what refers to it.
pub async fn run_once(
    pool: &PgPool,
    keep: Option<Duration>,
    clock: &Clock,
) -> Result<(), StoreError> {
    let Some(keep) = keep else {
        return Ok(());
    };
    let oldest_kept = clock.now() - keep;
    for month in maintenance::months(pool).await?.into_iter().take(MONTHS_AT_ONCE) {
        let end = next_month(month).midnight().assume_utc();
        if end > oldest_kept || !maintenance::drop_month(pool, month).await? {
            break;
        }
        tracing::info!(%month, "dropped a month of the log");
    }
    // In small steps, so that no transaction is long; what is left is for the next run.
    for _ in 0..STATEMENTS_AT_ONCE {
        if maintenance::delete_before(pool, oldest_kept, ROWS_AT_ONCE).await? == 0 {
            break;
        }
    }
    Ok(())
}
