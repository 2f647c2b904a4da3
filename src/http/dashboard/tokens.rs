//! Tokens of the admin listener: the list, a new one, and an end to one. What tokens are is
//! `store::tokens`' affair.

use actix_web::HttpResponse;
use actix_web::web::{self, Data, Form, ServiceConfig};
use askama::Template;
use serde::Deserialize;

use super::filters;
use super::page::{self, Shell, Visit};
use crate::http::admin::access::Scope;
use crate::http::admin::{Admin, AdminError, AdminOnly, actions};
use crate::store::tokens::{self, Holder, TokenLine};

const PATH: &str = "/tokens";

/// Longest lifetime that can be chosen, in days.
const MOST_DAYS: u32 = 3650;

pub fn routes(config: &mut ServiceConfig) {
    config
        .service(web::resource(PATH).route(web::get().to(list)).route(web::post().to(create)))
        .route("/tokens/revoke", web::post().to(revoke));
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    shell: Shell,
    tokens: Vec<TokenLine>,
    /// A token just made: its name and its text, shown this once.
    made: Option<(String, String)>,
}

async fn list(visit: Visit, _: AdminOnly) -> Result<HttpResponse, AdminError> {
    page_with(visit, None).await
}

async fn page_with(
    visit: Visit,
    made: Option<(String, String)>,
) -> Result<HttpResponse, AdminError> {
    let tokens = visit.read(async |connection| Ok(tokens::list(connection).await?)).await?;
    page::show(&TokensPage { shell: visit.shell("Tokens", PATH).await?, tokens, made })
}

#[derive(Deserialize)]
struct NewToken {
    name: String,
    scope: String,
    #[serde(default)]
    days: String,
}

async fn create(
    visit: Visit,
    AdminOnly(who): AdminOnly,
    form: Form<NewToken>,
) -> Result<HttpResponse, AdminError> {
    let form = form.into_inner();
    let scope: Scope = match form.scope.parse() {
        Ok(scope) => scope,
        Err(expected) => return Ok(page::refused(PATH, format!("Scope: {expected}"))),
    };
    let days = match form.days.trim() {
        "" => None,
        text => match text.parse::<u32>() {
            Ok(days) if (1..=MOST_DAYS).contains(&days) => Some(days),
            _ => {
                let wrong = format!("Lifetime: expected 1 to {MOST_DAYS} days, or nothing");
                return Ok(page::refused(PATH, wrong));
            }
        },
    };
    let holder = Holder { name: form.name.trim().to_owned(), scope };
    let name = holder.name.clone();
    let made = visit.read(async move |connection| {
        actions::create_token(connection, &who.name, &holder, days.map(f64::from)).await
    });
    match made.await {
        // Never in a cookie or an address: only on this page.
        Ok(token) => page_with(visit, Some((name, token))).await,
        error => page::outcome(PATH, error, |_| String::new()),
    }
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

async fn revoke(
    admin: Data<Admin>,
    AdminOnly(who): AdminOnly,
    form: Form<Named>,
) -> Result<HttpResponse, AdminError> {
    let name = form.into_inner().name;
    let revoked = format!("Token {name} is revoked, and its sessions have ended");
    let last = admin.access.last();
    let gone = admin.transact(async move |connection| {
        actions::revoke_token(connection, &who.name, &name, last).await
    });
    page::outcome(PATH, gone.await, |()| revoked)
}
