//! A clock with milliseconds, the state of one object, and the events that its changes emit.
//! Knows nothing of what objects do in their lives.

use serde_json::{Value, json};

use super::render::{dress, is_old, previous_attributes, render};
use super::rng::Rng;

/// So that trying out all orders of a second stays cheap.
const MOST_EVENTS_PER_SECOND: usize = 9;
const DAY: i64 = 86_400_000;

/// The API versions in which events are rendered, by the number of the change that emits them.
pub struct Versions {
    pub first: Option<&'static str>,
    pub upgrade: Option<Upgrade>,
}

/// From change `at` on another version, for `both` changes beside the first one.
pub struct Upgrade {
    pub at: usize,
    pub both: usize,
    pub to: &'static str,
}

impl Versions {
    fn at(&self, change: usize) -> Vec<Option<&'static str>> {
        match &self.upgrade {
            Some(upgrade) if change >= upgrade.at + upgrade.both => vec![Some(upgrade.to)],
            Some(upgrade) if change >= upgrade.at => vec![self.first, Some(upgrade.to)],
            _ => vec![self.first],
        }
    }
}

/// Tells the life of one object.
pub struct Teller {
    pub rng: Rng,
    pub account: String,
    pub livemode: bool,
    pub versions: Versions,
    /// The object in the layout of old versions.
    pub state: Value,
    /// Bodies, in true order.
    pub events: Vec<String>,
    /// The object in the last event.
    pub shown: Value,
    /// Milliseconds since 1970.
    clock: i64,
    changes: usize,
    /// Second and highest version of each event.
    log: Vec<(i64, Option<&'static str>)>,
    went_back: Option<i64>,
    hurry: bool,
}

impl Teller {
    pub fn new(mut rng: Rng, account: String, livemode: bool, versions: Versions) -> Self {
        let clock = rng.between(1_690_000_000_000, 1_740_000_000_000);
        Self {
            rng,
            account,
            livemode,
            versions,
            state: Value::Null,
            events: Vec::new(),
            shown: Value::Null,
            clock,
            changes: 0,
            log: Vec::new(),
            went_back: None,
            hurry: false,
        }
    }

    /// Unix seconds.
    pub fn now(&self) -> i64 {
        self.clock.div_euclid(1000)
    }

    /// Goes to some moment in the next second.
    pub fn next_second(&mut self) {
        self.clock = (self.now() + 1) * 1000 + self.rng.between(0, 999);
    }

    /// Call before a change that may lead back to where the object was before. Usually it may share
    /// a second with others. Where API versions are mixed or old that would make a second that
    /// nobody can put in order: there it waits for the next one, as it would in real life.
    pub fn go_back(&mut self) {
        let version = self.versions.at(self.changes).pop().flatten();
        let now = self.now();
        let before = self.log.iter().map(|told| told.0).filter(|second| *second < now).max();
        let mixed = self
            .log
            .iter()
            .any(|(second, told)| (*second == now || Some(*second) == before) && *told != version);
        if mixed || is_old(version) {
            self.next_second();
        }
        self.went_back = Some(self.now());
        self.hurry = true;
    }

    /// One request: changes the state and emits these events, all with the state after it. A type
    /// that ends with `.updated` is left out if nothing changed.
    pub fn change(&mut self, types: &[&str], change: impl FnOnce(&mut Value)) {
        self.pass_time(types.len());
        let before = self.state.clone();
        change(&mut self.state);
        if self.state != before && self.state["updated"].is_number() {
            self.state["updated"] = json!(self.now());
        }
        let mut types: Vec<&str> = types.to_vec();
        types.retain(|kind| !kind.ends_with(".updated") || self.state != before);
        self.rng.shuffle(&mut types);
        for kind in types {
            self.emit(kind, &before);
        }
        self.changes += 1;
    }

    /// Changes something and changes it back, in one second. The value must be new, or the walk
    /// could be taken for another one.
    pub fn flip(&mut self, kind: &str, key: &str, value: Value) {
        if self.rng.chance(60) {
            self.next_second();
        }
        self.pass_time(2);
        self.hurry = true;
        let old = self.state[key].clone();
        self.change(&[kind], |state| state[key] = value);
        self.hurry = true;
        self.change(&[kind], |state| state[key] = old);
    }

    fn pass_time(&mut self, events: usize) {
        if !std::mem::take(&mut self.hurry) {
            self.clock += match self.rng.between(0, 9) {
                0..=6 => self.rng.between(0, 150),
                7 | 8 => self.rng.between(200, 3000),
                _ => self.rng.between(3000, 10 * DAY),
            };
        }
        let now = self.now();
        let busy = self.log.iter().filter(|told| told.0 == now).count();
        let upgraded = self.versions.upgrade.as_ref().is_some_and(|it| it.at == self.changes);
        let apart = upgraded && (self.went_back == Some(now) || self.rng.chance(80));
        if apart || busy + events > MOST_EVENTS_PER_SECOND {
            self.next_second();
            self.went_back = self.went_back.filter(|second| *second != now);
        }
    }

    fn emit(&mut self, kind: &str, before: &Value) {
        let id = self.rng.id("evt");
        let versions = self.versions.at(self.changes);
        self.log.push((self.now(), versions.last().copied().flatten()));
        for version in versions {
            let mut object = render(&self.state, version);
            let previous = previous_attributes(&render(before, version), &object, version);
            dress(&mut object, &mut self.rng);
            self.shown = object.clone();
            let mut event = json!({
                "id": id,
                "object": "event",
                "api_version": version,
                "created": self.now(),
                "data": {"object": object},
                "livemode": self.livemode,
                "pending_webhooks": 1,
                "request": {"id": self.rng.id("req"), "idempotency_key": null},
                "type": kind,
            });
            if kind.ends_with(".updated") {
                event["data"]["previous_attributes"] = previous;
            }
            if !self.account.is_empty() {
                event["account"] = json!(self.account);
            }
            self.events.push(serde_json::to_string_pretty(&event).unwrap());
        }
    }
}
