//! Figures of the business from the billing views: customers, subscriptions, MRR, revenue by day,
//! failed payments. Currencies are kept apart: there is no sum over them. Amounts in minor units.

use std::time::Duration;

use serde::Serialize;
use sqlx::PgConnection;
use time::{Date, OffsetDateTime};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::objects::within;

/// How long all figures may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Days of revenue at most, each currency's counted: a year in all of Stripe's currencies, 135
/// (<https://docs.stripe.com/currencies>).
const MOST_DAYS: i64 = 50_000;

/// Whose figures.
#[derive(Clone, Debug, Default)]
pub struct BillingFilter {
    /// The connected account, empty for the platform's own; None for all together.
    pub account: Option<String>,
    pub livemode: bool,
    /// The first day of the revenue.
    pub since: Option<Date>,
}

/// The figures; what the database had no time for, or is too much, is None, and named in `unfinished`.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Billing {
    /// Customers that are not deleted.
    pub customers: Option<i64>,
    pub subscriptions: Option<Vec<SubscriptionCount>>,
    pub mrr: Option<Vec<Mrr>>,
    /// Oldest day first, all of them: no more than 50,000 days, of each currency, are given.
    pub revenue: Option<Vec<RevenueDay>>,
    /// The newest 100.
    pub failed_payments: Option<Vec<FailedPayment>>,
    pub unfinished: Vec<&'static str>,
}

/// Subscriptions that give access, by status.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct SubscriptionCount {
    /// active, trialing or past_due.
    pub status: String,
    pub subscriptions: i64,
}

/// Monthly recurring revenue in one currency.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Mrr {
    pub currency: String,
    /// Net of discounts.
    pub mrr: i64,
    pub gross: i64,
    pub subscriptions: i64,
    /// How many of them have an amount that is not known.
    pub uncertain: i64,
}

/// What came in on one day (UTC) in one currency.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct RevenueDay {
    #[serde(serialize_with = "day")]
    #[schema(value_type = String, format = Date, example = "2026-01-31")]
    pub day: Date,
    pub currency: String,
    pub gross: i64,
    pub refunded: i64,
    pub disputed: i64,
    pub net: i64,
    pub charges: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn day<S: serde::Serializer>(day: &Date, serializer: S) -> Result<S::Ok, S::Error> {
    // As ISO 8601 has it, for the years there are.
    serializer.collect_str(day)
}

/// Something that was tried and not paid.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct FailedPayment {
    /// invoice, payment_intent or charge.
    pub source: String,
    pub id: String,
    pub account: String,
    pub customer: Option<String>,
    pub email: Option<String>,
    pub amount: Option<i64>,
    pub currency: Option<String>,
    pub status: Option<String>,
    pub failure_code: Option<String>,
    pub failure_message: Option<String>,
    pub attempt_count: Option<i64>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub next_payment_attempt: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub created: Option<OffsetDateTime>,
}

/// The figures.
pub async fn figures(
    connection: &mut PgConnection,
    filter: &BillingFilter,
) -> Result<Billing, sqlx::Error> {
    let mut billing = Billing::default();
    let (account, live) = (filter.account.as_deref(), filter.livemode);
    let began = Instant::now();
    let left = || PATIENCE.saturating_sub(began.elapsed());
    billing.customers = within(connection, left(), async |connection| {
        let sql = "SELECT count(*) FROM stripe.customers
                   WHERE NOT deleted AND livemode = $2 AND coalesce(account = $1, true)";
        sqlx::query_scalar(sql).bind(account).bind(live).fetch_one(connection).await
    })
    .await?;
    billing.subscriptions = within(connection, left(), async |connection| {
        let sql = "SELECT status, count(*) AS subscriptions FROM stripe.subscriptions
                   WHERE NOT deleted AND status IN ('active', 'trialing', 'past_due')
                     AND livemode = $2 AND coalesce(account = $1, true)
                   GROUP BY status ORDER BY status";
        sqlx::query_as(sql).bind(account).bind(live).fetch_all(connection).await
    })
    .await?;
    billing.mrr = within(connection, left(), async |connection| {
        let sql = "SELECT coalesce(currency, '') AS currency, coalesce(stripe.fit(sum(mrr)), 0) AS mrr,
                          coalesce(stripe.fit(sum(gross)), 0) AS gross, sum(subscriptions)::bigint AS subscriptions,
                          sum(uncertain)::bigint AS uncertain
                   FROM stripe.mrr WHERE livemode = $2 AND coalesce(account = $1, true) GROUP BY 1 ORDER BY 1 LIMIT 200";
        sqlx::query_as(sql).bind(account).bind(live).fetch_all(connection).await
    })
    .await?;
    billing.revenue = within(connection, left(), async |connection| {
        let sql = "SELECT day, coalesce(currency, '') AS currency, coalesce(stripe.fit(sum(gross)), 0) AS gross,
                          coalesce(stripe.fit(sum(refunded)), 0) AS refunded, coalesce(stripe.fit(sum(disputed)), 0) AS disputed,
                          coalesce(stripe.fit(sum(net)), 0) AS net, sum(charges)::bigint AS charges
                   FROM stripe.revenue_daily
                   WHERE livemode = $2 AND coalesce(account = $1, true) AND day >= coalesce($3, '-infinity')
                   GROUP BY 1, 2 ORDER BY 1, 2 LIMIT $4";
        let days = sqlx::query_as(sql).bind(account).bind(live).bind(filter.since);
        days.bind(MOST_DAYS + 1).fetch_all(connection).await
    })
    .await?
    // Whoever adds up a part of them takes it for the whole.
    .filter(|days: &Vec<RevenueDay>| i64::try_from(days.len()).is_ok_and(|days| days <= MOST_DAYS));
    billing.failed_payments = within(connection, left(), async |connection| {
        let sql = "SELECT source, id, account, customer, email, amount, currency, status, failure_code, failure_message,
                          attempt_count, next_payment_attempt, created
                   FROM stripe.failed_payments WHERE livemode = $2 AND coalesce(account = $1, true)
                   ORDER BY created DESC NULLS LAST, id LIMIT 100";
        sqlx::query_as(sql).bind(account).bind(live).fetch_all(connection).await
    })
    .await?;
    let missing = [
        ("customers", billing.customers.is_none()),
        ("subscriptions", billing.subscriptions.is_none()),
        ("mrr", billing.mrr.is_none()),
        ("revenue", billing.revenue.is_none()),
        ("failed_payments", billing.failed_payments.is_none()),
    ];
    billing.unfinished = missing.iter().filter(|(_, gone)| *gone).map(|(name, _)| *name).collect();
    Ok(billing)
}
