//! Which address lists which type of object, and which part of another object. Nothing here reads
//! parameters.

use serde_json::Value;

use super::Asked;
use super::world::Account;

/// Below `/v1/`, and the type of what is listed there.
const LISTS: [(&str, &str); 38] = [
    ("accounts", "account"),
    ("balance_transactions", "balance_transaction"),
    ("billing/meters", "billing.meter"),
    ("charges", "charge"),
    ("checkout/sessions", "checkout.session"),
    ("coupons", "coupon"),
    ("credit_notes", "credit_note"),
    ("customers", "customer"),
    ("disputes", "dispute"),
    ("entitlements/active_entitlements", "entitlements.active_entitlement"),
    ("entitlements/features", "entitlements.feature"),
    ("invoice_payments", "invoice_payment"),
    ("invoiceitems", "invoiceitem"),
    ("invoices", "invoice"),
    ("payment_intents", "payment_intent"),
    ("payment_links", "payment_link"),
    ("payment_methods", "payment_method"),
    ("payouts", "payout"),
    ("plans", "plan"),
    ("prices", "price"),
    ("products", "product"),
    ("promotion_codes", "promotion_code"),
    ("quotes", "quote"),
    ("refunds", "refund"),
    ("reviews", "review"),
    ("setup_attempts", "setup_attempt"),
    ("setup_intents", "setup_intent"),
    ("shipping_rates", "shipping_rate"),
    ("subscription_items", "subscription_item"),
    ("subscription_schedules", "subscription_schedule"),
    ("subscriptions", "subscription"),
    ("tax_ids", "tax_id"),
    ("tax_rates", "tax_rate"),
    ("test_helpers/test_clocks", "test_helpers.test_clock"),
    ("tokens", "token"),
    ("topups", "topup"),
    ("transfers", "transfer"),
    ("webhook_endpoints", "webhook_endpoint"),
];

/// Types that belong to another object, whose id is in their member of that name.
const BELONGINGS: [(&str, &str, &str); 3] = [
    ("customers", "payment_methods", "customer"),
    ("customers", "tax_ids", "customer"),
    ("charges", "refunds", "charge"),
];

/// The type that is listed at a path below `/v1/`.
pub fn kind(path: &str) -> Option<&'static str> {
    LISTS.iter().find(|(name, _)| *name == path).map(|(_, kind)| *kind)
}

/// The type that a path `/v1/LIST/ID` is to have, and the id.
pub fn single(path: &str) -> Option<(&'static str, &str)> {
    let (list, id) = path.strip_prefix("/v1/")?.rsplit_once('/')?;
    Some((kind(list)?, id))
}

/// A list within a stored object, whole: by the address that it gives itself, or by its name.
pub fn nested<'a>(account: &'a Account, asked: &Asked) -> Option<Vec<&'a Value>> {
    let by_address = account.all().find_map(|object| {
        let members = object.as_object()?.values();
        members.filter(|member| is_list(member)).find(|member| is_at(member, asked))
    });
    let by_name = || {
        let path = asked.path.strip_prefix("/v1/")?;
        if path == "subscription_items" {
            return Some(&account.object(asked.parameter("subscription")?)?["items"]);
        }
        let (owner, member) = path.rsplit_once('/')?;
        let (_, id) = owner.rsplit_once('/')?;
        Some(&account.object(id)?[member]).filter(|member| is_list(member))
    };
    Some(by_address.or_else(by_name)?["data"].as_array()?.iter().collect())
}

/// A list of an owner's objects that are stored by themselves: their type, which of their members
/// names the owner, and the owner's id.
pub fn belongings(path: &str) -> Option<(&'static str, &'static str, &str)> {
    let mut parts = path.strip_prefix("/v1/")?.split('/');
    let (owners, id, name) = (parts.next()?, parts.next()?, parts.next()?);
    let (_, name, member) =
        BELONGINGS.iter().find(|(list, belonging, _)| *list == owners && *belonging == name)?;
    Some((kind(name)?, *member, id)).filter(|_| parts.next().is_none())
}

pub fn is_list(value: &Value) -> bool {
    value["object"] == "list" && value["data"].is_array()
}

/// Whether a list's own `url` is what was asked for, its parameters included.
fn is_at(list: &Value, asked: &Asked) -> bool {
    let url = list["url"].as_str().unwrap_or_default();
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    path == asked.path && pairs.all(|(name, value)| asked.parameter(name) == Some(value))
}
