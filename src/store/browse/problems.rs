//! What did not go well: bodies in quarantine, failures of billing tables and handlers, dead letters
//! and attempts of consumers. Newest first, page by page.

use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::page::Fingerprint;
use super::{BrowseError, Cursor, Page, PageRequest, steer};

/// A signed body that could not be recorded as an event.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Quarantined {
    /// SHA-256 of the body in hexadecimal, which names it.
    pub sha256: String,
    pub endpoint: String,
    /// A stable code, for example not_json.
    pub reason: String,
    pub detail: Option<String>,
    /// The event's id, where it has a usable one.
    pub event_id: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// Length of the body.
    pub bytes: i32,
}

/// What is in quarantine, of one reason if it is given.
pub async fn quarantine(
    connection: &mut PgConnection,
    reason: Option<&str>,
    page: &PageRequest,
) -> Result<Page<Quarantined>, BrowseError> {
    let list = Fingerprint::of("quarantine", &reason);
    let after = page.after(&list)?;
    steer(connection).await?;
    let rows = sqlx::query(
        "SELECT e.*, coalesce(e.reason = $3, true) AS fits, e.nth = 10000 AS last
         FROM (SELECT encode(q.sha256, 'hex') AS sha256, q.endpoint, q.reason, q.detail, q.event_id, q.received_at,
                      octet_length(q.raw) AS bytes, row_number() OVER (ORDER BY q.received_at DESC, q.sha256 DESC) AS nth
               FROM tollgate.quarantine q
               WHERE q.received_at <= coalesce($1, 'infinity')
                 AND (q.received_at, q.sha256) < (coalesce($1, 'infinity'), decode(coalesce($2, ''), 'hex'))
               ORDER BY q.received_at DESC, q.sha256 DESC LIMIT 10000) e
         WHERE coalesce(e.reason = $3, true) OR e.nth = 10000 ORDER BY e.nth LIMIT $4",
    )
    .bind(after.as_ref().map(|cursor| cursor.at))
    .bind(after.as_ref().map(|cursor| cursor.tie.as_str()))
    .bind(reason)
    .bind(page.limit + 1)
    .fetch_all(connection)
    .await?;
    let place = |row: &Quarantined| Cursor::new(row.received_at, row.sha256.as_str());
    Ok(Page::walked(&rows, page.limit, &list, place)?)
}

/// A body in quarantine by its SHA-256 in hexadecimal, with the body itself.
pub async fn quarantined(
    connection: &mut PgConnection,
    sha256: &str,
) -> Result<Option<(Quarantined, Vec<u8>)>, sqlx::Error> {
    let Ok(digest) = hex::decode(sha256) else {
        return Ok(None);
    };
    let found: Option<Quarantined> = sqlx::query_as(
        "SELECT encode(sha256, 'hex') AS sha256, endpoint, reason, detail, event_id, received_at,
                octet_length(raw) AS bytes FROM tollgate.quarantine WHERE sha256 = $1",
    )
    .bind(&digest)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(found) = found else {
        return Ok(None);
    };
    let raw = sqlx::query_scalar("SELECT raw FROM tollgate.quarantine WHERE sha256 = $1");
    let raw: Option<Vec<u8>> = raw.bind(&digest).fetch_optional(connection).await?;
    Ok(raw.map(|raw| (found, raw)))
}

/// Something that a billing table or a handler has not taken.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Failure {
    /// Its number.
    pub failure: i64,
    /// projection (billing tables) or handler.
    pub stage: String,
    /// The handler's name; empty for projections.
    pub handler: String,
    pub event_id: String,
    pub event_type: String,
    /// When Stripe made the event.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// What went wrong last; or who asked for it to be done again.
    pub error: String,
    pub attempts: i32,
    #[serde(with = "time::serde::rfc3339")]
    pub first_failed: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub last_failed: OffsetDateTime,
    /// When it is tried again; none if it was tried often enough.
    #[serde(with = "time::serde::rfc3339::option")]
    pub next_attempt: Option<OffsetDateTime>,
}

/// Which failures.
#[derive(Clone, Debug, Default)]
pub struct FailureFilter {
    /// projection or handler.
    pub stage: Option<String>,
    pub handler: Option<String>,
    /// Given up (true), or tried again (false).
    pub dead: Option<bool>,
}

/// Failures, those with the highest number first.
pub async fn failures(
    connection: &mut PgConnection,
    filter: &FailureFilter,
    page: &PageRequest,
) -> Result<Page<Failure>, BrowseError> {
    let list = Fingerprint::of("failures", filter);
    let after = page.after(&list)?;
    let before: Option<i64> = after.and_then(|cursor| cursor.tie.parse().ok());
    steer(connection).await?;
    let rows = sqlx::query(
        "SELECT * FROM (
             SELECT f.*, row_number() OVER (ORDER BY f.failure DESC) = 10000 AS last,
                    coalesce(f.stage = $2, true) AND coalesce(f.handler = $3, true)
                    AND coalesce((f.next_attempt IS NULL) = $4, true) AS fits
             FROM tollgate.failures f WHERE f.failure < coalesce($1, 9223372036854775807)
             ORDER BY f.failure DESC LIMIT 10000) e
         WHERE e.fits OR e.last ORDER BY e.failure DESC LIMIT $5",
    )
    .bind(before)
    .bind(&filter.stage)
    .bind(&filter.handler)
    .bind(filter.dead)
    .bind(page.limit + 1)
    .fetch_all(connection)
    .await?;
    let place = |row: &Failure| Cursor::new(row.first_failed, row.failure.to_string());
    Ok(Page::walked(&rows, page.limit, &list, place)?)
}

/// One failure.
pub async fn failure(
    connection: &mut PgConnection,
    failure: i64,
) -> Result<Option<Failure>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM tollgate.failures WHERE failure = $1")
        .bind(failure)
        .fetch_optional(connection)
        .await
}

/// An event that a consumer could not take.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct DeadLetter {
    pub consumer: String,
    pub position: i64,
    pub event_id: String,
    #[sqlx(rename = "type")]
    #[serde(rename = "type")]
    pub event_type: String,
    /// When Stripe made the event.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    pub attempts: i32,
    /// max_attempts_exceeded or non_retryable.
    pub reason: String,
    /// What went wrong last.
    pub error: Option<String>,
    /// When it was given up.
    #[serde(with = "time::serde::rfc3339")]
    pub died_at: OffsetDateTime,
}

/// The time by the database's clock, in microseconds since 1970: by it dead letters are dated.
pub async fn now(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    sqlx::query_scalar(sql).fetch_one(connection).await
}

/// Dead letters of all consumers, or of one.
pub async fn dead_letters(
    connection: &mut PgConnection,
    consumer: Option<&str>,
    page: &PageRequest,
) -> Result<Page<DeadLetter>, BrowseError> {
    let list = Fingerprint::of("dead letters", &consumer);
    let after = page.after(&list)?;
    // Position and consumer, as both are needed to tell them apart.
    let tie = after.as_ref().and_then(|cursor| cursor.tie.split_once(' '));
    let tie = tie.and_then(|(position, name)| Some((position.parse::<i64>().ok()?, name)));
    steer(connection).await?;
    let rows = sqlx::query(
        "SELECT * FROM (
             SELECT d.*, coalesce(d.consumer = $4, true) AS fits,
                    row_number() OVER (ORDER BY d.died_at DESC, d.position DESC, d.consumer DESC) = 10000 AS last
             FROM tollgate.dead_letters d
             WHERE d.died_at <= coalesce($1, 'infinity')
               AND (d.died_at, d.position, d.consumer) < (coalesce($1, 'infinity'), coalesce($2, 0), coalesce($3, ''))
             ORDER BY d.died_at DESC, d.position DESC, d.consumer DESC LIMIT 10000) e
         WHERE e.fits OR e.last ORDER BY e.died_at DESC, e.position DESC, e.consumer DESC LIMIT $5",
    )
    .bind(after.as_ref().map(|cursor| cursor.at))
    .bind(tie.map(|(position, _)| position))
    .bind(tie.map(|(_, name)| name))
    .bind(consumer)
    .bind(page.limit + 1)
    .fetch_all(connection)
    .await?;
    let place =
        |row: &DeadLetter| Cursor::new(row.died_at, format!("{} {}", row.position, row.consumer));
    Ok(Page::walked(&rows, page.limit, &list, place)?)
}

/// An attempt of a target that failed, or that succeeded after failures.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Attempt {
    pub consumer: String,
    pub position: i64,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// 1 for the first; begins anew when a dead letter is retried.
    pub attempt: i32,
    /// delivered, retry, refused (for ever) or gone (the target wants no more).
    pub verdict: String,
    /// The HTTP status, if there was one.
    pub status: Option<i32>,
    /// What went wrong; empty if nothing did.
    pub error: String,
    /// The beginning of the answer, 2 KiB at most.
    pub answer: String,
    /// How long it took, in seconds.
    pub took: f64,
}

/// Attempts of a consumer's target, newest first.
pub async fn attempts(
    connection: &mut PgConnection,
    consumer: &str,
    page: &PageRequest,
) -> Result<Page<Attempt>, BrowseError> {
    let list = Fingerprint::of("attempts", &consumer);
    let after = page.after(&list)?;
    let position: Option<i64> = after.as_ref().and_then(|cursor| cursor.tie.parse().ok());
    steer(connection).await?;
    let rows = sqlx::query(
        "SELECT e.*, extract(epoch FROM e.taken)::float8 AS took FROM (
             SELECT a.consumer, a.position, a.at, a.attempt, a.verdict, a.status, a.error, a.answer, a.took AS taken,
                    a.consumer = $3 AS fits, row_number() OVER (ORDER BY a.at DESC, a.position DESC) = 10000 AS last
             FROM tollgate.attempts a
             WHERE a.at <= coalesce($1, 'infinity') AND (a.at, a.position) < (coalesce($1, 'infinity'), coalesce($2, 0))
             ORDER BY a.at DESC, a.position DESC LIMIT 10000) e
         WHERE e.fits OR e.last ORDER BY e.at DESC, e.position DESC LIMIT $4",
    )
    .bind(after.as_ref().map(|cursor| cursor.at))
    .bind(position)
    .bind(consumer)
    .bind(page.limit + 1)
    .fetch_all(connection)
    .await?;
    let place = |row: &Attempt| Cursor::new(row.at, row.position.to_string());
    Ok(Page::walked(&rows, page.limit, &list, place)?)
}

/// The attempts at one event that are kept, oldest first, 1,000 at most: of one consumer or of all.
pub async fn attempts_at(
    connection: &mut PgConnection,
    position: i64,
    consumer: Option<&str>,
) -> Result<Vec<Attempt>, sqlx::Error> {
    sqlx::query_as(
        "SELECT a.consumer, a.position, a.at, a.attempt, a.verdict, a.status, a.error, a.answer,
                extract(epoch FROM a.took)::float8 AS took
         FROM tollgate.consumers c JOIN tollgate.attempts a ON a.consumer = c.name AND a.position = $1
         WHERE coalesce(c.name = $2, true) ORDER BY a.at LIMIT 1000",
    )
    .bind(position)
    .bind(consumer)
    .fetch_all(connection)
    .await
}
