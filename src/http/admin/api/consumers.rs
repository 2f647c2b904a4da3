//! `/api/v1/consumers` and `/api/v1/handlers`: how they do, and managing them.

use std::collections::BTreeMap;

use actix_web::web::{Data, Json, Path, Payload, Query};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::actions::NewConsumer;
use super::super::{Admin, AdminError, AdminOnly, Operate, Read, actions};
use super::Problems;
use super::ask::{PageQuery, body};
use super::problems::no_nul;
use crate::store::browse::Page;
use crate::store::browse::consumers::{self as browse, Consumer, HandlerLine};
use crate::store::browse::problems::{self, Attempt};
use crate::store::consumer_admin::{self, ConsumerFilter, ConsumerOptions, TargetOptions};

/// That it was done.
#[derive(Debug, Serialize, ToSchema)]
pub struct Done {
    pub done: bool,
}

pub(super) const DONE: Json<Done> = Json(Done { done: true });

/// All consumers, by name.
#[utoipa::path(get, path = "/api/v1/consumers", tag = "consumers",
    responses((status = 200, description = "They", body = Vec<Consumer>), Problems))]
pub async fn list(_: Read, admin: Data<Admin>) -> Result<Json<Vec<Consumer>>, AdminError> {
    let listed = admin.transact(async |connection| Ok(browse::consumers(connection, None).await?));
    Ok(Json(listed.await?))
}

/// A consumer.
#[utoipa::path(get, path = "/api/v1/consumers/{name}", tag = "consumers",
    params(("name" = String, Path, description = "Its name", example = "mailer")),
    responses((status = 200, description = "It", body = Consumer), Problems))]
pub async fn one(
    _: Read,
    admin: Data<Admin>,
    name: Path<String>,
) -> Result<Json<Consumer>, AdminError> {
    let name = no_nul("name", Some(name.into_inner()))?.unwrap_or_default();
    let found = admin.transact(async move |connection| {
        let found = browse::consumers(connection, Some(&name)).await?.pop();
        found.ok_or_else(|| AdminError::NotFound(format!("consumer {name}")))
    });
    Ok(Json(found.await?))
}

/// Attempts of a consumer's target that failed, or succeeded after failures, newest first.
#[utoipa::path(get, path = "/api/v1/consumers/{name}/attempts", tag = "consumers",
    params(("name" = String, Path, description = "Its name", example = "mailer"), PageQuery),
    responses((status = 200, description = "A page", body = Page<Attempt>), Problems))]
pub async fn attempts(
    _: Read,
    admin: Data<Admin>,
    name: Path<String>,
    page: Query<PageQuery>,
) -> Result<Json<Page<Attempt>>, AdminError> {
    let name = no_nul("name", Some(name.into_inner()))?.unwrap_or_default();
    let page = page.into_inner().page()?;
    let listed = admin.transact(async move |connection| {
        if !consumer_admin::exists(connection, &name).await? {
            return Err(AdminError::NotFound(format!("consumer {name}")));
        }
        Ok(problems::attempts(connection, &name, &page).await?)
    });
    Ok(Json(listed.await?))
}

/// A consumer to be made. What is not said gets its default. Times in seconds.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateConsumer {
    #[schema(example = "mailer")]
    name: String,
    /// latest, earliest, a time or a position; latest, unless said.
    start: Option<String>,
    /// Which event types; all, unless said.
    #[schema(example = json!(["invoice.*"]))]
    types: Option<Vec<String>>,
    /// none or object.
    ordering: Option<String>,
    max_attempts: Option<i32>,
    lease: Option<f64>,
    retry_first: Option<f64>,
    retry_most: Option<f64>,
    /// Only events that one of these endpoints received first; of any, unless said.
    endpoints: Option<Vec<String>>,
    /// Only events of these connected accounts, `platform` for the platform's own; of any, unless
    /// said.
    accounts: Option<Vec<String>>,
    /// Only live, or only test events; both, unless said.
    livemode: Option<bool>,
    /// Only events whose object has all of these metadata.
    #[schema(example = json!({"app": "shop"}))]
    metadata: Option<BTreeMap<String, String>>,
    /// Where the gateway delivers to; without it workers claim in SQL.
    target: Option<CreateTarget>,
}

/// Where a consumer's events go.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTarget {
    #[schema(example = "https://app.example.com/webhooks")]
    url: String,
    timeout: Option<f64>,
    concurrency: Option<i32>,
    /// Attempts per second.
    rate: Option<f64>,
    burst: Option<i32>,
    /// What NATS subjects begin with.
    subject: Option<String>,
    breaker_after: Option<i32>,
    breaker_wait: Option<f64>,
}

impl std::fmt::Debug for CreateTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CreateTarget") // the URL may hold a password
    }
}

/// A consumer that was made.
#[derive(Serialize, ToSchema)]
pub struct Created {
    /// The position after which it begins.
    pub cursor: i64,
    /// With what pushes are signed; null without a push. It is also shown by `tollgate consumers secret`.
    pub secret: Option<String>,
}

/// Make a consumer.
#[utoipa::path(post, path = "/api/v1/consumers", tag = "consumers", request_body = CreateConsumer,
    responses((status = 200, description = "It is there", body = Created), Problems))]
pub async fn create(
    AdminOnly(who): AdminOnly,
    admin: Data<Admin>,
    payload: Payload,
) -> Result<Json<Created>, AdminError> {
    let asked: CreateConsumer = body(payload).await?;
    let filter = ConsumerFilter {
        endpoints: asked.endpoints,
        accounts: asked.accounts.map(consumer_admin::accounts),
        livemode: asked.livemode,
        metadata: asked.metadata,
        unset: Vec::new(),
    };
    let texts = asked.types.iter().flatten().chain(&asked.ordering).chain(filter.texts());
    let target = asked.target.as_ref();
    let urls = target.into_iter().flat_map(|target| [Some(&target.url), target.subject.as_ref()]);
    if texts.chain(urls.flatten()).any(|text| text.contains('\0')) {
        return Err(AdminError::Invalid("expected texts without the character NUL".to_owned()));
    }
    let new = NewConsumer {
        name: asked.name,
        start: asked.start.unwrap_or_else(|| "latest".to_owned()),
        options: ConsumerOptions {
            types: asked.types,
            ordering: asked.ordering,
            max_attempts: asked.max_attempts,
            lease: asked.lease,
            retry_first: asked.retry_first,
            retry_most: asked.retry_most,
            filter,
        },
        target: asked.target.map(|target| TargetOptions {
            url: Some(target.url),
            secrets: None,
            timeout: target.timeout,
            concurrency: target.concurrency,
            rate: target.rate,
            burst: target.burst,
            subject: target.subject,
            breaker_after: target.breaker_after,
            breaker_wait: target.breaker_wait,
        }),
    };
    let made = admin.transact(async move |connection| {
        actions::create_consumer(connection, &who.name, &new).await
    });
    let (cursor, secret) = made.await?;
    Ok(Json(Created { cursor, secret }))
}

/// Why it is paused.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    #[schema(example = "the mail server moves")]
    because: Option<String>,
}

/// Hand out no more to a consumer.
#[utoipa::path(post, path = "/api/v1/consumers/{name}/pause", tag = "consumers", request_body = Pause,
    params(("name" = String, Path, description = "Its name", example = "mailer")),
    responses((status = 200, description = "It is paused", body = Done), Problems))]
pub async fn pause(
    Operate(who): Operate,
    admin: Data<Admin>,
    name: Path<String>,
    payload: Payload,
) -> Result<Json<Done>, AdminError> {
    let Pause { because } = body(payload).await?;
    let done = admin.transact(async move |connection| {
        actions::pause(connection, &who.name, &name, because.as_deref()).await
    });
    done.await.map(|()| DONE)
}

/// Hand out to a consumer again, and close its circuit breaker.
#[utoipa::path(post, path = "/api/v1/consumers/{name}/resume", tag = "consumers",
    params(("name" = String, Path, description = "Its name", example = "mailer")),
    responses((status = 200, description = "It runs", body = Done), Problems))]
pub async fn resume(
    Operate(who): Operate,
    admin: Data<Admin>,
    name: Path<String>,
) -> Result<Json<Done>, AdminError> {
    let done =
        admin.transact(async move |connection| actions::resume(connection, &who.name, &name).await);
    done.await.map(|()| DONE)
}

/// Where to go on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewind {
    /// latest, earliest, a time (what was received from then on) or a position.
    #[schema(example = "2026-01-31 12:00Z")]
    start: String,
}

/// Where a consumer goes on.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rewound {
    /// The position after which it goes on.
    pub cursor: i64,
}

/// Have a consumer go on from another place in the log. Needs the scope `admin`: forward, it misses
/// events.
#[utoipa::path(post, path = "/api/v1/consumers/{name}/rewind", tag = "consumers", request_body = Rewind,
    params(("name" = String, Path, description = "Its name", example = "mailer")),
    responses((status = 200, description = "It goes on there", body = Rewound), Problems))]
pub async fn rewind(
    AdminOnly(who): AdminOnly,
    admin: Data<Admin>,
    name: Path<String>,
    payload: Payload,
) -> Result<Json<Rewound>, AdminError> {
    let Rewind { start } = body(payload).await?;
    let cursor = admin.transact(async move |connection| {
        actions::rewind(connection, &who.name, &name, &start).await
    });
    Ok(Json(Rewound { cursor: cursor.await? }))
}

/// End a consumer, with its retries and dead letters.
#[utoipa::path(delete, path = "/api/v1/consumers/{name}", tag = "consumers",
    params(("name" = String, Path, description = "Its name", example = "mailer")),
    responses((status = 200, description = "It is gone", body = Done), Problems))]
pub async fn drop_one(
    AdminOnly(who): AdminOnly,
    admin: Data<Admin>,
    name: Path<String>,
) -> Result<Json<Done>, AdminError> {
    let done = admin.transact(async move |connection| {
        actions::drop_consumer(connection, &who.name, &name).await
    });
    done.await.map(|()| DONE)
}

/// The SQL handlers, in the order in which they are called, with their failures.
#[utoipa::path(get, path = "/api/v1/handlers", tag = "handlers",
    responses((status = 200, description = "They", body = Vec<HandlerLine>), Problems))]
pub async fn handlers(_: Read, admin: Data<Admin>) -> Result<Json<Vec<HandlerLine>>, AdminError> {
    let listed = admin.transact(async |connection| Ok(browse::handlers(connection).await?));
    Ok(Json(listed.await?))
}

/// End the calls of a handler.
#[utoipa::path(delete, path = "/api/v1/handlers/{name}", tag = "handlers",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "It is called no more", body = Done), Problems))]
pub async fn drop_handler(
    AdminOnly(who): AdminOnly,
    admin: Data<Admin>,
    name: Path<String>,
) -> Result<Json<Done>, AdminError> {
    let done = admin.transact(async move |connection| {
        actions::drop_handler(connection, &who.name, &name).await
    });
    done.await.map(|()| DONE)
}
