//! Consumers and handlers as people look at them: how they do and how they are set up. No secrets:
//! signing secrets stay where they are, and a password in a URL is blotted out.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::store::consumer_admin::{PLATFORM, SHOWN_URL};

/// Metadata that an event's object must have; none if it does not matter.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(transparent)]
pub struct Metadata(pub Option<BTreeMap<String, String>>);

impl From<Option<String>> for Metadata {
    fn from(json: Option<String>) -> Self {
        // The constraint of the column says that it is an object of texts.
        Self(json.and_then(|json| serde_json::from_str(&json).ok()))
    }
}

/// A consumer: how it does, and how it is set up. Times in seconds.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Consumer {
    pub name: String,
    /// sql (workers claim), push or nats (the gateway delivers).
    pub kind: String,
    /// running, paused, or the state of the circuit breaker: open, half_open.
    pub state: String,
    pub types: Vec<String>,
    /// none or object.
    pub ordering: String,
    /// Only events of these endpoints; null for any.
    pub endpoints: Option<Vec<String>>,
    /// Only those of these connected accounts, an empty text for the platform's own; null for any.
    pub accounts: Option<Vec<String>>,
    /// Only live, or only test events; null for both.
    pub livemode: Option<bool>,
    /// Only those whose object has all of these metadata; null for any.
    #[sqlx(try_from = "Option<String>")]
    pub metadata: Metadata,
    /// Up to where the log has been handed out.
    pub cursor: i64,
    /// Events not settled yet, dead letters apart; reckoned where there are many.
    pub lag_events: i64,
    /// Since when the oldest of them has been in the log.
    pub lag_seconds: f64,
    /// Events with workers.
    pub in_flight: i64,
    /// Events that failed and are tried again.
    pub retrying: i64,
    /// Events that wait for an earlier one of their object.
    pub deferred: i64,
    /// Dead letters.
    pub dead: i64,
    #[serde(with = "time::serde::rfc3339::option")]
    pub claimed_since: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub paused_at: Option<OffsetDateTime>,
    pub paused_because: Option<String>,
    pub max_attempts: i32,
    pub lease: f64,
    pub retry_first: f64,
    pub retry_most: f64,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Where the gateway delivers to, without a password.
    pub url: Option<String>,
    /// closed, open or half_open.
    pub breaker: String,
    /// Failed attempts in a row.
    pub breaker_failures: i32,
    #[serde(with = "time::serde::rfc3339::option")]
    pub breaker_until: Option<OffsetDateTime>,
    /// The target's settings; none without a target, as is each of the following.
    pub timeout: Option<f64>,
    pub concurrency: Option<i32>,
    /// Most attempts per second.
    pub rate: Option<f64>,
    pub burst: Option<i32>,
    pub subject: Option<String>,
    pub breaker_after: Option<i32>,
    pub breaker_wait: Option<f64>,
    /// How many signing secrets there are.
    pub secrets: Option<i32>,
}

impl Consumer {
    /// The parts of its filter that are set, for people: which, and what.
    pub fn filter(&self) -> Vec<(&'static str, String)> {
        let account = |it: &String| if it.is_empty() { PLATFORM.to_owned() } else { it.clone() };
        let accounts = self.accounts.iter().map(|all| {
            let all: Vec<_> = all.iter().map(account).collect();
            ("Accounts", all.join(", "))
        });
        let metadata = self.metadata.0.iter().map(|all| {
            let all: Vec<_> = all.iter().map(|(key, value)| format!("{key}={value}")).collect();
            ("Metadata", all.join(", "))
        });
        let endpoints = self.endpoints.iter().map(|all| ("Endpoints", all.join(", ")));
        let mode =
            self.livemode.map(|live| ("Mode", if live { "live" } else { "test" }.to_owned()));
        endpoints.chain(accounts).chain(mode).chain(metadata).collect()
    }
}

/// How consumers do: all, by name, or one.
pub async fn consumers(
    connection: &mut PgConnection,
    name: Option<&str>,
) -> Result<Vec<Consumer>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "SELECT s.name, s.kind, s.state, s.types, s.ordering, s.endpoints, s.accounts,
                s.livemode, s.metadata::text AS metadata, s.cursor, s.lag_events::bigint, s.lag_seconds,
                s.in_flight::bigint, s.retrying::bigint, s.deferred::bigint, s.dead::bigint, s.claimed_since,
                c.paused_at, s.paused_because, c.max_attempts, extract(epoch FROM c.lease)::float8 AS lease,
                extract(epoch FROM c.retry_first)::float8 AS retry_first,
                extract(epoch FROM c.retry_most)::float8 AS retry_most, c.created_at,
                {SHOWN_URL} AS url, p.breaker, p.breaker_failures, s.breaker_until,
                extract(epoch FROM t.timeout)::float8 AS timeout, t.concurrency, t.rate, t.burst, t.subject,
                t.breaker_after, extract(epoch FROM t.breaker_wait)::float8 AS breaker_wait,
                cardinality(t.secrets) AS secrets
         FROM tollgate.consumer_status s
         JOIN tollgate.consumers c ON c.name = s.name
         JOIN tollgate.consumer_progress p ON p.consumer = s.name
         LEFT JOIN tollgate.targets t ON t.consumer = s.name
         WHERE coalesce(s.name = $1, true) ORDER BY s.name"
    )))
    .bind(name)
    .fetch_all(connection)
    .await
}

/// A registered SQL handler.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct HandlerLine {
    pub name: String,
    pub pattern: String,
    /// With its schema and argument.
    pub function: String,
    /// park or reject.
    pub policy: String,
    /// Seconds.
    pub timeout: f64,
    pub max_attempts: i32,
    #[serde(with = "time::serde::rfc3339")]
    pub registered_at: OffsetDateTime,
    /// Events that it failed for, and that are tried again.
    pub failing: i64,
    /// Events for which it was given up.
    pub dead: i64,
}

/// The handlers, in the order in which they are called, with their failures.
pub async fn handlers(connection: &mut PgConnection) -> Result<Vec<HandlerLine>, sqlx::Error> {
    sqlx::query_as(
        "SELECT h.name, h.pattern, h.function, h.policy, extract(epoch FROM h.timeout)::float8 AS timeout,
                h.max_attempts, h.registered_at, coalesce(f.failing, 0) AS failing, coalesce(f.dead, 0) AS dead
         FROM tollgate.handlers h
         LEFT JOIN (SELECT f.handler, count(f.next_attempt) AS failing, count(*) - count(f.next_attempt) AS dead
                    FROM tollgate.failures f GROUP BY f.handler) f ON f.handler = h.name
         ORDER BY h.name",
    )
    .fetch_all(connection)
    .await
}
