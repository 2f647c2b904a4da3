//! How an object looks in an API version, and how Stripe tells what changed in it.
//! States are kept in the old layout; nothing here knows when or why they change.

use serde_json::{Map, Value, json};

use super::rng::Rng;

const BASIL: &str = "2025-03-31.basil";
/// Up to this version `previous_attributes` held only the changed elements of an array.
const LAST_WITH_CUT_ARRAYS: &str = "2017-04-06";

/// Whether events in this version tell enough to put them in order.
pub fn is_old(version: Option<&str>) -> bool {
    version.is_none_or(|version| version <= LAST_WITH_CUT_ARRAYS)
}

/// The object in this version.
pub fn render(state: &Value, version: Option<&str>) -> Value {
    let mut object = state.clone();
    if version < Some(BASIL) {
        return object;
    }
    match state["object"].as_str() {
        Some("subscription") => {
            for key in ["current_period_start", "current_period_end"] {
                let moved = take(&mut object, key);
                for item in object["items"]["data"].as_array_mut().unwrap() {
                    item[key] = moved.clone();
                }
            }
        }
        Some("invoice") => {
            let subscription = take(&mut object, "subscription");
            if !subscription.is_null() {
                let details = json!({"metadata": {}, "subscription": subscription});
                object["parent"] = json!({"quote_details": null, "subscription_details": details,
                    "type": "subscription_details"});
            }
            for key in ["payment_intent", "charge", "paid"] {
                take(&mut object, key);
            }
            for line in object["lines"]["data"].as_array_mut().unwrap() {
                let price = take(line, "price");
                line["pricing"] = json!({"price_details": {"price": price}});
            }
        }
        Some("charge" | "payment_intent") => {
            take(&mut object, "invoice");
        }
        _ => {}
    }
    object
}

fn take(object: &mut Value, key: &str) -> Value {
    object.as_object_mut().unwrap().shift_remove(key).unwrap_or_default()
}

/// What `previous_attributes` says: of hashes the changed keys alone, arrays whole (once they were
/// cut), null for what was not there.
pub fn previous_attributes(before: &Value, after: &Value, version: Option<&str>) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return match (before, after) {
            (Value::Array(old), Value::Array(new)) if is_old(version) => {
                old.iter().filter(|item| !new.contains(item)).cloned().collect()
            }
            _ => before.clone(),
        };
    };
    let mut previous = Map::new();
    for key in before.keys().chain(after.keys().filter(|key| !before.contains_key(*key))) {
        let (old, new) = (before.get(key), after.get(key));
        if old != new {
            let nothing = Value::Null;
            let (old, new) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
            previous.insert(key.clone(), previous_attributes(old, new, version));
        }
    }
    Value::Object(previous)
}

/// Links that are different each time an object is rendered.
pub fn dress(object: &mut Value, rng: &mut Rng) {
    for key in ["hosted_invoice_url", "invoice_pdf", "receipt_url"] {
        if object[key].is_string() {
            object[key] = json!(format!("https://pay.example/{}", rng.id(key)));
        }
    }
}
