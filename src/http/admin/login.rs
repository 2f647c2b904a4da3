//! Logging in and out of the dashboard: a token for a session's cookie. Who may do what afterwards is
//! `access`'s, how the page looks is the dashboard's.

use actix_web::http::StatusCode;
use actix_web::http::header::{LOCATION, SET_COOKIE};
use actix_web::web::{self, Data, Form, Query};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use rand::rngs::SysRng;
use serde::Deserialize;

use super::access::{COOKIE_NAME, session_of};
use super::{Admin, AdminError};
use crate::store::tokens::{self, Hashed};

/// As long as a session lasts at most, in seconds (see `store::tokens`).
const COOKIE_AGE: u32 = 7 * 86_400;

#[derive(Debug, Deserialize)]
struct Next {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
struct LoginForm {
    token: String,
    #[serde(default)]
    next: String,
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/login").route(web::get().to(page)).route(web::post().to(log_in)))
        .service(web::resource("/logout").route(web::post().to(log_out)));
}

async fn page(query: Query<Next>) -> HttpResponse {
    show(StatusCode::OK, &query.next, None)
}

fn show(status: StatusCode, next: &str, wrong: Option<&str>) -> HttpResponse {
    let body = crate::http::dashboard::login_page(local(next), wrong);
    HttpResponse::build(status).content_type("text/html; charset=utf-8").body(body)
}

async fn log_in(
    request: HttpRequest,
    admin: Data<Admin>,
    form: Form<LoginForm>,
) -> Result<HttpResponse, AdminError> {
    let form = form.into_inner();
    if let Err(error) = admin.access.may_try(request.peer_addr().map(|peer| peer.ip())) {
        return Ok(show(error.status_code(), &form.next, Some(&error.to_string())));
    }
    let token = Hashed::of(form.token.trim());
    let session = tokens::random_text("", &mut SysRng).map_err(|_| AdminError::Internal)?;
    let hashed = Hashed::of(&session);
    let shared = admin.clone();
    let known = admin
        .transact(async move |connection| {
            let known = shared.access.identify(connection, &token).await?;
            if known.is_some() {
                tokens::begin_session(connection, &hashed, &token).await?;
            }
            Ok(known)
        })
        .await?;
    let Some(known) = known else {
        tracing::warn!(peer = ?request.peer_addr(), "a login with a wrong token");
        let wrong = "This token is not known, or not any more.";
        return Ok(show(StatusCode::UNAUTHORIZED, &form.next, Some(wrong)));
    };
    tracing::info!(name = known.name, "logged in");
    Ok(go_to(local(&form.next), &cookie(&request, &session, COOKIE_AGE)))
}

async fn log_out(request: HttpRequest, admin: Data<Admin>) -> Result<HttpResponse, AdminError> {
    if let Some(session) = session_of(&request) {
        let session = Hashed::of(&session);
        admin
            .transact(async move |connection| Ok(tokens::end_session(connection, &session).await?))
            .await?;
    }
    Ok(go_to("/login", &cookie(&request, "", 0)))
}

fn go_to(path: &str, cookie: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((LOCATION, path))
        .insert_header((SET_COOKIE, cookie))
        .finish()
}

/// Not for scripts, not for other sites; over TLS only, if that is how the browser came.
fn cookie(request: &HttpRequest, value: &str, age: u32) -> String {
    let secure = request
        .headers()
        .get("x-forwarded-proto")
        .is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE_NAME}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}")
}

/// A path of this listener, or its front page: nobody is sent elsewhere after a login.
pub fn local(next: &str) -> &str {
    let path = next.strip_prefix('/').is_some_and(|rest| !rest.starts_with(['/', '\\']));
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic());
    if path && plain { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::local;

    #[test]
    fn nobody_is_sent_elsewhere_after_a_login() {
        assert_eq!(local("/events?type=invoice.*"), "/events?type=invoice.*");
        for next in
            ["", "https://evil.example", "//evil.example", "/\\evil.example", "events", "/a\r\nb"]
        {
            assert_eq!(local(next), "/", "{next:?}");
        }
    }
}
