//! What goes on around every page: errors become pages, who is not logged in is asked to, and a
//! message is shown once.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{LOCATION, SET_COOKIE};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest, HttpResponse, ResponseError};
use askama::Template;

use super::assets::{ASSETS, Assets};
use super::{filters, page};
use crate::http::admin::AdminError;
use crate::http::admin::login::local;

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    assets: &'static Assets,
    title: &'static str,
    sentence: String,
    status: u16,
    code: &'static str,
    /// Where the same may be tried again.
    back: String,
}

/// Middleware around all pages.
pub async fn pages<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let told = page::has_flash(request.request()) && !page::is_part(request.request());
    let response = next.call(request).await?.map_into_boxed_body();
    let error = response.response().error().and_then(|error| error.as_error::<AdminError>());
    let Some(error) = error else {
        let mut response = response;
        if told && response.status() == StatusCode::OK {
            response.headers_mut().append(SET_COOKIE, page::NO_FLASH);
        }
        return Ok(response);
    };
    let answer = answer(response.request(), error);
    Ok(response.into_response(answer))
}

/// An error as people see it.
fn answer(request: &HttpRequest, error: &AdminError) -> HttpResponse {
    let read = request.method() == Method::GET;
    let here = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if matches!(error, AdminError::Unauthorized) {
        let next = if read { here } else { "/" };
        return HttpResponse::SeeOther()
            .insert_header((LOCATION, format!("/login?next={}", page::encoded(next))))
            .finish();
    }
    let status = error.status_code();
    let title = match error {
        AdminError::NotFound(_) => "Not here",
        AdminError::Forbidden { .. } => "Not with this token",
        AdminError::CrossSite => "Not from there",
        AdminError::Invalid(_) => "That cannot be",
        AdminError::Conflict(_) => "Not as things stand",
        AdminError::Database(_) => "The database does not answer",
        _ => "That did not work",
    };
    if status.is_server_error() {
        tracing::warn!(%error, "a page could not be shown");
    }
    // Where the form was, if the browser says so: it only does within this origin.
    let came_from = request.headers().get("referer").and_then(|referer| referer.to_str().ok());
    let came_from = came_from.and_then(|referer| referer.splitn(4, '/').nth(3));
    let back = if read { here.to_owned() } else { format!("/{}", came_from.unwrap_or_default()) };
    let back = local(&back).to_owned();
    let page = ErrorPage {
        assets: &ASSETS,
        title,
        sentence: error.to_string(),
        status: status.as_u16(),
        code: error.code(),
        back,
    };
    HttpResponse::build(status).content_type(page::HTML).body(page.render().unwrap_or_default())
}

/// The answer to a path that is no page.
pub async fn not_found(request: HttpRequest) -> Result<HttpResponse, AdminError> {
    Err(AdminError::NotFound(format!("page {}", request.path())))
}
