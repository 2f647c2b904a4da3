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

/// Forgets `month`, which must be the oldest. False if another replica is changing partitions.
pub async fn drop_month(pool: &PgPool, month: Date) -> Result<bool, StoreError> {
    alone(pool, sqlx::query("SELECT tollgate.drop_month($1)").bind(month)).await
}

/// Runs a partition-changing statement in a transaction that no other replica's overlaps, and that
/// gives up after a second on the lock it needs: every writer holds one that conflicts, and new
/// writers queue up behind whoever waits.
async fn alone(
    pool: &PgPool,
    statement: Query<'_, sqlx::Postgres, PgArguments>,
) -> Result<bool, StoreError> {
    #[allow(clippy::disallowed_methods, reason = "maintenance is never cancelled in a statement")]
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

/// Deletes rows that dropping months leaves behind, at most `limit` of each kind; returns how many
/// went: events of the open-ended past and quarantined bodies that came before `before`, and
/// positions of events that are gone.
pub async fn delete_before(
    pool: &PgPool,
    before: OffsetDateTime,
    limit: i64,
) -> Result<u64, StoreError> {
    let past: i64 = sqlx::query_scalar("SELECT tollgate.forget_past($1, $2)")
        .bind(before)
        .bind(limit)
        .fetch_one(pool)
        .await?;
    let mut deleted = past.unsigned_abs();
    for statement in [
        "DELETE FROM tollgate.quarantine WHERE sha256 IN
            (SELECT sha256 FROM tollgate.quarantine WHERE received_at < $1 LIMIT $2)",
        "DELETE FROM tollgate.positions WHERE position IN
            (SELECT position FROM tollgate.positions p
             WHERE created < $1
               AND NOT EXISTS (SELECT FROM tollgate.event_log l WHERE (l.created, l.id) = (p.created, p.id))
             ORDER BY position LIMIT $2)",
    ] {
        let done = sqlx::query(statement).bind(before).bind(limit).execute(pool).await?;
        deleted += done.rows_affected();
    }
    Ok(deleted)
}
