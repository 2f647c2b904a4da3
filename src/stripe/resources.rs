//! Where Stripe's API has the objects that the billing tables hold: paths to list and to fetch them.
//! Who asks, and what becomes of the answers, is `sync`'s.

use std::fmt::Write;

use serde_json::Value;

use super::kinds::ENTITLEMENTS;

/// How the objects of a kind are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// All at once, with each of these queries besides the paging's own.
    All(&'static [&'static str]),
    /// Customer by customer, at this path below the customer's own.
    OfCustomer(&'static str),
    /// Customer by customer, and what is listed makes up one summary: a customer's entitlements.
    Summary,
}

/// A kind of object that has a table, as the API has it
/// (<https://docs.stripe.com/api>, the section of each).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The table in the schema `stripe`, which is also what the kind is called on the command line.
    pub table: &'static str,
    /// The member `object`.
    pub object_type: &'static str,
    /// Below `/v1/`, of the list and, with an id behind it, of the object.
    path: &'static str,
    pub listing: Listing,
    /// Whether the list takes `created[gte]`.
    pub by_time: bool,
}

const fn resource(
    table: &'static str,
    object_type: &'static str,
    path: &'static str,
    listing: Listing,
    by_time: bool,
) -> Resource {
    Resource { table, object_type, path, listing, by_time }
}

const PLAIN: &[&str] = &[""];

/// Every kind that has a table of its own, in the order in which a backfill takes them: what others
/// refer to comes first, although no table insists on it.
pub const ALL: [Resource; 20] = [
    resource("products", "product", "products", Listing::All(PLAIN), true),
    // "Returns a list of your active prices": the others are asked for, too.
    resource("prices", "price", "prices", Listing::All(&["active=true", "active=false"]), true),
    resource("plans", "plan", "plans", Listing::All(PLAIN), true),
    resource("coupons", "coupon", "coupons", Listing::All(PLAIN), true),
    resource("customers", "customer", "customers", Listing::All(PLAIN), true),
    resource("tax_ids", "tax_id", "tax_ids", Listing::OfCustomer("tax_ids"), false),
    resource(
        "payment_methods",
        "payment_method",
        "payment_methods",
        Listing::OfCustomer("payment_methods"),
        false,
    ),
    resource(
        "active_entitlements",
        ENTITLEMENTS,
        "entitlements/active_entitlements",
        Listing::Summary,
        false,
    ),
    // Without it the list leaves out those that are canceled.
    resource("subscriptions", "subscription", "subscriptions", Listing::All(&["status=all"]), true),
    resource(
        "subscription_schedules",
        "subscription_schedule",
        "subscription_schedules",
        Listing::All(PLAIN),
        true,
    ),
    resource("invoices", "invoice", "invoices", Listing::All(PLAIN), true),
    resource("invoice_payments", "invoice_payment", "invoice_payments", Listing::All(PLAIN), false),
    resource("payment_intents", "payment_intent", "payment_intents", Listing::All(PLAIN), true),
    resource("setup_intents", "setup_intent", "setup_intents", Listing::All(PLAIN), true),
    resource("charges", "charge", "charges", Listing::All(PLAIN), true),
    resource("refunds", "refund", "refunds", Listing::All(PLAIN), true),
    resource("disputes", "dispute", "disputes", Listing::All(PLAIN), true),
    resource("credit_notes", "credit_note", "credit_notes", Listing::All(PLAIN), true),
    resource(
        "checkout_sessions",
        "checkout.session",
        "checkout/sessions",
        Listing::All(PLAIN),
        true,
    ),
    resource("payouts", "payout", "payouts", Listing::All(PLAIN), true),
];

/// Objects of `stripe.objects` that can be fetched by their id, and the paths of those.
const OTHERS: [(&str, &str); 20] = [
    ("account", "accounts"),
    ("application_fee", "application_fees"),
    ("balance_transaction", "balance_transactions"),
    ("billing.credit_grant", "billing/credit_grants"),
    ("billing.meter", "billing/meters"),
    ("billing_portal.configuration", "billing_portal/configurations"),
    ("entitlements.feature", "entitlements/features"),
    ("file", "files"),
    ("invoiceitem", "invoiceitems"),
    ("mandate", "mandates"),
    ("payment_link", "payment_links"),
    ("promotion_code", "promotion_codes"),
    ("quote", "quotes"),
    ("radar.early_fraud_warning", "radar/early_fraud_warnings"),
    ("review", "reviews"),
    ("shipping_rate", "shipping_rates"),
    ("tax_rate", "tax_rates"),
    ("test_helpers.test_clock", "test_helpers/test_clocks"),
    ("topup", "topups"),
    ("transfer", "transfers"),
];

impl Resource {
    /// The kind that a table holds, or that is called so.
    pub fn named(table: &str) -> Option<&'static Self> {
        ALL.iter().find(|resource| resource.table == table)
    }

    /// Path and query of a list, without paging: of all, with one of its queries; or of a customer's.
    pub fn list(&self, which: &str) -> String {
        let (path, customer) = (self.path, segment(which));
        match self.listing {
            Listing::All(_) if which.is_empty() => format!("/v1/{path}"),
            Listing::All(_) => format!("/v1/{path}?{which}"),
            Listing::OfCustomer(below) => format!("/v1/customers/{customer}/{below}"),
            Listing::Summary => format!("/v1/{path}?customer={customer}"),
        }
    }
}

/// The path at which one object is fetched; none for types that have no such path. `known` is what
/// is known of it: some stand below others.
pub fn path_of(object_type: &str, id: &str, known: &Value) -> Option<String> {
    if object_type == ENTITLEMENTS {
        return None;
    }
    let id = segment(id);
    let customer = known["customer"].as_str().or_else(|| known["customer"]["id"].as_str());
    if let ("tax_id", Some(customer)) = (object_type, customer) {
        return Some(format!("/v1/customers/{}/tax_ids/{id}", segment(customer)));
    }
    let own = ALL.iter().map(|resource| (resource.object_type, resource.path));
    let mut all = own.chain(OTHERS);
    all.find(|(known, _)| *known == object_type).map(|(_, path)| format!("/v1/{path}/{id}"))
}

/// An id as part of a path or query: those of coupons and the like are the caller's choice.
pub fn segment(id: &str) -> String {
    let mut out = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::kinds::Kind;
    use super::*;

    #[test]
    fn every_kind_with_a_table_is_here() {
        for resource in ALL {
            let kind = Kind::of(resource.object_type);
            assert_eq!((kind.table, kind.shares_table()), (resource.table, false));
            assert_eq!(Resource::named(resource.table), Some(&resource));
        }
        for (object_type, _) in OTHERS {
            assert!(Kind::of(object_type).shares_table(), "{object_type} has a table of its own");
        }
    }

    #[test]
    fn paths_are_those_of_the_api() {
        let list = |table, which| Resource::named(table).unwrap().list(which);
        assert_eq!(list("checkout_sessions", ""), "/v1/checkout/sessions");
        assert_eq!(list("subscriptions", "status=all"), "/v1/subscriptions?status=all");
        assert_eq!(list("payment_methods", "cus_1"), "/v1/customers/cus_1/payment_methods");
        assert_eq!(
            list("active_entitlements", "cus_1"),
            "/v1/entitlements/active_entitlements?customer=cus_1"
        );
        let path = |object_type, id, known| path_of(object_type, id, &known);
        assert_eq!(
            path("coupon", "50% off/now", json!({})).unwrap(),
            "/v1/coupons/50%25%20off%2Fnow"
        );
        assert_eq!(path("tax_id", "txi_1", json!({})).unwrap(), "/v1/tax_ids/txi_1");
        assert_eq!(
            path("tax_id", "txi_1", json!({"customer": {"id": "cus_1"}})).unwrap(),
            "/v1/customers/cus_1/tax_ids/txi_1"
        );
        assert_eq!(path("transfer", "tr_1", json!({})).unwrap(), "/v1/transfers/tr_1");
        assert_eq!(path("street.lamp", "lamp_1", json!({})), None);
    }
}
