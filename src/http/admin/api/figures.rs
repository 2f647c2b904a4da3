//! `/api/v1/objects`, `/api/v1/ties`, `/api/v1/billing`, `/api/v1/stats`, `/api/v1/totals`: billing
//! objects, and figures.

use std::time::Duration;

use actix_web::web::{Data, Json, Path, Query};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::super::{Admin, AdminError, Read};
use super::Problems;
use super::ask::instant;
use crate::store::StoreError;
use crate::store::browse::billing::{self, Billing, BillingFilter};
use crate::store::browse::events::{self, EventLine};
use crate::store::browse::objects::{self, BillingObject, Ties};
use crate::store::browse::totals::{self, Totals};
use crate::store::browse::{EventFilter, PageRequest};
use crate::store::traffic::{self, Ending, Point};

/// How far back a series goes, and how long its steps are, unless asked otherwise.
const USUAL_SPAN: time::Duration = time::Duration::hours(1);
const USUAL_STEP: u64 = 60;

/// The objects of an id, with the events about them.
#[derive(Debug, Serialize, ToSchema)]
pub struct ObjectStory {
    /// One, but for other accounts, and test data beside live.
    pub objects: Vec<BillingObject>,
    /// The newest 200 events about them; all of them: `GET /api/v1/events?object=`.
    pub events: Vec<EventLine>,
}

/// A billing object, and the events that made it.
#[utoipa::path(get, path = "/api/v1/objects/{table}/{id}", tag = "billing",
    params(("table" = String, Path, description = "A table of the schema stripe", example = "invoices"),
           ("id" = String, Path, description = "Stripe's id", example = "in_1")),
    responses((status = 200, description = "It", body = ObjectStory), Problems))]
pub async fn object(
    _: Read,
    admin: Data<Admin>,
    path: Path<(String, String)>,
) -> Result<Json<ObjectStory>, AdminError> {
    let (table, id) = path.into_inner();
    let found = admin.transact(async move |connection| {
        let objects = objects::find(connection, &table, &id).await?;
        if objects.is_empty() {
            return Err(AdminError::NotFound(format!("object {id} in {table}")));
        }
        let filter = EventFilter { object: Some(id), ..EventFilter::default() };
        let page = PageRequest { limit: 200, cursor: None };
        let events = events::list(connection, &filter, &page).await?.items;
        Ok(ObjectStory { objects, events })
    });
    Ok(Json(found.await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TiesQuery {
    /// Only one table.
    table: Option<String>,
    /// Most of them, up to 200; 50 unless said.
    limit: Option<i64>,
}

/// Objects with several events in their newest second, between which only ids decided.
#[utoipa::path(get, path = "/api/v1/ties", tag = "billing", params(TiesQuery),
    responses((status = 200, description = "They", body = Ties), Problems))]
pub async fn ties(
    _: Read,
    admin: Data<Admin>,
    query: Query<TiesQuery>,
) -> Result<Json<Ties>, AdminError> {
    let TiesQuery { table, limit } = query.into_inner();
    let most = super::ask::page(limit, None)?.limit;
    let table = table.filter(|table| !table.is_empty());
    let found = admin.transact(async move |connection| {
        Ok(objects::ties(connection, table.as_deref(), most).await?)
    });
    Ok(Json(found.await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BillingQuery {
    /// The connected account, `-` for the platform's own; all together, unless said.
    account: Option<String>,
    /// Live data, or test data; live unless said.
    livemode: Option<bool>,
    /// The first day of the revenue.
    #[param(example = "2026-01-01")]
    since: Option<String>,
}

/// Customers, subscriptions, MRR, revenue by day, failed payments; currencies apart.
#[utoipa::path(get, path = "/api/v1/billing", tag = "billing", params(BillingQuery),
    responses((status = 200, description = "The figures", body = Billing), Problems))]
pub async fn billing(
    _: Read,
    admin: Data<Admin>,
    query: Query<BillingQuery>,
) -> Result<Json<Billing>, AdminError> {
    let BillingQuery { account, livemode, since } = query.into_inner();
    let account = super::problems::no_nul("account", account)?;
    let filter = BillingFilter {
        account: account.map(|account| if account == "-" { String::new() } else { account }),
        livemode: livemode.unwrap_or(true),
        since: instant("since", since.as_deref())?.map(OffsetDateTime::date),
    };
    let figures =
        admin.transact(async move |connection| Ok(billing::figures(connection, &filter).await?));
    Ok(Json(figures.await?))
}

/// How much there is of everything; what is large is reckoned, not counted.
#[utoipa::path(get, path = "/api/v1/totals", tag = "figures",
    responses((status = 200, description = "The figures", body = Totals), Problems))]
pub async fn all(_: Read, admin: Data<Admin>) -> Result<Json<Totals>, AdminError> {
    let totals = admin.transact(async |connection| Ok(totals::totals(connection).await?));
    Ok(Json(totals.await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StatsQuery {
    /// From when on; an hour before `until`, unless said.
    since: Option<String>,
    /// Until when; now, unless said.
    until: Option<String>,
    /// Seconds from one point to the next, whole minutes; 60 unless said. Made longer where there
    /// would be more than 2,000 points.
    #[param(example = 300)]
    step: Option<u64>,
}

/// What deliveries came to in one step of time.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatsPoint {
    /// The step's beginning.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// New events.
    pub recorded: u64,
    /// Events that were there already.
    pub duplicate: u64,
    /// Signed, but no usable event.
    pub quarantined: u64,
    /// Not taken, by the sender's fault.
    pub refused: u64,
    /// Not taken, by ours.
    pub failed: u64,
    /// Latency in seconds that half of the deliveries stayed within; none without any. The others: 95
    /// and 99 %.
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
}

impl From<&Point> for StatsPoint {
    fn from(point: &Point) -> Self {
        Self {
            at: point.at,
            recorded: point.deliveries(Ending::Recorded),
            duplicate: point.deliveries(Ending::Duplicate),
            quarantined: point.deliveries(Ending::Quarantined),
            refused: point.deliveries(Ending::Refused),
            failed: point.deliveries(Ending::Failed),
            p50: point.latency(0.5),
            p95: point.latency(0.95),
            p99: point.latency(0.99),
        }
    }
}

/// What deliveries came to over time, by outcome, with their latency.
#[utoipa::path(get, path = "/api/v1/stats", tag = "figures", params(StatsQuery),
    responses((status = 200, description = "Points, oldest first", body = Vec<StatsPoint>), Problems))]
pub async fn stats(
    _: Read,
    admin: Data<Admin>,
    query: Query<StatsQuery>,
) -> Result<Json<Vec<StatsPoint>>, AdminError> {
    let StatsQuery { since, until, step } = query.into_inner();
    let until = instant("until", until.as_deref())?.unwrap_or_else(|| admin.clock.now());
    let since = instant("since", since.as_deref())?;
    let since = since.or_else(|| until.checked_sub(USUAL_SPAN)).unwrap_or(until);
    if until <= since {
        return Err(AdminError::Invalid("until: expected a time after since".to_owned()));
    }
    let step = Duration::from_secs(step.unwrap_or(USUAL_STEP));
    // In a task of its own, which a client that hangs up does not cancel half-way.
    let task =
        actix_web::rt::spawn(async move { traffic::series(&admin.pool, since, until, step).await });
    let points = task.await.map_err(|_| AdminError::Internal)?.map_err(|error| match error {
        StoreError::Database(error) => error.into(),
        _ => AdminError::Internal,
    })?;
    Ok(Json(points.iter().map(StatsPoint::from).collect()))
}
