//! `/api/v1/objects`, `/api/v1/ties`, `/api/v1/billing`, `/api/v1/totals`: billing objects, and figures.

use actix_web::web::{Data, Json, Path, Query};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::{Admin, AdminError, Read};
use super::Problems;
use super::ask::instant;
use crate::store::browse::billing::{self, Billing, BillingFilter};
use crate::store::browse::events::{self, EventLine};
use crate::store::browse::objects::{self, BillingObject, Ties};
use crate::store::browse::totals::{self, Totals};
use crate::store::browse::{EventFilter, PageRequest};

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
        since: instant("since", since.as_deref())?.map(time::OffsetDateTime::date),
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
