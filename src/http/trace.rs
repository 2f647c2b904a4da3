//! One span and one log line per request, and its id in and out. Never a body, never a header's
//! value but the request id.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
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

use crate::ingest::handler::Delivery;
use crate::ingest::queue::Outcome;
use crate::ingest::{EndpointName, IngestError};
use crate::shutdown::Phase;
use crate::stripe::event::EventId;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id taken over from a client, in bytes.
const REQUEST_ID_MAX: usize = 128;

/// Longest part of a path in a log line, in bytes.
const PATH_SHOWN: usize = 200;

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
        // At debug, because a span costs as much as verifying a signature does. Log lines carry
        // the same fields themselves.
        let span = tracing::debug_span!(
            "request",
            request_id = id.to_str().unwrap_or_default(),
            endpoint = Empty,
            event_id = Empty,
            event_type = Empty,
            outcome = Empty,
        );
        request.extensions_mut().insert(Started { at: Instant::now(), id });
        span
    }

    fn on_request_end<B: MessageBody>(span: Span, outcome: &Result<ServiceResponse<B>, Error>) {
        let Ok(response) = outcome else {
            return;
        };
        let extensions = response.request().extensions();
        let error = response.response().error().and_then(Error::as_error::<IngestError>);
        let delivery = extensions.get::<Delivery>();
        if let Some(delivery) = delivery
            && !span.is_disabled()
        {
            let outcome =
                error.map(IngestError::code).or(delivery.outcome.as_ref().map(Outcome::as_str));
            tracing::record_all!(
                span,
                endpoint = delivery.endpoint.as_ref().map(EndpointName::as_str),
                event_id = delivery.event_id.as_ref().map(EventId::as_str),
                event_type = delivery.event_type.as_deref(),
                outcome = outcome,
            );
        }
        let _entered = span.enter();
        let started = extensions.get::<Started>();
        match delivery {
            Some(delivery) => log_delivery(response, started, delivery, error),
            None => log_request(response, started),
        }
    }
}

/// The line of a delivery, as far as it came.
fn log_delivery<B>(
    response: &ServiceResponse<B>,
    started: Option<&Started>,
    delivery: &Delivery,
    error: Option<&IngestError>,
) {
    // The fields are the same at every level; only the level and the sentence differ.
    macro_rules! line {
        ($level:ident, $message:literal $(, $field:ident = $value:expr)*) => {
            tracing::$level!(
                status = response.status().as_u16(),
                endpoint = delivery.endpoint.as_ref().map(EndpointName::as_str),
                event_id = delivery.event_id.as_ref().map(EventId::as_str),
                event_type = delivery.event_type.as_deref(),
                latency_ms = latency_ms(started),
                request_id = started.and_then(|started| started.id.to_str().ok()),
                trace_id = delivery.trace_id.as_deref(),
                $($field = $value,)*
                $message
            )
        };
    }
    match (&delivery.outcome, error) {
        (Some(outcome @ Outcome::Quarantined { reason }), _) => {
            line!(warn, "delivery", outcome = outcome.as_str(), reason = reason);
        }
        (Some(outcome), _) => match SUCCESSES.take() {
            Some(unlogged) => {
                line!(info, "delivery", outcome = outcome.as_str(), unlogged = some(unlogged));
            }
            None => line!(debug, "delivery", outcome = outcome.as_str()),
        },
        (None, Some(error @ IngestError::NotWritten(_))) => {
            line!(
                error,
                "delivery failed",
                outcome = error.code(),
                error = tracing::field::display(error)
            );
        }
        (None, Some(error)) => {
            let (outcome, error) = (error.code(), tracing::field::display(error));
            match REFUSALS.take() {
                Some(unlogged) => {
                    let unlogged = some(unlogged);
                    line!(
                        warn,
                        "delivery refused",
                        outcome = outcome,
                        error = error,
                        unlogged = unlogged
                    );
                }
                None => line!(debug, "delivery refused", outcome = outcome, error = error),
            }
        }
        (None, None) => line!(warn, "delivery ended without an outcome"),
    }
}

/// The line of any other request: health checks, and paths that are not served.
fn log_request<B>(response: &ServiceResponse<B>, started: Option<&Started>) {
    let request = response.request();
    let method = request.method().as_str();
    let path = &request.path()[..request.path().floor_char_boundary(PATH_SHOWN)];
    let (status, latency_ms) = (response.status().as_u16(), latency_ms(started));
    let told = if status >= 400 { REFUSALS.take().map(some) } else { None };
    match told {
        Some(unlogged) => {
            tracing::warn!(status, method, path, latency_ms, unlogged, "request");
        }
        None => tracing::debug!(status, method, path, latency_ms, "request"),
    }
}

/// Lines that were left out, where there were any.
fn some(unlogged: u64) -> Option<u64> {
    (unlogged > 0).then_some(unlogged)
}

fn latency_ms(started: Option<&Started>) -> f64 {
    started.map_or(0.0, |started| started.at.elapsed().as_secs_f64() * 1e3)
}

/// Lets so many lines pass per second and counts the rest. A success stands in the log table
/// anyway: a line for each is company at ten a second, and a tenth of the CPU at ten thousand.
struct LineBudget {
    per_second: u64,
    second: AtomicU64,
    used: AtomicU64,
    skipped: AtomicU64,
}

static SUCCESSES: LineBudget = LineBudget::new(50);

/// What anybody can cause without a secret must not fill the disk, nor the memory before it.
static REFUSALS: LineBudget = LineBudget::new(50);

impl LineBudget {
    const fn new(per_second: u64) -> Self {
        let [second, used, skipped] = [const { AtomicU64::new(0) }; 3];
        Self { per_second, second, used, skipped }
    }

    /// How many lines were left out since the last that passed, if this one may.
    fn take(&self) -> Option<u64> {
        static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.take_at(EPOCH.elapsed().as_secs())
    }

    /// Racing threads may let a line more pass or miss one in the count: it is only a log.
    fn take_at(&self, second: u64) -> Option<u64> {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.used.store(0, Ordering::Relaxed);
        }
        if self.used.fetch_add(1, Ordering::Relaxed) < self.per_second {
            Some(self.skipped.swap(0, Ordering::Relaxed))
        } else {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            None
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_lets_its_share_pass_and_counts_the_rest() {
        let budget = LineBudget::new(2);
        let taken = [7, 7, 7, 7, 8, 8].map(|second| budget.take_at(second));
        assert_eq!(taken, [Some(0), Some(0), None, None, Some(2), Some(0)]);
    }
}
