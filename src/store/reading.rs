//! Reading the log by position, page by page, for those who follow it without being a consumer.
//! Keeps no place: where a reader is, it knows itself.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use time::OffsetDateTime;

use super::StoreError;
use super::handlers::Pattern;

/// Most bytes of bodies in one page, but for the last one, which may cross it.
const BODIES: i64 = 4 << 20;

/// Which events a reader wants, and what of them.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    types: Vec<String>,
    /// Beginnings of types.
    families: Vec<String>,
    /// Not those received before.
    since: Option<OffsetDateTime>,
    bodies: bool,
}

impl Wanted {
    /// Events that fit any of the patterns, or all if there is none; with their bodies if asked for.
    pub fn new(patterns: &[Pattern], since: Option<OffsetDateTime>, bodies: bool) -> Self {
        let mut wanted = Self { since, bodies, ..Self::default() };
        for pattern in patterns.iter().map(Pattern::as_str) {
            match pattern.strip_suffix('*') {
                Some(family) => wanted.families.push(family.to_owned()),
                None => wanted.types.push(pattern.to_owned()),
            }
        }
        if patterns.is_empty() {
            wanted.families.push(String::new());
        }
        wanted
    }
}

/// An event as a reader sees it.
#[derive(Clone, Debug)]
pub struct ReadEvent {
    pub position: i64,
    pub id: String,
    pub event_type: String,
    pub object_type: Option<String>,
    pub object_id: Option<String>,
    /// The connected account; empty for the platform's own.
    pub account: String,
    pub livemode: bool,
    pub api_version: Option<String>,
    pub created: OffsetDateTime,
    pub received_at: OffsetDateTime,
    /// The body as received; none unless it was asked for.
    pub raw: Option<Vec<u8>>,
}

/// A piece of the log.
#[derive(Clone, Debug)]
pub struct Page {
    /// In the order of their positions.
    pub events: Vec<ReadEvent>,
    /// Where to go on: everything up to here has been looked at. None at the end of the log.
    pub reached: Option<i64>,
}

/// The next events after a position. Small whatever the log holds: a page looks at 1,000 positions,
/// and takes little more than `BODIES` bytes. So it may be empty where the log goes on.
pub async fn page(
    connection: &mut PgConnection,
    after: i64,
    wanted: &Wanted,
) -> Result<Page, StoreError> {
    // LIMIT 1 makes it look each event up by its key: a plain join was seen to read the whole log.
    // The first limit is no parameter, or the planner expects a tenth of the log, and compiles.
    let rows = sqlx::query(
        "WITH scanned AS MATERIALIZED (
             SELECT position, created, id FROM tollgate.positions
             WHERE position > $1 ORDER BY position LIMIT 1000
         ), fitting AS MATERIALIZED (
             SELECT s.position, l.*,
                    CASE WHEN $5 THEN sum(octet_length(l.raw)) OVER (ORDER BY s.position) - octet_length(l.raw)
                         ELSE 0 END AS bytes_before
             FROM scanned s CROSS JOIN LATERAL (
                 SELECT e.* FROM tollgate.event_log e WHERE (e.created, e.id) = (s.created, s.id) LIMIT 1) l
             WHERE (l.type = ANY ($2) OR l.type ^@ ANY ($3)) AND ($4 IS NULL OR l.received_at >= $4)
         ), page AS (
             SELECT coalesce((SELECT min(position) - 1 FROM fitting WHERE bytes_before >= $6),
                             (SELECT max(position) FROM scanned)) AS reached
         )
         SELECT p.reached, f.position, f.id::text, f.type::text, f.object_type::text, f.object_id::text,
                f.account::text, f.livemode, f.api_version::text, f.created, f.received_at,
                CASE WHEN $5 THEN f.raw END AS raw
         FROM page p LEFT JOIN fitting f ON f.position <= p.reached
         ORDER BY f.position",
    )
    .bind(after)
    .bind(&wanted.types)
    .bind(&wanted.families)
    .bind(wanted.since)
    .bind(wanted.bodies)
    .bind(BODIES)
    .fetch_all(connection)
    .await?;
    let reached = rows.first().map_or(Ok(None), |row| row.try_get("reached"))?;
    let found = rows.iter().filter(|row| !matches!(row.try_get("position"), Ok(None::<i64>)));
    let events = found.map(read).collect::<Result<_, sqlx::Error>>()?;
    Ok(Page { events, reached })
}

fn read(row: &PgRow) -> Result<ReadEvent, sqlx::Error> {
    Ok(ReadEvent {
        position: row.try_get("position")?,
        id: row.try_get("id")?,
        event_type: row.try_get("type")?,
        object_type: row.try_get("object_type")?,
        object_id: row.try_get("object_id")?,
        account: row.try_get("account")?,
        livemode: row.try_get("livemode")?,
        api_version: row.try_get("api_version")?,
        created: row.try_get("created")?,
        received_at: row.try_get("received_at")?,
        raw: row.try_get("raw")?,
    })
}

/// The last position there is; 0 in an empty log. All that comes later stands behind it.
pub async fn latest(connection: &mut PgConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT coalesce(max(position), 0) FROM tollgate.positions")
        .fetch_one(connection)
        .await?)
}

/// The position after which come all events received at `time` or later. Some that were received
/// before may come among them: positions are given at the end of a transaction.
pub async fn position_before(
    connection: &mut PgConnection,
    time: OffsetDateTime,
) -> Result<i64, StoreError> {
    let position = sqlx::query_scalar("SELECT tollgate.position_before($1)").bind(time);
    Ok(position.fetch_one(connection).await?)
}
