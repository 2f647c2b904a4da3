//! What a billing row must be, computed slowly and plainly from the whole set of an object's events.
//! Shares no code with the gateway, and knows nothing of deliveries, batches or SQL.

mod content;
mod event;
mod order;
mod rank;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

pub use content::canonical;
use event::Event;

/// The row that a set of events must leave behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub incarnation: i64,
    pub phase: i16,
    /// Unix seconds.
    pub as_of: i64,
    pub as_of_event: String,
    pub order_basis: &'static str,
    /// Of the event `as_of_event`.
    pub api_version: Option<String>,
    pub deleted: bool,
    /// The winner's object in canonical form; compare it with [`canonical`] of the row's.
    pub object: Value,
    /// Per linking key that some event has: the id it holds, or null.
    pub links: BTreeMap<&'static str, Option<String>>,
}

/// The row for one object of one account and mode. The order of the bodies, and how often each is
/// there, must make no difference.
pub fn expected<B: AsRef<str>>(bodies: &[B]) -> Expected {
    let events = one_per_id(bodies);
    let mut groups: BTreeMap<(i64, i16, i64), Vec<&Event>> = BTreeMap::new();
    for event in &events {
        groups.entry(event.place()).or_default().push(event);
    }
    // From the lowest to the head: the winner of each is the base of the next.
    let mut winner: Option<(&Event, &'static str)> = None;
    for group in groups.values() {
        winner = Some(order::judge(group, winner.map(|(event, _)| event)));
    }
    let (event, order_basis) = winner.expect("at least one event");
    Expected {
        incarnation: event.incarnation,
        phase: event.phase,
        as_of: event.created,
        as_of_event: event.id.clone(),
        order_basis,
        api_version: event.api_version.clone(),
        deleted: event.phase == event::DELETED,
        object: event.content.clone(),
        links: links(&events, event.incarnation),
    }
}

/// Each event id once, in its highest API version.
fn one_per_id<B: AsRef<str>>(bodies: &[B]) -> Vec<Event> {
    // Sorted by version last, so that the highest stays. The bytes decide only between bodies
    // that differ in neither id nor version, which Stripe does not send.
    let mut read: BTreeSet<(String, Option<String>, &str)> = BTreeSet::new();
    for body in bodies {
        let event = Event::read(body.as_ref());
        read.insert((event.id, event.api_version, body.as_ref()));
    }
    let highest: BTreeMap<String, &str> =
        read.into_iter().map(|(id, _, body)| (id, body)).collect();
    highest.values().map(|body| Event::read(body)).collect()
}

/// What the last event that has the key says of it, for each key that links payments.
fn links(events: &[Event], incarnation: i64) -> BTreeMap<&'static str, Option<String>> {
    let mut events: Vec<&Event> =
        events.iter().filter(|event| event.incarnation == incarnation).collect();
    events.sort_by_key(|event| (event.place(), event.id.clone()));
    let mut links = BTreeMap::new();
    for event in events {
        let keys: &[&'static str] = match event.object_type.as_str() {
            "invoice" => &["payment_intent", "charge"],
            "charge" => &["invoice", "dispute"],
            "payment_intent" => &["invoice"],
            _ => &[],
        };
        for key in keys {
            if let Some(value) = event.object.get(key) {
                let id = value.as_str().or_else(|| value["id"].as_str());
                links.insert(*key, id.map(str::to_owned));
            }
        }
    }
    links
}
