//! What every duty of `sync` works with, and how what Stripe showed becomes an event.

use bytes::Bytes;
use sqlx::PgPool;

use super::client::{API_VERSION, Client};
use super::error::SyncError;
use super::inlet::Inlet;
use crate::ingest::Endpoints;
use crate::ingest::queue::Outcome;
use crate::store::connect::Database;
use crate::store::events::{NewEvent, Source};
use crate::store::sync::lease::Lease;
use crate::stripe::event::Envelope;
use crate::stripe::snapshot_event::Seen;

/// The means.
#[derive(Debug)]
pub struct Context {
    pub client: Client,
    pub inlet: Inlet,
    pub pool: PgPool,
    /// The server itself, for a duty's connection.
    pub direct: Database,
    pub endpoints: Endpoints,
}

/// An object as Stripe showed it, on its way to the log.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub json: String,
    pub account: String,
    pub second: time::OffsetDateTime,
}

impl Context {
    /// An event that Stripe made, as from its list. `account` is whose list it was: in there events do
    /// not always name it. None if it cannot be told from others.
    pub fn event(&self, json: &str, account: &str) -> Option<NewEvent> {
        let envelope = Envelope::parse(json.as_bytes()).ok()?;
        if account.is_empty() || envelope.account == account {
            return Some(self.new_event(envelope, json.to_owned().into(), Source::Reconcile));
        }
        let account = serde_json::Value::from(account);
        // At the end, as of members that come twice the last one counts.
        let all = json.trim_end().strip_suffix('}')?.trim_end();
        let named = format!("{all},\n  \"account\": {account}\n}}");
        let envelope = Envelope::parse(named.as_bytes()).ok()?;
        Some(self.new_event(envelope, named.into(), Source::Reconcile))
    }

    /// An event that says how Stripe showed an object.
    pub fn snapshot(&self, fetched: &Fetched, source: Source) -> Option<NewEvent> {
        let seen = Seen {
            json: &fetched.json,
            account: &fetched.account,
            livemode: self.client.livemode(),
            api_version: API_VERSION,
            second: fetched.second,
        };
        let body = seen.event();
        let envelope = Envelope::parse(body.as_bytes()).ok()?;
        Some(self.new_event(envelope, body.into(), source))
    }

    fn new_event(&self, envelope: Envelope, raw: Bytes, source: Source) -> NewEvent {
        let endpoint = self.endpoints.home_of(&envelope).to_owned();
        NewEvent { envelope, endpoint, source, raw, traceparent: None }
    }

    /// Writes how Stripe showed objects; returns how many were new to the log.
    pub async fn write(&self, fetched: &[Fetched], source: Source) -> Result<usize, SyncError> {
        let events: Vec<_> = fetched.iter().filter_map(|it| self.snapshot(it, source)).collect();
        let outcomes = self.inlet.commit(&events).await?;
        let new = |it: &&Option<Outcome>| matches!(it, Some(Outcome::Recorded { .. }));
        Ok(outcomes.iter().filter(new).count())
    }

    /// Takes a duty that one process of all does.
    pub async fn lead(&self, duty: &str) -> Result<Lease, SyncError> {
        Lease::take(&self.direct, duty).await?.ok_or(SyncError::Busy)
    }
}
