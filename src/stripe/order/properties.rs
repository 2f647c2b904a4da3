//! What holds for any history: what is not a guess is right, and the order of arrival is nothing.
//! How histories are made is told in `walks`, examples of each step are in `tests`.

use proptest::prelude::*;
use serde_json::Value;
use time::OffsetDateTime;

use super::canonical::canonical;
use super::walks::{Random, Shape, walk};
use super::{Basis, Phase, Standing, Version, resolve};

const BASIL: Option<&str> = Some("2025-03-31.basil");

fn shapes(complete: bool) -> impl Strategy<Value = Shape> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (1..12_u64, 1..12_u64, 2..4_u64, flags).prop_map(
        move |(steps, per_second, values, (created, companions, terminal))| Shape {
            steps,
            per_second,
            values,
            created: created || complete,
            companions,
            terminal,
            api_version: BASIL,
        },
    )
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "open|paid|active".prop_map(Value::from),
    ];
    let key = "status|metadata|updated|k|last_payment_error";
    leaf.prop_recursive(3, 12, 3, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn anything() -> impl Strategy<Value = Version> {
    let api_version = prop_oneof![
        3 => Just(BASIL),
        1 => Just(None),
        1 => Just(Some("2016-07-06")),
    ];
    let previous = prop::option::weighted(0.8, json());
    (0..20_u8, api_version, 0..3_i64, json(), previous).prop_map(
        |(id, api_version, second, object, previous)| Version {
            event_id: id.to_string(),
            event_type: String::new(),
            api_version: api_version.map(str::to_owned),
            standing: Standing {
                incarnation: 0,
                phase: Phase::Normal,
                created: OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(second),
            },
            object: object.into(),
            previous: previous.map(Into::into),
        },
    )
}

/// What must not depend on the order of the input.
fn outcome(object_type: &str, versions: &[Version]) -> Option<(String, String, Basis)> {
    let found = resolve(object_type, versions)?;
    Some((found.winner.event_id.clone(), found.winner.object.to_string(), found.basis))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn where_no_event_is_missing_nothing_is_guessed(seed: u64, shape in shapes(true)) {
        let history = walk(seed, shape);
        let found = resolve("x", &history.versions).unwrap();
        prop_assert_ne!(found.basis, Basis::Tiebreak);
        prop_assert_eq!(canonical(&found.winner.object), canonical(&history.last));
    }

    #[test]
    fn what_is_not_a_guess_is_right(seed: u64, shape in shapes(false)) {
        let history = walk(seed, shape);
        for object_type in ["x", "subscription"] {
            if let Some(found) = resolve(object_type, &history.versions)
                && found.basis != Basis::Tiebreak
            {
                prop_assert_eq!(canonical(&found.winner.object), canonical(&history.last));
            }
        }
    }

    #[test]
    fn order_and_duplicates_do_not_matter(seed: u64, shape in shapes(false), drop in 0..3_usize) {
        let mut versions = walk(seed, shape).versions;
        versions.truncate(versions.len().saturating_sub(drop));
        let expected = outcome("subscription", &versions);
        let mut random = Random(seed);
        versions.extend(versions.clone());
        random.shuffle(&mut versions);
        prop_assert_eq!(outcome("subscription", &versions), expected);
    }

    #[test]
    fn no_input_is_refused(mut versions in prop::collection::vec(anything(), 1..12), seed: u64) {
        for object_type in ["invoice", "payment_intent", "subscription", "x"] {
            let expected = outcome(object_type, &versions);
            prop_assert!(expected.is_some());
            Random(seed).shuffle(&mut versions);
            prop_assert_eq!(outcome(object_type, &versions), expected);
        }
    }
}
