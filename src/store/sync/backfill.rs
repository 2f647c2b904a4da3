//! How far a backfill is with each kind of object.

use std::time::Duration;

use sqlx::{PgPool, Row};
use time::OffsetDateTime;

use crate::store::StoreError;
use crate::store::connect::within;

/// Longest wait for a statement.
const LIMIT: Duration = Duration::from_secs(30);

/// Whose objects of which kind.
#[derive(Clone, Copy, Debug)]
pub struct Portion<'a> {
    pub account: &'a str,
    pub livemode: bool,
    /// The table that they go to.
    pub kind: &'a str,
    /// Leaves out what Stripe made before.
    pub since: Option<OffsetDateTime>,
}

/// Where to go on.
#[derive(Clone, Debug)]
pub struct Begun {
    pub cursor: Option<String>,
    /// Objects listed and written before that.
    pub listed: i64,
    pub written: i64,
}

/// Begins, or goes on where an earlier run was interrupted: lists are read from the newest back, so that
/// is right for any `since`. What was made or changed meanwhile comes as events; hence not after a day,
/// which nobody may have been there to take.
pub async fn begin(pool: &PgPool, portion: Portion<'_>) -> Result<Begun, StoreError> {
    let row = within(pool, LIMIT, async |connection| {
        sqlx::query(
            "INSERT INTO tollgate.backfills AS b (account, livemode, kind, since) VALUES ($1, $2, $3, $4)
             ON CONFLICT (account, livemode, kind) DO UPDATE SET
                 (since, cursor, listed, written, started_at, touched_at, finished_at) =
                 (SELECT $4, CASE WHEN goes_on THEN b.cursor END, CASE WHEN goes_on THEN b.listed ELSE 0 END,
                         CASE WHEN goes_on THEN b.written ELSE 0 END,
                         CASE WHEN goes_on THEN b.started_at ELSE clock_timestamp() END, clock_timestamp(), NULL::timestamptz
                  FROM (SELECT b.finished_at IS NULL AND b.touched_at > clock_timestamp() - interval '1 day') AS it (goes_on))
             RETURNING cursor, listed, written",
        )
        .bind(portion.account)
        .bind(portion.livemode)
        .bind(portion.kind)
        .bind(portion.since)
        .fetch_one(connection)
        .await
    })
    .await?;
    Ok(Begun {
        cursor: row.try_get("cursor")?,
        listed: row.try_get("listed")?,
        written: row.try_get("written")?,
    })
}

/// Notes that everything up to `cursor` is done, and how much that was since the last note.
pub async fn advance(
    pool: &PgPool,
    portion: Portion<'_>,
    cursor: &str,
    listed: i64,
    written: i64,
) -> Result<(), StoreError> {
    within(pool, LIMIT, async |connection| {
        sqlx::query(
            "UPDATE tollgate.backfills SET cursor = coalesce(nullif($4, ''), cursor), listed = listed + $5,
                    written = written + $6, touched_at = clock_timestamp()
             WHERE account = $1 AND livemode = $2 AND kind = $3",
        )
        .bind(portion.account)
        .bind(portion.livemode)
        .bind(portion.kind)
        .bind(cursor)
        .bind(listed)
        .bind(written)
        .execute(connection)
        .await
    })
    .await?;
    Ok(())
}

/// Notes that there is no more.
pub async fn finish(pool: &PgPool, portion: Portion<'_>) -> Result<(), StoreError> {
    within(pool, LIMIT, async |connection| {
        sqlx::query(
            "UPDATE tollgate.backfills SET finished_at = clock_timestamp(), touched_at = clock_timestamp()
             WHERE account = $1 AND livemode = $2 AND kind = $3",
        )
        .bind(portion.account)
        .bind(portion.livemode)
        .bind(portion.kind)
        .execute(connection)
        .await
    })
    .await?;
    Ok(())
}
