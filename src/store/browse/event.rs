//! One event with its body, by its id. What became of it is `timeline`'s.

use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::events::{EventLine, lines};
use super::search::Key;
use super::steer;

/// Events of one id that are shown: there is one, unless somebody makes ids up.
const NAMESAKES: i64 = 10;

/// An event with its body.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventDetail {
    #[serde(flatten)]
    pub event: EventLine,
    /// Length of the body.
    pub bytes: usize,
    /// The body as JSON, untouched; none if it is no JSON.
    #[schema(value_type = Option<Object>)]
    pub parsed: Option<Box<RawValue>>,
    /// When other events of the same id were made: ask for one with `created`.
    #[schema(value_type = Vec<String>)]
    #[serde(serialize_with = "times")]
    pub namesakes: Vec<OffsetDateTime>,
    /// The body as received, byte for byte.
    #[serde(skip)]
    pub raw: Vec<u8>,
}

fn times<S: serde::Serializer>(times: &[OffsetDateTime], serializer: S) -> Result<S::Ok, S::Error> {
    use time::format_description::well_known::Rfc3339;
    serializer.collect_seq(times.iter().filter_map(|time| time.format(&Rfc3339).ok()))
}

/// The event of this id, the newest if there are several and `created` does not say which.
pub async fn find(
    connection: &mut PgConnection,
    id: &str,
    created: Option<OffsetDateTime>,
) -> Result<Option<EventDetail>, sqlx::Error> {
    steer(connection).await?;
    let mut keys = keys_of(connection, id).await?;
    let at = keys.iter().position(|(of, _)| created.is_none_or(|created| *of == created));
    let Some(at) = at else {
        return Ok(None);
    };
    let key = keys.remove(at);
    let Some(event) = lines(connection, std::slice::from_ref(&key)).await?.into_iter().next()
    else {
        return Ok(None);
    };
    let raw = bodies(connection, std::slice::from_ref(&event)).await?.pop();
    Ok(raw.map(|raw| EventDetail {
        event,
        bytes: raw.len(),
        parsed: serde_json::from_slice(&raw).ok(),
        namesakes: keys.into_iter().map(|(created, _)| created).collect(),
        raw,
    }))
}

/// The keys of events with this id, newest first.
pub(in crate::store) async fn keys_of(
    connection: &mut PgConnection,
    id: &str,
) -> Result<Vec<Key>, sqlx::Error> {
    if id.contains('\0') {
        return Ok(Vec::new());
    }
    sqlx::query_as(
        "SELECT DISTINCT p.created, p.id FROM tollgate.positions p WHERE p.id = $1 ORDER BY 1 DESC LIMIT $2",
    )
    .bind(id)
    .bind(NAMESAKES)
    .fetch_all(connection)
    .await
}

/// The bodies of these events, in their order, byte for byte; one that has gone since is left out.
pub async fn bodies(
    connection: &mut PgConnection,
    events: &[EventLine],
) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    let keys = events.iter().map(|event| (event.created, event.id.as_str()));
    Ok(bodies_of(connection, keys).await?.into_iter().map(|(_, raw)| raw).collect())
}

/// The bodies of the events with these keys, in their order, each with its number among them, from 1
/// on; one that is not there is left out.
pub async fn bodies_of(
    connection: &mut PgConnection,
    keys: impl Iterator<Item = (OffsetDateTime, &str)>,
) -> Result<Vec<(i64, Vec<u8>)>, sqlx::Error> {
    let (created, ids): (Vec<_>, Vec<_>) = keys.unzip();
    sqlx::query_as(
        "SELECT k.nth, l.raw FROM unnest($1::timestamptz[], $2::text[]) WITH ORDINALITY AS k (created, id, nth)
         CROSS JOIN LATERAL (
             SELECT e.raw FROM tollgate.event_log e WHERE e.created = k.created AND e.id = k.id LIMIT 1) l
         ORDER BY k.nth",
    )
    .bind(created)
    .bind(ids)
    .fetch_all(connection)
    .await
}
