//! The life of a subscription: its status, its items, and what people change about it.
//! Every change but the cancellation comes with an `updated`.

use serde_json::{Value, json};

use super::rng::Rng;
use super::teller::Teller;

const UPDATED: &str = "customer.subscription.updated";
const MONTH: i64 = 2_592_000;

/// Tells one; it is never deleted.
pub fn subscription(t: &mut Teller) -> bool {
    let status = t.rng.pick(&["incomplete", "trialing", "active", "active"]);
    let (now, item) = (t.now(), item(&mut t.rng));
    let id = t.rng.id("sub");
    let customer = t.rng.id("cus");
    t.change(&["customer.subscription.created"], |state| {
        *state = json!({
            "id": id,
            "object": "subscription",
            "cancel_at_period_end": false,
            "canceled_at": null,
            "created": now,
            "current_period_end": now + MONTH,
            "current_period_start": now,
            "customer": customer,
            "description": null,
            "ended_at": null,
            "items": {"object": "list", "data": [item], "has_more": false},
            "latest_invoice": null,
            "metadata": {},
            "pause_collection": null,
            "quantity": 1,
            "status": status,
        });
    });
    for _ in 0..t.rng.between(0, 14) {
        let status = t.state["status"].as_str().unwrap().to_owned();
        match t.rng.between(0, 9) {
            0..=3 => live_on(t, &status),
            4 if status == "trialing" => {
                t.change(&["customer.subscription.trial_will_end"], |_| {});
            }
            _ => edit(t),
        }
    }
    false
}

/// The next status.
fn live_on(t: &mut Teller, status: &str) {
    let next = match status {
        "incomplete" => t.rng.pick(&["active", "active", "trialing", "incomplete_expired"]),
        "trialing" => t.rng.pick(&["active", "active", "past_due", "paused", "canceled"]),
        "active" => t.rng.pick(&["past_due", "past_due", "canceled"]),
        "past_due" => t.rng.pick(&["active", "active", "unpaid", "canceled"]),
        "unpaid" | "paused" => t.rng.pick(&["active", "active", "canceled"]),
        _ => return,
    };
    let now = t.now();
    match next {
        "canceled" => t.change(&["customer.subscription.deleted"], |state| {
            state["status"] = json!(next);
            state["canceled_at"] = json!(now);
            state["ended_at"] = json!(now);
        }),
        "active" if ["past_due", "unpaid", "paused"].contains(&status) => {
            t.go_back();
            let types: &[&str] = match status {
                "paused" => &["customer.subscription.resumed", UPDATED],
                _ => &[UPDATED],
            };
            t.change(types, |state| state["status"] = json!(next));
        }
        "paused" => t.change(&["customer.subscription.paused", UPDATED], |state| {
            state["status"] = json!(next);
        }),
        _ => t.change(&[UPDATED], |state| state["status"] = json!(next)),
    }
}

/// Something that a person or a period changes.
fn edit(t: &mut Teller) {
    let fresh = t.rng.id("v");
    let what = t.rng.between(0, 9);
    if [1, 5, 7, 8].contains(&what) {
        if t.state["status"] == "canceled" {
            // No event tells how the cancellation joins what was before it.
            t.next_second();
        }
        t.go_back();
    }
    match what {
        0 => t.change(&[UPDATED], |state| state["metadata"]["plan"] = json!(fresh)),
        1 => t.change(&[UPDATED], |state| state["metadata"]["note"] = Value::Null),
        2 => t.change(&[UPDATED], |state| state["metadata"]["note"] = json!(fresh)),
        3 => {
            let quantity = t.rng.between(1, 9999);
            t.change(&[UPDATED], |state| {
                state["quantity"] = json!(quantity);
                state["items"]["data"][0]["quantity"] = json!(quantity);
            });
        }
        4 => {
            let item = item(&mut t.rng);
            t.change(&[UPDATED], |state| items(state).push(item));
        }
        5 => t.change(&[UPDATED], |state| {
            if items(state).len() > 1 {
                items(state).pop();
            }
        }),
        6 => t.change(&[UPDATED], |state| {
            let renewed = state["current_period_end"].as_i64().unwrap();
            state["current_period_start"] = json!(renewed);
            state["current_period_end"] = json!(renewed + MONTH);
            state["latest_invoice"] = json!(fresh);
        }),
        7 => t.change(&[UPDATED], |state| {
            state["pause_collection"] = match &state["pause_collection"] {
                Value::Null => json!({"behavior": "void", "resumes_at": null}),
                _ => Value::Null,
            };
        }),
        8 => t.change(&[UPDATED], |state| {
            state["cancel_at_period_end"] = json!(state["cancel_at_period_end"] == false);
        }),
        _ => t.flip(UPDATED, "description", json!(fresh)),
    }
}

fn items(state: &mut Value) -> &mut Vec<Value> {
    state["items"]["data"].as_array_mut().unwrap()
}

fn item(rng: &mut Rng) -> Value {
    json!({"id": rng.id("si"), "object": "subscription_item", "metadata": {},
        "price": {"id": rng.id("price"), "object": "price", "unit_amount": 1500}, "quantity": 1})
}
