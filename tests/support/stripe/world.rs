//! What the fake knows: accounts with their objects and events, keys, faults, and what was asked.
//! Nothing here knows HTTP.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use super::super::now;
use super::listen::Listeners;
use super::{API_KEY, Asked, Fault};

/// Types of which a deleted object answers with a stub.
const LEAVE_A_STUB: [&str; 5] = ["customer", "product", "coupon", "price", "plan"];

/// The id of the platform's own account.
const PLATFORM: &str = "acct_of_the_tests";

/// An object and when it came, of all objects of the account.
struct Kept {
    place: usize,
    value: Value,
}

/// One account's belongings.
#[derive(Default)]
pub struct Account {
    objects: HashMap<String, Kept>,
    /// The ids of each type in the order of lists, oldest first: there may be many.
    kinds: HashMap<String, BTreeMap<(i64, usize), String>>,
    /// What became of deleted ids: a stub, or nothing.
    removed: HashMap<String, Option<Value>>,
    events: Vec<Value>,
    places: usize,
}

/// What there is under an id.
pub enum Found<'a> {
    Here(&'a Value),
    Stub(&'a Value),
    Missing,
}

impl Account {
    fn put(&mut self, value: Value) {
        let id = value["id"].as_str().expect("an object with an id").to_owned();
        self.removed.remove(&id);
        self.places += 1;
        let place = self.forget(&id).map_or(self.places, |kept| kept.place);
        let kind = self.kinds.entry(kind_of(&value).to_owned()).or_default();
        kind.insert((created(&value), place), id.clone());
        self.objects.insert(id, Kept { place, value });
    }

    fn forget(&mut self, id: &str) -> Option<Kept> {
        let kept = self.objects.remove(id)?;
        let kind = self.kinds.get_mut(kind_of(&kept.value)).expect("the type of what is kept");
        kind.remove(&(created(&kept.value), kept.place));
        Some(kept)
    }

    pub fn remove(&mut self, id: &str) {
        let Some(Kept { value, .. }) = self.forget(id) else { return };
        let kind = kind_of(&value);
        let stub = LEAVE_A_STUB.contains(&kind);
        let stub = stub.then(|| json!({ "id": id, "object": kind, "deleted": true }));
        self.removed.insert(id.to_owned(), stub);
    }

    pub fn object(&self, id: &str) -> Option<&Value> {
        self.objects.get(id).map(|kept| &kept.value)
    }

    pub fn find(&self, id: &str) -> Found<'_> {
        match (self.object(id), self.removed.get(id)) {
            (Some(object), _) => Found::Here(object),
            (None, Some(Some(stub))) => Found::Stub(stub),
            (None, _) => Found::Missing,
        }
    }

    pub fn is_removed(&self, id: &str) -> bool {
        self.removed.contains_key(id)
    }

    pub fn events(&self) -> Vec<Value> {
        self.events.clone()
    }

    pub fn event(&self, id: &str) -> Option<&Value> {
        self.events.iter().find(|event| event["id"] == id)
    }

    /// Objects of a type, the newest first; of one second, what came last comes first.
    pub fn of_kind(&self, kind: &str) -> Vec<&Value> {
        let ids = self.kinds.get(kind).into_iter().flat_map(|kind| kind.values().rev());
        ids.map(|id| &self.objects[id].value).collect()
    }

    /// Events, the newest first.
    pub fn newest_events(&self) -> Vec<&Value> {
        let mut events: Vec<&Value> = self.events.iter().collect();
        events.sort_by_key(|event| created(event));
        events.reverse();
        events
    }

    pub fn all(&self) -> impl Iterator<Item = &Value> {
        self.objects.values().map(|kept| &kept.value)
    }
}

fn kind_of(object: &Value) -> &str {
    object["object"].as_str().unwrap_or_default()
}

/// Zero where an object has none, as some have.
pub fn created(object: &Value) -> i64 {
    object["created"].as_i64().unwrap_or_default()
}

/// Everything.
pub struct World {
    pub keys: BTreeSet<String>,
    /// By path, with how often they still happen.
    pub faults: Vec<(String, usize, Fault)>,
    pub asked: Vec<Asked>,
    pub skew: i64,
    pub listeners: Listeners,
    numbers: u64,
    accounts: BTreeMap<String, Account>,
    disconnected: BTreeSet<String>,
}

impl World {
    pub fn new() -> Self {
        Self {
            keys: [API_KEY.to_owned()].into(),
            faults: Vec::new(),
            asked: Vec::new(),
            skew: 0,
            listeners: Listeners::default(),
            numbers: 0,
            accounts: BTreeMap::new(),
            disconnected: BTreeSet::new(),
        }
    }

    /// A number that was not there before.
    pub fn next(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub fn account(&mut self, name: &str) -> &mut Account {
        self.accounts.entry(name.to_owned()).or_default()
    }

    pub fn put(&mut self, account: &str, object: Value) {
        self.meet(account);
        self.account(account).put(object);
    }

    pub fn emit(&mut self, account: &str, event: Value) {
        self.meet(account);
        let id = event["id"].as_str().expect("an event with an id");
        assert!(self.account(account).event(id).is_none(), "{id} was emitted before");
        self.listeners.send(&event);
        self.account(account).events.push(event);
    }

    /// An account that owns something is connected, unless it was disconnected.
    fn meet(&mut self, account: &str) {
        if !account.is_empty() && !self.disconnected.contains(account) {
            self.connect(account);
        }
    }

    pub fn connect(&mut self, id: &str) {
        self.disconnected.remove(id);
        self.account(id);
        if self.account("").object(id).is_none() {
            self.account("").put(account_object(id));
        }
    }

    pub fn disconnect(&mut self, id: &str) {
        self.disconnected.insert(id.to_owned());
        self.account("").remove(id);
    }

    /// Whose objects a request means by its header `Stripe-Account`; None where it may not.
    pub fn named(&self, header: Option<&str>) -> Option<String> {
        match header {
            None | Some(PLATFORM) => Some(String::new()),
            Some(id) if self.disconnected.contains(id) => None,
            Some(id) => self.accounts.contains_key(id).then(|| id.to_owned()),
        }
    }

    /// What `/v1/account` says to whoever asks in this account's name.
    pub fn own(&mut self, account: &str) -> Value {
        let id = if account.is_empty() { PLATFORM } else { account };
        self.account("").object(id).cloned().unwrap_or_else(|| account_object(id))
    }

    /// The fault that this path has now, one time less thereafter.
    pub fn fault(&mut self, path: &str) -> Option<Fault> {
        let at = self
            .faults
            .iter()
            .position(|(start, times, _)| path.starts_with(start.as_str()) && *times > 0)?;
        let (_, times, fault) = &mut self.faults[at];
        if *times != usize::MAX {
            *times -= 1;
        }
        Some(fault.clone())
    }
}

fn account_object(id: &str) -> Value {
    json!({
        "id": id, "object": "account", "business_type": "company", "capabilities": {},
        "charges_enabled": true, "country": "US", "created": now(), "default_currency": "usd",
        "details_submitted": true, "email": null, "metadata": {}, "payouts_enabled": true,
        "settings": { "dashboard": { "display_name": "Tests", "timezone": "Etc/UTC" } },
        "type": "standard"
    })
}
