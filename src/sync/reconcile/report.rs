//! What a comparison with Stripe's events is asked for, and what it found.
//! How it is done stands in `reconcile`.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use crate::store::events::NewEvent;
use crate::store::handlers::Pattern;
use crate::store::sync::reconcile::Gap;
use crate::sync::accounts::Accounts;

/// What to compare.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// From then on; else from where the last run came to.
    pub since: Option<OffsetDateTime>,
    /// Only these types: `invoice.paid`, or one such as `invoice.*`.
    pub types: Vec<Pattern>,
    /// Only say what is missing.
    pub dry_run: bool,
    pub accounts: Accounts,
}

/// What a run found with one account.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Report {
    /// Empty for the platform's own.
    pub account: String,
    pub livemode: bool,
    /// Pages that were asked for, and events on them.
    pub pages: usize,
    pub listed: usize,
    /// Events that were missing, by type.
    pub found: BTreeMap<String, i64>,
    /// Of these, how many were older than a minute.
    pub late: i64,
    /// When Stripe made the first and the last of them.
    #[serde(with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub until: Option<OffsetDateTime>,
    /// Attempts at events that a handler with the policy `reject` keeps out.
    pub rejected: usize,
    /// Attempts at events that the database cannot hold; their bytes are in quarantine.
    pub quarantined: usize,
    /// Why it did not come to its end, if it did not.
    pub error: Option<String>,
}

impl Report {
    pub fn events(&self) -> i64 {
        self.found.values().sum()
    }

    pub(super) fn count(&mut self, event: &NewEvent, late: bool) {
        let created = event.envelope.created;
        *self.found.entry(event.envelope.event_type.clone()).or_default() += 1;
        self.late += i64::from(late);
        self.since = Some(self.since.map_or(created, |since| since.min(created)));
        self.until = Some(self.until.map_or(created, |until| until.max(created)));
    }

    pub(super) fn gap(&self) -> Option<Gap> {
        let (since, until) = (self.since?, self.until?);
        let (events, types) = (self.events(), self.found.clone());
        Some(Gap { since, until, events, late: self.late, types })
    }
}
