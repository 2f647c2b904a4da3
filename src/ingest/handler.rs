//! The webhook route: bytes in, an answer out once the event is committed.
//! Reads the request and asks the parts; each step's own rules live with the part.

use std::sync::Arc;

use actix_web::http::header::HeaderValue;
use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;
use tracing::Span;

use super::body::{self, BodyLimits};
use super::error::Unavailable;
use super::queue::{Outcome, Queue, Work};
use super::{Endpoint, EndpointName, Endpoints, IngestError};
use crate::clock::Clock;
use crate::store::events::{NewEvent, Source};
use crate::store::quarantine::Quarantined;
use crate::stripe::event::{Envelope, EventId};
use crate::stripe::signature::{SignatureError, SignatureHeader, Tolerance};

/// What the route needs.
#[derive(Debug)]
pub struct Intake {
    pub endpoints: Endpoints,
    pub queue: Arc<Queue>,
    pub clock: Clock,
    pub tolerance: Tolerance,
    pub body: BodyLimits,
    /// How long an event may take from here to COMMIT before the sender is told to come back.
    pub write_deadline: std::time::Duration,
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
) -> Result<HttpResponse, IngestError> {
    intake.receive(&request, payload, EndpointName::DEFAULT).await
}

/// `POST /webhooks/stripe/{endpoint}`.
pub async fn receive_named(
    request: HttpRequest,
    payload: Payload,
    name: Path<String>,
    intake: Data<Intake>,
) -> Result<HttpResponse, IngestError> {
    intake.receive(&request, payload, &name).await
}

impl Intake {
    async fn receive(
        &self,
        request: &HttpRequest,
        mut payload: Payload,
        endpoint: &str,
    ) -> Result<HttpResponse, IngestError> {
        let endpoint = self.endpoints.get(endpoint).ok_or(IngestError::UnknownEndpoint)?;
        let span = Span::current();
        span.record("endpoint", endpoint.name.as_str());
        let body = body::read(request, &mut payload, self.body).await?;
        self.verify(request, &body, endpoint)?;

        let (event, work) = sort(endpoint, body.into());
        if let Some(event) = &event {
            span.record("event_id", event.id.as_str());
            span.record("event_type", &event.event_type);
        }
        let deadline = Instant::now() + self.write_deadline;
        let outcome = self
            .queue
            .submit(work, deadline)?
            .await
            // The writer is gone without an answer: it cannot say what it did.
            .unwrap_or(Err(Unavailable::Database))?;
        Ok(receipt(event.as_ref().map(|event| &event.id), &outcome))
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
fn sort(endpoint: &Endpoint, raw: Bytes) -> (Option<Envelope>, Work) {
    let name = endpoint.name.to_string();
    let (envelope, objection) = match Envelope::parse(&raw) {
        Ok(envelope) => {
            let objection = endpoint.objection(&envelope);
            (Some(envelope), objection)
        }
        Err(unusable) => (None, Some(unusable.code())),
    };
    let work = match (&envelope, objection) {
        (Some(envelope), None) => Work::Event(NewEvent {
            envelope: envelope.clone(),
            endpoint: name,
            source: Source::Webhook,
            raw,
        }),
        (_, reason) => Work::Quarantine(Quarantined {
            endpoint: name,
            reason: reason.unwrap_or_default(),
            detail: None,
            event_id: envelope.as_ref().map(|envelope| envelope.id.to_string()),
            raw,
        }),
    };
    (envelope, work)
}

fn receipt(event: Option<&EventId>, outcome: &Outcome) -> HttpResponse {
    let (status, header, reason) = match outcome {
        Outcome::Recorded { .. } => ("recorded", "RECORDED", None),
        Outcome::Duplicate => ("duplicate", "DUPLICATE", None),
        Outcome::Quarantined { reason } => ("quarantined", "QUARANTINED", Some(*reason)),
    };
    let span = Span::current();
    span.record("outcome", status);
    if let Outcome::Recorded { position } = outcome {
        span.record("position", position);
    }
    HttpResponse::Ok()
        .insert_header(("x-event-status", HeaderValue::from_static(header)))
        .json(Receipt { received: true, status, event, reason })
}
