//! What became of an event: received, committed, shown in a billing table, taken by handlers and by
//! consumers. Told from what the tables hold; what went well leaves little behind, and is said so.

use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::events::EventLine;
use super::problems::{Attempt, Failure, attempts_at};
use crate::store::objects::ObjectKey;
use sqlx::AssertSqlSafe;

/// What became of an event.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Timeline {
    pub event: EventLine,
    /// Where its object stands now; none if it is about none that could be told from others.
    pub projection: Option<Projection>,
    /// What is still failing, or was given up.
    pub failures: Vec<Failure>,
    pub handlers: Vec<HandlerStep>,
    pub consumers: Vec<Delivery>,
    /// All of it in the order of time; what has no time comes last.
    pub steps: Vec<Step>,
}

/// A line of the story.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Step {
    #[serde(with = "time::serde::rfc3339::option")]
    pub at: Option<OffsetDateTime>,
    /// A stable code: created, received, committed, projected, failed, retry_due, handler, attempt,
    /// dead_letter, delivery.
    pub what: &'static str,
    /// The table, handler or consumer; empty for the event itself.
    pub of: String,
    /// ok, failing, dead, or waiting: how it looks.
    pub looks: &'static str,
    /// More, in words of whoever said it: of the database, or of a stranger's server.
    pub detail: String,
}

/// The row of the billing table that the event's object has.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Projection {
    pub table: String,
    pub id: String,
    /// Whether there is a row.
    pub there: bool,
    /// Whether the row shows this event.
    pub shown: bool,
    /// The event that it shows.
    pub as_of_event: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub as_of: Option<OffsetDateTime>,
    /// How that event was told to be the newest.
    pub order_basis: Option<String>,
    pub deleted: Option<bool>,
}

/// A handler that wants events of this type.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct HandlerStep {
    pub name: String,
    /// done, failing, dead, or later: it was registered after the event came.
    pub state: String,
}

/// How far a consumer is with it.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Delivery {
    pub consumer: String,
    /// sql, push or nats.
    pub kind: String,
    /// settled, earlier (it was in the log before the consumer was made), not_wanted (of another
    /// type), ahead (not handed out yet), held, in_flight, waiting, deferred, claimed or dead.
    pub state: String,
    /// How often it failed.
    pub attempts: i32,
    pub error: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub next_attempt: Option<OffsetDateTime>,
    pub reason: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub died_at: Option<OffsetDateTime>,
    /// The attempts that were written down: those that failed, and the one that succeeded after.
    #[sqlx(skip)]
    pub tries: Vec<Attempt>,
}

/// The story of an event, given what the list says of it and its body.
pub async fn timeline(
    connection: &mut PgConnection,
    event: EventLine,
    raw: &[u8],
) -> Result<Timeline, sqlx::Error> {
    let projection = projection(connection, &event.id, raw).await?;
    let failures: Vec<Failure> = sqlx::query_as(
        "SELECT * FROM tollgate.failures WHERE event_id = $1 AND created = $2 ORDER BY failure",
    )
    .bind(&event.id)
    .bind(event.created)
    .fetch_all(&mut *connection)
    .await?;
    let handlers = handlers(connection, &event).await?;
    let mut consumers = deliveries(connection, &event).await?;
    if let Some(position) = event.position {
        for attempt in attempts_at(connection, position, None).await? {
            let of = consumers.iter_mut().find(|of| of.consumer == attempt.consumer);
            if let Some(delivery) = of {
                delivery.tries.push(attempt);
            }
        }
    }
    let mut timeline =
        Timeline { event, projection, failures, handlers, consumers, steps: Vec::new() };
    timeline.steps = timeline.told();
    Ok(timeline)
}

/// The table that an event's object belongs to is what its body says, as when it was written.
async fn projection(
    connection: &mut PgConnection,
    event: &str,
    raw: &[u8],
) -> Result<Option<Projection>, sqlx::Error> {
    let Some(ObjectKey { table, account, livemode, object_type, id }) = ObjectKey::shown_by(raw)
    else {
        return Ok(None);
    };
    let typed = if table == "objects" { "AND t.object_type = $5" } else { "AND $5 IS NOT NULL" };
    // `table` is one of the names in `stripe::kinds`.
    let sql = format!(
        "SELECT '{table}' AS table, $3 AS id, t.id IS NOT NULL AS there, coalesce(t.as_of_event = $4, false) AS shown,
                t.as_of_event, t.as_of, t.order_basis, t.deleted
         FROM (SELECT) one LEFT JOIN stripe.{table} t ON t.account = $1 AND t.livemode = $2 AND t.id = $3 {typed}"
    );
    sqlx::query_as(AssertSqlSafe(sql))
        .bind(account)
        .bind(livemode)
        .bind(id)
        .bind(event)
        .bind(object_type)
        .fetch_optional(connection)
        .await
}

async fn handlers(
    connection: &mut PgConnection,
    event: &EventLine,
) -> Result<Vec<HandlerStep>, sqlx::Error> {
    sqlx::query_as(
        "SELECT h.name, CASE WHEN f.failure IS NULL AND h.registered_at > $3 THEN 'later' WHEN f.failure IS NULL THEN 'done'
                             WHEN f.next_attempt IS NULL THEN 'dead' ELSE 'failing' END AS state
         FROM tollgate.handlers h
         LEFT JOIN tollgate.failures f ON f.event_id = $1 AND f.created = $2 AND f.stage = 'handler' AND f.handler = h.name
         WHERE tollgate.wants(ARRAY[h.pattern], $4) ORDER BY h.name",
    )
    .bind(&event.id)
    .bind(event.created)
    .bind(event.received_at)
    .bind(&event.event_type)
    .fetch_all(connection)
    .await
}

async fn deliveries(
    connection: &mut PgConnection,
    event: &EventLine,
) -> Result<Vec<Delivery>, sqlx::Error> {
    sqlx::query_as(
        "SELECT c.name AS consumer, coalesce(t.kind, 'sql') AS kind,
                CASE WHEN d.state IS NOT NULL THEN d.state
                     WHEN $1 = ANY (p.held) THEN 'held'
                     WHEN EXISTS (SELECT FROM tollgate.claims k WHERE k.consumer = c.name AND $1 = ANY (k.fresh)) THEN 'in_flight'
                     WHEN NOT tollgate.wants(c.types, $2) OR NOT l.routed THEN 'not_wanted'
                     WHEN $1 IS NULL OR $1 > p.cursor THEN 'ahead'
                     WHEN $3 < c.created_at THEN 'earlier'
                     ELSE 'settled' END AS state,
                coalesce(d.attempts, 0) AS attempts, d.error, d.next_attempt, d.reason, d.died_at
         FROM tollgate.consumers c
         JOIN tollgate.consumer_progress p ON p.consumer = c.name
         LEFT JOIN tollgate.targets t ON t.consumer = c.name
         LEFT JOIN tollgate.deliveries d ON d.consumer = c.name AND d.position = $1
         CROSS JOIN LATERAL (
             SELECT tollgate.routed(c.endpoints, c.accounts, c.livemode, c.metadata, e.endpoint, e.account, e.livemode, e.raw) AS routed
             FROM tollgate.event_log e WHERE e.created = $4 AND e.id = $5 LIMIT 1) l
         ORDER BY c.name",
    )
    .bind(event.position)
    .bind(&event.event_type)
    .bind(event.received_at)
    .bind(event.created)
    .bind(&event.id)
    .fetch_all(connection)
    .await
}

impl Timeline {
    /// Everything in the order of time.
    fn told(&self) -> Vec<Step> {
        let step = |at, what, of: &str, looks, detail: String| Step {
            at,
            what,
            of: of.to_owned(),
            looks,
            detail,
        };
        let event = &self.event;
        let mut steps = vec![
            step(Some(event.created), "created", "", "ok", event.event_type.clone()),
            step(Some(event.received_at), "received", &event.endpoint, "ok", event.source.clone()),
        ];
        if let Some(position) = event.position {
            let at = Some(event.received_at);
            steps.push(step(at, "committed", "", "ok", format!("position {position}")));
        }
        if let Some(it) = self.projection.as_ref().filter(|it| it.there) {
            let basis = it.order_basis.as_deref().unwrap_or_default();
            let detail = match it.as_of_event.as_deref() {
                _ if it.shown => format!("the row shows this event: {basis}"),
                Some(other) => format!("the row shows {other}: {basis}"),
                None => String::new(),
            };
            steps.push(step(Some(event.received_at), "projected", &it.table, "ok", detail));
        }
        for it in &self.failures {
            let of = if it.stage == "handler" { it.handler.as_str() } else { "billing tables" };
            let looks = if it.next_attempt.is_some() { "failing" } else { "dead" };
            let detail = format!("{} attempts: {}", it.attempts, it.error);
            // Told as of the beginning of the transaction that wrote the event.
            let at = it.last_failed.max(event.received_at);
            steps.push(step(Some(at), "failed", of, looks, detail));
            if it.next_attempt.is_some() {
                steps.push(step(it.next_attempt, "retry_due", of, "waiting", String::new()));
            }
        }
        for it in self.handlers.iter().filter(|it| it.state == "done") {
            let detail = "nothing is known to have failed".to_owned();
            steps.push(step(Some(event.received_at), "handler", &it.name, "ok", detail));
        }
        for it in &self.consumers {
            it.tell(&mut steps);
        }
        steps.sort_by_key(|step| (step.at.is_none(), step.at));
        steps
    }
}

impl Delivery {
    fn tell(&self, steps: &mut Vec<Step>) {
        let mut add = |at, what, looks, detail| {
            steps.push(Step { at, what, of: self.consumer.clone(), looks, detail });
        };
        for attempt in &self.tries {
            let looks = if attempt.verdict == "delivered" { "ok" } else { "failing" };
            let status = attempt.status.map(|status| format!(" {status}")).unwrap_or_default();
            let detail = format!("{}.{status} {}", attempt.attempt, attempt.error);
            add(Some(attempt.at), "attempt", looks, detail.trim_end().to_owned());
        }
        let error = self.error.clone().unwrap_or_default();
        match self.state.as_str() {
            "not_wanted" => {}
            "dead" => {
                let reason = self.reason.as_deref().unwrap_or_default();
                add(self.died_at, "dead_letter", "dead", format!("{reason}: {error}"));
            }
            "waiting" => add(self.next_attempt, "retry_due", "waiting", error),
            "settled" => add(None, "delivery", "ok", "settled".to_owned()),
            state => add(None, "delivery", "waiting", state.to_owned()),
        }
    }
}
