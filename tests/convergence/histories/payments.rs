//! The lives of payment intents, charges and payment methods.
//! Few of their events tell what changed; the states themselves mostly go one way.

use serde_json::{Value, json};

use super::teller::Teller;

/// Tells one; there is no `payment_intent.updated`.
pub fn payment_intent(t: &mut Teller) -> bool {
    let (id, invoice, now) = (t.rng.id("pi"), t.rng.id("in"), t.now());
    let invoice = if t.rng.chance(60) { json!(invoice) } else { Value::Null };
    let begin = t.rng.pick(&["requires_payment_method", "requires_confirmation"]);
    t.change(&["payment_intent.created"], |state| {
        *state = json!({
            "id": id,
            "object": "payment_intent",
            "amount": 4200,
            "amount_capturable": 0,
            "amount_received": 0,
            "created": now,
            "currency": "usd",
            "invoice": invoice,
            "last_payment_error": null,
            "latest_charge": null,
            "metadata": {},
            "status": begin,
        });
    });
    for _ in 0..t.rng.between(0, 3) {
        attempt(t);
        if ["succeeded", "canceled"].iter().any(|end| t.state["status"] == *end) {
            return false;
        }
        // Someone looks for another card; that takes longer than what is left of the second.
        t.next_second();
    }
    if t.rng.chance(30) {
        t.change(&["payment_intent.canceled"], |state| state["status"] = json!("canceled"));
    }
    false
}

/// One try to pay.
fn attempt(t: &mut Teller) {
    let charge = t.rng.id("ch");
    if t.rng.chance(20) {
        // No event tells of this.
        t.change(&[], |state| state["metadata"]["order"] = json!(charge));
    }
    for (kind, status) in [
        ("payment_intent.requires_action", "requires_action"),
        ("payment_intent.processing", "processing"),
    ] {
        if t.rng.chance(40) {
            t.change(&[kind], |state| {
                state["status"] = json!(status);
                state["last_payment_error"] = Value::Null;
            });
        }
    }
    if t.rng.chance(45) {
        t.change(&["payment_intent.payment_failed"], |state| {
            state["status"] = json!("requires_payment_method");
            state["last_payment_error"] = json!({"code": "card_declined", "charge": charge});
            state["latest_charge"] = json!(charge);
        });
        return;
    }
    if t.rng.chance(25) {
        t.change(&["payment_intent.amount_capturable_updated"], |state| {
            state["status"] = json!("requires_capture");
            state["amount_capturable"] = state["amount"].clone();
            state["last_payment_error"] = Value::Null;
        });
    }
    t.change(&["payment_intent.succeeded"], |state| {
        state["status"] = json!("succeeded");
        state["amount_capturable"] = json!(0);
        state["amount_received"] = state["amount"].clone();
        state["latest_charge"] = json!(charge);
    });
}

/// Tells one; only `charge.updated` says what it changed.
pub fn charge(t: &mut Teller) -> bool {
    let (id, invoice) = (t.rng.id("ch"), t.rng.id("in"));
    let invoice = if t.rng.chance(60) { json!(invoice) } else { Value::Null };
    let captured = t.rng.chance(80);
    t.state = json!({
        "id": id,
        "object": "charge",
        "amount": 10_000,
        "amount_refunded": 0,
        "balance_transaction": null,
        "captured": captured,
        "created": t.now(),
        "currency": "eur",
        "description": null,
        "disputed": false,
        "invoice": invoice,
        "metadata": {},
        "paid": false,
        "receipt_url": null,
        "refunded": false,
        "status": "pending",
    });
    if t.rng.chance(30) {
        t.change(&["charge.pending"], |_| {});
    }
    if t.rng.chance(20) {
        t.change(&["charge.failed"], |state| state["status"] = json!("failed"));
        return false;
    }
    t.change(&["charge.succeeded"], |state| {
        state["status"] = json!("succeeded");
        state["paid"] = json!(true);
        state["receipt_url"] = json!("");
    });
    if !captured {
        t.change(&["charge.captured"], |state| state["captured"] = json!(true));
    }
    for _ in 0..t.rng.between(0, 5) {
        after_charge(t);
    }
    false
}

fn after_charge(t: &mut Teller) {
    let fresh = t.rng.id("txn");
    match t.rng.between(0, 6) {
        0 | 1 if t.state["balance_transaction"].is_null() => {
            t.change(&["charge.updated"], |state| state["balance_transaction"] = json!(fresh));
        }
        2 if t.state["disputed"] == false => {
            t.change(&["charge.updated"], |state| state["disputed"] = json!(true));
        }
        3 | 4 => {
            let left = 10_000 - t.state["amount_refunded"].as_i64().unwrap();
            let part = if t.rng.chance(50) { left } else { t.rng.between(0, left) };
            if part > 0 {
                t.change(&["charge.refunded"], |state| {
                    state["amount_refunded"] = json!(10_000 - left + part);
                    state["refunded"] = json!(part == left);
                });
            }
        }
        5 => t.flip("charge.updated", "description", json!(fresh)),
        _ => t.change(&["charge.updated"], |state| state["metadata"]["note"] = json!(fresh)),
    }
}

/// Tells one; once detached it has no more events.
pub fn payment_method(t: &mut Teller) -> bool {
    let (id, customer, now) = (t.rng.id("pm"), t.rng.id("cus"), t.now());
    t.change(&["payment_method.attached"], |state| {
        *state = json!({
            "id": id,
            "object": "payment_method",
            "billing_details": {"address": {"city": null, "line1": null}, "email": null},
            "card": {"brand": "visa", "exp_month": 7, "exp_year": 2027, "last4": "4242"},
            "created": now,
            "customer": customer,
            "metadata": {},
            "type": "card",
        });
    });
    for _ in 0..t.rng.between(0, 5) {
        let fresh = t.rng.id("v");
        let year = t.rng.between(2027, 2099);
        let kind = "payment_method.updated";
        match t.rng.between(0, 3) {
            0 => t.change(&[kind], |state| state["card"]["exp_year"] = json!(year)),
            1 => t.change(&[kind], |state| {
                state["billing_details"]["address"]["city"] = json!(fresh);
            }),
            2 => t.flip(kind, "allow_redisplay", json!(fresh)),
            _ => t.change(&[kind], |state| state["metadata"]["note"] = json!(fresh)),
        }
    }
    if t.rng.chance(40) {
        t.change(&["payment_method.detached"], |state| state["customer"] = Value::Null);
    }
    false
}
