//! One event as the model sees it: what it says of its object, and its place among the others.
//! Which of several events in one place wins is decided in `order`.

use serde_json::Value;

use super::content::{canonical, restored};

const CREATED: i16 = 0;
const NORMAL: i16 = 1;
const TERMINAL: i16 = 2;
pub const DELETED: i16 = 3;

/// The caller chooses the id and may use it again after a deletion.
const REUSABLE_IDS: [&str; 6] = ["product", "price", "plan", "coupon", "customer", "sku"];

/// Types with a table of their own; an object of any other type goes to `stripe.objects`.
const WITH_TABLE: [&str; 20] = [
    "charge",
    "checkout.session",
    "coupon",
    "credit_note",
    "customer",
    "dispute",
    "entitlements.active_entitlement",
    "invoice",
    "invoice_payment",
    "payment_intent",
    "payment_method",
    "payout",
    "plan",
    "price",
    "product",
    "refund",
    "setup_intent",
    "subscription",
    "subscription_schedule",
    "tax_id",
];

pub struct Event {
    pub id: String,
    /// None sorts below every version.
    pub api_version: Option<String>,
    pub incarnation: i64,
    pub phase: i16,
    pub created: i64,
    pub object_type: String,
    pub object: Value,
    /// The object, canonical.
    pub content: Value,
    /// The object before the change, canonical, if the event tells.
    pub before: Option<Value>,
}

impl Event {
    pub fn read(body: &str) -> Self {
        let event: Value = serde_json::from_str(body).expect("an event");
        let object = event["data"]["object"].clone();
        let object_type = text(&object["object"]);
        let previous = event["data"].get("previous_attributes").filter(|it| it.is_object());
        Self {
            id: text(&event["id"]),
            api_version: event["api_version"].as_str().map(str::to_owned),
            incarnation: incarnation(&object_type, &object),
            phase: phase(&text(&event["type"]), &object_type, &object),
            created: seconds(&event["created"]).expect("created"),
            before: previous.map(|previous| canonical(&restored(&object, previous))),
            content: canonical(&object),
            object_type,
            object,
        }
    }

    /// The greatest place has the head of the object's history.
    pub fn place(&self) -> (i64, i16, i64) {
        (self.incarnation, self.phase, self.created)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Old events have their time as a string.
fn seconds(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn incarnation(object_type: &str, object: &Value) -> i64 {
    if REUSABLE_IDS.contains(&object_type) { seconds(&object["created"]).unwrap_or(0) } else { 0 }
}

fn phase(event_type: &str, object_type: &str, object: &Value) -> i16 {
    // Of a type without a table we do not know how its events are named.
    let is = |what: &str| {
        let own = format!("{object_type}.{what}");
        if WITH_TABLE.contains(&object_type) {
            event_type == own || event_type.ends_with(&format!(".{own}"))
        } else {
            event_type.ends_with(&format!(".{what}"))
        }
    };
    let cancellation =
        event_type == "customer.subscription.deleted" && object_type == "subscription";
    if (is("deleted") && !cancellation) || object["deleted"] == true {
        return DELETED;
    }
    if is("created") {
        return CREATED;
    }
    let status = object["status"].as_str().unwrap_or_default();
    let terminal = match object_type {
        "subscription" => cancellation || ["canceled", "incomplete_expired"].contains(&status),
        "payment_intent" | "setup_intent" => ["succeeded", "canceled"].contains(&status),
        _ => event_type == "payment_method.detached",
    };
    if terminal { TERMINAL } else { NORMAL }
}
