//! `/api/v1/quarantine`, `/api/v1/failures`, `/api/v1/dead-letters`: what did not go well, and trying
//! it again.

use actix_web::HttpResponse;
use actix_web::web::{Data, Json, Path, Payload, Query};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::super::{Admin, AdminError, AdminOnly, Operate, Read, actions};
use super::Problems;
use super::ask::{body, instant, page};
use super::events::bytes;
use crate::store::browse::Page;
use crate::store::browse::problems::{
    self as browse, DeadLetter, Failure, FailureFilter, Quarantined,
};
use crate::store::consumer_admin::Selection;
use crate::store::failures::Discarded;

/// How many things were done.
#[derive(Debug, Serialize, ToSchema)]
pub struct Count {
    pub count: i64,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct QuarantineQuery {
    /// Only those of one reason, for example `not_json`.
    reason: Option<String>,
    /// Items of a page, 1 to 200; 50 unless said.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Signed bodies that could not be recorded as events, newest first.
#[utoipa::path(get, path = "/api/v1/quarantine", tag = "problems", params(QuarantineQuery),
    responses((status = 200, description = "A page", body = Page<Quarantined>), Problems))]
pub async fn quarantine(
    _: Read,
    admin: Data<Admin>,
    query: Query<QuarantineQuery>,
) -> Result<Json<Page<Quarantined>>, AdminError> {
    let QuarantineQuery { reason, limit, cursor } = query.into_inner();
    let reason = no_nul("reason", reason)?;
    let page = page(limit, cursor)?;
    let listed = admin.transact(async move |connection| {
        Ok(browse::quarantine(connection, reason.as_deref(), &page).await?)
    });
    Ok(Json(listed.await?))
}

/// A body in quarantine.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuarantinedBody {
    #[serde(flatten)]
    pub body: Quarantined,
    /// The body as JSON, if it is some.
    #[schema(value_type = Option<Object>)]
    pub parsed: Option<Box<RawValue>>,
}

async fn find(admin: &Admin, sha256: String) -> Result<(Quarantined, Vec<u8>), AdminError> {
    let missing = AdminError::NotFound(format!("body {sha256} in quarantine"));
    let found =
        admin.transact(async move |connection| Ok(browse::quarantined(connection, &sha256).await?));
    found.await?.ok_or(missing)
}

/// A body in quarantine, and why it is there.
#[utoipa::path(get, path = "/api/v1/quarantine/{sha256}", tag = "problems",
    params(("sha256" = String, Path, description = "SHA-256 of the body, in hexadecimal")),
    responses((status = 200, description = "It", body = QuarantinedBody), Problems))]
pub async fn quarantined(
    _: Read,
    admin: Data<Admin>,
    sha256: Path<String>,
) -> Result<Json<QuarantinedBody>, AdminError> {
    let (body, raw) = find(&admin, sha256.into_inner()).await?;
    Ok(Json(QuarantinedBody { body, parsed: serde_json::from_slice(&raw).ok() }))
}

/// A body in quarantine, byte for byte.
#[utoipa::path(get, path = "/api/v1/quarantine/{sha256}/raw", tag = "problems",
    params(("sha256" = String, Path, description = "SHA-256 of the body, in hexadecimal")),
    responses((status = 200, description = "The body", body = Vec<u8>, content_type = "application/octet-stream"), Problems))]
pub async fn quarantined_raw(
    _: Read,
    admin: Data<Admin>,
    sha256: Path<String>,
) -> Result<HttpResponse, AdminError> {
    Ok(bytes(find(&admin, sha256.into_inner()).await?.1))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FailureQuery {
    /// `projection` (billing tables) or `handler`.
    stage: Option<String>,
    /// Only those of one handler.
    handler: Option<String>,
    /// Only those given up (`true`), or tried again (`false`).
    dead: Option<bool>,
    /// Items of a page, 1 to 200; 50 unless said.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// What billing tables and handlers have not taken, newest first.
#[utoipa::path(get, path = "/api/v1/failures", tag = "problems", params(FailureQuery),
    responses((status = 200, description = "A page", body = Page<Failure>), Problems))]
pub async fn failures(
    _: Read,
    admin: Data<Admin>,
    query: Query<FailureQuery>,
) -> Result<Json<Page<Failure>>, AdminError> {
    let FailureQuery { stage, handler, dead, limit, cursor } = query.into_inner();
    if stage.as_deref().is_some_and(|stage| !["projection", "handler"].contains(&stage)) {
        return Err(AdminError::Invalid("stage: expected projection or handler".to_owned()));
    }
    let filter = FailureFilter { stage, handler: no_nul("handler", handler)?, dead };
    let page = page(limit, cursor)?;
    let listed = admin
        .transact(async move |connection| Ok(browse::failures(connection, &filter, &page).await?));
    Ok(Json(listed.await?))
}

/// Try a failure again now, with all its attempts.
#[utoipa::path(post, path = "/api/v1/failures/{failure}/retry", tag = "problems",
    params(("failure" = i64, Path, description = "Its number")),
    responses((status = 200, description = "It is due", body = Count), Problems))]
pub async fn retry_failure(
    Operate(who): Operate,
    admin: Data<Admin>,
    failure: Path<i64>,
) -> Result<Json<Count>, AdminError> {
    let failure = Some(failure.into_inner());
    retry(&admin, who.name, failure, None).await
}

/// Which failures to try again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryFailures {
    /// Those of one handler; all, unless said.
    handler: Option<String>,
}

/// Try all failures again now, or all of a handler's.
#[utoipa::path(post, path = "/api/v1/failures/retry", tag = "problems", request_body = RetryFailures,
    responses((status = 200, description = "They are due", body = Count), Problems))]
pub async fn retry_failures(
    Operate(who): Operate,
    admin: Data<Admin>,
    payload: Payload,
) -> Result<Json<Count>, AdminError> {
    let RetryFailures { handler } = body(payload).await?;
    retry(&admin, who.name, None, handler).await
}

async fn retry(
    admin: &Admin,
    who: String,
    failure: Option<i64>,
    handler: Option<String>,
) -> Result<Json<Count>, AdminError> {
    let done = admin.transact(async move |connection| {
        actions::retry_failures(connection, &who, failure, handler.as_deref()).await
    });
    Ok(counted(done.await?))
}

/// Forget a failure of a handler; the event stays in the log. Needs the scope `admin`.
#[utoipa::path(post, path = "/api/v1/failures/{failure}/discard", tag = "problems",
    params(("failure" = i64, Path, description = "Its number")),
    responses((status = 200, description = "It is gone", body = Count), Problems))]
pub async fn discard_failure(
    AdminOnly(who): AdminOnly,
    admin: Data<Admin>,
    failure: Path<i64>,
) -> Result<Json<Count>, AdminError> {
    discard(&admin, who.name, Discarded::One(failure.into_inner())).await
}

/// Which failures to forget.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscardFailures {
    /// Those of the handler of this name, which may be registered no more.
    handler: String,
}

/// Forget all failures of a handler; the events stay in the log. Needs the scope `admin`.
#[utoipa::path(post, path = "/api/v1/failures/discard", tag = "problems", request_body = DiscardFailures,
    responses((status = 200, description = "They are gone", body = Count), Problems))]
pub async fn discard_failures(
    AdminOnly(who): AdminOnly,
    admin: Data<Admin>,
    payload: Payload,
) -> Result<Json<Count>, AdminError> {
    let DiscardFailures { handler } = body(payload).await?;
    discard(&admin, who.name, Discarded::Handler(handler)).await
}

async fn discard(admin: &Admin, who: String, which: Discarded) -> Result<Json<Count>, AdminError> {
    let done = admin.transact(async move |connection| {
        actions::discard_failures(connection, &who, &which).await
    });
    Ok(counted(done.await?))
}

fn counted(done: u64) -> Json<Count> {
    Json(Count { count: i64::try_from(done).unwrap_or(i64::MAX) })
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeadLetterQuery {
    /// Only those of one consumer.
    consumer: Option<String>,
    /// Items of a page, 1 to 200; 50 unless said.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Events that consumers could not take, newest first.
#[utoipa::path(get, path = "/api/v1/dead-letters", tag = "problems", params(DeadLetterQuery),
    responses((status = 200, description = "A page", body = Page<DeadLetter>), Problems))]
pub async fn dead_letters(
    _: Read,
    admin: Data<Admin>,
    query: Query<DeadLetterQuery>,
) -> Result<Json<Page<DeadLetter>>, AdminError> {
    let DeadLetterQuery { consumer, limit, cursor } = query.into_inner();
    let consumer = no_nul("consumer", consumer)?;
    let page = page(limit, cursor)?;
    let listed = admin.transact(async move |connection| {
        Ok(browse::dead_letters(connection, consumer.as_deref(), &page).await?)
    });
    Ok(Json(listed.await?))
}

/// Which dead letters of a consumer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLetters {
    #[schema(example = "mailer")]
    consumer: String,
    /// One of them; all, unless said.
    position: Option<i64>,
    /// Those that died then or later.
    since: Option<String>,
    /// Those that died then or earlier: what you have seen, if more may have died meanwhile.
    until: Option<String>,
}

/// Hand dead letters out again, with all their attempts: one, those since a time, or all of a consumer.
#[utoipa::path(post, path = "/api/v1/dead-letters/retry", tag = "problems", request_body = DeadLetters,
    responses((status = 200, description = "They are due", body = Count), Problems))]
pub async fn retry_dead_letters(
    Operate(who): Operate,
    admin: Data<Admin>,
    payload: Payload,
) -> Result<Json<Count>, AdminError> {
    let DeadLetters { consumer, position, since, until } = body(payload).await?;
    let since = instant("since", since.as_deref())?;
    let until = instant("until", until.as_deref())?;
    let done = admin.transact(async move |connection| {
        let which = Selection { consumer: &consumer, position, since, until };
        actions::retry_dead_letters(connection, &who.name, which).await
    });
    Ok(Json(Count { count: done.await? }))
}

/// Forget dead letters; the events stay in the log. Needs the scope `admin`: the consumer misses them.
#[utoipa::path(post, path = "/api/v1/dead-letters/discard", tag = "problems", request_body = DeadLetters,
    responses((status = 200, description = "They are gone", body = Count), Problems))]
pub async fn discard_dead_letters(
    AdminOnly(who): AdminOnly,
    admin: Data<Admin>,
    payload: Payload,
) -> Result<Json<Count>, AdminError> {
    let DeadLetters { consumer, position, since, until } = body(payload).await?;
    let since = instant("since", since.as_deref())?;
    let until = instant("until", until.as_deref())?;
    let done = admin.transact(async move |connection| {
        let which = Selection { consumer: &consumer, position, since, until };
        actions::discard_dead_letters(connection, &who.name, which).await
    });
    Ok(Json(Count { count: done.await? }))
}

/// A value of a query that is compared with a column; an empty one is none.
pub(super) fn no_nul(name: &str, value: Option<String>) -> Result<Option<String>, AdminError> {
    match value.filter(|value| !value.is_empty()) {
        Some(value) if value.contains('\0') => {
            Err(AdminError::Invalid(format!("{name}: expected a text without the character NUL")))
        }
        value => Ok(value),
    }
}
