//! Dead letters: what consumers could not take, to be handed out again or forgotten, one by one or all
//! of a consumer.

use actix_web::HttpResponse;
use actix_web::web::{self, Data, Form, Query, ServiceConfig};
use askama::Template;
use serde::Deserialize;
use time::OffsetDateTime;

use super::page::{self, Shell, Visit, encoded};
use super::{filters, text};
use crate::http::admin::{Admin, AdminError, AdminOnly, Operate, actions};
use crate::store::browse::consumers::{self, Consumer};
use crate::store::browse::problems::{self, DeadLetter};
use crate::store::browse::{Page, PageRequest};
use crate::store::consumer_admin::Selection;

const PATH: &str = "/dead-letters";

pub fn routes(config: &mut ServiceConfig) {
    config
        .route(PATH, web::get().to(list))
        .route("/dead-letters/retry", web::post().to(retry))
        .route("/dead-letters/discard", web::post().to(discard));
}

#[derive(Deserialize)]
struct Which {
    #[serde(default)]
    consumer: String,
    cursor: Option<String>,
}

#[derive(Template)]
#[template(path = "dead_letters.html")]
struct DeadLettersPage {
    shell: Shell,
    /// Of which consumer; empty for all.
    consumer: String,
    /// Those that have any.
    consumers: Vec<Consumer>,
    page: Page<DeadLetter>,
    first: bool,
    seen: i64,
}

async fn list(visit: Visit, which: Query<Which>) -> Result<HttpResponse, AdminError> {
    let Which { consumer, cursor } = which.into_inner();
    let first = cursor.as_deref().unwrap_or_default().is_empty();
    let request = PageRequest::new(None, cursor).map_err(AdminError::from)?;
    if consumer.contains('\0') {
        return Err(AdminError::Invalid("consumer: expected a name".to_owned()));
    }
    let name = Some(consumer.clone()).filter(|name| !name.is_empty());
    let read = async move |connection: &mut _| {
        let seen = problems::now(connection).await?;
        let page = problems::dead_letters(connection, name.as_deref(), &request).await;
        let mut all = consumers::consumers(connection, None).await?;
        all.retain(|it| it.dead > 0);
        Ok((page.map_err(AdminError::from)?, all, seen))
    };
    let (page, consumers, seen) = visit.read(read).await?;
    let shell = visit.shell("Dead letters", PATH).await?;
    page::show(&DeadLettersPage { shell, consumer, consumers, page, first, seen })
}

#[derive(Deserialize)]
struct Chosen {
    consumer: String,
    position: Option<i64>,
    /// When the page was made, by the database's clock, in microseconds since 1970: what died after
    /// it, nobody has seen. (Letters are dated when they die, and seen when that is committed.)
    seen: Option<i64>,
}

impl Chosen {
    fn selection(&self) -> Selection<'_> {
        let until = self.seen.and_then(|seen| {
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(seen) * 1000).ok()
        });
        Selection { consumer: &self.consumer, position: self.position, since: None, until }
    }

    fn back(&self) -> String {
        match self.position {
            Some(_) => PATH.to_owned(),
            None => format!("/consumers/{}", encoded(&self.consumer)),
        }
    }
}

async fn retry(
    admin: Data<Admin>,
    Operate(who): Operate,
    form: Form<Chosen>,
) -> Result<HttpResponse, AdminError> {
    let back = form.back();
    let done = admin.transact(async move |connection| {
        actions::retry_dead_letters(connection, &who.name, form.selection()).await
    });
    page::outcome(&back, done.await, |count| format!("Handed out again: {}", letters(count)))
}

async fn discard(
    admin: Data<Admin>,
    AdminOnly(who): AdminOnly,
    form: Form<Chosen>,
) -> Result<HttpResponse, AdminError> {
    let back = form.back();
    let done = admin.transact(async move |connection| {
        actions::discard_dead_letters(connection, &who.name, form.selection()).await
    });
    page::outcome(&back, done.await, |count| format!("Forgotten: {}", letters(count)))
}

fn letters(count: i64) -> String {
    if count == 1 {
        "1 dead letter".to_owned()
    } else {
        format!("{} dead letters", text::thousands(count))
    }
}
