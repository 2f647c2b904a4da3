//! The list of events, newest first, by any filter. How they are found is `search`'s.

use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::page::Fingerprint;
use super::search::{self, Key};
use super::{BrowseError, Cursor, EventFilter, Page, PageRequest, steer};

/// An event as a list shows it.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct EventLine {
    /// Stripe's id.
    #[schema(example = "evt_1NG8Du2eZvKYlo2CUI79vXWy")]
    pub id: String,
    #[sqlx(rename = "type")]
    #[serde(rename = "type")]
    #[schema(example = "invoice.paid")]
    pub event_type: String,
    pub object_type: Option<String>,
    pub object_id: Option<String>,
    /// The connected account; empty for the platform's own.
    pub account: String,
    pub livemode: bool,
    pub api_version: Option<String>,
    /// The endpoint that received it first.
    pub endpoint: String,
    /// How it came: webhook, reconcile, backfill or replay.
    pub source: String,
    /// When Stripe made it.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// When it was written here.
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// Its place in the order of commits.
    pub position: Option<i64>,
    /// ok, failing or dead: see `status` of the filter.
    pub status: String,
}

/// Events that fit, newest first by what Stripe says of when it made them. Takes 5 to 70 ms at 5 million,
/// whatever the filter (`make bench-browse`): a page for which too much would have to be looked through comes incomplete, with
/// `searched_until`, and `next` to go on.
///
/// # Errors
/// The cursor is of another query.
pub async fn list(
    connection: &mut PgConnection,
    filter: &EventFilter,
    page: &PageRequest,
) -> Result<Page<EventLine>, BrowseError> {
    let list = Fingerprint::of("events", filter);
    let after = page.after(&list)?;
    steer(connection).await?;
    let found = search::search(connection, filter, after.as_ref(), page.limit + 1).await?;
    let limit = usize::try_from(page.limit).unwrap_or(0);
    let mut keys = found.keys;
    let more = keys.len() > limit;
    keys.truncate(limit);
    let cursor = |(at, id): &Key| Cursor::new(*at, id.as_str()).text(&list);
    let next = match &found.horizon {
        Some(horizon) => Some(cursor(horizon)),
        None => keys.last().filter(|_| more).map(cursor),
    };
    let searched_until = found.horizon.map(|(at, _)| at);
    Ok(Page { items: lines(connection, &keys).await?, next, searched_until })
}

/// The keys of events that fit, newest first, `most` at most, and whether these are all: for what is
/// done to many. Looks further than a page does, but not for ever.
pub(in crate::store) async fn keys(
    connection: &mut PgConnection,
    filter: &EventFilter,
    most: i64,
) -> Result<(Vec<Key>, bool), sqlx::Error> {
    const PAGES: usize = 50;
    steer(connection).await?;
    let mut keys: Vec<Key> = Vec::new();
    let mut after: Option<Cursor> = None;
    for _ in 0..PAGES {
        let wanted = most - i64::try_from(keys.len()).unwrap_or(i64::MAX);
        let found = search::search(connection, filter, after.as_ref(), wanted + 1).await?;
        keys.extend(found.keys);
        let more = i64::try_from(keys.len()).unwrap_or(i64::MAX) > most;
        keys.truncate(usize::try_from(most).unwrap_or(0));
        match found.horizon {
            Some((at, id)) if !more => after = Some(Cursor::new(at, id)),
            _ => return Ok((keys, !more)),
        }
    }
    Ok((keys, false))
}

/// An event as a walk over all that fit needs it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct EventKey {
    pub created: OffsetDateTime,
    pub id: String,
    #[sqlx(rename = "type")]
    pub event_type: String,
    pub position: i64,
}

/// A piece of a walk over all events that fit, newest first, and where it goes on; none at the end.
/// Larger than a page, with less of each event.
pub async fn walk(
    connection: &mut PgConnection,
    filter: &EventFilter,
    after: Option<&Cursor>,
    most: i64,
) -> Result<(Vec<EventKey>, Option<Cursor>), sqlx::Error> {
    steer(connection).await?;
    let found = search::search(connection, filter, after, most).await?;
    let full = i64::try_from(found.keys.len()).unwrap_or(i64::MAX) >= most;
    let last = found.keys.last().filter(|_| full).cloned();
    let next = found.horizon.or(last).map(|(at, id)| Cursor::new(at, id));
    let (created, ids): (Vec<_>, Vec<_>) = found.keys.into_iter().unzip();
    let keys = sqlx::query_as(
        "SELECT k.created, k.id, l.type::text, p.position
         FROM unnest($1::timestamptz[], $2::text[]) WITH ORDINALITY AS k (created, id, nth)
         CROSS JOIN LATERAL (
             SELECT e.type FROM tollgate.event_log e WHERE e.created = k.created AND e.id = k.id LIMIT 1) l
         CROSS JOIN LATERAL (
             SELECT n.position FROM tollgate.positions n WHERE n.id = k.id AND n.created = k.created LIMIT 1) p
         ORDER BY k.nth",
    );
    Ok((keys.bind(created).bind(ids).fetch_all(connection).await?, next))
}

/// Events by their keys, in that order.
pub(super) async fn lines(
    connection: &mut PgConnection,
    keys: &[Key],
) -> Result<Vec<EventLine>, sqlx::Error> {
    let (created, ids): (Vec<_>, Vec<_>) = keys.iter().cloned().unzip();
    sqlx::query_as(
        "SELECT l.id::text, l.type::text, l.object_type::text, l.object_id::text, l.account::text, l.livemode,
                l.api_version::text, l.endpoint::text, l.source::text, l.created, l.received_at, p.position,
                tollgate.event_status(l.created, l.id, p.position) AS status
         FROM unnest($1::timestamptz[], $2::text[]) WITH ORDINALITY AS k (created, id, nth)
         CROSS JOIN LATERAL (
             SELECT e.* FROM tollgate.event_log e WHERE e.created = k.created AND e.id = k.id LIMIT 1) l
         LEFT JOIN LATERAL (
             SELECT n.position FROM tollgate.positions n WHERE n.id = k.id AND n.created = k.created LIMIT 1) p ON true
         ORDER BY k.nth",
    )
    .bind(created)
    .bind(ids)
    .fetch_all(connection)
    .await
}
