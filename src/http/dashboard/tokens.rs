//! Tokens of the admin listener: the list, a new one, and an end to one. What tokens are is
//! `store::tokens`' affair.

use actix_web::HttpResponse;
use actix_web::web::{self, Data, Form, ServiceConfig};
use askama::Template;
use rand::rngs::SysRng;
use serde::Deserialize;
use serde_json::json;

use super::filters;
use super::page::{self, Shell, Visit};
use crate::http::admin::access::Scope;
use crate::http::admin::{Admin, AdminError, AdminOnly};
use crate::store::audit;
use crate::store::tokens::{self, Hashed, Holder, TokenLine};

const PATH: &str = "/tokens";

/// What a token begins with, so that people and scanners for leaked secrets know what it is.
const PREFIX: &str = "tgt_";

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
    let token = tokens::random_text(PREFIX, &mut SysRng).map_err(|_| AdminError::Internal)?;
    let (hash, holder) = (Hashed::of(&token), Holder { name: form.name.trim().to_owned(), scope });
    let name = holder.name.clone();
    let made = visit.read(async move |connection| {
        let lifetime = days.map(|days| f64::from(days) * 86_400.0);
        tokens::create(connection, &holder, &hash, &who.name, lifetime).await?;
        let detail = json!({"scope": holder.scope.as_str(), "days": days});
        Ok(audit::record(connection, &who.name, "token.create", &holder.name, &detail).await?)
    });
    match made.await {
        // Never in a cookie or an address: only on this page.
        Ok(()) => page_with(visit, Some((name, token))).await,
        Err(AdminError::Conflict(_)) => {
            Ok(page::refused(PATH, format!("There is a token named {name} already")))
        }
        Err(AdminError::Invalid(_)) => Ok(page::refused(
            PATH,
            "Name: expected lower-case letters, digits, dots and dashes; admin and local are taken",
        )),
        Err(other) => Err(other),
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
    let subject = name.clone();
    let gone = admin
        .transact(async move |connection| {
            let gone = tokens::revoke(connection, &subject).await?;
            if gone {
                audit::record(connection, &who.name, "token.revoke", &subject, &json!({})).await?;
            }
            Ok(gone)
        })
        .await?;
    Ok(if gone {
        page::done(PATH, format!("Token {name} is revoked, and its sessions have ended"))
    } else {
        page::refused(PATH, format!("There is no token named {name}"))
    })
}
