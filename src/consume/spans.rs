//! What traces say of an attempt: a span within the trace of its event, which the target is told of.
//! Never bodies, answers, URLs or secrets. What a span is stands in `traces`.

use opentelemetry::trace::SpanKind;
use sqlx::PgPool;

use super::target::{Attempt, Delivery, Verdict};
use crate::store::consumers::TargetKind;
use crate::store::traces;
use crate::traces::{Span, Traces};

/// Makes spans of one consumer's attempts.
#[derive(Clone, Debug)]
pub(super) struct AttemptSpans {
    traces: Traces,
    kind: TargetKind,
}

impl AttemptSpans {
    pub(super) fn new(traces: Traces, kind: TargetKind) -> Self {
        Self { traces, kind }
    }

    /// Looks up the traces that claimed events are part of. Those of events that were recorded
    /// without one, and all while traces are off, stay out of it: a trace that began with an attempt
    /// would not say where its event came from.
    pub(super) async fn find(&self, pool: &PgPool, events: &mut [Delivery]) {
        if !self.traces.are_on() {
            return;
        }
        let positions: Vec<_> = events.iter().map(|event| event.position).collect();
        match traces::of_positions(pool, &positions).await {
            Ok(mut found) => {
                for event in events {
                    event.traceparent = found.remove(&event.position);
                }
            }
            // No reason not to deliver them.
            Err(error) => tracing::warn!(%error, "cannot look up the traces of events"),
        }
    }

    /// Begins the span of an attempt, and puts it into the delivery in place of the event's.
    pub(super) fn begin(&self, delivery: &mut Delivery) -> Span {
        let (name, kind) = match self.kind {
            TargetKind::Push => ("push", SpanKind::Client),
            TargetKind::Nats => ("publish", SpanKind::Producer),
        };
        let traces = if delivery.traceparent.is_some() { &self.traces } else { &Traces::off() };
        let mut span = traces.span(name, kind, delivery.traceparent.as_deref());
        delivery.traceparent = span.traceparent();
        match self.kind {
            TargetKind::Push => {
                span.text("http.request.method", "POST");
                if delivery.attempt > 1 {
                    span.number("http.request.resend_count", delivery.attempt - 1);
                }
            }
            TargetKind::Nats => {
                span.text("messaging.system", "nats");
                span.text("messaging.operation.type", "send");
                span.text("messaging.operation.name", "publish");
            }
        }
        span.text("tollgate.consumer", &delivery.consumer);
        span.number("tollgate.attempt", delivery.attempt);
        span.number("tollgate.position", delivery.position);
        span.text("tollgate.event.id", &delivery.event_id);
        span.text("tollgate.event.type", &delivery.event_type);
        span
    }

    /// Ends it with what came of the attempt.
    pub(super) fn end(mut span: Span, attempt: &Attempt) {
        if let Some(status) = attempt.status {
            span.number("http.response.status_code", status);
        }
        span.text("tollgate.verdict", attempt.verdict.as_str());
        if attempt.verdict != Verdict::Delivered {
            let kind = attempt.status.map(|status| status.to_string());
            span.fail(kind.as_deref().unwrap_or("no_answer"), &attempt.error);
        }
    }
}
