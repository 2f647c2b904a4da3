//! Which of the events that share incarnation, phase and second is the last, and how we know.
//! Each step is a function of the set: nothing here may depend on the order of a slice.

use std::collections::BTreeSet;

use serde_json::Value;

use super::event::Event;
use super::rank::rank;

/// Up to this version `previous_attributes` held only the changed elements of an array.
const LAST_WITH_CUT_ARRAYS: &str = "2017-04-06";

/// The winner of a group and the step that found it. `base` is the winner of the next lower group.
pub fn judge<'a>(group: &[&'a Event], base: Option<&Event>) -> (&'a Event, &'static str) {
    if let [only] = group {
        return (only, "unique");
    }
    let mut states: Vec<&Value> = Vec::new();
    for event in group {
        if !states.contains(&&event.content) {
            states.push(&event.content);
        }
    }
    if states.len() == 1 {
        return (greatest_id(group, &states), "same");
    }
    if whole_and_equal_versions(group)
        && let Some(end) = end_of_chain(group, &states, base)
    {
        return (greatest_id(group, &[end]), "chain");
    }
    let states = without_overtaken(group, states);
    if states.len() == 1 {
        return (greatest_id(group, &states), "pairwise");
    }
    let object_type = &group[0].object_type;
    let highest = states.iter().map(|state| rank(object_type, state)).max();
    let states: Vec<&Value> =
        states.into_iter().filter(|state| Some(rank(object_type, state)) == highest).collect();
    let basis = if states.len() == 1 { "rank" } else { "tiebreak" };
    (greatest_id(group, &states), basis)
}

/// Of the events that show one of these states, the one with the greatest id.
fn greatest_id<'a>(group: &[&'a Event], states: &[&Value]) -> &'a Event {
    let shown = group.iter().filter(|event| states.contains(&&event.content));
    shown.max_by_key(|event| event.id.as_bytes()).expect("a state is some event's")
}

fn whole_and_equal_versions(group: &[&Event]) -> bool {
    let versions: BTreeSet<Option<&str>> =
        group.iter().map(|event| event.api_version.as_deref()).collect();
    versions.len() == 1
        && versions.iter().all(|version| version.is_some_and(|it| it > LAST_WITH_CUT_ARRAYS))
}

/// Takes every event that tells its previous state as a step from there to its state, and looks
/// for a walk that makes each step once and passes every state of the group. Its end wins. A walk
/// that returns to where it began could begin anywhere on it: then it began at the base.
fn end_of_chain<'a>(
    group: &[&'a Event],
    states: &[&'a Value],
    base: Option<&Event>,
) -> Option<&'a Value> {
    let steps: Vec<(&Value, &'a Value)> =
        group.iter().filter_map(|event| Some((event.before.as_ref()?, &event.content))).collect();
    let passes = |state: &Value| steps.iter().any(|step| *step.0 == *state || *step.1 == *state);
    if !states.iter().all(|state| passes(state)) {
        return None;
    }
    for begin in steps.iter().map(|step| step.0) {
        if let Some(end) = walk(begin, &steps)
            && end != begin
        {
            return Some(end);
        }
    }
    let base = &base?.content;
    let begin = states.iter().find(|state| **state == base)?;
    walk(begin, &steps)
}

/// Tries all ways to make each of the steps once, one after the other, and returns the end.
fn walk<'a>(at: &'a Value, steps: &[(&'a Value, &'a Value)]) -> Option<&'a Value> {
    if steps.is_empty() {
        return Some(at);
    }
    let untried = |&next: &usize| steps[next].0 == at && !steps[..next].contains(&steps[next]);
    (0..steps.len()).filter(untried).find_map(|next| {
        let rest = [&steps[..next], &steps[next + 1..]].concat();
        walk(steps[next].1, &rest)
    })
}

/// The states that no event tells to be its previous one, unless it is mutual. All, if that leaves
/// none.
fn without_overtaken<'a>(group: &[&Event], states: Vec<&'a Value>) -> Vec<&'a Value> {
    let follows = |later: &Value, earlier: &Value| {
        let mut shown = group.iter().filter(|event| event.content == *later);
        shown.any(|event| event.before.as_ref() == Some(earlier))
    };
    let overtaken = |a: &Value| states.iter().any(|b| **b != *a && follows(b, a) && !follows(a, b));
    let left: Vec<&Value> = states.iter().copied().filter(|state| !overtaken(state)).collect();
    if left.is_empty() { states } else { left }
}
