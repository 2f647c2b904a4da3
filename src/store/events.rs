//! Writing the log: a batch of events becomes rows, positions and notifications in one transaction.
//! How events are gathered into batches, and what is done when one fails, is `ingest::writer`'s.

use bytes::Bytes;
use serde::Serialize;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{Postgres, Row};

use super::StoreError;
use super::connect::{Transaction, WriterConnection};
use super::objects::{Columns, ObjectRow};
use super::projections::Decision;
use super::traces::Traced;
use crate::stripe::event::{Envelope, EventId};

/// How an event came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Webhook,
    /// Fetched from Stripe's API, because no webhook had brought it or to mend a row.
    Reconcile,
    /// An object that Stripe listed.
    Backfill,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Reconcile => "reconcile",
            Self::Backfill => "backfill",
        }
    }
}

/// An event on its way into the log.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub envelope: Envelope,
    /// The endpoint that received it.
    pub endpoint: String,
    pub source: Source,
    /// The body as received.
    pub raw: Bytes,
    /// The span of its webhook, if that is traced.
    pub traceparent: Option<String>,
}

/// What the log is ordered and deduplicated by.
pub type EventKey<'a> = (time::OffsetDateTime, &'a EventId);

impl NewEvent {
    /// An event that is in the log already, to be looked at again. None if its bytes are no event,
    /// which nothing in the log is.
    pub fn from_log(raw: Vec<u8>) -> Option<Self> {
        let envelope = Envelope::parse(&raw).ok()?;
        let (endpoint, raw) = (String::new(), Bytes::from(raw));
        Some(Self { envelope, endpoint, source: Source::Webhook, raw, traceparent: None })
    }

    pub fn key(&self) -> EventKey<'_> {
        (self.envelope.created, &self.envelope.id)
    }
}

/// Which notifications a commit sends on [`CHANNEL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// One per event.
    Event,
    /// One per batch, with the last position and the number of events.
    Batch,
    Off,
}

impl Notify {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Batch => "batch",
            Self::Off => "off",
        }
    }
}

/// The channel that commits are announced on.
pub const CHANNEL: &str = "tollgate_events";

/// What is told about an event, apart from its position, which is not known yet. Every text in it
/// is at most 255 bytes, six times that when escaped: far below the 7,999 bytes that Postgres
/// allows (<https://www.postgresql.org/docs/current/sql-notify.html>).
#[derive(Serialize)]
struct Notice<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    object: Option<&'a str>,
    account: Option<&'a str>,
    livemode: bool,
    created: i64,
}

impl<'a> Notice<'a> {
    /// The members without the opening brace: the database puts the position in front.
    fn tail(event: &'a Envelope) -> String {
        let notice = Self {
            id: event.id.as_str(),
            event_type: &event.event_type,
            object: event.subject.object_id.as_deref(),
            account: Some(event.account.as_str()).filter(|account| !account.is_empty()),
            livemode: event.livemode,
            created: event.created.unix_timestamp(),
        };
        let json = serde_json::to_string(&notice).expect("texts and numbers are always JSON");
        json[1..].to_owned()
    }
}

/// An event that was not in the log before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub created: time::OffsetDateTime,
    pub id: String,
    pub position: i64,
}

/// Writes a batch, and the rows of the objects in it, in one transaction and one round trip;
/// returns those that are new. The rest were in the log already, or another transaction put them
/// there meanwhile.
///
/// No two events of the batch may have the same key, and they must be sorted by it: writers that
/// insert in different orders would deadlock.
///
/// # Errors
/// [`Fault::Undecided`](super::Fault::Undecided) if it takes more than one step,
/// [`Fault::Handlers`](super::Fault::Handlers) if the handlers are not those of `generation`,
/// [`Fault::Raced`](super::Fault::Raced) if another transaction made a row in between.
pub async fn commit(
    connection: &mut WriterConnection,
    batch: &[&NewEvent],
    rows: &[ObjectRow<'_>],
    notify: Notify,
    generation: i64,
) -> Result<Vec<Recorded>, StoreError> {
    let traced = Traced::of(batch);
    if let ([event], [row], true) = (batch, rows, traced.is_empty()) {
        return commit_one(connection, event, row, notify, generation).await;
    }
    let columns = Columns::of(rows);
    let statement = bind_events(sqlx::query(commit_sql(rows.is_empty(), traced.is_empty())), batch);
    let statement = if rows.is_empty() { statement } else { columns.bind_shown(statement) };
    let statement = statement
        .bind(generation)
        .bind(column(batch, |e| Notice::tail(&e.envelope)))
        .bind(notify.as_str());
    let statement = if traced.is_empty() { statement } else { traced.bind(statement) };
    let rows = connection.transact(statement).await?;
    let Some(row) = rows.first() else {
        return Ok(Vec::new());
    };
    let (createds, ids): (Vec<_>, Vec<_>) = (row.try_get("created")?, row.try_get("id")?);
    let positions: Option<Vec<_>> = row.try_get("position")?;
    let keys = createds.into_iter().zip(ids).zip(positions.unwrap_or_default());
    Ok(keys.map(|((created, id), position)| Recorded { created, id, position }).collect())
}

/// As `commit`, for an event that came alone and shows an object: without arrays, which would cost
/// more than what they hold.
async fn commit_one(
    connection: &mut WriterConnection,
    event: &NewEvent,
    row: &ObjectRow<'_>,
    notify: Notify,
    generation: i64,
) -> Result<Vec<Recorded>, StoreError> {
    let Envelope { id, created, subject, .. } = &event.envelope;
    let statement = sqlx::query(
        "SELECT tollgate.commit_event($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
            $12, $13, $14, $15, $16, $17, $18, $19)",
    )
    .bind(created)
    .bind(id.as_str())
    .bind(&event.endpoint)
    .bind(&event.envelope.account)
    .bind(event.envelope.livemode)
    .bind(&event.envelope.event_type)
    .bind(&subject.object_type)
    .bind(&subject.object_id)
    .bind(&event.envelope.api_version)
    .bind(event.source.as_str())
    .bind(&event.raw[..])
    .bind(row.key.table)
    .bind(row.standing.incarnation)
    .bind(row.standing.phase as i16)
    .bind(&row.links)
    .bind(&*row.object)
    .bind(generation)
    .bind(Notice::tail(&event.envelope))
    .bind(notify.as_str());
    let rows = connection.transact(statement).await?;
    let position: Option<Option<i64>> = rows.first().map(|row| row.try_get(0)).transpose()?;
    let recorded = |position| Recorded { created: *created, id: id.to_string(), position };
    Ok(position.flatten().map(recorded).into_iter().collect())
}

/// The statement of `commit`, by what it has nothing of.
fn commit_sql(no_objects: bool, no_traces: bool) -> &'static str {
    match (no_objects, no_traces) {
        (true, true) => {
            r#"SELECT created, id, "position" FROM tollgate.log_events(
                $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"#
        }
        (true, false) => {
            r#"SELECT created, id, "position", tollgate.keep_traces(created, id, $15, $16, $17)
               FROM tollgate.log_events(
                $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"#
        }
        (false, true) => {
            r#"SELECT created, id, "position" FROM tollgate.commit_events(
                $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
                $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29)"#
        }
        (false, false) => {
            r#"SELECT created, id, "position", tollgate.keep_traces(created, id, $30, $31, $32)
               FROM tollgate.commit_events(
                $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
                $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29)"#
        }
    }
}

/// Writes what was decided about objects, gives new events their positions and announces them: the
/// last step before COMMIT.
pub async fn finish(
    transaction: &mut Transaction<'_>,
    decisions: &[Decision],
    new: &[&NewEvent],
    notify: Notify,
) -> Result<Vec<Recorded>, StoreError> {
    let rows: Vec<_> = decisions.iter().map(Decision::row).collect();
    let columns = Columns::of(&rows);
    let traced = Traced::of(new);
    let statement = sqlx::query(if traced.is_empty() {
        "SELECT tollgate.finish_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
            $15, $16, $17, $18, $19, $20, $21)"
    } else {
        "SELECT tollgate.finish_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
            $15, $16, $17, $18, $19, $20, $21), tollgate.keep_traces($18, $19, $22, $23, $24)"
    });
    let statement = columns
        .bind_decided(statement)
        .bind(column(new, |e| e.envelope.created))
        .bind(column(new, |e| e.envelope.id.as_str()))
        .bind(column(new, |e| Notice::tail(&e.envelope)))
        .bind(notify.as_str());
    let statement = if traced.is_empty() { statement } else { traced.bind(statement) };
    let rows = transaction.fetch(statement).await?;
    let positions: Option<Option<Vec<_>>> = rows.first().map(|row| row.try_get(0)).transpose()?;
    let placed = new.iter().zip(positions.flatten().unwrap_or_default());
    let one = |(event, position): (&&NewEvent, _)| {
        let Envelope { created, ref id, .. } = event.envelope;
        Recorded { created, id: id.to_string(), position }
    };
    Ok(placed.map(one).collect())
}

fn column<'a, T>(batch: &[&'a NewEvent], value: impl Fn(&'a NewEvent) -> T) -> Vec<T> {
    batch.iter().map(|event| value(event)).collect()
}

/// Binds the events as `tollgate.write_events` and `commit_events` take them.
pub(super) fn bind_events<'q>(
    statement: Query<'q, Postgres, PgArguments>,
    batch: &[&'q NewEvent],
) -> Query<'q, Postgres, PgArguments> {
    statement
        .bind(column(batch, |e| e.envelope.created))
        .bind(column(batch, |e| e.envelope.id.as_str()))
        .bind(column(batch, |e| e.endpoint.as_str()))
        .bind(column(batch, |e| e.envelope.account.as_str()))
        .bind(column(batch, |e| e.envelope.livemode))
        .bind(column(batch, |e| e.envelope.event_type.as_str()))
        .bind(column(batch, |e| e.envelope.subject.object_type.as_deref()))
        .bind(column(batch, |e| e.envelope.subject.object_id.as_deref()))
        .bind(column(batch, |e| e.envelope.api_version.as_deref()))
        .bind(column(batch, |e| e.source.as_str()))
        .bind(column(batch, |e| &e.raw[..]))
}
