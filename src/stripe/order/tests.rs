//! The order rule step by step, on small examples. Its promise over random histories is in
//! `properties`; canonical texts and ranks have tests of their own.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{Basis, Phase, Standing, Version, resolve};

const BASIL: Option<&str> = Some("2025-03-31.basil");

fn state(id: &str, second: i64, object: Value) -> Version {
    let created = OffsetDateTime::from_unix_timestamp(second).unwrap();
    Version {
        event_id: id.to_owned(),
        event_type: "customer.updated".to_owned(),
        api_version: BASIL.map(str::to_owned),
        standing: Standing { incarnation: 0, phase: Phase::Normal, created },
        object: object.into(),
        previous: None,
    }
}

fn update(id: &str, second: i64, object: Value, previous: Value) -> Version {
    Version { previous: Some(previous.into()), ..state(id, second, object) }
}

/// `k` goes from one value to another.
fn flip(id: &str, second: i64, from: i64, to: i64) -> Version {
    update(id, second, json!({"k": to}), json!({"k": from}))
}

fn with(phase: Phase, mut version: Version) -> Version {
    version.standing.phase = phase;
    version
}

fn in_version(api_version: Option<&str>, mut versions: Vec<Version>) -> Vec<Version> {
    for version in &mut versions {
        version.api_version = api_version.map(str::to_owned);
    }
    versions
}

#[track_caller]
fn check(object_type: &str, mut versions: Vec<Version>, winner: &str, basis: Basis) {
    for _ in 0..versions.len() {
        versions.rotate_left(1);
        let found = resolve(object_type, &versions).unwrap();
        assert_eq!((found.winner.event_id.as_str(), found.basis), (winner, basis));
    }
}

#[test]
fn of_nothing_comes_nothing() {
    assert!(resolve("invoice", &[]).is_none());
}

#[test]
fn the_greatest_standing_wins() {
    let old = || vec![state("9", 1, json!({})), flip("8", 1, 0, 1)];
    let then = |version| old().into_iter().chain([version]).collect::<Vec<_>>();
    check("x", then(state("1", 2, json!({}))), "1", Basis::Unique);
    check("x", then(with(Phase::Terminal, state("1", 0, json!({})))), "1", Basis::Unique);
    check("x", then(with(Phase::Deleted, state("1", 0, json!({})))), "1", Basis::Unique);
    let mut again = with(Phase::Created, state("1", 0, json!({})));
    again.standing.incarnation = 5;
    let gone = with(Phase::Deleted, state("2", 1, json!({})));
    check("x", then(again).into_iter().chain([gone]).collect(), "1", Basis::Unique);
}

#[test]
fn equal_states_are_one() {
    let one = state("1", 1, json!({"a": 1, "hosted_invoice_url": "x"}));
    let two = update("2", 1, json!({"updated": 7, "a": 1.0, "b": null}), json!({"a": 0}));
    check("x", vec![one, two], "2", Basis::Same);
}

#[test]
fn of_one_event_in_two_api_versions_the_higher_counts() {
    let old = &in_version(Some("2024-06-20"), vec![flip("1", 1, 0, 1)])[0];
    let new = flip("1", 1, 0, 2);
    let none = &in_version(None, vec![flip("1", 1, 0, 3)])[0];
    let versions = [new.clone(), none.clone(), old.clone(), new];
    let found = resolve("x", &versions).unwrap();
    assert_eq!((found.winner.object["k"].as_i64(), found.basis), (Some(2), Basis::Unique));
}

#[test]
fn a_trail_is_followed_to_its_end() {
    check("x", vec![flip("3", 1, 0, 1), flip("2", 1, 1, 2), flip("1", 1, 2, 3)], "1", Basis::Chain);
    // Both that lead to 1 are needed to see that it is the end.
    let back = vec![flip("1", 1, 0, 1), flip("3", 1, 1, 0), flip("2", 1, 0, 1)];
    check("x", back, "2", Basis::Chain);
    let loops =
        vec![flip("4", 1, 0, 1), flip("3", 1, 1, 2), flip("2", 1, 2, 1), flip("1", 1, 1, 3)];
    check("x", loops, "1", Basis::Chain);
}

#[test]
fn a_trail_goes_through_nested_hashes_arrays_and_nulls() {
    let metadata = |id, object, previous| {
        update(id, 1, json!({"metadata": object}), json!({"metadata": previous}))
    };
    let added = metadata("3", json!({"a": "1"}), json!({"a": null}));
    let more = metadata("2", json!({"a": "1", "b": "1"}), json!({"b": null}));
    let removed = metadata("1", json!({"b": "1"}), json!({"a": "1"}));
    check("x", vec![added, more, removed], "1", Basis::Chain);
    let items = |id, is, was| {
        update(id, 1, json!({"items": {"data": is}}), json!({"items": {"data": was}}))
    };
    let longer = items("2", json!([1, 2]), json!([1]));
    let shorter = items("1", json!([2]), json!([1, 2]));
    check("x", vec![longer, shorter], "1", Basis::Chain);
    let error = json!({"code": "declined", "param": null});
    let failed = update("2", 1, json!({"e": error}), json!({"e": null}));
    let cleared = update("1", 1, json!({"n": 1}), json!({"e": {"code": "declined"}, "n": null}));
    check("x", vec![failed, cleared], "1", Basis::Chain);
}

#[test]
fn edges_come_before_ranks() {
    let late = update("2", 1, json!({"status": "past_due"}), json!({"status": "unpaid"}));
    let paid = update("1", 1, json!({"status": "active"}), json!({"status": "past_due"}));
    check("subscription", vec![late, paid], "1", Basis::Chain);
}

#[test]
fn states_on_a_trail_do_not_disturb_it() {
    let open = |id| state(id, 1, json!({"status": "open", "number": "1"}));
    let draft = json!({"status": "draft", "number": null});
    let finalized = update("2", 1, json!({"status": "open", "number": "1"}), draft);
    let paid = json!({"status": "paid", "number": "1"});
    let settled = update("1", 1, paid.clone(), json!({"status": "open"}));
    let mut versions = vec![open("9"), finalized, settled, state("0", 1, paid)];
    check("other", versions.clone(), "1", Basis::Chain);
    // Rendered while it was being finalized.
    versions.push(state("8", 1, json!({"status": "open"})));
    check("other", versions, "1", Basis::Chain);
}

#[test]
fn a_state_no_edge_explains_stays_in_the_race() {
    let finalized = update("2", 1, json!({"status": "open"}), json!({"status": "draft"}));
    let paid = state("1", 1, json!({"status": "paid"}));
    check("invoice", vec![finalized.clone(), paid.clone()], "1", Basis::Rank);
    check("other", vec![finalized, paid], "2", Basis::Tiebreak);
}

#[test]
fn what_changed_without_a_report_does_not_break_a_trail() {
    let first = update("2", 1, json!({"k": 1, "silent": 1}), json!({"k": 0}));
    let second = update("1", 1, json!({"k": 2, "silent": 2}), json!({"k": 1}));
    check("x", vec![first, second], "1", Basis::Chain);
}

#[test]
fn a_circle_ends_where_it_began() {
    let round = |second| vec![flip("2", second, 0, 1), flip("1", second, 1, 0)];
    let after = |base| round(1).into_iter().chain([base]).collect::<Vec<_>>();
    check("x", after(flip("9", 0, 1, 0)), "1", Basis::Chain);
    check("x", after(flip("9", 0, 0, 1)), "2", Basis::Chain);
    check("x", after(with(Phase::Created, state("9", 1, json!({"k": 0})))), "1", Basis::Chain);
    // The circle below has a base of its own, and so on down.
    let mut tower = vec![state("9", 0, json!({"k": 1}))];
    for second in 1..4 {
        tower.push(flip(&format!("b{second}"), second, 0, 1));
        tower.push(flip(&format!("c{second}"), second, 1, 0));
    }
    check("x", tower, "b3", Basis::Chain);
}

#[test]
fn a_circle_without_a_base_is_a_guess() {
    let round = vec![flip("2", 1, 0, 1), flip("1", 1, 1, 0)];
    check("x", round.clone(), "2", Basis::Tiebreak);
    let after = |base| round.iter().cloned().chain([base]).collect::<Vec<_>>();
    check("x", after(state("9", 0, json!({"k": 5}))), "2", Basis::Tiebreak);
    let mut former = with(Phase::Deleted, state("9", 0, json!({"k": 0})));
    former.standing.incarnation = -1;
    check("x", after(former), "2", Basis::Tiebreak);
    // Longer circles are no better, and rank knows nothing of them either.
    let circle = vec![flip("1", 1, 0, 1), flip("2", 1, 1, 2), flip("3", 1, 2, 0)];
    check("x", circle, "3", Basis::Tiebreak);
    let status = |id, to, from| update(id, 1, json!({"status": to}), json!({"status": from}));
    let recovered = status("2", "active", "past_due");
    let failed = status("1", "past_due", "active");
    check("subscription", vec![recovered, failed], "2", Basis::Tiebreak);
}

#[test]
fn a_circle_narrows_a_base_that_is_a_guess() {
    let round = || vec![flip("2", 1, 0, 1), flip("1", 1, 1, 0)];
    let below = |second: Value| {
        let mut versions = round();
        versions.push(state("7", 0, json!({"k": 0})));
        versions.push(state("9", 0, second));
        versions
    };
    check("x", below(json!({"k": 5})), "1", Basis::Chain);
    check("x", below(json!({"k": 1})), "2", Basis::Tiebreak);
}

#[test]
fn a_base_need_only_match_in_what_went_round() {
    let on = update("2", 1, json!({"k": 1, "silent": 1}), json!({"k": 0}));
    let off = update("1", 1, json!({"k": 0, "silent": 1}), json!({"k": 1}));
    let base = state("9", 0, json!({"k": 0}));
    check("x", vec![on.clone(), off.clone(), base.clone()], "1", Basis::Pairwise);
    let base = in_version(Some("2024-06-20"), vec![base]).remove(0);
    check("x", vec![on, off, base], "2", Basis::Tiebreak);
}

#[test]
fn without_a_chain_events_are_compared_in_pairs() {
    let pair = vec![flip("2", 1, 0, 1), flip("1", 1, 1, 2)];
    for old in [Some("2017-04-06"), Some("2011-01-01"), None] {
        check("x", in_version(old, pair.clone()), "1", Basis::Pairwise);
    }
    check("x", in_version(Some("2017-05-25"), pair.clone()), "1", Basis::Chain);
    // Between versions nothing compares.
    let mut mixed = pair;
    mixed[0].api_version = Some("2024-06-20".to_owned());
    check("x", mixed, "2", Basis::Tiebreak);
    let circle = vec![flip("1", 1, 0, 1), flip("2", 1, 1, 2), flip("3", 1, 2, 0)];
    check("x", in_version(None, circle), "3", Basis::Tiebreak);
}

#[test]
fn parts_of_a_trail_are_ordered_by_their_ends() {
    // 5 → 6 of `j` is missing.
    let first = update("2", 1, json!({"k": 1, "j": 5}), json!({"k": 0}));
    let second = update("1", 1, json!({"k": 1, "j": 7}), json!({"j": 6}));
    let third = update("0", 1, json!({"k": 2, "j": 7}), json!({"k": 1}));
    check("x", vec![first, second, third], "0", Basis::Pairwise);
}

#[test]
fn ranks_decide_between_states_alone() {
    let status = |id, status| state(id, 1, json!({"status": status}));
    let paid = vec![status("2", "processing"), status("1", "succeeded"), status("3", "processing")];
    check("payment_intent", paid, "1", Basis::Rank);
    let grown = vec![status("2", "processing"), status("1", "succeeded"), status("3", "new")];
    check("payment_intent", grown, "3", Basis::Tiebreak);
    let attempts = |id, count| state(id, 1, json!({"status": "open", "attempt_count": count}));
    check("invoice", vec![attempts("1", 2), attempts("2", 1)], "1", Basis::Rank);
    check("unheard.of", vec![status("2", "a"), status("10", "b")], "2", Basis::Tiebreak);
}

#[test]
fn many_circles_do_not_need_a_deep_stack() {
    let mut versions = vec![state("base", 0, json!({"k": 1}))];
    for second in 1..20_000 {
        versions.push(flip(&format!("b{second}"), second, 0, 1));
        versions.push(flip(&format!("c{second}"), second, 1, 0));
    }
    let found = resolve("x", &versions).unwrap();
    assert_eq!((found.winner.event_id.as_str(), found.basis), ("b19999", Basis::Chain));
}

#[test]
fn one_large_group_is_no_trouble() {
    let mut versions: Vec<Version> =
        (0..50_000).map(|step| flip(&format!("e{step}"), 1, step, step + 1)).collect();
    let found = resolve("x", &versions).unwrap();
    assert_eq!((found.winner.event_id.as_str(), found.basis), ("e49999", Basis::Chain));
    versions = in_version(None, versions);
    assert_eq!(resolve("x", &versions).unwrap().basis, Basis::Tiebreak);
}
