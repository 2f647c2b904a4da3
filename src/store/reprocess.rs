//! Doing again what was done with events, because a person asks: billing tables and handlers, and
//! deliveries to a consumer. Who may ask, and what is noted of it, is up to the callers.

use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::browse::{EventFilter, event, events};

/// Most events of one call.
pub const MOST: i64 = 10_000;

/// Which events: their keys in the log.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    created: Vec<OffsetDateTime>,
    ids: Vec<String>,
    /// Whether these are all that were asked for.
    pub complete: bool,
}

impl Selection {
    fn of(keys: Vec<(OffsetDateTime, String)>, complete: bool) -> Self {
        let (created, ids) = keys.into_iter().unzip();
        Self { created, ids, complete }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// When the oldest of them was made.
    pub fn oldest(&self) -> Option<OffsetDateTime> {
        self.created.last().copied()
    }
}

/// The newest events that fit a filter, `most` at most.
pub async fn select(
    connection: &mut PgConnection,
    filter: &EventFilter,
    most: i64,
) -> Result<Selection, sqlx::Error> {
    let (keys, complete) = events::keys(connection, filter, most.clamp(1, MOST)).await?;
    Ok(Selection::of(keys, complete))
}

/// The events of this id, or the one of them that was made then; empty if there is none.
pub async fn select_id(
    connection: &mut PgConnection,
    id: &str,
    created: Option<OffsetDateTime>,
) -> Result<Selection, sqlx::Error> {
    let mut keys = event::keys_of(connection, id).await?;
    keys.retain(|(at, _)| created.is_none_or(|created| *at == created));
    Ok(Selection::of(keys, true))
}

/// What of an event is done again.
#[derive(Clone, Debug, Default)]
pub struct Again {
    /// Its billing table is brought up to date.
    pub projection: bool,
    /// The handlers to be called; None for all that want its type.
    pub handlers: Option<Vec<String>>,
}

/// Has the gateway do it again, from now on (`maintain::rescue`); returns how many things that are.
/// Each stands in `tollgate.failures` until then, with `because`. A handler that took effect before
/// takes effect again.
pub async fn reprocess(
    connection: &mut PgConnection,
    which: &Selection,
    again: &Again,
    because: &str,
) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("SELECT tollgate.reprocess($1, $2, $3, $4, $5)")
        .bind(&which.created)
        .bind(&which.ids)
        .bind(again.projection)
        .bind(&again.handlers)
        .bind(because)
        .fetch_one(connection)
        .await
}

/// What became of events that were to be handed out again.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema, sqlx::FromRow)]
pub struct Redelivered {
    /// Handed out again as soon as somebody takes them.
    pub due: i32,
    /// With a worker now, waiting behind an earlier event of their object, or still to come anyway.
    pub open: i32,
    /// Not in the log.
    pub gone: i32,
    /// Left out by the consumer's filter, or of Tollgate's own and not asked for.
    pub excluded: i32,
}

/// Hands events out to a consumer again.
///
/// # Errors
/// `TG010` if there is no such consumer.
pub async fn redeliver(
    connection: &mut PgConnection,
    which: &Selection,
    consumer: &str,
) -> Result<Redelivered, sqlx::Error> {
    let positions: Vec<i64> = sqlx::query_scalar(
        "SELECT p.position FROM unnest($1::timestamptz[], $2::text[]) AS k (created, id)
         CROSS JOIN LATERAL (
             SELECT n.position FROM tollgate.positions n WHERE n.id = k.id AND n.created = k.created LIMIT 1) p",
    )
    .bind(&which.created)
    .bind(&which.ids)
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query_as("SELECT * FROM tollgate.give_again($1, $2)")
        .bind(consumer)
        .bind(positions)
        .fetch_one(connection)
        .await
}

/// Those of the names that no handler has.
pub async fn unknown_handlers(
    connection: &mut PgConnection,
    names: &[String],
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT n FROM unnest($1::text[]) n WHERE NOT EXISTS (SELECT FROM tollgate.handlers h WHERE h.name = n)",
    )
    .bind(names)
    .fetch_all(connection)
    .await
}
