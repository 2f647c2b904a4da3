//! Forms as Stripe's API takes them: `a[b][0][c]=d` becomes JSON. What the values mean is not
//! checked.

use serde_json::{Map, Value};

use super::gate::pairs;

/// Members that are numbers, wherever they stand.
const NUMBERS: [&str; 12] = [
    "amount",
    "unit_amount",
    "quantity",
    "percent_off",
    "amount_off",
    "interval_count",
    "trial_period_days",
    "expected_amount",
    "duration_in_months",
    "max_redemptions",
    "days_until_due",
    "balance",
];

/// A form's body as an object.
pub fn parse(body: &str) -> Map<String, Value> {
    let mut root = Value::Object(Map::new());
    for (name, value) in pairs(body) {
        let keys: Vec<&str> = name.split('[').map(|key| key.trim_end_matches(']')).collect();
        insert(&mut root, &keys, value);
    }
    match arrays(root) {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn insert(at: &mut Value, keys: &[&str], value: String) {
    let [key, rest @ ..] = keys else { return };
    let Value::Object(members) = at else { return };
    // `a[]=x&a[]=y` counts by itself.
    let key = if key.is_empty() { members.len().to_string() } else { (*key).to_owned() };
    if rest.is_empty() {
        let plain = typed(&key, value);
        members.insert(key, plain);
    } else {
        let within = members.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
        if key == "metadata"
            && let Value::Object(pairs) = within
        {
            pairs.insert(rest[0].to_owned(), value.into());
        } else {
            insert(within, rest, value);
        }
    }
}

fn typed(name: &str, value: String) -> Value {
    match (value.as_str(), value.parse::<i64>()) {
        ("true", _) => true.into(),
        ("false", _) => false.into(),
        ("", _) => Value::Null,
        (_, Ok(number)) if NUMBERS.contains(&name) => number.into(),
        _ => value.into(),
    }
}

/// Objects with the keys 0, 1, … are arrays.
fn arrays(value: Value) -> Value {
    let Value::Object(members) = value else { return value };
    let numbered = |members: &Map<String, Value>| {
        !members.is_empty() && members.keys().all(|key| key.parse::<usize>().is_ok())
    };
    if numbered(&members) {
        return members.into_iter().map(|(_, value)| arrays(value)).collect();
    }
    members.into_iter().map(|(key, value)| (key, arrays(value))).collect::<Map<_, _>>().into()
}
