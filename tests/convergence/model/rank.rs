//! How far an object has come in its life, as far as its state alone tells.
//! The last resort but one: it is asked only where the events do not tell their order.

use serde_json::Value;

/// Compared element by element. An unknown word ranks below all known ones.
pub fn rank(object_type: &str, object: &Value) -> Vec<i64> {
    let status = &object["status"];
    match object_type {
        "invoice" => vec![
            position(status, &[&["draft"], &["open"], &["uncollectible"], &["paid", "void"]]),
            number(&object["attempt_count"]),
            number(&object["amount_paid"]),
        ],
        "subscription" => {
            let order: [&[&str]; 6] = [
                &["incomplete"],
                &["trialing"],
                &["active"],
                &["past_due"],
                &["unpaid", "paused"],
                &["canceled", "incomplete_expired"],
            ];
            vec![position(status, &order)]
        }
        "payment_intent" => vec![payment_intent(object)],
        "charge" => vec![
            position(status, &[&["pending"], &["succeeded", "failed"]]),
            i64::from(object["captured"] == true),
            number(&object["amount_refunded"]),
            i64::from(object["disputed"] == true),
            i64::from(!object["balance_transaction"].is_null()),
        ],
        "refund" => {
            let order: [&[&str]; 4] =
                [&["pending"], &["requires_action"], &["succeeded"], &["failed", "canceled"]];
            vec![position(status, &order)]
        }
        "dispute" => {
            let order: [&[&str]; 3] = [
                &["needs_response", "warning_needs_response"],
                &["under_review", "warning_under_review"],
                &["won", "lost", "warning_closed", "charge_refunded", "prevented"],
            ];
            vec![position(status, &order)]
        }
        "checkout.session" => vec![
            position(status, &[&["open"], &["complete", "expired"]]),
            position(&object["payment_status"], &[&["unpaid"], &["paid", "no_payment_required"]]),
        ],
        _ => Vec::new(),
    }
}

fn payment_intent(object: &Value) -> i64 {
    let failed = !object["last_payment_error"].is_null();
    match object["status"].as_str() {
        Some("requires_payment_method") if !failed => 0,
        Some("requires_confirmation") => 1,
        Some("requires_action") => 2,
        Some("processing") => 3,
        Some("requires_payment_method") => 4,
        Some("requires_capture") => 5,
        Some("succeeded" | "canceled") => 6,
        _ => -1,
    }
}

fn position(word: &Value, order: &[&[&str]]) -> i64 {
    let word = word.as_str().unwrap_or_default();
    let found = order.iter().position(|equals| equals.contains(&word));
    found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}
