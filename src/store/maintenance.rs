//! Keeping the log's partitions ahead of time and dropping those that retention has outlived.
//! When to do so, and how long to keep, is `maintain`'s.

use sqlx::PgPool;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use time::{Date, OffsetDateTime};

use super::StoreError;

/// The months that have a partition of their own, as their first days, oldest first.
pub async fn months(pool: &PgPool) -> Result<Vec<Date>, StoreError> {
    Ok(sqlx::query_scalar("SELECT tollgate.log_months()").fetch_all(pool).await?)
}

/// Makes the partition of `month`, which must be the one after the newest. False if another
/// replica is changing partitions.
pub async fn add_month(pool: &PgPool, month: Date) -> Result<bool, StoreError> {
    alone(pool, sqlx::query("SELECT tollgate.add_month($1)").bind(month)).await
}

/// Forgets the oldest month and everything before it. False if another replica is changing
/// partitions.
pub async fn drop_oldest_month(pool: &PgPool) -> Result<bool, StoreError> {
    alone(pool, sqlx::query("SELECT tollgate.drop_oldest_month()")).await
}

/// Runs a partition-changing statement in a transaction that no other replica's overlaps, and that
/// gives up after a second on the lock it needs: every writer holds one that conflicts, and new
/// writers queue up behind whoever waits.
async fn alone(
    pool: &PgPool,
    statement: Query<'_, sqlx::Postgres, PgArguments>,
) -> Result<bool, StoreError> {
    let mut transaction = pool.begin().await?;
    let mine = sqlx::query_scalar(
        "SELECT set_config('lock_timeout', '1s', true) IS NOT NULL
            AND pg_try_advisory_xact_lock(hashtextextended('tollgate.maintenance', 0))",
    )
    .fetch_one(&mut *transaction)
    .await?;
    if mine {
        statement.execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(mine)
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
