//! The few facts Tollgate reads from an event before it is stored: its [`Envelope`].
//! Everything else in the body stays bytes; what the tables need of it is read by Postgres.
//!
//! A signed event is never refused for its content. Only an id is indispensable: a member of the
//! wrong type, or one that no column can hold, counts as absent, and what cannot be identified at
//! all is reported as [`Unusable`] for quarantine.

use std::fmt;
use std::ops::{ControlFlow, Range};

use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::kinds::goes_by_customer;
use super::lenient::{Level, members, members_and_within, members_until, string};

/// Longest text read into a column or a notification, in bytes of UTF-8. Stripe documents object
/// ids of up to 255 characters (<https://docs.stripe.com/upgrades>); it bounds index keys too,
/// which Postgres limits to 2,704 bytes.
pub const TEXT_MAX: usize = 255;

/// A usable event id: 1 to [`TEXT_MAX`] bytes, no NUL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct EventId(String);

impl EventId {
    /// The id as Stripe wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EventId {
    type Error = Unusable;

    fn try_from(id: String) -> Result<Self, Unusable> {
        match id.len() {
            0 => Err(Unusable::NoId),
            1..=TEXT_MAX if id.contains('\0') => Err(Unusable::NoId),
            1..=TEXT_MAX => Ok(Self(id)),
            _ => Err(Unusable::IdTooLong),
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a signed body cannot be recorded as an event and goes to quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("the body is not UTF-8")]
    NotUtf8,
    #[error("the body is not a JSON object")]
    NotJson,
    #[error("the event has no usable id")]
    NoId,
    #[error("the event's id is longer than 255 bytes")]
    IdTooLong,
}

impl Unusable {
    /// A stable, machine-readable name, stored with the quarantined bytes.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotUtf8 => "not_utf8",
            Self::NotJson => "not_json",
            Self::NoId => "no_id",
            Self::IdTooLong => "id_too_long",
        }
    }
}

/// The object an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// `data.object.object`, or `related_object.type` of a thin event.
    pub object_type: Option<String>,
    /// `data.object.id`, or `related_object.id` of a thin event. Some objects have none
    /// (`balance`, an upcoming invoice, whatever stands in its place); a customer's cash balance and
    /// the summary of its entitlements, which have none either, go by the customer's.
    pub object_id: Option<String>,
}

/// What is read from every event. Absent and unusable members are `None`, or the stated default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub id: EventId,
    /// `type`; empty when absent, cut at [`TEXT_MAX`] bytes.
    pub event_type: String,
    /// `created`, in seconds or RFC 3339. The Unix epoch when absent or out of range: the value
    /// must be a function of the body alone, because it is half of the event's key.
    pub created: OffsetDateTime,
    /// `livemode`; false when absent.
    pub livemode: bool,
    pub api_version: Option<String>,
    /// The connected account (`account`, in thin events `context`, in old ones `user_id`);
    /// empty for the platform's own.
    pub account: String,
    pub subject: Subject,
    /// Where `data.object` stands in the body.
    pub object: Option<Range<usize>>,
    /// Where `data.previous_attributes` stands in it.
    pub previous: Option<Range<usize>>,
}

impl Envelope {
    /// Reads the envelope of a webhook body.
    ///
    /// # Errors
    /// When the body cannot be identified as an event.
    pub fn parse(body: &[u8]) -> Result<Self, Unusable> {
        let text = std::str::from_utf8(body).map_err(|_| Unusable::NotUtf8)?;
        let top = Top::read(text).ok_or(Unusable::NotJson)?;
        let id: EventId = top.id.and_then(string).ok_or(Unusable::NoId)?.try_into()?;
        let event_type = top.event_type.and_then(string).map(label).unwrap_or_default();
        let subject = Subject::of(&top);
        let place = |value: &RawValue| {
            let start = value.get().as_ptr().addr() - body.as_ptr().addr();
            start..start + value.get().len()
        };
        let (object, previous) = (top.object.map(place), top.previous.map(place));
        Ok(Self {
            id,
            event_type,
            created: top.created.and_then(timestamp).unwrap_or(OffsetDateTime::UNIX_EPOCH),
            livemode: top.livemode.is_some_and(|value| value.get() == "true"),
            api_version: top.api_version.and_then(string).map(label),
            account: [top.account, top.context, top.user_id]
                .into_iter()
                .flatten()
                .find_map(identity)
                .map(last_of_path)
                .unwrap_or_default(),
            subject,
            object,
            previous,
        })
    }
}

/// The members of an event that matter, still as JSON.
#[derive(Default)]
struct Top<'a> {
    id: Option<&'a RawValue>,
    event_type: Option<&'a RawValue>,
    created: Option<&'a RawValue>,
    livemode: Option<&'a RawValue>,
    api_version: Option<&'a RawValue>,
    account: Option<&'a RawValue>,
    context: Option<&'a RawValue>,
    user_id: Option<&'a RawValue>,
    related_object: Option<&'a RawValue>,
    /// `data.object`.
    object: Option<&'a RawValue>,
    /// `data.previous_attributes`.
    previous: Option<&'a RawValue>,
}

impl<'a> Top<'a> {
    /// None unless it is a JSON object.
    fn read(text: &'a str) -> Option<Self> {
        let mut top = Self::default();
        if members_and_within(text, "data", |level, key, value| top.set(level, key, value)) {
            return Some(top);
        }
        // Perhaps only because `data` is no object.
        let (mut top, mut data) = (Self::default(), None);
        let whole = members(text, |key, value| match key {
            "data" => data = Some(value),
            _ => top.set(Level::Outer, key, value),
        });
        if let Some(data) = data {
            members(data.get(), |key, value| top.set(Level::Inner, key, value));
        }
        whole.then_some(top)
    }

    fn set(&mut self, level: Level, key: &str, value: &'a RawValue) {
        let member = match (level, key) {
            (Level::Outer, "id") => &mut self.id,
            (Level::Outer, "type") => &mut self.event_type,
            (Level::Outer, "created") => &mut self.created,
            (Level::Outer, "livemode") => &mut self.livemode,
            (Level::Outer, "api_version") => &mut self.api_version,
            (Level::Outer, "account") => &mut self.account,
            (Level::Outer, "context") => &mut self.context,
            (Level::Outer, "user_id") => &mut self.user_id,
            (Level::Outer, "related_object") => &mut self.related_object,
            (Level::Inner, "object") => &mut self.object,
            (Level::Inner, "previous_attributes") => &mut self.previous,
            _ => return,
        };
        *member = Some(value);
    }
}

/// What takes the place of an id in an invoice that is none yet
/// (<https://docs.stripe.com/api/invoices/create_preview>).
const PREVIEW: &str = "upcoming_in_";

impl Subject {
    /// Both members stand at the front of Stripe's objects: the walk ends once they are found.
    fn of(top: &Top<'_>) -> Self {
        let (mut object_type, mut object_id) = (None, None);
        if let Some(object) = top.object {
            members_until(object.get(), |key, value| {
                match key {
                    "id" => object_id = Some(value),
                    "object" => object_type = Some(value),
                    _ => {}
                }
                match (object_id, object_type) {
                    (Some(_), Some(_)) => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            });
        } else if let Some(related) = top.related_object {
            members(related.get(), |key, value| match key {
                "id" => object_id = Some(value),
                "type" => object_type = Some(value),
                _ => {}
            });
        }
        let object_type = object_type.and_then(string).map(label);
        if let (Some(object), Some(true), None) =
            (top.object, object_type.as_deref().map(goes_by_customer), object_id)
        {
            members(object.get(), |key, value| {
                if key == "customer" {
                    object_id = Some(value);
                }
            });
        }
        let object_id = object_id.and_then(identity);
        Self { object_type, object_id: object_id.filter(|id| !id.starts_with(PREVIEW)) }
    }
}

/// A context may be a path, from an organization or a platform down to the account that is meant
/// (<https://docs.stripe.com/context>).
fn last_of_path(mut context: String) -> String {
    context.drain(..context.rfind('/').map_or(0, |slash| slash + 1));
    context
}

/// A text that is shown and matched by pattern: made to fit rather than dropped.
fn label(mut text: String) -> String {
    if text.contains('\0') {
        text = text.replace('\0', "\u{fffd}");
    }
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    text
}

/// A text that identifies something: dropped rather than altered, as two could become one.
fn identity(value: &RawValue) -> Option<String> {
    string(value).filter(|text| (1..=TEXT_MAX).contains(&text.len()) && !text.contains('\0'))
}

/// Unix seconds as number or string (old events), or RFC 3339 (thin events); years 1 to 9999,
/// which both `time` and Postgres can hold.
fn timestamp(value: &RawValue) -> Option<OffsetDateTime> {
    let json = value.get();
    let text = match json.strip_prefix('"') {
        Some(_) => string(value)?,
        None => json.to_owned(),
    };
    let time = match text.parse::<i64>() {
        Ok(seconds) => OffsetDateTime::from_unix_timestamp(seconds).ok()?,
        // Postgres keeps microseconds; more digits would make the stored key differ from ours.
        Err(_) => OffsetDateTime::parse(&text, &Rfc3339)
            .ok()?
            // None beyond the year 9999.
            .checked_to_offset(time::UtcOffset::UTC)?
            .truncate_to_microsecond(),
    };
    (1..=9999).contains(&time.year()).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Envelope, Unusable> {
        Envelope::parse(body.as_bytes())
    }

    fn with(member: &str) -> Envelope {
        parse(&format!(r#"{{"id":"evt_1",{member}}}"#)).unwrap()
    }

    #[test]
    fn reads_a_snapshot_event() {
        let event = parse(
            r#"{"id":"evt_1","object":"event","type":"invoice.paid","created":1700000000,"livemode":true,
            "api_version":"2025-03-31.basil","account":"acct_1",
            "data":{"object":{"id":"in_1","object":"invoice","lines":{"data":[{"id":"il_1"}]}}}}"#,
        )
        .unwrap();
        assert_eq!(event.id.as_str(), "evt_1");
        assert_eq!(event.event_type, "invoice.paid");
        assert_eq!(event.created.unix_timestamp(), 1_700_000_000);
        assert!(event.livemode);
        assert_eq!(event.api_version.as_deref(), Some("2025-03-31.basil"));
        assert_eq!(event.account, "acct_1");
        assert_eq!(event.subject.object_id.as_deref(), Some("in_1"));
        assert_eq!(event.subject.object_type.as_deref(), Some("invoice"));
    }

    #[test]
    fn reads_a_thin_event() {
        let event = parse(
            r#"{"id":"evt_2","object":"v2.core.event","type":"v1.billing.meter.no_meter_found",
            "created":"2025-01-02T03:04:05.678901234Z","livemode":false,"context":"acct_9",
            "related_object":{"id":"mtr_1","type":"billing.meter","url":"/v1/billing/meters/mtr_1"}}"#,
        )
        .unwrap();
        assert_eq!(event.created.unix_timestamp_nanos(), 1_735_787_045_678_901_000);
        assert_eq!(event.account, "acct_9");
        assert_eq!(event.subject.object_id.as_deref(), Some("mtr_1"));
        assert_eq!(event.subject.object_type.as_deref(), Some("billing.meter"));
        assert_eq!(with(r#""context":"acct_1/acct_2""#).account, "acct_2");
    }

    #[test]
    fn some_objects_go_by_another_id_or_none() {
        let object = |members: &str| with(&format!(r#""data":{{"object":{{{members}}}}}"#)).subject;
        let balance = object(r#""object":"cash_balance","customer":"cus_1""#);
        assert_eq!(balance.object_id.as_deref(), Some("cus_1"));
        let preview = object(r#""id":"upcoming_in_1","object":"invoice""#);
        assert_eq!(preview.object_id, None);
    }

    #[test]
    fn what_cannot_be_identified_is_unusable() {
        let long = format!(r#"{{"id":"{}"}}"#, "e".repeat(256));
        for (body, why) in [
            (b"\xff".as_slice(), Unusable::NotUtf8),
            (b"", Unusable::NotJson),
            (b"[]", Unusable::NotJson),
            (b"{\"id\":\"evt_1\"} x", Unusable::NotJson),
            (b"{\"id\":\"evt_1\",", Unusable::NotJson),
            (b"{}", Unusable::NoId),
            (b"{\"id\":5}", Unusable::NoId),
            (b"{\"id\":\"\"}", Unusable::NoId),
            (b"{\"id\":\"evt_\\u0000\"}", Unusable::NoId),
            (b"{\"id\":\"\\ud800\"}", Unusable::NoId),
            (long.as_bytes(), Unusable::IdTooLong),
        ] {
            assert_eq!(Envelope::parse(body).unwrap_err(), why);
        }
    }

    #[test]
    fn nothing_inside_costs_an_event() {
        let deep = format!(r#""data":{}1{}"#, "[".repeat(100_000), "]".repeat(100_000));
        for member in [
            deep.as_str(),
            r#""data":1e400"#,
            r#""created":1e400"#,
            r#""created":99999999999999999999"#,
            r#""type":"\ud800""#,
            r#""\ud800":1"#,
            r#""data":{"\udfff":{"object":"\udfff"},"object":{"id":"\udfff\u0000"}}"#,
            r#""type":{},"created":[],"livemode":"x","api_version":1,"account":{},"data":"s""#,
        ] {
            let event = with(member);
            assert_eq!(event.created, OffsetDateTime::UNIX_EPOCH);
            assert_eq!((event.livemode, event.subject), (false, Subject::default()));
        }
        assert_eq!(with(r#""type":"a\u0000b""#).event_type, "a\u{fffd}b");
        assert_eq!(with(&format!(r#""type":"{}""#, "é".repeat(9000))).event_type.len(), 254);
    }

    #[test]
    fn of_repeated_keys_the_last_one_counts() {
        assert_eq!(with(r#""type":"a","type":"b""#).event_type, "b");
        assert_eq!(with(r#""\u0069d":"evt_2""#).id.as_str(), "evt_2");
    }

    #[test]
    fn a_time_that_leaves_the_calendar_counts_as_none() {
        for created in ["9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00"] {
            let event = with(&format!(r#""created":"{created}""#));
            assert_eq!(event.created, OffsetDateTime::UNIX_EPOCH);
        }
    }

    #[test]
    fn created_may_be_a_string_of_digits() {
        assert_eq!(with(r#""created":"1326853478""#).created.unix_timestamp(), 1_326_853_478);
    }
}
