//! What objects look like before anybody says more about them: ids and members, as of the version
//! 2025-03-31. What happens to them is in `acts`.

use serde_json::{Map, Value, json};

/// How ids of a type begin.
const PREFIXES: [(&str, &str); 24] = [
    ("charge", "ch"),
    ("checkout.session", "cs_test"),
    ("coupon", "coupon"),
    ("credit_note", "cn"),
    ("customer", "cus"),
    ("event", "evt"),
    ("invoice", "in"),
    ("invoice_payment", "inpay"),
    ("invoiceitem", "ii"),
    ("line_item", "il"),
    ("payment_intent", "pi"),
    ("payment_link", "plink"),
    ("payment_method", "pm"),
    ("payout", "po"),
    ("plan", "plan"),
    ("price", "price"),
    ("product", "prod"),
    ("promotion_code", "promo"),
    ("quote", "qt"),
    ("refund", "re"),
    ("setup_intent", "seti"),
    ("subscription", "sub"),
    ("subscription_item", "si"),
    ("tax_rate", "txr"),
];

pub fn prefix(kind: &str) -> &'static str {
    PREFIXES.iter().find(|(name, _)| *name == kind).map_or("obj", |(_, prefix)| prefix)
}

/// A new object of this type, before what was asked for is put into it.
pub fn blank(kind: &str, id: &str, created: i64) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("id".to_owned(), id.into());
    object.insert("object".to_owned(), kind.into());
    object.insert("created".to_owned(), created.into());
    object.insert("livemode".to_owned(), false.into());
    if !["event", "subscription_item"].contains(&kind) {
        object.insert("metadata".to_owned(), json!({}));
    }
    let members = catalog(kind).or_else(|| money(kind)).or_else(|| billing(kind, created));
    if let Some(Value::Object(members)) = members {
        object.extend(members);
    }
    object
}

fn catalog(kind: &str) -> Option<Value> {
    Some(match kind {
        "customer" => json!({
            "address": null, "balance": 0, "currency": null, "default_source": null,
            "delinquent": false, "description": null, "email": null,
            "invoice_settings": {
                "custom_fields": null, "default_payment_method": null, "footer": null
            },
            "name": null, "phone": null, "preferred_locales": [], "shipping": null,
            "tax_exempt": "none"
        }),
        "product" => json!({
            "active": true, "default_price": null, "description": null, "images": [],
            "name": null, "tax_code": null, "type": "service", "unit_label": null
        }),
        "price" => json!({
            "active": true, "billing_scheme": "per_unit", "currency": "usd",
            "lookup_key": null, "nickname": null, "recurring": null,
            "tax_behavior": "unspecified", "tiers_mode": null, "type": "one_time"
        }),
        "plan" => json!({
            "active": true, "billing_scheme": "per_unit", "interval_count": 1, "meter": null,
            "nickname": null, "tiers_mode": null, "trial_period_days": null,
            "usage_type": "licensed"
        }),
        "coupon" => json!({
            "amount_off": null, "currency": null, "duration": "once",
            "duration_in_months": null, "max_redemptions": null, "name": null,
            "percent_off": null, "redeem_by": null, "times_redeemed": 0, "valid": true
        }),
        _ => return None,
    })
}

fn money(kind: &str) -> Option<Value> {
    Some(match kind {
        "payment_method" => json!({
            "allow_redisplay": "unspecified", "billing_details": {},
            "card": { "brand": "visa", "country": "US", "exp_month": 8, "exp_year": 2034,
                      "funding": "credit", "last4": "4242" },
            "customer": null, "type": "card"
        }),
        "payment_intent" => json!({
            "amount_capturable": 0, "amount_received": 0, "cancellation_reason": null,
            "capture_method": "automatic_async", "customer": null, "description": null,
            "last_payment_error": null, "latest_charge": null, "payment_method": null,
            "payment_method_types": ["card"], "status": "requires_payment_method"
        }),
        "charge" => json!({
            "amount_refunded": 0, "balance_transaction": null, "captured": true,
            "customer": null, "description": null, "disputed": false, "failure_code": null,
            "failure_message": null, "paid": true, "receipt_url": null, "refunded": false,
            "status": "succeeded"
        }),
        "setup_intent" => json!({
            "cancellation_reason": null, "customer": null, "description": null,
            "last_setup_error": null, "payment_method": null,
            "payment_method_types": ["card"], "status": "requires_payment_method",
            "usage": "off_session"
        }),
        "refund" => json!({ "reason": null, "status": "succeeded" }),
        "payout" => json!({
            "automatic": false, "description": null, "method": "standard",
            "source_type": "card", "status": "pending", "type": "bank_account"
        }),
        "checkout.session" => json!({
            "amount_subtotal": null, "amount_total": null, "currency": "usd", "customer": null,
            "invoice": null, "payment_intent": null, "payment_status": "unpaid",
            "status": "open", "subscription": null, "ui_mode": "hosted", "url": null
        }),
        _ => return None,
    })
}

fn billing(kind: &str, created: i64) -> Option<Value> {
    Some(match kind {
        "invoiceitem" => json!({
            "date": created, "description": null, "discountable": true, "invoice": null,
            "period": { "start": created, "end": created }, "quantity": 1
        }),
        "invoice" => json!({
            "amount_due": 0, "amount_paid": 0, "amount_remaining": 0, "attempt_count": 0,
            "attempted": false, "auto_advance": false, "billing_reason": "manual",
            "collection_method": "charge_automatically", "currency": "usd",
            "default_payment_method": null, "description": null, "due_date": null,
            "next_payment_attempt": null, "number": null, "parent": null,
            "period_end": created, "period_start": created, "starting_balance": 0,
            "status": "draft",
            "status_transitions": { "finalized_at": null, "marked_uncollectible_at": null,
                                    "paid_at": null, "voided_at": null },
            "total_taxes": []
        }),
        "invoice_payment" => json!({
            "is_default": true, "status": "paid",
            "status_transitions": { "canceled_at": null, "paid_at": created }
        }),
        "subscription" => json!({
            "billing_cycle_anchor": created, "cancel_at": null, "cancel_at_period_end": false,
            "canceled_at": null, "collection_method": "charge_automatically",
            "currency": "usd", "default_payment_method": null, "description": null,
            "discounts": [], "ended_at": null, "latest_invoice": null,
            "pause_collection": null, "schedule": null, "start_date": created,
            "status": "active", "trial_end": null, "trial_start": null
        }),
        "credit_note" => json!({
            "memo": null, "reason": null, "status": "issued", "type": "post_payment"
        }),
        _ => return None,
    })
}
