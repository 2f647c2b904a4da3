//! The life of an invoice: a draft that is finalized, attempted, and paid, voided or given up.
//! Several events tell of one request, and most of its steps have an `updated` among them.

use serde_json::{Value, json};

use super::rng::Rng;
use super::teller::Teller;

/// Tells one, and whether it was deleted as a draft.
pub fn invoice(t: &mut Teller) -> bool {
    begin(t);
    if t.rng.chance(15) {
        // Made, finalized and paid in one request.
        t.change(
            &["invoice.created", "invoice.finalized", "invoice.paid", "invoice.payment_succeeded"],
            |state| {
                *state = finalized(state);
                pay(state, "ch_1");
            },
        );
        edits(t);
        return false;
    }
    t.change(&["invoice.created"], |_| {});
    edits(t);
    if t.rng.chance(7) {
        t.change(&["invoice.deleted"], |_| {});
        return true;
    }
    if t.rng.chance(15) {
        return false;
    }
    let types: &[&str] = if t.rng.chance(80) {
        &["invoice.finalized", "invoice.updated"]
    } else {
        &["invoice.finalized"]
    };
    let intent = reference(&mut t.rng, "pi", "payment_intent");
    t.change(types, |state| {
        *state = finalized(state);
        state["payment_intent"] = intent;
    });
    edits(t);
    attempts(t);
    let charge = t.rng.id("ch");
    let mut last = t.rng.between(0, 9);
    if last == 6 {
        let types = ["invoice.marked_uncollectible", "invoice.updated"];
        t.change(&types, |state| state["status"] = json!("uncollectible"));
        edits(t);
        last = t.rng.between(4, 9);
    }
    match last {
        0..=5 => {
            let types = ["invoice.updated", "invoice.paid", "invoice.payment_succeeded"];
            t.change(&types, |state| pay(state, &charge));
        }
        7 => t.change(&["invoice.updated", "invoice.voided"], |state| {
            state["status"] = json!("void");
        }),
        _ => {}
    }
    edits(t);
    false
}

/// The draft as the first event will show it.
fn begin(t: &mut Teller) {
    let amount = t.rng.between(100, 99_900);
    let subscription = if t.rng.chance(70) { json!(t.rng.id("sub")) } else { Value::Null };
    t.state = json!({
        "id": t.rng.id("in"),
        "object": "invoice",
        "amount_due": amount,
        "amount_paid": 0,
        "amount_remaining": amount,
        "attempt_count": 0,
        "attempted": false,
        "charge": null,
        "created": t.now(),
        "currency": "eur",
        "customer": reference(&mut t.rng, "cus", "customer"),
        "hosted_invoice_url": null,
        "invoice_pdf": null,
        "lines": {"object": "list", "has_more": false, "data": [line(&mut t.rng)]},
        "metadata": {},
        "next_payment_attempt": t.now() + 3600,
        "number": null,
        "paid": false,
        "payment_intent": null,
        "status": "draft",
        "subscription": subscription,
    });
}

fn finalized(draft: &Value) -> Value {
    let mut invoice = draft.clone();
    invoice["status"] = json!("open");
    invoice["number"] = json!("F-0001");
    invoice["hosted_invoice_url"] = json!("");
    invoice["invoice_pdf"] = json!("");
    invoice
}

/// Payments that fail. Each adds to the count of attempts.
fn attempts(t: &mut Teller) {
    for attempt in 1..=t.rng.between(0, 3) {
        let charge = t.rng.id("ch");
        let now = t.now();
        let failed = ["invoice.updated", "invoice.payment_failed"];
        let asked = [failed[0], failed[1], "invoice.payment_action_required"];
        let types: &[&str] = if t.rng.chance(20) { &asked } else { &failed };
        t.change(types, |state| {
            state["attempt_count"] = json!(attempt);
            state["attempted"] = json!(true);
            state["charge"] = json!(charge);
            state["next_payment_attempt"] = json!(now + 86_400 * attempt);
        });
        edits(t);
    }
}

fn pay(state: &mut Value, charge: &str) {
    state["status"] = json!("paid");
    state["paid"] = json!(true);
    state["attempted"] = json!(true);
    state["amount_paid"] = state["amount_due"].clone();
    state["amount_remaining"] = json!(0);
    state["charge"] = json!(charge);
    state["next_payment_attempt"] = Value::Null;
    state["attempt_count"] = json!(state["attempt_count"].as_i64().unwrap() + 1);
}

/// What people change about an invoice at any time, and about its lines while it is a draft.
fn edits(t: &mut Teller) {
    for _ in 0..t.rng.pick(&[0, 0, 0, 1, 1, 2]) {
        let fresh = t.rng.id("v");
        match t.rng.between(0, 3) {
            0 if t.state["status"] == "draft" => {
                let line = line(&mut t.rng);
                t.change(&["invoice.updated"], |state| {
                    state["lines"]["data"].as_array_mut().unwrap().push(line);
                    state["amount_due"] = json!(state["amount_due"].as_i64().unwrap() + 100);
                    state["amount_remaining"] = state["amount_due"].clone();
                });
            }
            1 => t.flip("invoice.updated", "description", json!(fresh)),
            2 => {
                // Not every step of an invoice tells what it changed: a second of its own.
                t.next_second();
                t.change(&["invoice.updated"], |state| state["metadata"]["note"] = Value::Null);
            }
            _ => t.change(&["invoice.updated"], |state| state["metadata"]["note"] = json!(fresh)),
        }
    }
}

fn line(rng: &mut Rng) -> Value {
    json!({"id": rng.id("il"), "object": "line_item", "amount": 100,
        "price": rng.id("price"), "quantity": 1})
}

/// An id, or now and then the object itself.
fn reference(rng: &mut Rng, prefix: &str, object_type: &str) -> Value {
    let id = rng.id(prefix);
    if rng.chance(10) { json!({"id": id, "object": object_type}) } else { json!(id) }
}
