//! Which objects have a table of their own in the schema `stripe`, and what is special about them.
//! The tables themselves are in `migrations/`; who wins a row is decided in `order`.

/// What Tollgate knows about a type of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The table in the schema `stripe`.
    pub table: &'static str,
    /// Callers choose the id, so that it can be used again after a deletion.
    pub reuses_ids: bool,
    /// References that a later API version dropped, and that must outlive the upgrade.
    pub links: &'static [&'static str],
}

impl Kind {
    const fn plain(table: &'static str) -> Self {
        Self { table, reuses_ids: false, links: &[] }
    }

    const fn reusing(table: &'static str) -> Self {
        Self { table, reuses_ids: true, links: &[] }
    }

    const fn linking(table: &'static str, links: &'static [&'static str]) -> Self {
        Self { table, reuses_ids: false, links }
    }

    /// The kind of an object, by its member `object`. What has no table of its own goes to
    /// `objects`: Stripe adds types, and none may be lost.
    pub fn of(object_type: &str) -> Self {
        match object_type {
            "customer" => Self::reusing("customers"),
            "product" => Self::reusing("products"),
            "price" => Self::reusing("prices"),
            "plan" => Self::reusing("plans"),
            "coupon" => Self::reusing("coupons"),
            // basil (2025-03-31) names discounts without their coupons.
            "subscription" => Self::linking("subscriptions", &[DISCOUNT]),
            // basil (2025-03-31) moved both to invoice payments.
            "invoice" => Self::linking("invoices", &["payment_intent", "charge"]),
            "invoice_payment" => Self::plain("invoice_payments"),
            // basil: an invoice has payments, a payment no invoice.
            "payment_intent" => Self::linking("payment_intents", &["invoice"]),
            // 2020-08-27 took the dispute away.
            "charge" => Self::linking("charges", &["invoice", "dispute"]),
            "refund" => Self::plain("refunds"),
            "dispute" => Self::plain("disputes"),
            "checkout.session" => Self::plain("checkout_sessions"),
            "payment_method" => Self::plain("payment_methods"),
            "setup_intent" => Self::plain("setup_intents"),
            "credit_note" => Self::plain("credit_notes"),
            "payout" => Self::plain("payouts"),
            "tax_id" => Self::plain("tax_ids"),
            "subscription_schedule" => Self::plain("subscription_schedules"),
            ENTITLEMENTS => Self::plain("active_entitlements"),
            "sku" => Self::reusing(OTHERS),
            _ => Self::plain(OTHERS),
        }
    }

    /// Is it kept together with objects of other types?
    pub fn shares_table(self) -> bool {
        self.table == OTHERS
    }
}

/// The link to a discount, with the coupon that it redeems.
pub const DISCOUNT: &str = "discount";

/// Has an object of this type no id, and goes by that of the customer whose only one it is?
pub fn goes_by_customer(object_type: &str) -> bool {
    matches!(object_type, ENTITLEMENTS | "cash_balance")
}

/// The table for objects without one of their own.
const OTHERS: &str = "objects";

/// What a customer is entitled to: an object without id, one for each customer.
pub const ENTITLEMENTS: &str = "entitlements.active_entitlement_summary";
