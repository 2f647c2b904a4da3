//! Spans for OpenTelemetry: one trace per event, from its webhook to the last attempt at pushing it.
//! What a span says is up to the part that makes it; how spans leave the process stands in `export`.

mod export;
pub mod parent;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use crate::clock::Clock;

pub use export::{TraceOptions, TracesError};

/// Where spans are made, or nothing at all. Cheap to clone; handed from part to part rather than
/// kept in a global, so that two gateways in one process do not mix.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<On>>);

struct On {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    clock: Clock,
}

impl Traces {
    /// Makes no spans, which costs a branch each.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Begins to send spans to a collector, in a thread of its own. Nobody waits for it: what a
    /// slow collector does not take in time is dropped.
    ///
    /// # Errors
    /// If no HTTP client can be made, as without root certificates. That the collector is not there
    /// is none: it may come.
    pub async fn start(options: TraceOptions, clock: Clock) -> Result<Self, TracesError> {
        // The blocking client may neither be made nor dropped where async code runs.
        let started = tokio::task::spawn_blocking(move || export::provider(&options));
        let provider = started.await.map_err(|_| TracesError::BrokeOff)??;
        let tracer = provider.tracer("tollgate");
        Ok(Self(Some(Arc::new(On { provider, tracer, clock }))))
    }

    /// Whether spans are made at all.
    #[must_use]
    pub fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a span now: a child of what `traceparent` names if it names something, else the first
    /// of a new trace. None if its trace is not among those that are sampled.
    #[must_use]
    pub fn span(&self, name: &'static str, kind: SpanKind, traceparent: Option<&str>) -> Span {
        let Some(on) = &self.0 else {
            return Span(None);
        };
        let parent = match traceparent.and_then(parent::parse) {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let began = SystemTime::from(on.clock.now());
        let builder = on.tracer.span_builder(name).with_kind(kind).with_start_time(began);
        let span = on.tracer.build_with_context(builder, &parent);
        let sampled = span.is_recording() && span.span_context().is_sampled();
        Span(sampled.then(|| Box::new(Open { span, clock: on.clock.clone() })))
    }

    /// Sends what still waits, within `limit`, and ends. Spans that end later are dropped.
    ///
    /// # Errors
    /// If not all of it was taken in time.
    pub async fn stop(self, limit: Duration) -> Result<(), TracesError> {
        let Some(on) = self.0 else {
            return Ok(());
        };
        let provider = on.provider.clone();
        let stopped = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit));
        let stopped = stopped.await.map_err(|_| TracesError::BrokeOff)?;
        stopped.map_err(|error| TracesError::NotSent(error.to_string()))
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.are_on() { "Traces(on)" } else { "Traces(off)" })
    }
}

/// A span under way, or nothing. Ends when it is dropped.
#[derive(Debug)]
pub struct Span(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    span: opentelemetry_sdk::trace::Span,
    clock: Clock,
}

impl Span {
    /// Whether anything is kept of it: else there is no need to gather what it would say.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Says something in words.
    pub fn text(&mut self, key: &'static str, value: &str) {
        if let Some(open) = &mut self.0 {
            open.span.set_attribute(KeyValue::new(key, value.to_owned()));
        }
    }

    /// Says a number.
    pub fn number(&mut self, key: &'static str, value: impl TryInto<i64>) {
        if let Some(open) = &mut self.0 {
            let value = value.try_into().unwrap_or(i64::MAX);
            open.span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Marks it as failed: what kind of failure, and a sentence about it.
    pub fn fail(&mut self, kind: &str, sentence: &str) {
        self.text("error.type", kind);
        if let Some(open) = &mut self.0 {
            open.span.set_status(Status::error(sentence.to_owned()));
        }
    }

    /// What its children name as their parent, as the header of that name has it.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        self.0.as_ref().map(|open| parent::format(open.span.span_context()))
    }

    /// Its trace, in hexadecimal, as log lines name it.
    #[must_use]
    pub fn trace_id(&self) -> Option<String> {
        self.0.as_ref().map(|open| open.span.span_context().trace_id().to_string())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.span.end_with_timestamp(self.clock.now().into());
    }
}
