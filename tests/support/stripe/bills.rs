//! Bills: subscriptions, invoices and their items, credit notes. How money moves is in `payments`.

use serde_json::{Map, Value, json};

use super::acts::{Act, Done};
use super::payments;

type Form = Map<String, Value>;

const DAY: i64 = 86_400;

/// Creates what belongs here; None for other types.
pub fn create(act: &mut Act<'_>, kind: &str, form: &Form) -> Option<Done> {
    Some(match kind {
        "invoice" => Ok(invoice(act, form)),
        "subscription" => subscribe(act, form),
        "credit_note" => credit(act, form),
        _ => return None,
    })
}

/// Does what a path's last part says; None if that is nothing here.
pub fn verb(act: &mut Act<'_>, list: &str, id: &str, verb: &str) -> Option<Done> {
    if list != "invoices" {
        return None;
    }
    let invoice = match act.existing("invoice", id) {
        Ok(invoice) => invoice,
        Err(refusal) => return Some(Err(refusal)),
    };
    Some(match verb {
        "finalize" => Ok(finalize(act, &invoice)),
        "pay" => pay(act, invoice),
        "void" => Ok(step(act, &invoice, "void", "voided", "voided_at")),
        "mark_uncollectible" => {
            let at = "marked_uncollectible_at";
            Ok(step(act, &invoice, "uncollectible", "marked_uncollectible", at))
        }
        _ => return None,
    })
}

/// A draft of everything that waits to be billed to a customer.
fn invoice(act: &mut Act<'_>, form: &Form) -> Value {
    let mut form = form.clone();
    form.remove("pending_invoice_items_behavior");
    let customer = form.get("customer").cloned().unwrap_or_default();
    let mut invoice = act.made("invoice", &form);
    let pending = act.all("invoiceitem").into_iter().rev();
    let pending = pending.filter(|it| it["customer"] == customer && it["invoice"].is_null());
    let mut lines = Vec::new();
    for mut item in pending {
        item["invoice"] = invoice["id"].clone();
        act.keep(&item);
        let parent = json!({
            "invoice_item_details": { "invoice_item": item["id"], "proration": false },
            "subscription_item_details": null, "type": "invoice_item_details"
        });
        lines.push(line(act, &invoice, &item, &parent));
    }
    fill(&mut invoice, &lines);
    act.keep(&invoice);
    act.tell("created", &invoice);
    invoice
}

/// A line of an invoice, for what has an amount, a description, a quantity and perhaps a price.
fn line(act: &mut Act<'_>, invoice: &Value, what: &Value, parent: &Value) -> Value {
    let price = &what["price"];
    let pricing = price.is_object().then(|| {
        json!({
            "price_details": { "price": price["id"], "product": price["product"] },
            "type": "price_details", "unit_amount_decimal": price["unit_amount_decimal"]
        })
    });
    json!({
        "id": act.new_id("line_item"), "object": "line_item", "amount": what["amount"],
        "currency": invoice["currency"], "description": what["description"],
        "discountable": true, "discounts": [], "invoice": invoice["id"], "livemode": false,
        "metadata": {}, "parent": parent, "period": what["period"], "pricing": pricing,
        "quantity": what["quantity"], "taxes": []
    })
}

fn fill(invoice: &mut Value, lines: &[Value]) {
    let total: i64 = lines.iter().filter_map(|line| line["amount"].as_i64()).sum();
    for name in ["amount_due", "amount_remaining", "subtotal", "total"] {
        invoice[name] = total.into();
    }
    let url = format!("/v1/invoices/{}/lines", invoice["id"].as_str().unwrap());
    invoice["lines"] = json!({
        "object": "list", "data": lines, "has_more": false, "total_count": lines.len(), "url": url
    });
}

/// Takes an invoice to a status, telling what changed and what that is called.
fn step(act: &mut Act<'_>, before: &Value, status: &str, what: &str, at: &str) -> Value {
    let mut invoice = before.clone();
    invoice["status"] = status.into();
    invoice["status_transitions"][at] = act.now.into();
    if invoice["number"].is_null() {
        let id = invoice["id"].as_str().unwrap();
        invoice["number"] = format!("TESTS-{}", &id[id.len() - 4..]).into();
    }
    if status == "paid" {
        invoice["attempted"] = true.into();
        invoice["amount_paid"] = invoice["amount_due"].clone();
        invoice["amount_remaining"] = 0.into();
    }
    act.update(before, &invoice);
    act.tell(what, &invoice);
    invoice
}

fn finalize(act: &mut Act<'_>, invoice: &Value) -> Value {
    step(act, invoice, "open", "finalized", "finalized_at")
}

fn pay(act: &mut Act<'_>, mut invoice: Value) -> Done {
    if invoice["status"] == "draft" {
        invoice = finalize(act, &invoice);
    }
    if invoice["total"].as_i64() > Some(0) {
        let asked = json!({
            "amount": invoice["total"], "currency": invoice["currency"],
            "customer": invoice["customer"], "description": "Payment for an invoice"
        });
        let intent = act.made("payment_intent", asked.as_object().unwrap());
        act.tell("created", &intent);
        let intent = payments::confirm(act, intent, "pm_card_visa")?;
        let paid = json!({
            "amount_paid": invoice["total"], "amount_requested": invoice["total"],
            "currency": invoice["currency"], "invoice": invoice["id"],
            "payment": { "payment_intent": intent["id"], "type": "payment_intent" }
        });
        let payment = act.made("invoice_payment", paid.as_object().unwrap());
        act.keep(&payment);
        act.tell("paid", &payment);
    }
    let invoice = step(act, &invoice, "paid", "paid", "paid_at");
    act.tell("payment_succeeded", &invoice);
    Ok(invoice)
}

/// Subscribes, and has the first invoice paid.
fn subscribe(act: &mut Act<'_>, form: &Form) -> Done {
    let mut rest = form.clone();
    let days = rest.remove("trial_period_days").and_then(|days| days.as_i64());
    let wanted = rest.remove("items").unwrap_or_default();
    let mut subscription = act.made("subscription", &rest);
    let (start, end) = (act.now, act.now + days.unwrap_or(30) * DAY);
    let mut items = Vec::new();
    for item in wanted.as_array().into_iter().flatten() {
        let price = act.existing("price", item["price"].as_str().unwrap_or_default())?;
        let form = json!({
            "current_period_end": end, "current_period_start": start, "discounts": [],
            "price": price, "quantity": item["quantity"].as_i64().unwrap_or(1),
            "subscription": subscription["id"]
        });
        items.push(act.made("subscription_item", form.as_object().unwrap()));
    }
    let url =
        format!("/v1/subscription_items?subscription={}", subscription["id"].as_str().unwrap());
    subscription["items"] = json!({
        "object": "list", "data": items, "has_more": false, "total_count": items.len(), "url": url
    });
    if days.is_some() {
        subscription["status"] = "trialing".into();
        subscription["trial_start"] = start.into();
        subscription["trial_end"] = end.into();
    }
    let first = first_invoice(act, &subscription);
    subscription["latest_invoice"] = first["id"].clone();
    act.keep(&subscription);
    act.tell("created", &subscription);
    if days.is_some_and(|days| days <= 3) {
        act.tell("trial_will_end", &subscription);
    }
    pay(act, first)?;
    Ok(subscription)
}

fn first_invoice(act: &mut Act<'_>, subscription: &Value) -> Value {
    let form = json!({
        "billing_reason": "subscription_create", "customer": subscription["customer"],
        "parent": {
            "quote_details": null, "type": "subscription_details",
            "subscription_details": { "metadata": {}, "subscription": subscription["id"] }
        }
    });
    let mut invoice = act.made("invoice", form.as_object().unwrap());
    let free = subscription["status"] == "trialing";
    let mut lines = Vec::new();
    for item in subscription["items"]["data"].as_array().unwrap() {
        let each = item["price"]["unit_amount"].as_i64().unwrap_or_default();
        let quantity = item["quantity"].as_i64().unwrap_or(1);
        let what = json!({
            "amount": if free { 0 } else { each * quantity }, "description": null,
            "period": { "start": item["current_period_start"], "end": item["current_period_end"] },
            "price": item["price"], "quantity": quantity
        });
        let parent = json!({
            "invoice_item_details": null, "type": "subscription_item_details",
            "subscription_item_details": {
                "subscription": subscription["id"], "subscription_item": item["id"]
            }
        });
        lines.push(line(act, &invoice, &what, &parent));
    }
    fill(&mut invoice, &lines);
    act.keep(&invoice);
    act.tell("created", &invoice);
    invoice
}

/// Ends a subscription at once; it is not gone, only cancelled.
pub fn cancel(act: &mut Act<'_>, mut subscription: Value) -> Value {
    subscription["status"] = "canceled".into();
    subscription["canceled_at"] = act.now.into();
    subscription["ended_at"] = act.now.into();
    act.keep(&subscription);
    act.tell("deleted", &subscription);
    subscription
}

fn credit(act: &mut Act<'_>, form: &Form) -> Done {
    let mut rest = form.clone();
    let wanted = rest.remove("lines").unwrap_or_default();
    let id = form.get("invoice").and_then(Value::as_str).unwrap_or_default();
    let invoice = act.existing("invoice", id)?;
    let lines = wanted.as_array().into_iter().flatten();
    let amount: i64 = lines
        .map(|line| {
            line["unit_amount"].as_i64().unwrap_or_default()
                * line["quantity"].as_i64().unwrap_or(1)
        })
        .sum();
    let mut note = act.made("credit_note", &rest);
    for name in ["amount", "subtotal", "total"] {
        note[name] = amount.into();
    }
    note["currency"] = invoice["currency"].clone();
    note["customer"] = invoice["customer"].clone();
    act.keep(&note);
    act.tell("created", &note);
    Ok(note)
}
