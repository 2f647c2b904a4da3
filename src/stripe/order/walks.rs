//! Random histories of one object, for tests: what Stripe would send, and what is true in the end.
//! What follows from a history is asserted in `tests`.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::{Json, Phase, Standing, Version};

/// What a history may contain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub steps: u64,
    /// How many steps share a second, on average.
    pub per_second: u64,
    /// How many values an attribute may have: few of them make states come back.
    pub values: u64,
    /// Whether the first state is known by a `*.created`.
    pub created: bool,
    /// Whether events without `previous_attributes` come between.
    pub companions: bool,
    /// Whether the object ends in a terminal phase, in which it still changes.
    pub terminal: bool,
    pub api_version: Option<&'static str>,
}

pub(super) struct History {
    pub versions: Vec<Version>,
    pub last: Value,
}

/// A small generator of numbers; quality does not matter, being the same everywhere does.
pub(super) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            let other = usize::try_from(self.below(index as u64 + 1)).unwrap();
            items.swap(index, other);
        }
    }
}

/// Walks through states, an `*.updated` for each step.
pub(super) fn walk(seed: u64, shape: Shape) -> History {
    let mut random = Random(seed);
    let mut state = json!({
        "id": "x_1", "status": "active", "count": 0, "note": null,
        "metadata": {}, "items": {"object": "list", "data": [{"id": "i", "n": 0}]},
    });
    let mut versions = Vec::new();
    let mut second = 1_700_000_000;
    let mut event =
        |random: &mut Random, second, object: &Value, previous: Option<Value>, created| {
            let phase = match object["status"].as_str() {
                _ if created => Phase::Created,
                Some("canceled") => Phase::Terminal,
                _ => Phase::Normal,
            };
            let created = OffsetDateTime::from_unix_timestamp(second).unwrap();
            let mut object = object.clone();
            object["updated"] = json!(random.below(9));
            versions.push(Version {
                event_id: format!("evt_{:016x}", random.next()),
                event_type: String::new(),
                api_version: shape.api_version.map(str::to_owned),
                standing: Standing { incarnation: 0, phase, created },
                object: object.into(),
                previous: previous.map(Json::from),
            });
        };
    if shape.created {
        event(&mut random, second, &state, None, true);
    }
    for step in 0..shape.steps {
        if random.below(shape.per_second) == 0 {
            second += 1;
        }
        let mut next = changed(&mut random, &state, shape.values);
        if shape.terminal && step >= shape.steps / 2 {
            next["status"] = json!("canceled");
        }
        if next == state {
            continue;
        }
        let previous = previous_attributes(&state, &next);
        event(&mut random, second, &next, Some(previous), false);
        if shape.companions {
            for _ in 0..random.below(3) {
                let shown = if random.below(2) == 0 {
                    next.clone()
                } else {
                    mixed(&mut random, &state, &next)
                };
                event(&mut random, second, &shown, None, false);
            }
        }
        state = next;
    }
    random.shuffle(&mut versions);
    History { versions, last: state }
}

fn changed(random: &mut Random, state: &Value, values: u64) -> Value {
    let mut next = state.clone();
    for _ in 0..=random.below(2) {
        let value = random.below(values);
        let text = (value > 0).then(|| value.to_string());
        match random.below(6) {
            0 => next["count"] = json!(value),
            1 => next["note"] = json!(text),
            2 => next["items"]["data"] = json!([{"id": "i", "n": value}]),
            3 => next["status"] = json!(if value > 0 { "past_due" } else { "active" }),
            key => {
                let key = if key == 4 { "a" } else { "b" };
                if let Some(metadata) = next["metadata"].as_object_mut() {
                    metadata.remove(key);
                    metadata.extend(text.map(|text| (key.to_owned(), json!(text))));
                }
            }
        }
    }
    next
}

/// A state amid a change: some attributes are new already.
fn mixed(random: &mut Random, before: &Value, after: &Value) -> Value {
    let mut seen = after.clone();
    for (key, was) in before.as_object().into_iter().flatten() {
        if random.below(2) == 0 {
            seen[key] = was.clone();
        }
    }
    seen
}

/// As Stripe reports changes: objects in part, arrays whole, what was absent as null.
pub(super) fn previous_attributes(before: &Value, after: &Value) -> Value {
    let (Value::Object(was), Value::Object(is)) = (before, after) else { return before.clone() };
    let mut changed = Map::new();
    for (key, before) in was.iter().filter(|(key, before)| is.get(*key) != Some(before)) {
        let before =
            is.get(key).map_or_else(|| before.clone(), |is| previous_attributes(before, is));
        changed.insert(key.clone(), before);
    }
    for key in is.keys().filter(|key| !was.contains_key(*key)) {
        changed.insert(key.clone(), Value::Null);
    }
    Value::Object(changed)
}
