//! Step 4: how far along its lifecycle an object is, for the types that have one.
//! What events report of changes is not looked at: it comes first, and is gone through by now.

use serde_json::Value;

use super::{Candidate, Class};

/// How far along, in one respect. None for what is not known: Stripe's enums grow.
type Measure = fn(&Value) -> Option<i64>;

/// The candidates that are furthest along; the first respect in which they differ decides.
///
/// Where a value is not known, nothing is decided from there on: a guess should look like one.
pub(super) fn foremost(
    object_type: &str,
    classes: &[Class<'_>],
    candidates: &[Candidate],
) -> Vec<Candidate> {
    let mut left = candidates.to_vec();
    for measure in measures(object_type) {
        let values: Vec<Option<i64>> = left
            .iter()
            .map(|one| classes.get(one.class).and_then(|class| measure(&class.newest.object)))
            .collect();
        if values.iter().all(|value| Some(value) == values.first()) {
            continue;
        }
        if values.contains(&None) {
            break;
        }
        let greatest = values.iter().max().copied().flatten();
        let mut values = values.iter();
        left.retain(|_| values.next().is_some_and(|value| *value == greatest));
    }
    left
}

fn measures(object_type: &str) -> &'static [Measure] {
    match object_type {
        "invoice" => &[
            invoice,
            |invoice| invoice.get("attempt_count")?.as_i64(),
            |invoice| invoice.get("amount_paid")?.as_i64(),
        ],
        "subscription" => &[subscription],
        "payment_intent" => &[payment_intent],
        "charge" => &[
            charge,
            |charge| charge.get("captured")?.as_bool().map(i64::from),
            |charge| charge.get("amount_refunded")?.as_i64(),
            |charge| charge.get("disputed")?.as_bool().map(i64::from),
            |charge| Some(present(charge, "balance_transaction")),
        ],
        "refund" => &[refund],
        "dispute" => &[dispute],
        "payout" => &[payout],
        "checkout.session" => &[checkout, checkout_payment],
        _ => &[],
    }
}

fn status(object: &Value) -> Option<&str> {
    object.get("status")?.as_str()
}

fn present(object: &Value, key: &str) -> i64 {
    i64::from(object.get(key).is_some_and(|value| !value.is_null()))
}

fn invoice(object: &Value) -> Option<i64> {
    match status(object)? {
        "draft" => Some(0),
        "open" => Some(1),
        "uncollectible" => Some(2),
        "paid" | "void" => Some(3),
        _ => None,
    }
}

fn subscription(object: &Value) -> Option<i64> {
    match status(object)? {
        "incomplete" => Some(0),
        "trialing" => Some(1),
        "active" => Some(2),
        "past_due" => Some(3),
        "unpaid" | "paused" => Some(4),
        "canceled" | "incomplete_expired" => Some(5),
        _ => None,
    }
}

/// `requires_source…` are the names before 2019-02-11.
fn payment_intent(object: &Value) -> Option<i64> {
    match status(object)? {
        "requires_payment_method" | "requires_source" => {
            Some(4 * present(object, "last_payment_error"))
        }
        "requires_confirmation" => Some(1),
        "requires_action" | "requires_source_action" => Some(2),
        "processing" => Some(3),
        "requires_capture" => Some(5),
        "succeeded" | "canceled" => Some(6),
        _ => None,
    }
}

fn charge(object: &Value) -> Option<i64> {
    match status(object)? {
        "pending" => Some(0),
        "succeeded" | "failed" => Some(1),
        _ => None,
    }
}

/// A payout that was paid may still fail, if the bank sends it back.
fn payout(object: &Value) -> Option<i64> {
    match status(object)? {
        "pending" => Some(0),
        "in_transit" => Some(1),
        "paid" => Some(2),
        "failed" | "canceled" => Some(3),
        _ => None,
    }
}

fn refund(object: &Value) -> Option<i64> {
    match status(object)? {
        "pending" => Some(0),
        "requires_action" => Some(1),
        "succeeded" => Some(2),
        "failed" | "canceled" => Some(3),
        _ => None,
    }
}

fn dispute(object: &Value) -> Option<i64> {
    match status(object)? {
        "needs_response" | "warning_needs_response" => Some(0),
        "under_review" | "warning_under_review" => Some(1),
        "won" | "lost" | "warning_closed" | "charge_refunded" | "prevented" => Some(2),
        _ => None,
    }
}

fn checkout(object: &Value) -> Option<i64> {
    match status(object)? {
        "open" => Some(0),
        "complete" | "expired" => Some(1),
        _ => None,
    }
}

fn checkout_payment(object: &Value) -> Option<i64> {
    match object.get("payment_status")?.as_str()? {
        "unpaid" => Some(0),
        "paid" => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Whether the types' measures put `left` before, with or after `right`.
    fn compare(object_type: &str, left: &Value, right: &Value) -> std::cmp::Ordering {
        let rank = |object| -> Vec<Option<i64>> {
            measures(object_type).iter().map(|measure| measure(object)).collect()
        };
        rank(left).cmp(&rank(right))
    }

    #[test]
    fn lifecycles_go_one_way() {
        for (object_type, statuses) in [
            ("invoice", "draft open uncollectible paid"),
            ("invoice", "draft open uncollectible void"),
            ("subscription", "incomplete trialing active past_due unpaid canceled"),
            ("subscription", "incomplete trialing active past_due paused canceled"),
            (
                "payment_intent",
                "requires_payment_method requires_confirmation requires_action processing \
                 requires_capture succeeded",
            ),
            ("charge", "pending succeeded"),
            ("charge", "pending failed"),
            ("refund", "pending requires_action succeeded failed"),
            ("dispute", "needs_response under_review won"),
            ("dispute", "warning_needs_response warning_under_review warning_closed"),
            ("checkout.session", "open complete"),
        ] {
            let objects: Vec<Value> =
                statuses.split_whitespace().map(|status| json!({"status": status})).collect();
            assert!(objects.is_sorted_by(|left, right| compare(object_type, left, right).is_lt()));
        }
    }

    #[test]
    fn further_attributes_decide_within_a_status() {
        for (object_type, left, right) in [
            ("invoice", json!({"attempt_count": 0}), json!({"attempt_count": 1})),
            ("invoice", json!({"amount_paid": 0}), json!({"amount_paid": 1})),
            ("charge", json!({"captured": false}), json!({"captured": true})),
            ("charge", json!({"amount_refunded": 0}), json!({"amount_refunded": 5})),
            ("charge", json!({"disputed": false}), json!({"disputed": true})),
            ("charge", json!({"balance_transaction": null}), json!({"balance_transaction": "t"})),
            (
                "checkout.session",
                json!({"payment_status": "unpaid"}),
                json!({"payment_status": "paid"}),
            ),
            (
                "payment_intent",
                json!({"status": "processing"}),
                json!({"status": "requires_payment_method", "last_payment_error": {}}),
            ),
        ] {
            assert!(compare(object_type, &left, &right).is_lt(), "{left} {right}");
        }
    }

    #[test]
    fn no_object_is_refused() {
        for object in [json!(null), json!(1), json!("x"), json!([]), json!({"status": 1})] {
            for object_type in ["invoice", "charge", "payment_intent", "checkout.session", "other"]
            {
                assert!(compare(object_type, &object, &object).is_eq());
            }
        }
    }
}
