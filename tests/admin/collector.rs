//! A collector of traces: takes POST /v1/traces, decodes what comes, and gives the spans.
//! How it answers is told to the server behind it.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span as RawSpan;
use prost::Message;
use tokio::time::sleep;

use crate::server::{Request, SOON, Server};

/// A span, as it came. Ids are hexadecimal; `parent` is empty for the first of a trace.
#[derive(Clone, Debug)]
pub struct Seen {
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub kind: i32,
    /// Nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    /// Whether it is marked as failed.
    pub failed: bool,
    pub attributes: BTreeMap<String, String>,
    pub service: String,
}

impl Seen {
    pub fn says(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }

    /// The header that names it as parent.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace, self.id)
    }
}

/// The collector.
pub struct Collector(pub Server);

impl Collector {
    pub async fn start() -> Self {
        Self(Server::start().await)
    }

    pub fn url(&self) -> String {
        self.0.url()
    }

    /// All spans up to now, whatever was answered.
    pub fn spans(&self) -> Vec<Seen> {
        self.0.requests().iter().flat_map(decoded).collect()
    }

    /// Those of a name.
    pub fn named(&self, name: &str) -> Vec<Seen> {
        self.spans().into_iter().filter(|span| span.name == name).collect()
    }

    /// Those that are about an event, in the order of their beginnings.
    pub fn about(&self, event: &str) -> Vec<Seen> {
        let mut spans = self.spans();
        spans.retain(|span| span.says("tollgate.event.id") == event);
        spans.sort_by_key(|span| (span.start, span.name.clone()));
        spans
    }

    /// Waits until that holds of the spans; gives them.
    pub async fn until(&self, what: &str, holds: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let there = async {
            while !holds(&self.spans()) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let came = tokio::time::timeout(SOON, there).await;
        assert!(came.is_ok(), "not {what}: {:#?}", self.spans());
        self.spans()
    }

    /// Waits until there are so many spans about an event; gives them.
    pub async fn until_about(&self, event: &str, count: usize) -> Vec<Seen> {
        let about = |span: &&Seen| span.says("tollgate.event.id") == event;
        self.until(&format!("{count} about {event}"), |spans| {
            spans.iter().filter(about).count() >= count
        })
        .await;
        self.about(event)
    }
}

fn decoded(request: &Request) -> Vec<Seen> {
    assert!(request.head.starts_with("POST /v1/traces HTTP/1.1"), "{}", request.head);
    assert_eq!(request.header("content-type"), ["application/x-protobuf"]);
    let export = ExportTraceServiceRequest::decode(&request.body[..]).unwrap();
    let mut all = Vec::new();
    for resource in export.resource_spans {
        let of = texts(&resource.resource.unwrap_or_default().attributes);
        let service = of.get("service.name").cloned().unwrap_or_default();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            all.push(seen(&span, service.clone()));
        }
    }
    all
}

fn seen(span: &RawSpan, service: String) -> Seen {
    Seen {
        name: span.name.clone(),
        trace: hex::encode(&span.trace_id),
        id: hex::encode(&span.span_id),
        parent: hex::encode(&span.parent_span_id),
        kind: span.kind,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        failed: span.status.as_ref().is_some_and(|status| status.code == 2),
        attributes: texts(&span.attributes),
        service,
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &KeyValue| match value.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(flag) => Some(flag.to_string()),
        other => Some(format!("{other:?}")),
    };
    attributes.iter().filter_map(|pair| Some((pair.key.clone(), text(pair)?))).collect()
}
