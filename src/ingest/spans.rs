//! What traces say of a delivery: the span of its webhook, and one for the transaction it shared.
//! Never bodies, never headers' values. What a span is stands in `traces`.

use actix_web::{HttpRequest, HttpResponse, ResponseError};
use opentelemetry::trace::SpanKind;

use super::handler::Delivery;
use super::queue::{Outcome, Submission, Work};
use super::{EndpointName, IngestError};
use crate::stripe::event::EventId;
use crate::traces::{Span, Traces};

/// Begins the span of a webhook, within the sender's trace if it names one.
pub fn webhook(traces: &Traces, request: &HttpRequest) -> Span {
    if !traces.are_on() {
        return traces.span("webhook", SpanKind::Server, None);
    }
    let mut given = request.headers().get_all("traceparent");
    // With several nobody knows which is meant.
    let parent = given.next().filter(|_| given.next().is_none());
    let parent = parent.and_then(|parent| parent.to_str().ok());
    let mut span = traces.span("webhook", SpanKind::Server, parent);
    span.text("http.request.method", request.method().as_str());
    if let Some(route) = request.match_pattern() {
        span.text("http.route", &route);
    }
    span
}

/// Ends it with what became of the delivery.
pub fn answered(mut span: Span, delivery: &Delivery, answer: &Result<HttpResponse, IngestError>) {
    if !span.is_open() {
        return;
    }
    let mut say = |key, value: Option<&str>| {
        if let Some(value) = value {
            span.text(key, value);
        }
    };
    say("tollgate.endpoint", delivery.endpoint.as_ref().map(EndpointName::as_str));
    say("tollgate.event.id", delivery.event_id.as_ref().map(EventId::as_str));
    say("tollgate.event.type", delivery.event_type.as_deref());
    say("tollgate.outcome", delivery.outcome.as_ref().map(Outcome::as_str));
    match answer {
        Ok(answer) => span.number("http.response.status_code", answer.status().as_u16()),
        Err(error) => {
            let status = error.status_code();
            span.text("tollgate.outcome", error.code());
            span.number("http.response.status_code", status.as_u16());
            // That a sender asks wrongly is no failure of ours.
            if status.is_server_error() {
                span.fail(error.code(), &error.to_string());
            }
        }
    }
}

/// Begins a span for each event of a batch, each in its own trace, for the transaction they share.
pub fn commits(traces: &Traces, batch: &[Submission]) -> Vec<Span> {
    if !traces.are_on() {
        return Vec::new();
    }
    let commit = |submission: &Submission| {
        let Work::Event(event) = &submission.work else {
            return None;
        };
        let mut span = traces.span("commit", SpanKind::Client, Some(event.traceparent.as_deref()?));
        span.text("db.system.name", "postgresql");
        span.text("tollgate.event.id", event.envelope.id.as_str());
        span.number("tollgate.batch.size", batch.len());
        Some(span)
    };
    batch.iter().filter_map(commit).collect()
}
