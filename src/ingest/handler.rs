//! The webhook route: bytes in, an answer out once the event is committed.
//! Reads the request and asks the parts; each step's own rules live with the part.

use std::sync::Arc;

use actix_web::http::header::HeaderValue;
use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

use super::body::{self, BodyLimits};
use super::error::NotWritten;
use super::queue::{Outcome, Queue, Work};
use super::spans;
use super::traffic::Traffic;
use super::{Endpoint, EndpointName, Endpoints, IngestError};
use crate::clock::Clock;
use crate::store::events::{NewEvent, Source};
use crate::store::quarantine::Quarantined;
use crate::stripe::event::{Envelope, EventId};
use crate::stripe::signature::{SignatureError, SignatureHeader, Tolerance};
use crate::traces::{Span, Traces};

/// What the route needs.
#[derive(Debug)]
pub struct Intake {
    pub endpoints: Endpoints,
    pub clock: Clock,
    pub tolerance: Tolerance,
    pub body: BodyLimits,
    /// How long an event may take from here to COMMIT before the sender is told to come back.
    pub write_deadline: std::time::Duration,
    pub traffic: Arc<Traffic>,
    pub traces: Traces,
}

/// What became known of a delivery while it was handled: for its span and its log line.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    pub endpoint: Option<EndpointName>,
    pub event_id: Option<EventId>,
    pub event_type: Option<String>,
    pub outcome: Option<Outcome>,
    /// If it is traced.
    pub trace_id: Option<String>,
    /// Bytes of the body, once it is read.
    pub bytes: usize,
}

/// Counts a delivery once, when it ends: also if the sender hangs up and the handler is dropped.
struct Counted<'a> {
    traffic: &'a Traffic,
    started: Instant,
    delivery: Delivery,
    done: bool,
}

impl<'a> Counted<'a> {
    fn begin(traffic: &'a Traffic) -> Self {
        Self { traffic, started: Instant::now(), delivery: Delivery::default(), done: false }
    }

    fn answered(&mut self, refusal: Option<&IngestError>) -> Delivery {
        let delivery = std::mem::take(&mut self.delivery);
        let answer = refusal.map_or(delivery.outcome.as_ref().map(Ok), |error| Some(Err(error)));
        if let Some(answer) = answer {
            let (event_type, took) = (delivery.event_type.as_deref(), self.started.elapsed());
            self.traffic.answered(answer, event_type, delivery.bytes, took);
            self.done = true;
        }
        delivery
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.traffic.abandoned(self.delivery.bytes, self.started.elapsed());
        }
    }
}

/// The body of a 200.
#[derive(Serialize)]
struct Receipt<'a> {
    received: bool,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// `POST /webhooks/stripe`: the endpoint named `default`.
pub async fn receive_default(
    request: HttpRequest,
    payload: Payload,
    intake: Data<Intake>,
    queue: Data<Queue>,
) -> Result<HttpResponse, IngestError> {
    intake.receive(&request, payload, EndpointName::DEFAULT, &queue).await
}

/// `POST /webhooks/stripe/{endpoint}`.
pub async fn receive_named(
    request: HttpRequest,
    payload: Payload,
    name: Path<String>,
    intake: Data<Intake>,
    queue: Data<Queue>,
) -> Result<HttpResponse, IngestError> {
    intake.receive(&request, payload, &name, &queue).await
}

impl Intake {
    async fn receive(
        &self,
        request: &HttpRequest,
        mut payload: Payload,
        endpoint: &str,
        queue: &Queue,
    ) -> Result<HttpResponse, IngestError> {
        let span = spans::webhook(&self.traces, request);
        let mut counted = Counted::begin(&self.traffic);
        let delivery = &mut counted.delivery;
        delivery.trace_id = span.trace_id();
        let answer = self.handle(request, &mut payload, endpoint, queue, &span, delivery).await;
        let delivery = counted.answered(answer.as_ref().err());
        spans::answered(span, &delivery, &answer);
        request.extensions_mut().insert(delivery);
        answer
    }

    async fn handle(
        &self,
        request: &HttpRequest,
        payload: &mut Payload,
        endpoint: &str,
        queue: &Queue,
        span: &Span,
        delivery: &mut Delivery,
    ) -> Result<HttpResponse, IngestError> {
        let endpoint = self.endpoints.get(endpoint).ok_or(IngestError::UnknownEndpoint)?;
        delivery.endpoint = Some(endpoint.name.clone());
        let body = body::read(request, payload, self.body).await?;
        delivery.bytes = body.len();
        self.verify(request, &body, endpoint)?;

        let work = sort(endpoint, body.into(), span, delivery);
        let deadline = Instant::now() + self.write_deadline;
        let outcome = queue
            .submit(work, deadline)?
            .await
            // The writer is gone without an answer: it cannot say what it did.
            .unwrap_or(Err(NotWritten::Database))?;
        let receipt = receipt(delivery.event_id.as_ref(), &outcome);
        delivery.outcome = Some(outcome);
        Ok(receipt)
    }

    fn verify(
        &self,
        request: &HttpRequest,
        body: &[u8],
        endpoint: &Endpoint,
    ) -> Result<(), SignatureError> {
        let header = request.headers().get("stripe-signature").ok_or(SignatureError::Missing)?;
        let header: SignatureHeader =
            header.to_str().map_err(|_| SignatureError::Malformed)?.parse()?;
        header.verify(body, &endpoint.secrets, self.clock.unix_seconds(), self.tolerance)
    }
}

/// Decides whether a signed body goes into the log or into quarantine.
fn sort(endpoint: &Endpoint, raw: Bytes, span: &Span, delivery: &mut Delivery) -> Work {
    let quarantine = |reason, event_id, raw| {
        let endpoint = endpoint.name.to_string();
        Work::Quarantine(Quarantined { endpoint, reason, detail: None, event_id, raw })
    };
    let envelope = match Envelope::parse(&raw) {
        Ok(envelope) => envelope,
        Err(unusable) => return quarantine(unusable.code(), None, raw),
    };
    delivery.event_id = Some(envelope.id.clone());
    delivery.event_type = Some(envelope.event_type.clone());
    match endpoint.objection(&envelope) {
        Some(objection) => quarantine(objection, Some(envelope.id.to_string()), raw),
        None => {
            let (endpoint, traceparent) = (endpoint.name.to_string(), span.traceparent());
            Work::Event(NewEvent { envelope, endpoint, source: Source::Webhook, raw, traceparent })
        }
    }
}

/// The answer to a delivery that was committed.
fn receipt(event: Option<&EventId>, outcome: &Outcome) -> HttpResponse {
    let (header, reason) = match outcome {
        Outcome::Recorded { .. } => ("RECORDED", None),
        Outcome::Duplicate => ("DUPLICATE", None),
        Outcome::Quarantined { reason } => ("QUARANTINED", Some(*reason)),
    };
    HttpResponse::Ok()
        .insert_header(("x-event-status", HeaderValue::from_static(header)))
        .json(Receipt { received: true, status: outcome.as_str(), event, reason })
}
