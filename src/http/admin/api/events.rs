//! `/api/v1/events`: the list, one event, its exact bytes, its timeline, and doing it again.

use actix_web::HttpResponse;
use actix_web::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use actix_web::web::{Data, Json, Path, Payload, Query};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::{Admin, AdminError, Operate, Read, actions};
use super::Problems;
use super::ask::{EventQuery, Pairs, body, filter, instant};
use crate::store::browse::event::EventDetail;
use crate::store::browse::events::EventLine;
use crate::store::browse::timeline::Timeline;
use crate::store::browse::{Page, event, events, timeline};
use crate::store::reprocess::{self, Again, Redelivered, Selection};

/// Which event, if several have this id.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Made {
    /// When Stripe made it. Only needed if several events have the same id.
    created: Option<String>,
}

/// Events, newest first.
///
/// Fast for any filter: where too little fits, the page comes incomplete, with `searched_until`, and
/// `next` to go on.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(EventQuery),
    responses((status = 200, description = "A page", body = Page<EventLine>), Problems))]
pub async fn list(
    _: Read,
    admin: Data<Admin>,
    pairs: Pairs,
) -> Result<Json<Page<EventLine>>, AdminError> {
    let (filter, page) = filter(pairs.into_inner())?;
    let listed =
        admin.transact(async move |connection| Ok(events::list(connection, &filter, &page).await?));
    Ok(Json(listed.await?))
}

async fn find(admin: &Admin, id: String, made: &Made) -> Result<EventDetail, AdminError> {
    let created = instant("created", made.created.as_deref())?;
    let missing = AdminError::NotFound(format!("event {id}"));
    let found =
        admin.transact(async move |connection| Ok(event::find(connection, &id, created).await?));
    found.await?.ok_or(missing)
}

/// An event with its payload.
#[utoipa::path(get, path = "/api/v1/events/{id}", tag = "events",
    params(("id" = String, Path, description = "Stripe's id", example = "evt_1"), Made),
    responses((status = 200, description = "The event", body = EventDetail), Problems))]
pub async fn one(
    _: Read,
    admin: Data<Admin>,
    id: Path<String>,
    made: Query<Made>,
) -> Result<Json<EventDetail>, AdminError> {
    Ok(Json(find(&admin, id.into_inner(), &made).await?))
}

/// The payload as Stripe sent it, byte for byte.
#[utoipa::path(get, path = "/api/v1/events/{id}/raw", tag = "events",
    params(("id" = String, Path, description = "Stripe's id", example = "evt_1"), Made),
    responses((status = 200, description = "The body", body = Vec<u8>, content_type = "application/octet-stream"), Problems))]
pub async fn raw(
    _: Read,
    admin: Data<Admin>,
    id: Path<String>,
    made: Query<Made>,
) -> Result<HttpResponse, AdminError> {
    Ok(bytes(find(&admin, id.into_inner(), &made).await?.raw))
}

/// Bytes of a stranger's: to be saved, never to be shown as a page.
pub(super) fn bytes(raw: Vec<u8>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/octet-stream"))
        .insert_header((CONTENT_DISPOSITION, "attachment"))
        .body(raw)
}

/// What became of an event.
#[utoipa::path(get, path = "/api/v1/events/{id}/timeline", tag = "events",
    params(("id" = String, Path, description = "Stripe's id", example = "evt_1"), Made),
    responses((status = 200, description = "What became of it", body = Timeline), Problems))]
pub async fn story(
    _: Read,
    admin: Data<Admin>,
    id: Path<String>,
    made: Query<Made>,
) -> Result<Json<Timeline>, AdminError> {
    let created = instant("created", made.created.as_deref())?;
    let id = id.into_inner();
    let told = admin.transact(async move |connection| {
        let found = event::find(connection, &id, created).await?;
        let found = found.ok_or_else(|| AdminError::NotFound(format!("event {id}")))?;
        Ok(timeline::timeline(connection, found.event, &found.raw).await?)
    });
    Ok(Json(told.await?))
}

/// What to do again with an event.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReprocessOne {
    /// Bring its billing table up to date; yes, unless said.
    #[serde(default = "yes")]
    projection: bool,
    /// The handlers to call again; all that want its type, unless said. What such a handler did
    /// before, it does a second time.
    #[schema(example = json!(["invoice.paid app.on_paid"]))]
    handlers: Option<Vec<String>>,
    /// Only needed if several events have the same id.
    created: Option<String>,
}

pub(super) fn yes() -> bool {
    true
}

/// What was asked of handlers and billing tables.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reprocessed {
    /// Events.
    pub events: usize,
    /// Things to be done, of all of them: see `GET /api/v1/failures` for what is left.
    pub asked: i32,
}

async fn chosen(
    connection: &mut sqlx::PgConnection,
    id: &str,
    created: Option<time::OffsetDateTime>,
) -> Result<Selection, AdminError> {
    let which = reprocess::select_id(connection, id, created).await?;
    if which.is_empty() {
        return Err(AdminError::NotFound(format!("event {id}")));
    }
    Ok(which)
}

/// Run handlers and billing tables for an event again.
#[utoipa::path(post, path = "/api/v1/events/{id}/reprocess", tag = "events", request_body = ReprocessOne,
    params(("id" = String, Path, description = "Stripe's id", example = "evt_1")),
    responses((status = 200, description = "It is due", body = Reprocessed), Problems))]
pub async fn reprocess_one(
    Operate(who): Operate,
    admin: Data<Admin>,
    id: Path<String>,
    payload: Payload,
) -> Result<Json<Reprocessed>, AdminError> {
    let ReprocessOne { projection, handlers, created } = body(payload).await?;
    let created = instant("created", created.as_deref())?;
    let id = id.into_inner();
    let done = admin.transact(async move |connection| {
        let which = chosen(connection, &id, created).await?;
        let again = Again { projection, handlers };
        let asked = actions::reprocess(connection, &who.name, &which, &again, &id).await?;
        Ok(Reprocessed { events: which.len(), asked })
    });
    Ok(Json(done.await?))
}

/// To whom to give an event again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayOne {
    #[schema(example = "mailer")]
    consumer: String,
    /// Only needed if several events have the same id.
    created: Option<String>,
}

/// Hand an event to a consumer again.
#[utoipa::path(post, path = "/api/v1/events/{id}/replay", tag = "events", request_body = ReplayOne,
    params(("id" = String, Path, description = "Stripe's id", example = "evt_1")),
    responses((status = 200, description = "What becomes of it", body = Redelivered), Problems))]
pub async fn replay_one(
    Operate(who): Operate,
    admin: Data<Admin>,
    id: Path<String>,
    payload: Payload,
) -> Result<Json<Redelivered>, AdminError> {
    let ReplayOne { consumer, created } = body(payload).await?;
    let created = instant("created", created.as_deref())?;
    let id = id.into_inner();
    let done = admin.transact(async move |connection| {
        let which = chosen(connection, &id, created).await?;
        actions::replay(connection, &who.name, &which, &consumer, &id).await
    });
    Ok(Json(done.await?))
}
