//! Writing the log: a batch of events becomes rows, positions and notifications in one transaction.
//! How events are gathered into batches, and what is done when one fails, is `ingest::writer`'s.

use bytes::Bytes;
use serde::Serialize;
use sqlx::Row;

use super::StoreError;
use super::connect::WriterConnection;
use crate::stripe::event::{Envelope, EventId};

/// How an event came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Webhook,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
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
}

/// What the log is ordered and deduplicated by.
pub type EventKey<'a> = (time::OffsetDateTime, &'a EventId);

impl NewEvent {
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

/// Writes a batch in one transaction and one round trip; returns those that are new.
/// The rest were in the log already, or another transaction put them there meanwhile.
///
/// No two events of the batch may have the same key, and they must be sorted by it: writers that
/// insert in different orders would deadlock.
pub async fn append(
    connection: &mut WriterConnection,
    batch: &[&NewEvent],
    notify: Notify,
) -> Result<Vec<Recorded>, StoreError> {
    fn column<'a, T>(batch: &[&'a NewEvent], value: impl Fn(&'a NewEvent) -> T) -> Vec<T> {
        batch.iter().map(|event| value(event)).collect()
    }
    let statement = sqlx::query(
        r#"SELECT created, id, "position" FROM tollgate.append_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"#,
    )
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
    .bind(column(batch, |e| Notice::tail(&e.envelope)))
    .bind(notify.as_str());
    connection
        .transact(statement)
        .await?
        .iter()
        .map(|row| {
            Ok(Recorded {
                created: row.try_get(0)?,
                id: row.try_get(1)?,
                position: row.try_get(2)?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(StoreError::from)
}
