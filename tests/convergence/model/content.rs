//! What of an object counts when two of its states are compared, and how it was before a change.
//! Knows nothing of events and their order.

use serde_json::{Map, Value};

/// Keys that say nothing about the state: they change by rendering, or with every change.
const IGNORED: [&str; 4] = ["hosted_invoice_url", "invoice_pdf", "receipt_url", "updated"];

/// The object without nulls and ignored keys, its keys sorted. A null in an array stays: taking it
/// out would move its neighbours.
pub fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut kept: Vec<(&String, &Value)> = fields
                .iter()
                .filter(|(key, value)| !value.is_null() && !IGNORED.contains(&key.as_str()))
                .collect();
            kept.sort_by_key(|(key, _)| *key);
            kept.into_iter().map(|(key, value)| (key.clone(), canonical(value))).collect()
        }
        Value::Array(items) => items.iter().map(canonical).collect(),
        plain => plain.clone(),
    }
}

/// The object as it was before a change: `previous` put back over it, key by key in hashes, arrays
/// and everything else whole.
pub fn restored(object: &Value, previous: &Value) -> Value {
    let Value::Object(changes) = previous else {
        return previous.clone();
    };
    let mut fields = object.as_object().cloned().unwrap_or_else(Map::new);
    for (key, old) in changes {
        let now = fields.get(key).cloned().unwrap_or_default();
        fields.insert(key.clone(), restored(&now, old));
    }
    Value::Object(fields)
}
