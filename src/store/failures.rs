//! `tollgate.failures`: events that are in the log, but that a billing table or a handler has not
//! taken. When to try again is decided by the callers.

use std::time::Duration;

use sqlx::{PgConnection, Row};
use time::OffsetDateTime;

use super::StoreError;
use super::connect::Transaction;
use super::events::NewEvent;

/// Wait before what failed is tried for the second time; `maintain::rescue` doubles it.
pub const FIRST_WAIT: Duration = Duration::from_secs(5);

/// What failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    Projection,
    /// The handler's name.
    Handler(String),
}

impl Stage {
    fn columns(&self) -> (&'static str, &str) {
        match self {
            Self::Projection => ("projection", ""),
            Self::Handler(name) => ("handler", name),
        }
    }
}

/// A failure to be kept.
#[derive(Clone, Debug)]
pub struct Failed<'a> {
    pub stage: Stage,
    pub created: OffsetDateTime,
    pub event_id: &'a str,
    pub event_type: &'a str,
    pub error: String,
    /// How often it was tried; 0 if there was no time.
    pub attempts: i32,
    /// Until it is tried again, a fifth more or less, so that those that failed together do not all
    /// come back together; none if that is given up.
    pub retry_in: Option<Duration>,
}

/// Keeps a failure, or the newer one of the same.
pub async fn keep(
    transaction: &mut Transaction<'_>,
    failed: &Failed<'_>,
) -> Result<(), StoreError> {
    let (stage, handler) = failed.stage.columns();
    let statement = sqlx::query(
        "INSERT INTO tollgate.failures AS f
             (stage, handler, created, event_id, event_type, error, attempts, next_attempt)
         VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + make_interval(secs => $8 * (0.8 + 0.4 * random())))
         ON CONFLICT (event_id, created, stage, handler) DO UPDATE SET
             error = excluded.error, attempts = excluded.attempts,
             next_attempt = excluded.next_attempt, last_failed = clock_timestamp()",
    )
    .bind(stage)
    .bind(handler)
    .bind(failed.created)
    .bind(failed.event_id)
    .bind(failed.event_type)
    .bind(failed.error.replace('\0', "\u{fffd}"))
    .bind(failed.attempts)
    .bind(failed.retry_in.map(|wait| wait.as_secs_f64()));
    Ok(transaction.fetch(statement).await.map(drop)?)
}

/// Keeps what came of another attempt at `due`, unless somebody else was faster.
pub async fn keep_again(
    transaction: &mut Transaction<'_>,
    due: &Due,
    error: &str,
    retry_in: Option<Duration>,
) -> Result<(), StoreError> {
    let statement = sqlx::query(
        "UPDATE tollgate.failures SET
             error = $3, attempts = attempts + 1, last_failed = clock_timestamp(),
             next_attempt = clock_timestamp() + make_interval(secs => $4 * (0.8 + 0.4 * random()))
         WHERE failure = $1 AND attempts = $2",
    )
    .bind(due.failure)
    .bind(due.attempts)
    .bind(error.replace('\0', "\u{fffd}"))
    .bind(retry_in.map(|wait| wait.as_secs_f64()));
    Ok(transaction.fetch(statement).await.map(drop)?)
}

/// A failure that is due, with the event it is about.
#[derive(Clone, Debug)]
pub struct Due {
    pub failure: i64,
    pub stage: Stage,
    pub created: OffsetDateTime,
    pub event_id: String,
    pub event_type: String,
    pub attempts: i32,
    /// None if the log has forgotten it.
    pub event: Option<NewEvent>,
}

/// Takes the failure that has been due for longest, of projections and of the handlers given;
/// other replicas leave it alone until the transaction ends.
pub async fn claim(
    transaction: &mut Transaction<'_>,
    handlers: &[&str],
) -> Result<Option<Due>, StoreError> {
    let statement = sqlx::query(
        "SELECT f.failure, f.stage, f.handler, f.created, f.event_id, f.event_type, f.attempts
         FROM tollgate.failures f
         WHERE f.next_attempt <= clock_timestamp()
           AND (f.stage = 'projection' OR f.handler = ANY ($1))
         ORDER BY f.next_attempt LIMIT 1 FOR UPDATE OF f SKIP LOCKED",
    )
    .bind(handlers);
    let rows = transaction.fetch(statement).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let mut due = Due {
        failure: row.try_get("failure")?,
        stage: match row.try_get("stage")? {
            "projection" => Stage::Projection,
            _ => Stage::Handler(row.try_get("handler")?),
        },
        created: row.try_get("created")?,
        event_id: row.try_get("event_id")?,
        event_type: row.try_get("event_type")?,
        attempts: row.try_get("attempts")?,
        event: None,
    };
    let statement =
        sqlx::query("SELECT raw FROM tollgate.event_log WHERE created = $1 AND id = $2")
            .bind(due.created)
            .bind(&due.event_id);
    let raw = transaction.fetch(statement).await?;
    let raw = raw.first().map(|row| row.try_get(0)).transpose()?;
    due.event = raw.and_then(NewEvent::from_log);
    Ok(Some(due))
}

/// Forgets a failure that is none any more.
pub async fn forget(transaction: &mut Transaction<'_>, failure: i64) -> Result<(), StoreError> {
    let statement = sqlx::query("DELETE FROM tollgate.failures WHERE failure = $1").bind(failure);
    Ok(transaction.fetch(statement).await.map(drop)?)
}

/// One line of the list of failures.
#[derive(Clone, Debug)]
pub struct Line {
    pub failure: i64,
    pub stage: String,
    pub handler: String,
    pub event_id: String,
    pub event_type: String,
    pub attempts: i32,
    pub next_attempt: Option<OffsetDateTime>,
    pub error: String,
}

/// The newest failures.
pub async fn newest(connection: &mut PgConnection, most: i64) -> Result<Vec<Line>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT failure, stage, handler, event_id, event_type, attempts, next_attempt, error
         FROM tollgate.failures ORDER BY last_failed DESC LIMIT $1",
    )
    .bind(most)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Line {
                failure: row.try_get(0)?,
                stage: row.try_get(1)?,
                handler: row.try_get(2)?,
                event_id: row.try_get(3)?,
                event_type: row.try_get(4)?,
                attempts: row.try_get(5)?,
                next_attempt: row.try_get(6)?,
                error: row.try_get(7)?,
            })
        })
        .collect()
}

/// Makes failures due now: one, or all of a handler's. Returns how many.
pub async fn retry(
    connection: &mut PgConnection,
    failure: Option<i64>,
    handler: Option<&str>,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE tollgate.failures SET next_attempt = clock_timestamp(), attempts = 0
         WHERE (failure = $1 OR $1 IS NULL) AND (handler = $2 OR $2 IS NULL)",
    )
    .bind(failure)
    .bind(handler)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets failures of handlers: one, or all of a handler's, which may be registered no more. Returns
/// how many. Those of billing tables stay: what is missing in a table must not look well.
pub async fn discard(connection: &mut PgConnection, which: &Discarded) -> Result<u64, sqlx::Error> {
    let (failure, handler) = match which {
        Discarded::One(failure) => (Some(*failure), None),
        Discarded::Handler(name) => (None, Some(name.as_str())),
    };
    let done = sqlx::query(
        "DELETE FROM tollgate.failures WHERE stage = 'handler' AND (failure = $1 OR handler = $2)",
    );
    Ok(done.bind(failure).bind(handler).execute(connection).await?.rows_affected())
}

/// Failures to forget.
#[derive(Clone, Debug)]
pub enum Discarded {
    One(i64),
    /// All of the handler of this name.
    Handler(String),
}
