//! Payments: payment methods, intents, charges, refunds, checkout. Cards that decline are known by
//! their names.

use serde_json::{Map, Value, json};

use super::acts::{Act, Done};
use super::answers::Answer;

type Form = Map<String, Value>;

/// Creates what belongs here; None for other types.
pub fn create(act: &mut Act<'_>, kind: &str, form: &Form) -> Option<Done> {
    Some(match kind {
        "payment_intent" => {
            let intent = act.made(kind, &without(form, &["confirm", "payment_method"]));
            act.keep(&intent);
            act.tell("created", &intent);
            let method = form.get("payment_method").and_then(Value::as_str);
            match method.filter(|_| form.get("confirm") == Some(&true.into())) {
                Some(method) => confirm(act, intent, method),
                None => Ok(intent),
            }
        }
        "setup_intent" => {
            let mut intent = act.made(kind, &without(form, &["confirm", "payment_method"]));
            act.tell("created", &intent);
            if let Some(method) = form.get("payment_method").and_then(Value::as_str) {
                intent["payment_method"] = named(act, method)["id"].clone();
                intent["status"] = "succeeded".into();
                act.tell("succeeded", &intent);
            }
            act.keep(&intent);
            Ok(intent)
        }
        "payment_method" => {
            let method = act.made(kind, &without(form, &["card"]));
            act.keep(&method);
            Ok(method)
        }
        "refund" => refund(act, form),
        "checkout.session" => checkout(act, form),
        _ => return None,
    })
}

/// Does what a path's last part says; None if that is nothing here.
pub fn verb(act: &mut Act<'_>, list: &str, id: &str, verb: &str, form: &Form) -> Option<Done> {
    Some(match (list, verb) {
        ("payment_methods", "attach") => {
            let mut method = named(act, id);
            method["customer"] = form.get("customer").cloned().unwrap_or_default();
            act.keep(&method);
            act.tell("attached", &method);
            Ok(method)
        }
        ("payment_methods", "detach") => act.existing("payment_method", id).map(|mut method| {
            method["customer"] = Value::Null;
            act.keep(&method);
            act.tell("detached", &method);
            method
        }),
        ("payment_intents", "confirm") => {
            let method = form.get("payment_method").and_then(Value::as_str);
            let method = method.unwrap_or("pm_card_visa").to_owned();
            act.existing("payment_intent", id).and_then(|intent| confirm(act, intent, &method))
        }
        ("payment_intents", "cancel") => act.existing("payment_intent", id).map(|mut intent| {
            intent["status"] = "canceled".into();
            intent["canceled_at"] = act.now.into();
            intent["cancellation_reason"] =
                form.get("cancellation_reason").cloned().unwrap_or_default();
            act.keep(&intent);
            act.tell("canceled", &intent);
            intent
        }),
        ("payment_pages", "confirm") => {
            act.existing("checkout.session", id).and_then(|session| complete(act, session, form))
        }
        _ => return None,
    })
}

/// A payment method by its id; the names of test cards make one.
pub fn named(act: &mut Act<'_>, name: &str) -> Value {
    act.existing("payment_method", name).unwrap_or_else(|_| {
        let method = act.made("payment_method", &Map::new());
        act.keep(&method);
        method
    })
}

/// Charges an intent.
pub fn confirm(act: &mut Act<'_>, mut intent: Value, method: &str) -> Done {
    let declined = method.contains("Declined");
    let method = named(act, method)["id"].clone();
    let mut charge = act.made("charge", &Map::new());
    for name in ["amount", "currency", "customer", "description", "metadata"] {
        charge[name] = intent[name].clone();
    }
    charge["payment_intent"] = intent["id"].clone();
    charge["payment_method"] = method.clone();
    intent["latest_charge"] = charge["id"].clone();
    if declined {
        for (name, value) in [
            ("status", json!("failed")),
            ("paid", json!(false)),
            ("captured", json!(false)),
            ("failure_code", json!("card_declined")),
            ("failure_message", json!("Your card was declined.")),
        ] {
            charge[name] = value;
        }
        let mut error = json!({
            "charge": charge["id"], "code": "card_declined", "decline_code": "generic_decline",
            "message": "Your card was declined.", "type": "card_error"
        });
        intent["last_payment_error"] = error.clone();
        act.keep(&charge);
        act.keep(&intent);
        act.tell("failed", &charge);
        act.tell("payment_failed", &intent);
        error["payment_intent"] = intent;
        return Err(Answer::error(402, &error));
    }
    charge["amount_captured"] = charge["amount"].clone();
    charge["balance_transaction"] = format!("txn_{}", act.now).into();
    intent["amount_received"] = intent["amount"].clone();
    intent["payment_method"] = method;
    intent["status"] = "succeeded".into();
    act.keep(&charge);
    act.keep(&intent);
    act.tell("succeeded", &charge);
    act.tell("succeeded", &intent);
    Ok(intent)
}

fn refund(act: &mut Act<'_>, form: &Form) -> Done {
    let text = |name: &str| form.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let id = match text("charge") {
        id if id.is_empty() => {
            let intent = act.existing("payment_intent", &text("payment_intent"))?;
            intent["latest_charge"].as_str().unwrap_or_default().to_owned()
        }
        id => id,
    };
    let mut charge = act.existing("charge", &id)?;
    let mut refund = act.made("refund", form);
    for name in ["amount", "currency", "payment_intent"] {
        refund[name] = charge[name].clone();
    }
    refund["charge"] = charge["id"].clone();
    charge["amount_refunded"] = charge["amount"].clone();
    charge["refunded"] = true.into();
    act.keep(&refund);
    act.keep(&charge);
    act.tell("created", &refund);
    act.tell("refunded", &charge);
    Ok(refund)
}

fn checkout(act: &mut Act<'_>, form: &Form) -> Done {
    let mut total = 0;
    for line in form.get("line_items").and_then(Value::as_array).into_iter().flatten() {
        let price = act.existing("price", line["price"].as_str().unwrap_or_default())?;
        total += price["unit_amount"].as_i64().unwrap_or_default()
            * line["quantity"].as_i64().unwrap_or(1);
    }
    let mut session =
        act.made("checkout.session", &without(form, &["line_items", "payment_intent_data"]));
    session["amount_subtotal"] = total.into();
    session["amount_total"] = total.into();
    act.keep(&session);
    Ok(session)
}

/// The buyer pays: what the page of a checkout does.
fn complete(act: &mut Act<'_>, mut session: Value, form: &Form) -> Done {
    let asked = json!({ "amount": session["amount_total"], "currency": session["currency"] });
    let intent = act.made("payment_intent", asked.as_object().unwrap());
    act.tell("created", &intent);
    let method = form.get("payment_method").and_then(Value::as_str).unwrap_or("pm_card_visa");
    let intent = confirm(act, intent, method)?;
    session["payment_intent"] = intent["id"].clone();
    session["payment_status"] = "paid".into();
    session["status"] = "complete".into();
    act.keep(&session);
    act.tell("completed", &session);
    Ok(session)
}

/// What was asked for, but these.
fn without(form: &Form, names: &[&str]) -> Form {
    let kept = form.iter().filter(|(name, _)| !names.contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}
