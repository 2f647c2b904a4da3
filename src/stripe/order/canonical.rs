//! When two renderings of an object count as equal, and what an object was before an event.
//! Texts for comparison only: which comparison proves what is decided in `chain` and `pairwise`.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Map, Number, Value};

/// Keys whose value differs from one rendering of the same state to the next.
const VOLATILE: [&str; 4] = ["hosted_invoice_url", "invoice_pdf", "receipt_url", "updated"];

/// The user's own keys stand in here, and none of them is volatile.
const METADATA: &str = "metadata";

/// A text that is equal for equal states: sorted keys, numbers by value, without nulls (an absent
/// member and a null are the same to Stripe) and without volatile keys.
pub(super) fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, None, false);
    out
}

/// Whether `object` shows all that an event's `previous_attributes` say was there before it.
pub(super) fn shows(object: Option<&Value>, previous: &Value) -> bool {
    shows_below(object, previous, false)
}

fn shows_below(object: Option<&Value>, previous: &Value, metadata: bool) -> bool {
    match (object, previous) {
        (None | Some(Value::Null | Value::Object(_)), Value::Object(changed)) => changed
            .iter()
            .filter(|(key, _)| metadata || !volatile(key))
            .all(|(key, was)| shows_below(member(object, key), was, key == METADATA)),
        (None, was) => was.is_null(),
        (Some(is), was) => canonical(is) == canonical(was),
    }
}

/// The attributes that an event reports as changed, as paths into the object. An object is
/// reported in part, so the path goes on into it; anything else is reported as a whole.
pub(super) fn changed_paths<'a>(object: &'a Value, previous: &'a Value) -> Vec<Vec<&'a str>> {
    let mut found = Vec::new();
    let mut open = vec![(Vec::new(), Some(object), previous, false)];
    while let Some((path, is, was, metadata)) = open.pop() {
        let (Some(Value::Object(_)), Value::Object(changed)) = (is, was) else {
            found.push(path);
            continue;
        };
        for (key, was) in changed.iter().filter(|(key, _)| metadata || !volatile(key)) {
            let mut path = path.clone();
            path.push(key.as_str());
            open.push((path, member(is, key), was, key == METADATA));
        }
    }
    // `previous_attributes` that are no object say nothing.
    found.retain(|path| !path.is_empty());
    found
}

/// What stands at a path of an object, empty for null and absent. With `previous_attributes`:
/// what stood there before the event.
pub(super) fn at(object: &Value, previous: Option<&Value>, path: &[&str]) -> String {
    let (mut is, mut was) = (Some(object), previous);
    for key in path {
        match (is, was) {
            (Some(Value::Object(_)), Some(Value::Object(changed))) => {
                was = changed.get(*key);
                is = member(is, key);
            }
            (_, Some(replaced)) => (is, was) = (member(Some(replaced), key), None),
            (_, None) => is = member(is, key),
        }
    }
    let mut out = String::new();
    let metadata = path.last() == Some(&METADATA);
    write_value(&mut out, is.unwrap_or(&Value::Null), was, metadata);
    out
}

/// The members in which two states of an object differ, in order; those that differ from one
/// rendering to the next do not count.
pub fn differences(one: &Value, other: &Value) -> Vec<String> {
    let (Value::Object(left), Value::Object(right)) = (one, other) else {
        return if canonical(one) == canonical(other) { Vec::new() } else { vec![String::new()] };
    };
    let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let differs = |key: &str| !volatile(key) && at(one, None, &[key]) != at(other, None, &[key]);
    keys.into_iter().filter(|key| differs(key)).cloned().collect()
}

fn volatile(key: &str) -> bool {
    VOLATILE.contains(&key)
}

fn member<'a>(value: Option<&'a Value>, key: &str) -> Option<&'a Value> {
    value.and_then(|value| value.get(key))
}

/// Writes `value` as it was before the changes in `was`. Text has its length in front, so that
/// nothing needs escapes. As deep as the value is: serde_json reads no more than 128 levels.
fn write_value(out: &mut String, value: &Value, was: Option<&Value>, metadata: bool) {
    match (value, was) {
        (Value::Object(map), Some(Value::Object(changed))) => {
            write_object(out, map, Some(changed), metadata);
        }
        (_, Some(was)) => write_value(out, was, None, metadata),
        (Value::Object(map), None) => write_object(out, map, None, metadata),
        (Value::Array(items), None) => {
            out.push('[');
            for item in items {
                write_value(out, item, None, false);
                out.push(',');
            }
            out.push(']');
        }
        (Value::String(text), None) => write_text(out, text),
        (Value::Number(number), None) => write_number(out, number),
        (Value::Bool(true), None) => out.push('t'),
        (Value::Bool(false), None) => out.push('f'),
        (Value::Null, None) => {}
    }
}

fn write_object(
    out: &mut String,
    map: &Map<String, Value>,
    changed: Option<&Map<String, Value>>,
    metadata: bool,
) {
    let reported = |key: &str| changed.and_then(|changed| changed.get(key));
    let gone = changed.into_iter().flatten().filter(|(key, _)| !map.contains_key(*key));
    let mut members: Vec<(&str, &Value, Option<&Value>)> = map
        .iter()
        .map(|(key, value)| (key.as_str(), value, reported(key)))
        .chain(gone.map(|(key, was)| (key.as_str(), was, None)))
        .filter(|(key, value, was)| (metadata || !volatile(key)) && !was.unwrap_or(value).is_null())
        .collect();
    members.sort_unstable_by_key(|(key, ..)| *key);
    out.push('{');
    for (key, value, was) in members {
        write_text(out, key);
        write_value(out, value, was, key == METADATA);
    }
    out.push('}');
}

fn write_text(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{}:{text}", text.len());
}

/// 1, 1.0 and 1e0 are one number. A float without a fraction is written in all its digits, which
/// are exact, so it equals the integer of that value and no other.
fn write_number(out: &mut String, number: &Number) {
    let _ = match number.as_f64() {
        Some(float) if number.is_f64() && float == 0.0 => write!(out, "#0"),
        Some(float) if number.is_f64() && float.fract() == 0.0 => write!(out, "#{float:.0}"),
        _ => write!(out, "#{number}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn same(left: &Value, right: &Value) -> bool {
        canonical(left) == canonical(right)
    }

    #[test]
    fn nulls_volatile_keys_and_key_order_do_not_matter() {
        let plain = json!({"a": 1, "b": {"c": [true]}});
        let other = json!({
            "updated": 5, "b": {"receipt_url": "x", "c": [true], "d": null}, "e": null, "a": 1.0,
            "invoice_pdf": "y", "hosted_invoice_url": "z",
        });
        assert!(same(&plain, &other));
    }

    #[test]
    fn what_is_different_stays_different() {
        for (left, right) in [
            (json!({"a": 1}), json!({"a": "1"})),
            (json!({"a": [1, 2]}), json!({"a": [2, 1]})),
            (json!({"a": [1, null]}), json!({"a": [null, 1]})),
            (json!({"a": [12]}), json!({"a": [1, 2]})),
            (json!({"a": {"b": 1}, "c": 2}), json!({"a": {"b": 1, "c": 2}})),
            (json!({"a": 0.5}), json!({"a": 0.25})),
            (json!(u64::MAX), json!(u64::MAX - 1)),
            (json!("t"), json!(true)),
            (json!({"a": {}}), json!({"a": null})),
            (json!({"metadata": {"updated": "1"}}), json!({"metadata": {"updated": "2"}})),
        ] {
            assert!(!same(&left, &right), "{left} {right}");
        }
    }

    #[test]
    fn numbers_are_compared_by_value() {
        for (left, right) in
            [("1", "1.0"), ("100", "1e2"), ("0", "-0.0"), ("9e15", "9000000000000000")]
        {
            let parse = |text| serde_json::from_str::<Value>(text).unwrap();
            assert!(same(&parse(left), &parse(right)), "{left} {right}");
        }
    }

    #[test]
    fn the_state_before_is_the_object_with_what_changed_put_back() {
        let object = json!({"a": 2, "m": {"x": 1, "y": 2}, "n": {"z": 1}, "l": [1, 2], "g": null});
        let previous =
            json!({"a": 1, "m": {"x": null, "w": 9}, "n": null, "l": [1], "g": {"h": 3}});
        let before = json!({"a": 1, "m": {"y": 2, "w": 9}, "l": [1], "g": {"h": 3}});
        assert_eq!(at(&object, Some(&previous), &[]), canonical(&before));
        for path in
            [vec!["a"], vec!["m"], vec!["m", "x"], vec!["m", "w"], vec!["n", "z"], vec!["g", "h"]]
        {
            assert_eq!(at(&object, Some(&previous), &path), at(&before, None, &path), "{path:?}");
        }
    }

    #[test]
    fn paths_end_where_the_report_is_whole() {
        let object = json!({"a": 2, "m": {"x": 1}, "n": {"z": 1}, "g": null});
        let previous = json!({"a": 1, "updated": 1, "m": {"x": null}, "n": null, "g": {"h": 3}});
        let mut paths = changed_paths(&object, &previous);
        paths.sort();
        assert_eq!(paths, [vec!["a"], vec!["g"], vec!["m", "x"], vec!["n"]]);
        for nothing in [json!(null), json!([1]), json!("x"), json!({})] {
            assert!(changed_paths(&object, &nothing).is_empty());
        }
    }

    #[test]
    fn an_object_shows_what_was_before() {
        let object = json!({"status": "open", "metadata": {"a": "1"}, "list": [1]});
        for (previous, expected) in [
            (json!({"status": "open"}), true),
            (json!({"status": "draft"}), false),
            (json!({"metadata": {"b": null}}), true),
            (json!({"metadata": {"a": null}}), false),
            (json!({"gone": {"x": null}, "list": [1.0], "updated": 3}), true),
            (json!({"list": [1, 2]}), false),
            (json!({"status": {"x": null}}), false),
        ] {
            assert_eq!(shows(Some(&object), &previous), expected, "{previous}");
        }
    }
}
