//! One span and one log line per request, and its id in and out. Never a body, never a header's
//! value but the request id.

use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::ConnectionType;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage};
use tracing::Span;
use tracing::field::Empty;
use tracing_actix_web::{RequestId, RootSpanBuilder};

use crate::ingest::IngestError;
use crate::shutdown::Phase;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id taken over from a client, in bytes.
const REQUEST_ID_MAX: usize = 128;

/// What is remembered of a request until its answer.
#[derive(Clone)]
struct Started {
    at: Instant,
    id: HeaderValue,
}

/// Opens the root span of a request and writes its log line.
#[derive(Debug)]
pub struct GatewaySpan;

impl RootSpanBuilder for GatewaySpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        let id = request_id(request);
        let span = tracing::info_span!(
            "request",
            request_id = id.to_str().unwrap_or_default(),
            endpoint = Empty,
            event_id = Empty,
            event_type = Empty,
            outcome = Empty,
            position = Empty,
        );
        request.extensions_mut().insert(Started { at: Instant::now(), id });
        span
    }

    fn on_request_end<B: MessageBody>(span: Span, outcome: &Result<ServiceResponse<B>, Error>) {
        let Ok(response) = outcome else {
            return;
        };
        let request = response.request();
        let elapsed = request.extensions().get::<Started>().map(|started| started.at.elapsed());
        let latency_ms = elapsed.unwrap_or_default().as_secs_f64() * 1e3;
        let status = response.status().as_u16();
        let (method, path) = (request.method().as_str(), request.path());
        let error = response.response().error().and_then(Error::as_error::<IngestError>);
        if let Some(error) = error {
            span.record("outcome", error.code());
        }
        let _entered = span.enter();
        match (status, error) {
            (500.., Some(error)) => {
                tracing::error!(method, path, status, latency_ms, %error, "request failed");
            }
            (500.., None) if path == "/readyz" => {
                tracing::warn!(method, path, status, latency_ms, "not ready");
            }
            (500.., None) => tracing::error!(method, path, status, latency_ms, "request failed"),
            (400.., Some(error)) => {
                tracing::warn!(method, path, status, latency_ms, %error, "request refused");
            }
            (400.., None) => tracing::warn!(method, path, status, latency_ms, "request refused"),
            _ if path.starts_with("/webhooks/") => {
                tracing::info!(status, latency_ms, "delivery");
            }
            _ => tracing::debug!(method, path, status, latency_ms, "request"),
        }
    }
}

/// The client's id if it is short and printable, else a new one.
fn request_id(request: &ServiceRequest) -> HeaderValue {
    let given = request.headers().get(REQUEST_ID).filter(|id| {
        (1..=REQUEST_ID_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    if let Some(given) = given {
        return given.clone();
    }
    let new = request.extensions().get::<RequestId>().map(ToString::to_string).unwrap_or_default();
    HeaderValue::from_str(&new).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

/// Middleware: gives every answer its request id and, once shutdown has begun, asks the client to
/// take its next request elsewhere.
pub async fn stamp<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let phase = request.app_data::<Data<Phase>>().cloned();
    let mut response = next.call(request).await?;
    let id = response.request().extensions().get::<Started>().map(|started| started.id.clone());
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    if phase.is_some_and(|phase| phase.draining()) {
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}
