//! What was not processed: failures of billing tables and handlers, the handlers themselves, and
//! bodies in quarantine.

use actix_web::HttpResponse;
use actix_web::web::{self, Data, Form, Path, Query, ServiceConfig};
use askama::Template;
use serde::Deserialize;

use super::page::{self, Shell, Visit};
use super::payload::Payload;
use super::{event, filters, text};
use crate::http::admin::{Admin, AdminError, AdminOnly, Operate, actions};
use crate::store::browse::consumers::{self, HandlerLine};
use crate::store::browse::problems::{self, Failure, FailureFilter, Quarantined};
use crate::store::browse::{Page, PageRequest};
use crate::store::failures::Discarded;

const HANDLERS: &str = "/handlers";
const FAILURES: &str = "/failures";
const QUARANTINE: &str = "/quarantine";

pub fn routes(config: &mut ServiceConfig) {
    config
        .route(HANDLERS, web::get().to(handlers))
        .route(FAILURES, web::get().to(failures))
        .route("/failures/retry", web::post().to(retry))
        .route("/failures/discard", web::post().to(discard))
        .route(QUARANTINE, web::get().to(quarantine))
        .route("/quarantine/{sha256}", web::get().to(body))
        .route("/quarantine/{sha256}/raw", web::get().to(raw));
}

#[derive(Template)]
#[template(path = "handlers.html")]
struct HandlersPage {
    shell: Shell,
    handlers: Vec<HandlerLine>,
}

async fn handlers(visit: Visit) -> Result<HttpResponse, AdminError> {
    let read = async |connection: &mut _| Ok(consumers::handlers(connection).await?);
    let handlers = visit.read(read).await?;
    page::show(&HandlersPage { shell: visit.shell("Handlers", HANDLERS).await?, handlers })
}

#[derive(Deserialize)]
struct Which {
    #[serde(default)]
    handler: String,
    /// tried or dead; anything else for both.
    #[serde(default)]
    state: String,
    cursor: Option<String>,
}

#[derive(Template)]
#[template(path = "failures.html")]
struct FailuresPage {
    shell: Shell,
    handler: String,
    state: String,
    page: Page<Failure>,
    first: bool,
}

async fn failures(visit: Visit, which: Query<Which>) -> Result<HttpResponse, AdminError> {
    let Which { handler, state, cursor } = which.into_inner();
    let first = cursor.as_deref().unwrap_or_default().is_empty();
    let request = PageRequest::new(None, cursor).map_err(AdminError::from)?;
    let filter = FailureFilter {
        stage: None,
        handler: Some(handler.clone()).filter(|name| !name.is_empty()),
        dead: match state.as_str() {
            "dead" => Some(true),
            "tried" => Some(false),
            _ => None,
        },
    };
    let read = async move |connection: &mut _| {
        problems::failures(connection, &filter, &request).await.map_err(AdminError::from)
    };
    let page = visit.read(read).await?;
    let shell = visit.shell("Failures", FAILURES).await?;
    page::show(&FailuresPage { shell, handler, state, page, first })
}

#[derive(Deserialize)]
struct Retry {
    failure: Option<i64>,
    handler: Option<String>,
}

async fn retry(
    admin: Data<Admin>,
    Operate(who): Operate,
    form: Form<Retry>,
) -> Result<HttpResponse, AdminError> {
    let Retry { failure, handler } = form.into_inner();
    if failure.is_none() && handler.is_none() {
        return Ok(page::refused(FAILURES, "Which failure?"));
    }
    let done = admin.transact(async move |connection| {
        actions::retry_failures(connection, &who.name, failure, handler.as_deref()).await
    });
    page::outcome(FAILURES, done.await, |count| match count {
        1 => "1 failure is tried again now".to_owned(),
        count => {
            let count = text::thousands(i64::try_from(count).unwrap_or(i64::MAX));
            format!("{count} failures are tried again now")
        }
    })
}

#[derive(Deserialize)]
struct One {
    failure: i64,
}

async fn discard(
    admin: Data<Admin>,
    AdminOnly(who): AdminOnly,
    form: Form<One>,
) -> Result<HttpResponse, AdminError> {
    let done = admin.transact(async move |connection| {
        actions::discard_failures(connection, &who.name, &Discarded::One(form.failure)).await
    });
    page::outcome(FAILURES, done.await, |_| "The failure is forgotten".to_owned())
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    reason: String,
    cursor: Option<String>,
}

#[derive(Template)]
#[template(path = "quarantine.html")]
struct QuarantinePage {
    shell: Shell,
    reason: String,
    page: Page<Quarantined>,
    first: bool,
}

/// What a reason means, in words.
pub fn reason_words(reason: &str) -> &str {
    match reason {
        "not_utf8" => "not UTF-8",
        "not_json" => "not JSON",
        "no_id" => "has no id",
        "id_too_long" => "its id is too long",
        "wrong_livemode" => "live or test data where the endpoint takes the other",
        "wrong_account" => "of an account that the endpoint does not take",
        "refused_by_database" => "the database refused it",
        other => other,
    }
}

async fn quarantine(visit: Visit, which: Query<Reason>) -> Result<HttpResponse, AdminError> {
    let Reason { reason, cursor } = which.into_inner();
    let first = cursor.as_deref().unwrap_or_default().is_empty();
    let request = PageRequest::new(None, cursor).map_err(AdminError::from)?;
    let only = Some(reason.clone()).filter(|reason| !reason.is_empty());
    let read = async move |connection: &mut _| {
        problems::quarantine(connection, only.as_deref(), &request).await.map_err(AdminError::from)
    };
    let page = visit.read(read).await?;
    let shell = visit.shell("Quarantine", QUARANTINE).await?;
    page::show(&QuarantinePage { shell, reason, page, first })
}

#[derive(Template)]
#[template(path = "quarantined.html")]
struct QuarantinedPage {
    shell: Shell,
    it: Quarantined,
    payload: Payload,
}

async fn find(visit: &Visit, sha256: &str) -> Result<(Quarantined, Vec<u8>), AdminError> {
    let wanted = sha256.to_owned();
    let read =
        async move |connection: &mut _| Ok(problems::quarantined(connection, &wanted).await?);
    let found = visit.read(read).await?;
    found.ok_or_else(|| AdminError::NotFound(format!("body {sha256} in quarantine")))
}

async fn body(visit: Visit, sha256: Path<String>) -> Result<HttpResponse, AdminError> {
    let (it, raw) = find(&visit, &sha256).await?;
    let payload = Payload::new(&raw, format!("{QUARANTINE}/{}/raw", it.sha256));
    let shell = visit.shell("Quarantined body", QUARANTINE).await?;
    page::show(&QuarantinedPage { shell, it, payload })
}

async fn raw(visit: Visit, sha256: Path<String>) -> Result<HttpResponse, AdminError> {
    Ok(event::plain(find(&visit, &sha256).await?.1))
}
