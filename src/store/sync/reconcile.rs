//! How far the log has been compared with Stripe's list of events, and what was missing.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row};
use time::OffsetDateTime;

use crate::store::StoreError;
use crate::store::connect::within;
use crate::store::events::NewEvent;

/// Longest wait for a statement.
const LIMIT: Duration = Duration::from_secs(30);

/// How far an account's events have been compared. Times of Stripe's are by its own clock.
#[derive(Clone, Debug)]
pub struct Reach {
    /// From when on events are the gateway's to miss, on its own clock.
    pub began_at: OffsetDateTime,
    /// Everything that Stripe listed up to here.
    pub watermark: OffsetDateTime,
    /// As the watermark, of the last run that looked at every event on its way.
    pub swept_to: OffsetDateTime,
    /// Whether that was longer ago than a day.
    pub sweep_is_due: bool,
    /// Whether nothing has been compared to the end yet; then the others say nothing.
    pub is_first: bool,
    /// Whether the last run came to its end: else it left events here and there on its way.
    pub unbroken: bool,
}

/// How far an account's events have been compared. If never, from when the database was made: what
/// happened before that is not this gateway's to miss. For one that comes later, from now on.
pub async fn begin(pool: &PgPool, account: &str, livemode: bool) -> Result<Reach, StoreError> {
    let row = within(pool, LIMIT, async |connection| {
        sqlx::query(
            "WITH before AS (
                SELECT r.succeeded_at >= r.started_at AS unbroken FROM tollgate.reconciliations r
                WHERE r.account = $1 AND r.livemode = $2),
             begun AS (
             INSERT INTO tollgate.reconciliations AS r (account, livemode, began_at, watermark, swept_to, swept_at, started_at)
             SELECT $1, $2, b.began, b.began, b.began, clock_timestamp(), clock_timestamp()
             FROM (SELECT CASE WHEN EXISTS (SELECT FROM tollgate.reconciliations) THEN clock_timestamp()
                               ELSE (SELECT min(installed_on) FROM tollgate.migrations) END) b (began)
             ON CONFLICT (account, livemode) DO UPDATE SET started_at = excluded.started_at
             RETURNING began_at, watermark, swept_to, swept_at < clock_timestamp() - interval '1 day' AS sweep_is_due,
                       succeeded_at IS NULL AS is_first)
             SELECT begun.*, coalesce((SELECT unbroken FROM before), false) AS unbroken FROM begun",
        )
        .bind(account)
        .bind(livemode)
        .fetch_one(connection)
        .await
    })
    .await?;
    Ok(Reach {
        began_at: row.try_get("began_at")?,
        watermark: row.try_get("watermark")?,
        swept_to: row.try_get("swept_to")?,
        sweep_is_due: row.try_get("sweep_is_due")?,
        is_first: row.try_get("is_first")?,
        unbroken: row.try_get("unbroken")?,
    })
}

/// Forgets connected accounts of a mode that are connected no more.
pub async fn forget_others(
    pool: &PgPool,
    livemode: bool,
    connected: &[String],
) -> Result<(), StoreError> {
    within(pool, LIMIT, async |connection| {
        sqlx::query(
            "DELETE FROM tollgate.reconciliations
             WHERE livemode = $1 AND account <> '' AND account <> ALL ($2)",
        )
        .bind(livemode)
        .bind(connected)
        .execute(connection)
        .await
    })
    .await?;
    Ok(())
}

/// Whether the own account was compared to the end, by whichever replica, within this time.
pub async fn is_fresh(
    pool: &PgPool,
    livemode: bool,
    within_time: Duration,
) -> Result<bool, StoreError> {
    let fresh = within(pool, LIMIT, async |connection| {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM tollgate.reconciliations WHERE account = '' AND livemode = $1
                AND succeeded_at > clock_timestamp() - make_interval(secs => $2))",
        )
        .bind(livemode)
        .bind(within_time.as_secs_f64())
        .fetch_one(connection)
        .await
    });
    Ok(fresh.await?)
}

/// Notes that everything up to `watermark` has been compared; `swept` if every event on the way was.
pub async fn reached(
    pool: &PgPool,
    account: &str,
    livemode: bool,
    watermark: OffsetDateTime,
    swept: bool,
) -> Result<(), StoreError> {
    within(pool, LIMIT, async |connection| {
        sqlx::query(
            "UPDATE tollgate.reconciliations SET
                watermark = CASE WHEN succeeded_at IS NULL THEN $3 ELSE greatest(watermark, $3) END,
                swept_to = CASE WHEN succeeded_at IS NULL THEN $3 WHEN $4 THEN greatest(swept_to, $3) ELSE swept_to END,
                swept_at = CASE WHEN $4 THEN clock_timestamp() ELSE swept_at END,
                succeeded_at = clock_timestamp(), failed_at = NULL, error = NULL
             WHERE account = $1 AND livemode = $2",
        )
        .bind(account)
        .bind(livemode)
        .bind(watermark)
        .bind(swept)
        .execute(connection)
        .await
    })
    .await?;
    Ok(())
}

/// Notes that a run failed.
pub async fn failed(
    pool: &PgPool,
    account: &str,
    livemode: bool,
    error: &str,
) -> Result<(), StoreError> {
    within(pool, LIMIT, async |connection| {
        sqlx::query(
            "UPDATE tollgate.reconciliations SET failed_at = clock_timestamp(), error = left($3, 2000)
             WHERE account = $1 AND livemode = $2",
        )
        .bind(account)
        .bind(livemode)
        .bind(error.replace('\0', "\u{fffd}"))
        .execute(connection)
        .await
    })
    .await?;
    Ok(())
}

/// Which of these events the log has, in their order.
pub async fn known(pool: &PgPool, events: &[NewEvent]) -> Result<Vec<bool>, StoreError> {
    let (createds, ids): (Vec<_>, Vec<_>) =
        events.iter().map(|it| (it.envelope.created, it.envelope.id.as_str())).unzip();
    let known = within(pool, LIMIT, async |connection| {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM tollgate.event_log l WHERE l.created = $1[n.at] AND l.id = $2[n.at])
             FROM generate_series(1, cardinality($2)) AS n (at) ORDER BY n.at",
        )
        .bind(&createds)
        .bind(&ids)
        .fetch_all(connection)
        .await
    });
    Ok(known.await?)
}

/// What was missing.
#[derive(Clone, Debug)]
pub struct Gap {
    pub since: OffsetDateTime,
    pub until: OffsetDateTime,
    pub events: i64,
    /// Of these, how many were older than a minute.
    pub late: i64,
    pub types: BTreeMap<String, i64>,
}

/// Keeps what was missing, for people to see.
pub async fn keep_gap(
    pool: &PgPool,
    account: &str,
    livemode: bool,
    gap: &Gap,
) -> Result<(), StoreError> {
    let types = serde_json::to_string(&gap.types).unwrap_or_else(|_| "{}".to_owned());
    within(pool, LIMIT, async |connection| {
        sqlx::query(
            "DELETE FROM tollgate.gaps WHERE found_at < clock_timestamp() - interval '1 year'",
        )
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "INSERT INTO tollgate.gaps (account, livemode, since, until, events, late, types)
             VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb)",
        )
        .bind(account)
        .bind(livemode)
        .bind(gap.since)
        .bind(gap.until)
        .bind(gap.events)
        .bind(gap.late)
        .bind(types)
        .execute(connection)
        .await
    })
    .await?;
    Ok(())
}

/// How reconciling went, over all accounts: for status and metrics.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Standing {
    pub accounts: i64,
    /// Seconds since the account that is furthest behind was last compared to the end; 0 where nobody has
    /// tried for three days.
    pub behind_seconds: f64,
    /// What the last run of an account failed with, if one did.
    pub error: Option<String>,
    /// Gaps of the last day, and the late events in them.
    pub gaps: i64,
    pub late_events: i64,
}

/// How reconciling goes; none if it never ran.
pub async fn standing(connection: &mut PgConnection) -> Result<Option<Standing>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT count(*) AS accounts, max(error) AS error,
                -- Where nobody has tried for days, the key was taken away, or it was turned off.
                CASE WHEN max(r.started_at) > clock_timestamp() - interval '3 days'
                     THEN extract(epoch FROM clock_timestamp() - min(coalesce(r.succeeded_at, r.started_at))) END::float8 AS behind,
                (SELECT count(*) FROM tollgate.gaps g WHERE g.found_at > clock_timestamp() - interval '1 day') AS gaps,
                (SELECT coalesce(sum(g.late), 0)::bigint FROM tollgate.gaps g
                 WHERE g.found_at > clock_timestamp() - interval '1 day') AS late
         FROM tollgate.reconciliations r
         -- Not those of a mode that nobody has a key for any more.
         WHERE r.started_at > (SELECT max(started_at) FROM tollgate.reconciliations) - interval '1 day'",
    )
    .fetch_one(connection)
    .await?;
    let accounts: i64 = row.try_get("accounts")?;
    let standing = |row: &PgRow| -> Result<Standing, sqlx::Error> {
        Ok(Standing {
            accounts,
            behind_seconds: row.try_get::<Option<_>, _>("behind")?.unwrap_or_default(),
            error: row.try_get("error")?,
            gaps: row.try_get("gaps")?,
            late_events: row.try_get("late")?,
        })
    };
    if accounts == 0 { Ok(None) } else { standing(&row).map(Some) }
}
