//! Duties that one process of all replicas does at a time.

use std::time::Duration;

use sqlx::PgPool;

use crate::store::StoreError;
use crate::store::connect::within;

/// Longest wait for a statement.
const LIMIT: Duration = Duration::from_secs(15);

/// Takes a duty for some time, or keeps it for longer; false if somebody else has it.
pub async fn take(
    pool: &PgPool,
    duty: &str,
    holder: &str,
    time: Duration,
) -> Result<bool, StoreError> {
    let taken = within(pool, LIMIT, async |connection| {
        sqlx::query_scalar("SELECT tollgate.take_lease($1, $2, make_interval(secs => $3))")
            .bind(duty)
            .bind(holder)
            .bind(time.as_secs_f64())
            .fetch_one(connection)
            .await
    });
    Ok(taken.await?)
}

/// Gives a duty back.
pub async fn release(pool: &PgPool, duty: &str, holder: &str) -> Result<(), StoreError> {
    within(pool, LIMIT, async |connection| {
        sqlx::query("DELETE FROM tollgate.sync_leases WHERE duty = $1 AND holder = $2")
            .bind(duty)
            .bind(holder)
            .execute(connection)
            .await
    })
    .await?;
    Ok(())
}
