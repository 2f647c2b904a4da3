//! What a client of the API does: objects are created, changed and deleted, and events tell of it.
//! Payments are in `payments`, subscriptions and invoices in `bills`.

use serde_json::{Map, Value, json};

use super::super::now;
use super::answers::{self, Answer};
use super::world::World;
use super::{Asked, bills, forms, gate, paths, payments, shapes};

/// One write, in the name of an account.
pub struct Act<'a> {
    world: &'a mut World,
    account: &'a str,
    pub now: i64,
    /// The event's member `request`.
    request: Value,
}

/// A write's result: the object, or why not.
pub type Done = Result<Value, Answer>;

/// Types whose events are not named as the type is.
const EVENT_NAMES: [(&str, &str); 2] =
    [("subscription", "customer.subscription"), ("tax_id", "customer.tax_id")];

/// Types of which no event tells the creation.
const SILENT: [&str; 4] = ["payment_method", "checkout.session", "invoice_payment", "event"];

/// Answers a POST or a DELETE.
pub fn write(world: &mut World, account: &str, asked: &Asked) -> Answer {
    let request = json!({
        "id": format!("req_{}", world.next()),
        "idempotency_key": asked.headers.get("idempotency-key")
    });
    let mut act = Act { world, account, now: now(), request };
    let form = forms::parse(&asked.body);
    let path = asked.path.trim_start_matches("/v1/");
    if let Some(id) = path.strip_prefix("events/").and_then(|it| it.strip_suffix("/retry")) {
        return act.resend(id);
    }
    let done = match asked.method.as_str() {
        "POST" => act.post(path, form),
        "DELETE" => act.delete(path),
        _ => None,
    };
    match done {
        Some(Ok(object)) => Answer::json(200, &object),
        Some(Err(refusal)) => refusal,
        None => answers::unrecognized(asked),
    }
}

impl Act<'_> {
    fn post(&mut self, path: &str, form: Map<String, Value>) -> Option<Done> {
        if let Some(kind) = paths::kind(path) {
            return Some(payments::create(self, kind, &form).unwrap_or_else(|| {
                bills::create(self, kind, &form).unwrap_or_else(|| Ok(self.create(kind, form)))
            }));
        }
        let (owner, end) = path.rsplit_once('/')?;
        if let Some(kind) = paths::kind(owner) {
            return Some(self.existing(kind, end).map(|object| self.change(object, form)));
        }
        let (list, id) = owner.rsplit_once('/')?;
        payments::verb(self, list, id, end, &form).or_else(|| bills::verb(self, list, id, end))
    }

    fn delete(&mut self, path: &str) -> Option<Done> {
        let (list, id) = path.rsplit_once('/')?;
        let kind = paths::kind(list)?;
        Some(self.existing(kind, id).map(|object| {
            if kind == "subscription" {
                return bills::cancel(self, object);
            }
            self.world.account(self.account).remove(id);
            self.tell("deleted", &object);
            json!({ "id": id, "object": kind, "deleted": true })
        }))
    }

    /// Sends an event once more to whoever listens.
    fn resend(&mut self, id: &str) -> Answer {
        let Some(event) = self.world.account(self.account).event(id).cloned() else {
            return answers::missing(404, "event", id, "id");
        };
        self.world.listeners.send(&event);
        Answer::json(200, &event)
    }

    pub fn new_id(&mut self, kind: &str) -> String {
        format!("{}_1Tests{:018}", shapes::prefix(kind), self.world.next())
    }

    /// The object with this id, if it is of this type.
    pub fn existing(&mut self, kind: &str, id: &str) -> Done {
        let found = self.world.account(self.account).object(id).cloned();
        let found = found.filter(|object| object["object"] == kind);
        found.ok_or_else(|| answers::missing(404, kind, id, "id"))
    }

    /// A new object with these members, not kept yet.
    pub fn made(&mut self, kind: &str, form: &Map<String, Value>) -> Value {
        let id = form.get("id").and_then(Value::as_str).map(str::to_owned);
        let id = id.unwrap_or_else(|| self.new_id(kind));
        let mut object = Value::Object(shapes::blank(kind, &id, self.now));
        merge(&mut object, form);
        object
    }

    /// Creates an object of which nothing more is to be known.
    fn create(&mut self, kind: &str, mut form: Map<String, Value>) -> Value {
        form.remove("expand");
        if kind == "customer" {
            form.remove("payment_method");
        }
        let mut object = self.made(kind, &form);
        if kind == "price" {
            object["unit_amount_decimal"] = object["unit_amount"].to_string().into();
            if object["recurring"].is_object() {
                object["type"] = "recurring".into();
                let usual = json!({ "interval_count": 1, "meter": null, "usage_type": "licensed" });
                let given = std::mem::replace(&mut object["recurring"], usual);
                merge(&mut object["recurring"], given.as_object().unwrap());
            }
        }
        if kind == "plan" && object["product"].is_object() {
            let product = object["product"].as_object().unwrap().clone();
            object["product"] = self.create("product", product)["id"].clone();
        }
        self.keep(&object);
        self.tell("created", &object);
        object
    }

    /// Changes members of an object, and tells which.
    pub fn change(&mut self, mut object: Value, mut form: Map<String, Value>) -> Value {
        form.remove("expand");
        let before = object.clone();
        merge(&mut object, &form);
        self.update(&before, &object);
        object
    }

    /// Keeps an object that has changed, and tells what was different.
    pub fn update(&mut self, before: &Value, object: &Value) {
        self.keep(object);
        let members = object.as_object().unwrap().iter();
        let changed = members.filter(|(name, value)| before[name.as_str()] != **value);
        let previous: Map<_, _> =
            changed.map(|(name, _)| (name.clone(), before[name.as_str()].clone())).collect();
        if !previous.is_empty() {
            let data = json!({ "object": object, "previous_attributes": previous });
            self.emit("updated", object, &data);
        }
    }

    pub fn keep(&mut self, object: &Value) {
        self.world.put(self.account, object.clone());
    }

    /// All objects of a type, the newest first.
    pub fn all(&mut self, kind: &str) -> Vec<Value> {
        self.world.account(self.account).of_kind(kind).into_iter().cloned().collect()
    }

    /// Makes an event of an object, if there is such a one.
    pub fn tell(&mut self, what: &str, object: &Value) {
        let kind = object["object"].as_str().unwrap();
        if what != "created" || !SILENT.contains(&kind) {
            self.emit(what, object, &json!({ "object": object }));
        }
    }

    fn emit(&mut self, what: &str, object: &Value, data: &Value) {
        let kind = object["object"].as_str().unwrap();
        let name = EVENT_NAMES.iter().find(|(name, _)| *name == kind).map_or(kind, |(_, it)| it);
        let mut event = json!({
            "id": self.new_id("event"), "object": "event", "api_version": gate::VERSION,
            "created": self.now, "data": data, "livemode": false, "pending_webhooks": 1,
            "request": self.request, "type": format!("{name}.{what}")
        });
        if !self.account.is_empty() {
            event["account"] = self.account.into();
        }
        self.world.emit(self.account, event);
    }
}

/// Puts members into an object, and into the objects within.
pub fn merge(object: &mut Value, members: &Map<String, Value>) {
    for (name, value) in members {
        match (object.get_mut(name), value) {
            (Some(inner @ Value::Object(_)), Value::Object(more)) => merge(inner, more),
            _ => object[name.as_str()] = value.clone(),
        }
    }
}
