//! What every request of the admin listener goes through: requests that a stranger's page sends are
//! refused, and every answer carries the headers that keep a page to itself.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::ResponseError;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
};
use actix_web::middleware::Next;
use actix_web::web::{Bytes, Data, Query};
use actix_web::{Error, HttpRequest};
use serde::Deserialize;

use super::access::{csrf_of, has_bearer, session_of};
use super::{Admin, AdminError};
use crate::store::tokens;

/// Everything comes from here; nothing is inline, framed, or sent elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// `same-origin` and not `no-referrer`, with which browsers hide a form's origin from ourselves.
const HEADERS: [(&str, &str); 7] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=()"),
    ("x-robots-tag", "noindex"),
];

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const CSRF: HeaderName = HeaderName::from_static("x-csrf-token");

/// Middleware around every route.
pub async fn protect<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let mut response = match check(&mut request).await {
        Ok(()) => next.call(request).await?.map_into_boxed_body(),
        Err(refused) => {
            let answer = refused.error_response();
            request.into_response(answer).map_into_boxed_body()
        }
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    // Unless a page needs another.
    for (name, value) in [(CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, "no-store")] {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    Ok(response)
}

/// Three locks, each enough by itself in a browser of today: the cookie is `SameSite=Strict`; what
/// acts must come from our own origin; and a form with a session must know that session's token.
async fn check(request: &mut ServiceRequest) -> Result<(), AdminError> {
    let open = request.app_data::<Data<Admin>>().is_some_and(|admin| admin.access.may_be_open());
    if open && !names_this_host(request.headers()) && !needs_token(request.request()).await? {
        return Err(AdminError::CrossSite);
    }
    if request.method().is_safe() {
        return Ok(());
    }
    if !comes_from_here(request.headers()) {
        return Err(AdminError::CrossSite);
    }
    match session_of(request.request()) {
        Some(session) if !is_login(request) => check_token(request, &session).await,
        _ => Ok(()),
    }
}

/// Whether this request is refused without a token, however a page led it here: it has one that is
/// looked at, or there are some.
async fn needs_token(request: &HttpRequest) -> Result<bool, AdminError> {
    if has_bearer(request) {
        return Ok(true);
    }
    let admin = request.app_data::<Data<Admin>>().ok_or(AdminError::Internal)?;
    admin.transact(async |connection| Ok(tokens::any(connection).await?)).await
}

/// Where no token is needed, a page could have its own host name lead to 127.0.0.1 and read
/// everything (DNS rebinding). An address cannot be rebound, and localhost is ours.
fn names_this_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
        return true; // no browser leaves it out
    };
    if host.starts_with('[') {
        return true;
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

/// Browsers say where a request comes from, and pages cannot make them lie. Programs say nothing.
fn comes_from_here(headers: &HeaderMap) -> bool {
    let text =
        |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text(&FETCH_SITE) {
        return matches!(site, "same-origin" | "none");
    }
    match (text(&ORIGIN), text(&HOST)) {
        (None, _) => true,
        // Not the scheme: TLS ends before us.
        (Some(origin), Some(host)) => {
            origin.split_once("://").is_some_and(|(_, name)| name.eq_ignore_ascii_case(host))
        }
        (Some(_), None) => false,
    }
}

/// Logging in needs no session, and must work with one that has ended.
fn is_login(request: &ServiceRequest) -> bool {
    request.path() == "/login"
}

#[derive(Deserialize)]
struct Form {
    csrf: String,
}

/// Either in a header or as a field of the form, whose body is put back.
async fn check_token(request: &mut ServiceRequest, session: &str) -> Result<(), AdminError> {
    let wanted = csrf_of(session);
    if let Some(given) = request.headers().get(CSRF) {
        return if given.as_bytes() == wanted.as_bytes() {
            Ok(())
        } else {
            Err(AdminError::CrossSite)
        };
    }
    let body =
        request.extract::<Bytes>().await.map_err(|error| AdminError::Invalid(error.to_string()))?;
    let form =
        std::str::from_utf8(&body).ok().and_then(|text| Query::<Form>::from_query(text).ok());
    request.set_payload(body.into());
    match form {
        Some(form) if form.csrf == wanted => Ok(()),
        _ => Err(AdminError::CrossSite),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn only_addresses_and_localhost_name_this_host() {
        for host in ["127.0.0.1:9090", "localhost:9090", "LOCALHOST", "[::1]:9090", "10.0.0.7"] {
            assert!(names_this_host(&headers(&[("host", host)])), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9090",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
        ] {
            assert!(!names_this_host(&headers(&[("host", host)])), "{host}");
        }
    }

    #[test]
    fn what_acts_comes_from_our_own_pages_or_from_a_program() {
        let here = ("host", "gate.example:9090");
        assert!(comes_from_here(&headers(&[here])));
        assert!(comes_from_here(&headers(&[here, ("origin", "https://gate.example:9090")])));
        assert!(comes_from_here(&headers(&[here, ("sec-fetch-site", "same-origin")])));
        for origin in ["null", "https://evil.example", "http://gate.example", "gate.example:9090"] {
            assert!(!comes_from_here(&headers(&[here, ("origin", origin)])), "{origin}");
        }
        for site in ["cross-site", "same-site", ""] {
            assert!(!comes_from_here(&headers(&[here, ("sec-fetch-site", site)])), "{site}");
        }
    }
}
