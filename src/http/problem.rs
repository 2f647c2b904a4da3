//! Errors on the wire: status and problem+json (RFC 9457) with a stable `code`, in one place.
//! What went wrong, and the sentence that says it, comes from the error itself.

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use serde::Serialize;

use crate::ingest::IngestError;
use crate::ingest::error::NotWritten;

/// The body of every answer that is no success.
#[derive(Serialize)]
struct Problem<'a> {
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
}

/// Completes an answer whose status is set.
pub(super) fn problem(
    mut response: HttpResponseBuilder,
    status: StatusCode,
    code: &str,
    detail: &str,
) -> HttpResponse {
    let title = status.canonical_reason().unwrap_or_default();
    let body = Problem { title, status: status.as_u16(), code, detail };
    response
        .insert_header((CONTENT_TYPE, "application/problem+json"))
        .body(serde_json::to_string(&body).unwrap_or_default())
}

/// Seconds after which a sender may try again. Stripe keeps to a schedule of its own; other
/// senders, and the replay command, honour it.
fn retry_after(error: NotWritten) -> Option<u64> {
    match error {
        NotWritten::QueueFull => Some(1),
        NotWritten::ShuttingDown => Some(2),
        NotWritten::Database => Some(5),
        NotWritten::Rejected => None,
    }
}

impl ResponseError for IngestError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::UnknownEndpoint => StatusCode::NOT_FOUND,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::BodyIncomplete | Self::Signature(_) => StatusCode::BAD_REQUEST,
            // Not the database's trouble: nothing is gained by coming back at once.
            Self::NotWritten(NotWritten::Rejected) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotWritten(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let mut response = HttpResponse::build(status);
        match self {
            // What is left of the body is not read, so the connection cannot be used again.
            Self::BodyTooLarge { .. } | Self::BodyTimeout(_) | Self::BodyIncomplete => {
                response.force_close();
            }
            Self::NotWritten(why) => {
                if let Some(seconds) = retry_after(*why) {
                    response.insert_header((RETRY_AFTER, seconds));
                }
            }
            Self::UnknownEndpoint | Self::Signature(_) => {}
        }
        problem(response, status, self.code(), &self.to_string())
    }
}

/// The answer to a path that is not served.
pub async fn not_found() -> HttpResponse {
    let detail = "nothing is served here: deliveries go to POST /webhooks/stripe, health is at /healthz and /readyz";
    problem(HttpResponse::NotFound(), StatusCode::NOT_FOUND, "not_found", detail)
}

/// The answer to a method that a path does not take; `allowed` are those that it does.
pub fn method_not_allowed(allowed: &str) -> HttpResponse {
    let mut response = HttpResponse::MethodNotAllowed();
    response.insert_header((ALLOW, allowed));
    problem(
        response,
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        &format!("this path takes {allowed}"),
    )
}
