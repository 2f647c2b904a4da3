//! What an event says about the state of one object: where its JSON stands in the body, and how
//! high the event stands among those of the object. Which of them wins is `order`'s.

use std::borrow::Cow;
use std::ops::ControlFlow;

use serde_json::value::RawValue;

use super::event::Envelope;
use super::kinds::{DISCOUNT, Kind};
use super::lenient::{members, members_until, string};
use super::order::Phase;

/// An object in the state that an event shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot<'a> {
    /// `data.object`.
    pub json: &'a str,
    /// Tells apart the objects that had this id one after the other: when this one was created, in
    /// Unix seconds, for kinds whose ids are used again; else 0. Of one that is gone and does not
    /// say it: when that happened, which is later.
    pub incarnation: i64,
    pub phase: Phase,
    /// What the object says about the references of [`Kind::links`]; those it does not mention
    /// are not in it.
    pub links: Vec<(&'static str, Option<String>)>,
}

/// The members of an object that are read, still as JSON.
#[derive(Default)]
struct Facts<'a> {
    created: Option<&'a RawValue>,
    status: Option<&'a RawValue>,
    deleted: bool,
}

/// What the Dashboard's old test button sends: a sample, not an object of the account.
const TEST_BUTTON: &str = "evt_00000000000000";

impl<'a> Snapshot<'a> {
    /// Reads what the event shows in its `body`. None from thin events, and where the object has
    /// no identity.
    pub fn of(envelope: &Envelope, body: &'a [u8]) -> Option<Self> {
        envelope.subject.object_id.as_ref()?;
        if envelope.id.as_str() == TEST_BUTTON {
            return None;
        }
        let json = std::str::from_utf8(body.get(envelope.object.clone()?)?).ok()?;
        let object_type = envelope.subject.object_type.as_deref().unwrap_or_default();
        let now = envelope.created.unix_timestamp();
        Some(Self::read(json, object_type, &envelope.event_type, now))
    }

    fn read(json: &'a str, object_type: &str, event_type: &str, now: i64) -> Self {
        let kind = Kind::of(object_type);
        let mut facts = Facts::default();
        let mut links: Vec<(&'static str, Option<String>)> = Vec::new();
        members(json, |key, value| match key {
            "created" => facts.created = Some(value),
            "status" => facts.status = Some(value),
            "deleted" => facts.deleted = value.get() == "true",
            _ => {
                if let Some(&link) = kind.links.iter().find(|link| **link == key) {
                    match link {
                        // One that is taken away is none of those that the object names.
                        DISCOUNT => links.extend(redemption(value).map(|said| (link, Some(said)))),
                        _ => links.push((link, reference(value))),
                    }
                }
            }
        });
        let phase = phase(kind, object_type, event_type, &facts);
        let unsaid = if phase == Phase::Deleted { now } else { 0 };
        let incarnation =
            if kind.reuses_ids { facts.created.and_then(seconds).unwrap_or(unsaid) } else { 0 };
        Self { json, incarnation, phase, links }
    }
}

/// Where in its life the event shows the object.
fn phase(kind: Kind, object_type: &str, event_type: &str, facts: &Facts<'_>) -> Phase {
    let (family, verb) = event_type.rsplit_once('.').unwrap_or(("", event_type));
    // An event may contradict its object; what is in a table of its own must be meant itself, and
    // what is not must not be meant as something that is.
    let own = names(family, object_type) || kind.shares_table() && !names_kind(family);
    let status = |wanted: &[&str]| {
        facts.status.and_then(string).is_some_and(|status| wanted.contains(&status.as_str()))
    };
    let gone = own && verb == "deleted" && !matches!(object_type, "subscription" | "source");
    // Some are told of before: a card's authorization when it is asked for, a source when it can be
    // charged; customer.source.created only attaches it.
    let first =
        own && verb == "created" && !matches!(object_type, "issuing.authorization" | "source");
    let over = match object_type {
        "subscription" => {
            event_type == "customer.subscription.deleted"
                || status(&["canceled", "incomplete_expired"])
        }
        "payment_intent" | "setup_intent" => status(&["succeeded", "canceled"]),
        // Neither can be attached again.
        "payment_method" => event_type == "payment_method.detached",
        "source" => event_type == "customer.source.deleted",
        _ => false,
    };
    if gone || facts.deleted {
        Phase::Deleted
    } else if first {
        Phase::Created
    } else if over {
        Phase::Terminal
    } else {
        Phase::Normal
    }
}

/// Is `family` that of a type with a table of its own?
fn names_kind(family: &str) -> bool {
    let last = family.rsplit('.').next().unwrap_or_default();
    [family, last].into_iter().any(|kind| !Kind::of(kind).shares_table())
}

/// Is `family`, an event type without its verb, that of this type of object? The event
/// customer.tax_id.deleted is about a `tax_id`.
fn names(family: &str, object_type: &str) -> bool {
    family
        .strip_suffix(object_type)
        .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn seconds(value: &RawValue) -> Option<i64> {
    value.get().trim_matches('"').parse().ok()
}

/// The id in a reference, which is an id or, where it was expanded, an object.
fn reference(value: &RawValue) -> Option<String> {
    if !value.get().starts_with('{') {
        return string(value);
    }
    let mut id = None;
    members(value.get(), |key, value| {
        if key == "id" {
            id = string(value);
        }
    });
    id
}

/// Of a discount its id and that of its coupon, with a space between, which Stripe's ids have none.
fn redemption(discount: &RawValue) -> Option<String> {
    let (mut id, mut coupon) = (None, None);
    members(discount.get(), |key, value| match key {
        "id" => id = string(value),
        "coupon" => coupon = coupon.take().or_else(|| reference(value)),
        "source" => {
            members(value.get(), |key, value| {
                if key == "coupon" {
                    coupon = coupon.take().or_else(|| reference(value));
                }
            });
        }
        _ => {}
    });
    Some(format!("{} {}", id?, coupon?))
}

/// The member `id` of an object, which stands at its front; empty if it has none.
pub fn identity_of(json: &str) -> String {
    let mut id = None;
    members_until(json, |key, value| {
        if key == "id" {
            id = string(value);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    id.unwrap_or_default()
}

/// JSON as jsonb can hold it: the escapes of NUL and of lone surrogates, which no Postgres text
/// can, become U+FFFD. Nothing else is touched.
pub fn storable(json: &str) -> Cow<'_, str> {
    if !json.contains("\\u") {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let (kept, length) = match code_unit(escape) {
            None => (true, escape.chars().take(2).map(char::len_utf8).sum()),
            Some(0 | 0xDC00..=0xDFFF) => (false, 6),
            Some(0xD800..=0xDBFF) => match code_unit(&escape[6..]) {
                Some(0xDC00..=0xDFFF) => (true, 12),
                _ => (false, 6),
            },
            Some(_) => (true, 6),
        };
        let (escape, after) = escape.split_at(length);
        out.push_str(if kept { escape } else { "\\ufffd" });
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The code unit of the escape `\uXXXX` that `text` begins with.
fn code_unit(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(event_type: &str, object: &'a str) -> Snapshot<'a> {
        let object_type = serde_json::from_str::<serde_json::Value>(object).unwrap()["object"]
            .as_str()
            .unwrap()
            .to_owned();
        Snapshot::read(object, &object_type, event_type, 900)
    }

    #[test]
    fn phases_follow_type_and_status() {
        for (event_type, object, phase) in [
            ("customer.created", r#"{"object":"customer"}"#, Phase::Created),
            ("customer.updated", r#"{"object":"customer"}"#, Phase::Normal),
            ("customer.deleted", r#"{"object":"customer"}"#, Phase::Deleted),
            ("customer.updated", r#"{"object":"customer","deleted":true}"#, Phase::Deleted),
            ("customer.deleted", r#"{"object":"invoice"}"#, Phase::Normal),
            ("customer.tax_id.deleted", r#"{"object":"tax_id"}"#, Phase::Deleted),
            ("customer.source.deleted", r#"{"object":"card"}"#, Phase::Deleted),
            (
                "customer.subscription.deleted",
                r#"{"object":"subscription","status":"canceled"}"#,
                Phase::Terminal,
            ),
            (
                "customer.subscription.created",
                r#"{"object":"subscription","status":"active"}"#,
                Phase::Created,
            ),
            (
                "payment_intent.succeeded",
                r#"{"object":"payment_intent","status":"succeeded"}"#,
                Phase::Terminal,
            ),
            ("payment_method.detached", r#"{"object":"payment_method"}"#, Phase::Terminal),
            ("invoice.voided", r#"{"object":"invoice","status":"void"}"#, Phase::Normal),
            ("charge.dispute.created", r#"{"object":"dispute"}"#, Phase::Created),
            ("charge.dispute.created", r#"{"object":"charge"}"#, Phase::Normal),
            ("", r#"{"object":"widget"}"#, Phase::Normal),
            ("climate.product.created", r#"{"object":"climate.product"}"#, Phase::Created),
            ("issuing_card.created", r#"{"object":"issuing.card"}"#, Phase::Created),
            ("customer.deleted", r#"{"object":"promotion_code"}"#, Phase::Normal),
            ("customer.subscription.created", r#"{"object":"promotion_code"}"#, Phase::Normal),
            (
                "issuing_authorization.created",
                r#"{"object":"issuing.authorization"}"#,
                Phase::Normal,
            ),
            ("customer.source.created", r#"{"object":"source"}"#, Phase::Normal),
            ("customer.source.deleted", r#"{"object":"source"}"#, Phase::Terminal),
            ("customer.source.created", r#"{"object":"card"}"#, Phase::Created),
            (
                "customer.subscription.deleted",
                r#"{"object":"subscription","status":"past_due"}"#,
                Phase::Terminal,
            ),
        ] {
            assert_eq!(read(event_type, object).phase, phase, "{event_type} {object}");
        }
    }

    #[test]
    fn incarnations_are_for_ids_that_are_used_again() {
        assert_eq!(read("coupon.created", r#"{"object":"coupon","created":5}"#).incarnation, 5);
        assert_eq!(read("coupon.created", r#"{"object":"coupon","created":"5"}"#).incarnation, 5);
        assert_eq!(read("coupon.updated", r#"{"object":"coupon"}"#).incarnation, 0);
        // The short form of what is deleted; it must not lose to what it ends.
        let gone = r#"{"object":"coupon","deleted":true}"#;
        assert_eq!(read("coupon.deleted", gone).incarnation, 900);
        assert_eq!(read("sku.updated", r#"{"object":"sku","created":5}"#).incarnation, 5);
        assert_eq!(read("charge.updated", r#"{"object":"charge","created":5}"#).incarnation, 0);
    }

    #[test]
    fn links_are_what_the_object_says() {
        let invoice = r#"{"object":"invoice","charge":null,"payment_intent":{"id":"pi_1"}}"#;
        let links = vec![("charge", None), ("payment_intent", Some("pi_1".to_owned()))];
        assert_eq!(read("invoice.paid", invoice).links, links);
        assert_eq!(read("invoice.paid", r#"{"object":"invoice"}"#).links, vec![]);
        for (discount, said) in [
            (r#"{"id":"di_1","coupon":{"id":"HALF"}}"#, Some("di_1 HALF")),
            (r#"{"id":"di_1","source":{"coupon":"HALF"},"coupon":null}"#, Some("di_1 HALF")),
            (r#"{"coupon":{"id":"HALF"}}"#, None),
            (r#""di_1""#, None),
            ("null", None),
        ] {
            let object = format!(r#"{{"object":"subscription","discount":{discount}}}"#);
            let links = read("customer.subscription.updated", &object).links;
            let said = said.map(|said| ("discount", Some(said.to_owned())));
            assert_eq!(links, said.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn only_what_postgres_cannot_hold_is_replaced() {
        for (json, expected) in [
            (r#"{"a":"b\n\\u0000"}"#, r#"{"a":"b\n\\u0000"}"#),
            (r#"{"a":"\u0000é\u00e9"}"#, r#"{"a":"\ufffdé\u00e9"}"#),
            (r#"{"a":"\ud83d\ude00\ud83d"}"#, r#"{"a":"\ud83d\ude00\ufffd"}"#),
            (r#"{"a":"\ude00\ud83dx\\\u0000"}"#, r#"{"a":"\ufffd\ufffdx\\\ufffd"}"#),
            (r#"{"a":"\ud83d\ud83d\ude00"}"#, r#"{"a":"\ufffd\ud83d\ude00"}"#),
        ] {
            assert_eq!(storable(json), expected);
        }
        assert_eq!(storable(r"\u12é"), r"\u12é");
    }
}
