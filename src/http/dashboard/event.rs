//! One event: what it is, what became of it, its body, and doing parts of it again.

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{self, Data, Form, Path, ServiceConfig};
use askama::Template;
use serde::Deserialize;

use super::filters;
use super::page::{self, Shell, Visit, encoded};
use super::payload::Payload;
use crate::http::admin::{Admin, AdminError, Operate, actions};
use crate::store::browse::event::{self, EventDetail};
use crate::store::browse::timeline::{self, Step, Timeline};
use crate::store::reprocess::{self as again, Again};

const PATH: &str = "/events";

pub fn routes(config: &mut ServiceConfig) {
    config
        .route("/events/{id}", web::get().to(one))
        .route("/events/{id}/raw", web::get().to(raw))
        .route("/events/{id}/reprocess", web::post().to(reprocess))
        .route("/events/{id}/replay", web::post().to(replay));
}

#[derive(Template)]
#[template(path = "event.html")]
struct EventPage {
    shell: Shell,
    detail: EventDetail,
    timeline: Timeline,
    payload: Payload,
}

impl EventPage {
    /// What happened, in words.
    fn what(step: &Step) -> &'static str {
        match step.what {
            "created" => "Made by Stripe",
            "received" => "Received",
            "committed" => "Committed",
            "projected" => "Billing table",
            "failed" => "Failed",
            "retry_due" => "Tried again",
            "handler" => "Handler",
            "attempt" => "Attempt",
            "dead_letter" => "Given up",
            _ => "Delivery",
        }
    }

    /// More of it, in words.
    fn detail_of(step: &Step) -> String {
        if step.what != "delivery" {
            return step.detail.clone();
        }
        let words = match step.detail.as_str() {
            "settled" => "passed: taken, or skipped or forgotten by somebody (see the audit log)",
            "earlier" => "older than this consumer: taken only if it began that far back",
            "ahead" => "not handed out yet",
            "held" | "deferred" => "waits for an earlier event of its object",
            "in_flight" | "claimed" => "with a worker",
            other => other,
        };
        words.to_owned()
    }

    /// The step's mark in the style sheet.
    fn mark(step: &Step) -> &'static str {
        match step.looks {
            "ok" => "ok",
            "failing" => "warn",
            "dead" => "bad",
            _ => "wait",
        }
    }
}

fn missing(id: &str) -> AdminError {
    AdminError::NotFound(format!("event {id} in the log"))
}

async fn one(visit: Visit, id: Path<String>) -> Result<HttpResponse, AdminError> {
    let id = id.into_inner();
    let wanted = id.clone();
    let read = async move |connection: &mut _| {
        let Some(detail) = event::find(connection, &wanted, None).await? else {
            return Ok(None);
        };
        let timeline = timeline::timeline(connection, detail.event.clone(), &detail.raw).await?;
        Ok(Some((detail, timeline)))
    };
    let (detail, timeline) = visit.read(read).await?.ok_or_else(|| missing(&id))?;
    let payload = Payload::new(&detail.raw, format!("/events/{}/raw", encoded(&id)));
    let shell = visit.shell(&detail.event.event_type, PATH).await?;
    page::show(&EventPage { shell, detail, timeline, payload })
}

/// `GET /events/{id}/raw`: the bytes as received, as text: nothing in them is markup.
async fn raw(visit: Visit, id: Path<String>) -> Result<HttpResponse, AdminError> {
    let id = id.into_inner();
    let wanted = id.clone();
    let read = async move |connection: &mut _| Ok(event::find(connection, &wanted, None).await?);
    let detail = visit.read(read).await?.ok_or_else(|| missing(&id))?;
    Ok(plain(detail.raw))
}

/// Bytes of a stranger, shown as text whatever they are.
pub fn plain(bytes: Vec<u8>) -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/plain; charset=utf-8")).body(bytes)
}

async fn reprocess(
    admin: Data<Admin>,
    Operate(who): Operate,
    id: Path<String>,
) -> Result<HttpResponse, AdminError> {
    let id = id.into_inner();
    let back = format!("/events/{}", encoded(&id));
    let done = admin.transact(async move |connection| {
        let which = again::select_id(connection, &id, None).await?;
        if which.is_empty() {
            return Err(missing(&id));
        }
        let all = Again { projection: true, handlers: None };
        actions::reprocess(connection, &who.name, &which, &all, &id).await
    });
    page::outcome(&back, done.await, |done| {
        format!("Done again from now on: {done} {}", things(done))
    })
}

fn things(count: i32) -> &'static str {
    if count == 1 { "thing" } else { "things" }
}

#[derive(Deserialize)]
struct ToConsumer {
    consumer: String,
}

async fn replay(
    admin: Data<Admin>,
    Operate(who): Operate,
    id: Path<String>,
    form: Form<ToConsumer>,
) -> Result<HttpResponse, AdminError> {
    let id = id.into_inner();
    let back = format!("/events/{}", encoded(&id));
    let consumer = form.into_inner().consumer;
    let name = consumer.clone();
    let done = admin.transact(async move |connection| {
        let which = again::select_id(connection, &id, None).await?;
        if which.is_empty() {
            return Err(missing(&id));
        }
        actions::replay(connection, &who.name, &which, &name, &id).await
    });
    page::outcome(&back, done.await, |done| match (done.due, done.open) {
        (0, 0) if done.excluded > 0 => format!("It is not for {consumer}, by its filter"),
        (0, 0) => "Nothing to hand out: the log has forgotten it".to_owned(),
        (0, _) => format!("{consumer} has it still to come"),
        _ => format!("Handed out to {consumer} again"),
    })
}
