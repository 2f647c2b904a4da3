//! Consumers: the list, and one with what it has not taken yet and the attempts at it; buttons to
//! pause, resume and rewind it.

use actix_web::HttpResponse;
use actix_web::web::{self, Data, Form, Path, ServiceConfig};
use askama::Template;
use serde::Deserialize;

use super::filters;
use super::page::{self, Shell, Visit, encoded};
use crate::http::admin::{Admin, AdminError, AdminOnly, Operate, actions};
use crate::store::browse::consumers::{Consumer, consumers};
use crate::store::browse::deliveries::{self, OpenDelivery};
use crate::store::browse::problems::{self, Attempt};
use crate::store::browse::{Page, PageRequest};

const PATH: &str = "/consumers";

/// Lines of each list on the page of one consumer.
const LINES: i64 = 15;

pub fn routes(config: &mut ServiceConfig) {
    config
        .route(PATH, web::get().to(list))
        .route("/consumers/{name}", web::get().to(one))
        .route("/consumers/{name}/pause", web::post().to(pause))
        .route("/consumers/{name}/resume", web::post().to(resume))
        .route("/consumers/{name}/rewind", web::post().to(rewind));
}

#[derive(Template)]
#[template(path = "consumers.html")]
struct ConsumersPage {
    shell: Shell,
    consumers: Vec<Consumer>,
}

async fn list(visit: Visit) -> Result<HttpResponse, AdminError> {
    let read = async |connection: &mut _| Ok(consumers(connection, None).await?);
    let consumers = visit.read(read).await?;
    page::show(&ConsumersPage { shell: visit.shell("Consumers", PATH).await?, consumers })
}

#[derive(Template)]
#[template(path = "consumer.html")]
struct ConsumerPage {
    shell: Shell,
    it: Consumer,
    open: Vec<OpenDelivery>,
    attempts: Page<Attempt>,
}

impl ConsumerPage {
    /// What an attempt came to, as a tag of the style sheet and in words.
    fn verdict(attempt: &Attempt) -> (&'static str, &'static str) {
        match attempt.verdict.as_str() {
            "delivered" => ("ok", "delivered"),
            "retry" => ("warn", "failed"),
            "refused" => ("bad", "refused"),
            _ => ("bad", "gone"),
        }
    }
}

async fn one(visit: Visit, name: Path<String>) -> Result<HttpResponse, AdminError> {
    let name = name.into_inner();
    let wanted = name.clone();
    let read = async move |connection: &mut _| {
        let Some(it) = consumers(connection, Some(&wanted)).await?.pop() else {
            return Ok(None);
        };
        let open = deliveries::open(connection, &wanted, LINES).await?;
        let request = PageRequest { limit: LINES, cursor: None };
        let attempts =
            problems::attempts(connection, &wanted, &request).await.map_err(AdminError::from)?;
        Ok(Some((it, open, attempts)))
    };
    let found = visit.read(read).await?;
    let (it, open, attempts) =
        found.ok_or_else(|| AdminError::NotFound(format!("consumer named {name}")))?;
    let shell = visit.shell(&it.name, PATH).await?;
    page::show(&ConsumerPage { shell, it, open, attempts })
}

fn place(name: &str) -> String {
    format!("{PATH}/{}", encoded(name))
}

#[derive(Deserialize)]
struct Because {
    #[serde(default)]
    because: String,
}

async fn pause(
    admin: Data<Admin>,
    Operate(who): Operate,
    name: Path<String>,
    form: Form<Because>,
) -> Result<HttpResponse, AdminError> {
    let (back, because) = (place(&name), form.into_inner().because);
    let done = admin.transact(async move |connection| {
        actions::pause(connection, &who.name, &name, Some(&because)).await
    });
    page::outcome(&back, done.await, |()| "Paused: nothing is handed out any more".to_owned())
}

async fn resume(
    admin: Data<Admin>,
    Operate(who): Operate,
    name: Path<String>,
) -> Result<HttpResponse, AdminError> {
    let back = place(&name);
    let done =
        admin.transact(async move |connection| actions::resume(connection, &who.name, &name).await);
    page::outcome(&back, done.await, |()| "Resumed".to_owned())
}

#[derive(Deserialize)]
struct To {
    to: String,
}

async fn rewind(
    admin: Data<Admin>,
    AdminOnly(who): AdminOnly,
    name: Path<String>,
    form: Form<To>,
) -> Result<HttpResponse, AdminError> {
    let (back, to) = (place(&name), form.into_inner().to);
    let done = admin.transact(async move |connection| {
        actions::rewind(connection, &who.name, &name, to.trim()).await
    });
    page::outcome(&back, done.await, |position| format!("Goes on after position {position}"))
}
