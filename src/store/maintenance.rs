//! Keeping the log's partitions ahead of time and dropping those that retention has outlived.
//! When to do so, and how long to keep, is `maintain`'s.

use sqlx::PgPool;
use time::{Date, OffsetDateTime};

use super::StoreError;

/// Longest wait for the partitioned table, which every writer holds a lock on. While maintenance
/// waits, new writers queue up behind it: better to try again later.
const LOCK_TIMEOUT: &str = "1s";

/// Runs one partition-changing statement: alone (replicas all try), and patient only for
/// [`LOCK_TIMEOUT`]. `None` when another replica is at it.
async fn alone(
    pool: &PgPool,
    statement: &'static str,
    month: Option<Date>,
) -> Result<Option<()>, StoreError> {
    let mut transaction = pool.begin().await?;
    let mine: bool = sqlx::query_scalar(
        "SELECT set_config('lock_timeout', $1, true) IS NOT NULL
            AND pg_try_advisory_xact_lock(hashtextextended('tollgate.maintenance', 0))",
    )
    .bind(LOCK_TIMEOUT)
    .fetch_one(&mut *transaction)
    .await?;
    if !mine {
        return Ok(None);
    }
    let query = sqlx::query(statement);
    let query = if month.is_some() { query.bind(month) } else { query };
    query.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Some(()))
}

/// The months that have a partition of their own, as their first days, oldest first.
pub async fn months(pool: &PgPool) -> Result<Vec<Date>, StoreError> {
    Ok(sqlx::query_scalar("SELECT tollgate.log_months()").fetch_all(pool).await?)
}

/// Makes the partition of `month`, which must be the one after the newest.
pub async fn add_month(pool: &PgPool, month: Date) -> Result<Option<()>, StoreError> {
    alone(pool, "SELECT tollgate.add_month($1)", Some(month)).await
}

/// Forgets the oldest month and everything before it.
pub async fn drop_oldest_month(pool: &PgPool) -> Result<Option<()>, StoreError> {
    alone(pool, "SELECT tollgate.drop_oldest_month()", None).await
}

/// Deletes positions and quarantined bodies from before `before`, at most `limit` of each;
/// returns how many went. For positions whose events were dropped with their partition.
pub async fn delete_before(
    pool: &PgPool,
    before: OffsetDateTime,
    limit: i64,
) -> Result<u64, StoreError> {
    let positions = sqlx::query(
        "DELETE FROM tollgate.positions WHERE position IN
            (SELECT position FROM tollgate.positions WHERE created < $1 ORDER BY position LIMIT $2)",
    )
    .bind(before)
    .bind(limit)
    .execute(pool)
    .await?;
    let bodies = sqlx::query(
        "DELETE FROM tollgate.quarantine WHERE sha256 IN
            (SELECT sha256 FROM tollgate.quarantine WHERE received_at < $1 LIMIT $2)",
    )
    .bind(before)
    .bind(limit)
    .execute(pool)
    .await?;
    Ok(positions.rows_affected() + bodies.rows_affected())
}
