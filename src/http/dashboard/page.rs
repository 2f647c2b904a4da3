//! What all pages share: who looks, the frame around the contents, and messages that are shown once
//! after an action.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header::{COOKIE, HeaderValue, LOCATION, SET_COOKIE};
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use askama::Template;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::assets::{ASSETS, Assets};
use super::nav::{self, Group};
use crate::http::admin::access::Scope;
use crate::http::admin::{Admin, AdminError, Identity, Read};
use crate::http::concerns::Trouble;
use crate::store::StoreError;

pub const HTML: &str = "text/html; charset=utf-8";

/// What a page's own script sends when it asks for a part of the page anew.
const PART: &str = "x-part";

const FLASH: &str = "tollgate_flash";

/// Forgets the message.
pub const NO_FLASH: HeaderValue =
    HeaderValue::from_static("tollgate_flash=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");

/// Longest message kept in a cookie, in bytes before encoding.
const LONGEST_FLASH: usize = 600;

/// What stands for itself in each part of a URL (RFC 3986, unreserved).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A text as a part of a URL.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// The result of an action, shown on the next page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flash {
    pub good: bool,
    pub text: String,
}

/// Who looks.
#[derive(Clone, Debug)]
pub struct Who {
    pub name: String,
    pub scope: &'static str,
}

/// The frame around a page's contents.
pub struct Shell {
    pub title: String,
    pub nav: Vec<Group>,
    pub trouble: Trouble,
    pub who: Option<Who>,
    pub csrf: Option<String>,
    pub may_operate: bool,
    pub may_admin: bool,
    pub flash: Option<Flash>,
    pub now: OffsetDateTime,
    pub assets: &'static Assets,
}

/// Somebody who may look, looking.
pub struct Visit {
    pub admin: Data<Admin>,
    identity: Identity,
    flash: Option<Flash>,
    pub now: OffsetDateTime,
}

impl Visit {
    /// The frame of a page at `path` in the menu.
    pub async fn shell(&self, title: &str, path: &'static str) -> Result<Shell, AdminError> {
        let identity = &self.identity;
        let trouble = self.read(async |connection| Ok(nav::trouble(connection).await?)).await?;
        Ok(Shell {
            title: title.to_owned(),
            nav: nav::menu(path, trouble, identity.may(Scope::Admin)),
            trouble,
            who: Some(Who { name: identity.name.clone(), scope: identity.scope.as_str() }),
            csrf: identity.csrf.clone(),
            may_operate: identity.may(Scope::Operate),
            may_admin: identity.may(Scope::Admin),
            flash: self.flash.clone(),
            now: self.now,
            assets: &ASSETS,
        })
    }

    /// Asks the database.
    pub async fn read<T: 'static>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, AdminError> + 'static,
    ) -> Result<T, AdminError> {
        self.admin.transact(work).await
    }
}

impl FromRequest for Visit {
    type Error = AdminError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, AdminError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let read = Read::from_request(request, payload);
        let admin = request.app_data::<Data<Admin>>().cloned();
        let flash = if is_part(request) { None } else { flash_of(request) };
        Box::pin(async move {
            let Read(identity) = read.await?;
            let admin = admin.ok_or(AdminError::Internal)?;
            let now = admin.clock.now();
            Ok(Self { admin, identity, flash, now })
        })
    }
}

/// What the store could not do, as a request's trouble.
pub fn unanswered(error: StoreError) -> AdminError {
    match error {
        StoreError::Database(error) => error.into(),
        other => AdminError::Database(sqlx::Error::Protocol(other.to_string())),
    }
}

/// A page.
pub fn show(page: &impl Template) -> Result<HttpResponse, AdminError> {
    let html = page.render().map_err(|error| {
        tracing::error!(%error, "a template failed");
        AdminError::Internal
    })?;
    Ok(HttpResponse::Ok().content_type(HTML).body(html))
}

/// After an action: to a page that says what came of it.
pub fn done(path: &str, text: impl Into<String>) -> HttpResponse {
    go(path, &Flash { good: true, text: text.into() })
}

/// The same, for an action that could not be done.
pub fn refused(path: &str, text: impl Into<String>) -> HttpResponse {
    go(path, &Flash { good: false, text: text.into() })
}

/// What came of an action, in words; what the asker got wrong is said on the same page.
pub fn outcome<T>(
    path: &str,
    done: Result<T, AdminError>,
    words: impl FnOnce(T) -> String,
) -> Result<HttpResponse, AdminError> {
    match done {
        Ok(value) => Ok(self::done(path, words(value))),
        Err(
            error @ (AdminError::Invalid(_) | AdminError::Conflict(_) | AdminError::NotFound(_)),
        ) => Ok(refused(path, error.to_string())),
        Err(error) => Err(error),
    }
}

fn go(path: &str, flash: &Flash) -> HttpResponse {
    let mut text = flash.text.as_str();
    if let Some((end, _)) = text.char_indices().find(|(at, _)| *at > LONGEST_FLASH) {
        text = &text[..end];
    }
    let mark = if flash.good { '+' } else { '-' };
    let text = utf8_percent_encode(text, NON_ALPHANUMERIC);
    let cookie = format!("{FLASH}={mark}{text}; Path=/; Max-Age=30; HttpOnly; SameSite=Strict");
    HttpResponse::SeeOther()
        .insert_header((LOCATION, path))
        .insert_header((SET_COOKIE, cookie))
        .finish()
}

fn flash_cookie(request: &HttpRequest) -> Option<&str> {
    let cookies = request.headers().get_all(COOKIE).filter_map(|header| header.to_str().ok());
    let mut pairs =
        cookies.flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == FLASH).map(|(_, value)| value)
}

/// Whether there is a message to be shown.
pub fn has_flash(request: &HttpRequest) -> bool {
    flash_cookie(request).is_some()
}

fn flash_of(request: &HttpRequest) -> Option<Flash> {
    let value = flash_cookie(request)?;
    let (good, text) = match value.split_at_checked(1)? {
        ("+", text) => (true, text),
        ("-", text) => (false, text),
        _ => return None,
    };
    let text = percent_decode_str(text).decode_utf8().ok()?.into_owned();
    (!text.is_empty()).then_some(Flash { good, text })
}

/// Whether the script of a page that is open asks, and not a person.
pub fn is_part(request: &HttpRequest) -> bool {
    request.headers().contains_key(PART)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_message_survives_the_way_through_a_cookie() {
        for text in
            ["3 dead letters retried", "no; such = \"thing\"\r\nSet-Cookie: x=1", "ü\u{202e}"]
        {
            let response = refused("/consumers", text);
            let cookie = response.headers().get(SET_COOKIE).unwrap().to_str().unwrap();
            let pair = cookie.split(';').next().unwrap().to_owned();
            let request = TestRequest::default().insert_header((COOKIE, pair)).to_http_request();
            assert_eq!(flash_of(&request), Some(Flash { good: false, text: text.to_owned() }));
        }
    }

    #[test]
    fn what_is_no_message_is_none() {
        for value in ["", "+", "%ff", "+%ff", "\u{e9}"] {
            let request = TestRequest::default()
                .insert_header((COOKIE, format!("a=b; {FLASH}={value}")))
                .to_http_request();
            assert_eq!(flash_of(&request), None, "{value}");
        }
    }
}
