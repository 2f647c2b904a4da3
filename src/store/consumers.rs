//! Consumers as a gateway that delivers needs them: what to deliver where, and what came of it.
//! Who gets which event when is decided by the functions in `migrations/0007_claims.sql`.

use std::time::Duration;

use bytes::Bytes;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use time::OffsetDateTime;

use super::StoreError;
use super::connect::within;

/// Longest wait for a statement. It is short by nature; a lock that somebody holds may make it long.
const LIMIT: Duration = Duration::from_secs(15);

/// Raised by the functions for a consumer that is not there.
const NO_SUCH_CONSUMER: &str = "TG010";

/// Whether the error says that there is no such consumer (any more).
pub fn is_dropped(error: &StoreError) -> bool {
    let StoreError::Database(sqlx::Error::Database(error)) = error else { return false };
    error.code().as_deref() == Some(NO_SUCH_CONSUMER)
}

/// Where a consumer's events are delivered to: a row of `tollgate.targets`.
#[derive(Clone, PartialEq)]
pub struct TargetRow {
    pub consumer: String,
    pub kind: TargetKind,
    pub url: String,
    /// Signing secrets of a push.
    pub secrets: Vec<String>,
    /// What NATS subjects begin with.
    pub subject: String,
    /// Longest that one attempt may take.
    pub timeout: Duration,
    /// Most events on the way at once, over all replicas.
    pub concurrency: usize,
}

impl std::fmt::Debug for TargetRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither secrets nor the password that a URL may hold.
        f.debug_struct("TargetRow")
            .field("consumer", &self.consumer)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// What kind of target it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    Push,
    Nats,
}

/// The targets of all consumers that are not paused.
pub async fn targets(pool: &PgPool) -> Result<Vec<TargetRow>, StoreError> {
    let rows = within(pool, LIMIT, async |connection| {
        sqlx::query(
            "SELECT t.consumer, t.kind, t.url, t.secrets, t.subject, t.concurrency,
                    extract(epoch FROM t.timeout)::float8 AS timeout
             FROM tollgate.targets t JOIN tollgate.consumers c ON c.name = t.consumer
             WHERE c.paused_at IS NULL ORDER BY t.consumer",
        )
        .fetch_all(connection)
        .await
    })
    .await?;
    let target = |row: &PgRow| -> Result<TargetRow, sqlx::Error> {
        Ok(TargetRow {
            consumer: row.try_get("consumer")?,
            kind: match row.try_get("kind")? {
                "nats" => TargetKind::Nats,
                _ => TargetKind::Push,
            },
            url: row.try_get("url")?,
            secrets: row.try_get("secrets")?,
            subject: row.try_get("subject")?,
            timeout: Duration::from_secs_f64(row.try_get("timeout")?),
            concurrency: usize::try_from(row.try_get::<i32, _>("concurrency")?).unwrap_or(1),
        })
    };
    Ok(rows.iter().map(target).collect::<Result<_, _>>()?)
}

/// One event on its way to a consumer's target.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The consumer it is for.
    pub consumer: String,
    pub position: i64,
    pub event_id: String,
    pub event_type: String,
    /// The connected account; empty for the platform's own.
    pub account: String,
    pub livemode: bool,
    /// 1 for the first.
    pub attempt: i32,
    /// The body as Stripe sent it.
    pub raw: Bytes,
    /// The header of that name to send along, if this attempt is traced.
    pub traceparent: Option<String>,
}

/// What a consumer is given.
#[derive(Clone, Debug)]
pub enum Taken {
    /// Events, and the claim that they are held by.
    Batch { claim: i64, events: Vec<Delivery> },
    /// Nothing now; perhaps the wait until there will be something.
    Nothing { due_in: Option<Duration> },
}

/// Claims up to `most` events for a consumer.
pub async fn take(pool: &PgPool, consumer: &str, most: usize) -> Result<Taken, StoreError> {
    let rows = within(pool, LIMIT, async |connection| {
        sqlx::query(
            r#"SELECT claim, extract(epoch FROM due - clock_timestamp())::float8 AS due_in, "position", attempt,
                      id, type, account, livemode, raw
               FROM tollgate.take_bodies($1, $2)"#,
        )
        .bind(consumer)
        .bind(i32::try_from(most).unwrap_or(i32::MAX))
        .fetch_all(connection)
        .await
    })
    .await?;
    let claim: Option<i64> = rows.first().map(|row| row.try_get("claim")).transpose()?.flatten();
    let Some(claim) = claim else {
        let due_in: Option<Option<f64>> =
            rows.first().map(|row| row.try_get("due_in")).transpose()?;
        let due_in = due_in.flatten().map(|seconds| {
            Duration::try_from_secs_f64(seconds.clamp(0.0, 3600.0)).unwrap_or_default()
        });
        return Ok(Taken::Nothing { due_in });
    };
    let events = rows.iter().map(|row| delivery(consumer, row)).collect::<Result<_, _>>()?;
    Ok(Taken::Batch { claim, events })
}

fn delivery(consumer: &str, row: &PgRow) -> Result<Delivery, sqlx::Error> {
    Ok(Delivery {
        consumer: consumer.to_owned(),
        position: row.try_get("position")?,
        event_id: row.try_get("id")?,
        event_type: row.try_get("type")?,
        account: row.try_get("account")?,
        livemode: row.try_get("livemode")?,
        attempt: row.try_get("attempt")?,
        raw: Bytes::from(row.try_get::<Vec<u8>, _>("raw")?),
        traceparent: None,
    })
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The target has it.
    Delivered,
    /// Not now; the target may say how long to wait at least.
    Retry { after: Option<Duration> },
    /// Never: this event cannot be delivered to this target, whenever it is tried.
    Refused,
    /// The target wants no more events (410 Gone): the consumer is paused.
    Gone,
}

impl Verdict {
    /// A stable name, as it is kept.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry { .. } => "retry",
            Self::Refused => "refused",
            Self::Gone => "gone",
        }
    }

    fn retry_in(self) -> Option<f64> {
        match self {
            Self::Retry { after } => after.map(|after| after.as_secs_f64()),
            Self::Delivered | Self::Refused | Self::Gone => None,
        }
    }
}

/// Most bytes of an answer that are kept.
pub const ANSWER_KEPT: usize = 2048;

/// What came of one attempt, as it is kept in the history.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub verdict: Verdict,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// What went wrong, in a sentence; empty if nothing did.
    pub error: String,
    /// The beginning of the answer, at most [`ANSWER_KEPT`] bytes, made text.
    pub answer: String,
    pub took: Duration,
}

/// An attempt at an event of a claim.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub claim: i64,
    pub position: i64,
    pub number: i32,
    pub attempt: Attempt,
    /// Its trace, for the log line; not kept.
    pub trace_id: Option<String>,
}

/// What settling changed, beyond the events.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The circuit breaker's state before and after.
    pub breaker: (String, String),
    pub breaker_until: Option<OffsetDateTime>,
    /// Whether the consumer was paused, because its target is gone.
    pub paused: bool,
    /// How many of the events others have by now: their lease ran out.
    pub stale: usize,
}

/// Settles what came of attempts.
pub async fn settle(
    pool: &PgPool,
    consumer: &str,
    all: &[Settlement],
) -> Result<Settled, StoreError> {
    fn column<T>(all: &[Settlement], value: impl Fn(&Settlement) -> T) -> Vec<T> {
        all.iter().map(value).collect()
    }
    let row = within(pool, LIMIT, async |connection| {
        sqlx::query("SELECT * FROM tollgate.settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
            .bind(consumer)
            .bind(column(all, |s| s.claim))
            .bind(column(all, |s| s.position))
            .bind(column(all, |s| s.number))
            .bind(column(all, |s| s.attempt.verdict.as_str()))
            .bind(column(all, |s| s.attempt.verdict.retry_in()))
            .bind(column(all, |s| s.attempt.status.map(i32::from)))
            .bind(column(all, |s| s.attempt.error.replace('\0', "\u{fffd}")))
            .bind(column(all, |s| s.attempt.answer.replace('\0', "\u{fffd}")))
            .bind(column(all, |s| s.attempt.took.as_secs_f64()))
            .fetch_one(connection)
            .await
    })
    .await?;
    let stale: Vec<i64> = row.try_get("stale")?;
    Ok(Settled {
        breaker: (row.try_get("breaker_was")?, row.try_get("breaker_is")?),
        breaker_until: row.try_get("breaker_until")?,
        paused: row.try_get("paused")?,
        stale: stale.len(),
    })
}

/// Hands out no more to a consumer.
pub async fn pause(pool: &PgPool, consumer: &str, because: &str) -> Result<(), StoreError> {
    let paused = within(pool, LIMIT, async |connection| {
        sqlx::query("SELECT tollgate.pause_consumer($1, $2)")
            .bind(consumer)
            .bind(because)
            .execute(connection)
            .await
    });
    Ok(paused.await.map(drop)?)
}

/// An event that a consumer could not take.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub consumer: String,
    pub position: i64,
    pub event_id: String,
    pub event_type: String,
    pub attempts: i32,
    pub reason: String,
    pub error: String,
}

/// Dead letters that no log tells of yet; each is returned once, whichever replica asks.
pub async fn announce_dead_letters(
    pool: &PgPool,
    most: i32,
) -> Result<Vec<DeadLetter>, StoreError> {
    let rows = within(pool, LIMIT, async |connection| {
        sqlx::query("SELECT * FROM tollgate.announce_dead_letters($1)")
            .bind(most)
            .fetch_all(connection)
            .await
    })
    .await?;
    let letter = |row: &PgRow| -> Result<DeadLetter, sqlx::Error> {
        Ok(DeadLetter {
            consumer: row.try_get("consumer")?,
            position: row.try_get("position")?,
            event_id: row.try_get("event_id")?,
            event_type: row.try_get("event_type")?,
            attempts: row.try_get("attempts")?,
            reason: row.try_get("reason")?,
            error: row.try_get::<Option<_>, _>("error")?.unwrap_or_default(),
        })
    };
    Ok(rows.iter().map(letter).collect::<Result<_, _>>()?)
}

/// Deletes attempts that ended before a time, so many at most; returns how many.
pub async fn forget_attempts(
    pool: &PgPool,
    before: OffsetDateTime,
    most: i32,
) -> Result<i32, StoreError> {
    let forgotten = within(pool, LIMIT, async |connection| {
        sqlx::query_scalar("SELECT tollgate.forget_attempts($1, $2)")
            .bind(before)
            .bind(most)
            .fetch_one(connection)
            .await
    });
    Ok(forgotten.await?)
}
