//! What Stripe's API shows of an object, written down as an event of our own, so that it goes the way
//! of every event and the order rule stays one rule. What an event says of an object is `snapshot`'s.

use sha2::{Digest, Sha256};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// The type of these events. Patterns such as `*` leave it out: nothing happened, somebody looked.
pub const SNAPSHOT_TYPE: &str = "tollgate.snapshot";

/// What the ids of these events, and of no others, begin with.
pub const SNAPSHOT_ID: &str = "evt_tollgate_";

/// An object as Stripe's API showed it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The object.
    pub json: &'a str,
    /// The connected account; empty for the platform's own.
    pub account: &'a str,
    pub livemode: bool,
    /// The version that it was asked for in.
    pub api_version: &'a str,
    /// The second, on Stripe's clock, in which it was looked up, or an earlier one.
    pub second: OffsetDateTime,
}

impl Seen<'_> {
    /// When the event counts as made: the last microsecond before that second. All that happened in
    /// earlier seconds was seen, so it stands above the events of those; what happened in the second
    /// itself perhaps was not, so it stands below theirs.
    pub fn created(&self) -> OffsetDateTime {
        self.second - Duration::MICROSECOND
    }

    /// The event. Its id is a function of all that it says.
    pub fn event(&self) -> String {
        let Self { json, account, livemode, api_version, .. } = *self;
        let created = self.created().format(&Rfc3339).unwrap_or_default();
        let mut hash = Sha256::new();
        let mode = if livemode { "live" } else { "test" };
        for part in [account, api_version, created.as_str(), mode, json] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let id = &hex::encode(hash.finalize())[..24];
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let account = if account.is_empty() {
            String::new()
        } else {
            format!("\n  \"account\": {},", quoted(account))
        };
        format!(
            "{{\n  \"id\": \"{SNAPSHOT_ID}{id}\",\n  \"object\": \"event\",{account}\n  \"api_version\": {},\n  \
             \"created\": \"{created}\",\n  \"livemode\": {livemode},\n  \"type\": \"{SNAPSHOT_TYPE}\",\n  \
             \"data\": {{\"object\": {json}}}\n}}",
            quoted(api_version)
        )
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::super::event::Envelope;
    use super::super::order::Phase;
    use super::super::snapshot::Snapshot;
    use super::*;

    const SEEN: Seen<'_> = Seen {
        json: r#"{"id": "sub_1", "object": "subscription", "status": "canceled"}"#,
        account: "acct_1",
        livemode: true,
        api_version: "2025-09-30.clover",
        second: datetime!(2026-01-31 12:00:05 UTC),
    };

    #[test]
    fn it_reads_as_an_event_that_stands_just_below_its_second() {
        let body = SEEN.event();
        let event = Envelope::parse(body.as_bytes()).unwrap();
        assert!(event.id.as_str().starts_with(SNAPSHOT_ID));
        assert_eq!(event.event_type, SNAPSHOT_TYPE);
        assert_eq!(event.created, datetime!(2026-01-31 12:00:04.999999 UTC));
        assert_eq!((event.account.as_str(), event.livemode), ("acct_1", true));
        assert_eq!(event.subject.object_id.as_deref(), Some("sub_1"));
        let shown = Snapshot::of(&event, body.as_bytes()).unwrap();
        assert_eq!((shown.json, shown.phase), (SEEN.json, Phase::Terminal));
    }

    #[test]
    fn what_is_seen_twice_is_one_event_and_anything_else_another() {
        let id = |seen: Seen<'_>| Envelope::parse(seen.event().as_bytes()).unwrap().id;
        assert_eq!(id(SEEN), id(SEEN));
        let later = SEEN.second + Duration::SECOND;
        for other in [
            Seen { json: "{}", ..SEEN },
            Seen { account: "", ..SEEN },
            Seen { livemode: false, ..SEEN },
            Seen { second: later, ..SEEN },
        ] {
            assert_ne!(id(SEEN), id(other));
        }
    }
}
