//! How much there is of everything, cheaply: what large tables hold is reckoned, not counted.

use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// How much there is.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Totals {
    /// Events in the log, as the planner reckons; counted, up to 100,000, if it does not yet.
    pub events: i64,
    /// The newest position; 0 without any.
    pub position: i64,
    /// When the newest event was received.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_received: Option<OffsetDateTime>,
    /// Bodies in quarantine, up to 10,001.
    pub quarantined: i64,
    /// Failures that are tried again, and those given up, up to 10,001 of both.
    pub failing: i64,
    pub given_up: i64,
    /// Dead letters, up to 10,001.
    pub dead_letters: i64,
    /// Events of the last day that no webhook brought, and that were fetched from Stripe.
    pub late_events: i64,
    /// Accounts that could not be compared with Stripe's events the last time.
    pub uncompared: i64,
    pub consumers: i64,
    pub handlers: i64,
    /// Bytes that the database takes.
    pub database_bytes: i64,
}

/// How much there is of everything.
pub async fn totals(connection: &mut PgConnection) -> Result<Totals, sqlx::Error> {
    sqlx::query_as(
        "SELECT coalesce((SELECT nullif(sum(greatest(c.reltuples, 0))::bigint, 0) FROM pg_catalog.pg_inherits i
                          JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
                          WHERE i.inhparent = 'tollgate.event_log'::regclass),
                         -- Not analyzed yet, so there cannot be many.
                         (SELECT count(*) FROM (SELECT FROM tollgate.positions LIMIT 100000) p)) AS events,
                coalesce(n.position, 0) AS position, n.received_at AS last_received,
                (SELECT count(*) FROM (SELECT FROM tollgate.quarantine LIMIT 10001) q) AS quarantined,
                f.failing, f.given_up,
                (SELECT count(*) FROM (SELECT FROM tollgate.deliveries WHERE state = 'dead' LIMIT 10001) d) AS dead_letters,
                (SELECT coalesce(sum(g.late), 0)::bigint FROM tollgate.gaps g
                 WHERE g.found_at > clock_timestamp() - interval '1 day') AS late_events,
                (SELECT count(*) FROM tollgate.reconciliations r WHERE r.error IS NOT NULL
                 AND r.started_at > (SELECT max(started_at) FROM tollgate.reconciliations) - interval '1 day') AS uncompared,
                (SELECT count(*) FROM tollgate.consumers) AS consumers,
                (SELECT count(*) FROM tollgate.handlers) AS handlers,
                pg_database_size(current_database()) AS database_bytes
         FROM (SELECT count(n.next_attempt) AS failing, count(*) - count(n.next_attempt) AS given_up
               FROM (SELECT next_attempt FROM tollgate.failures LIMIT 10001) n) f
         LEFT JOIN LATERAL (
             SELECT p.position, (SELECT l.received_at FROM tollgate.event_log l WHERE l.created = p.created AND l.id = p.id)
             FROM tollgate.positions p ORDER BY p.position DESC LIMIT 1) n ON true",
    )
    .fetch_one(connection)
    .await
}
