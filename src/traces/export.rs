//! How spans leave the process: OTLP over HTTP, in batches, from a thread that nobody waits for.
//! What is in them is of no interest here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};
use reqwest::Url;
use reqwest::header::HeaderMap;

use crate::http_client;

/// Most spans that wait, some 700 bytes each; beyond that they are dropped, because a stuck collector
/// must not hold up money.
const WAITING: usize = 8192;

/// Most spans in a request.
const BATCH: usize = 512;

/// How long a span waits for company.
const DELAY: Duration = Duration::from_secs(1);

/// How long a request may take, its repetitions included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where spans go.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// The collector's address, to which `v1/traces` is added.
    pub endpoint: Url,
    /// Sent with each request; the values are secret.
    pub headers: HeaderMap,
    /// What this program is called there.
    pub service: String,
    /// The share of new traces that are kept, from 0 to 1. Traces that others began are kept if
    /// they say so.
    pub share: f64,
}

impl TraceOptions {
    /// The address of requests.
    fn traces_url(&self) -> Url {
        let mut url = self.endpoint.clone();
        let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }
}

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    #[error("cannot set up an HTTP client for the trace collector")]
    Client(#[from] reqwest::Error),
    #[error("cannot set up the exporter of traces: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("not all spans were sent: {0}")]
    NotSent(String),
    #[error("the task of the trace exporter broke off")]
    BrokeOff,
}

/// Starts the thread. Must not be called where async code runs.
pub(super) fn provider(options: &TraceOptions) -> Result<SdkTracerProvider, TracesError> {
    let url = options.traces_url();
    let client = http_client::blocking_builder(&url)
        .default_headers(options.headers.clone())
        .timeout(TIMEOUT)
        .build()?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url.as_str())
        .with_timeout(TIMEOUT)
        .build()?;
    let exporter =
        Watched { exporter, collector: url.to_string(), failing: AtomicBool::new(false) };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(WAITING)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(DELAY)
        .build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let resource = Resource::builder()
        .with_service_name(options.service.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(options.share)));
    Ok(SdkTracerProvider::builder()
        .with_span_processor(processor)
        .with_sampler(sampler)
        .with_resource(resource)
        .build())
}

/// Says when a collector begins to take no spans, and when it takes them again. The SDK itself is
/// silent.
#[derive(Debug)]
struct Watched {
    exporter: opentelemetry_otlp::SpanExporter,
    collector: String,
    failing: AtomicBool,
}

impl SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let done = self.exporter.export(batch).await;
        let failed = done.is_err();
        if self.failing.swap(failed, Ordering::Relaxed) != failed {
            let collector = self.collector.as_str();
            match &done {
                Ok(()) => tracing::info!(collector, "the trace collector takes spans again"),
                Err(error) => {
                    tracing::warn!(collector, %error, "the trace collector takes no spans; they are lost meanwhile");
                }
            }
        }
        done
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_added_to_whatever_there_is() {
        for (endpoint, url) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
            ("https://otlp.example.com/otlp", "https://otlp.example.com/otlp/v1/traces"),
            ("https://otlp.example.com/a/b/", "https://otlp.example.com/a/b/v1/traces"),
        ] {
            let options = TraceOptions {
                endpoint: endpoint.parse().unwrap(),
                headers: HeaderMap::new(),
                service: String::new(),
                share: 1.0,
            };
            assert_eq!(options.traces_url().as_str(), url);
        }
    }
}
