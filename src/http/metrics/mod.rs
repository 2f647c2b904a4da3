//! `GET /metrics`: what this process counts, and what the database knows, in the text format of
//! Prometheus. What each metric is called stands in `process` and `figures`.

mod figures;
mod known;
mod page;
mod process;

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use known::Known;

use super::admin::{AdminError, Read};
use super::health::Parts;
use crate::clock::Clock;
use crate::store::gauges::{self, Gauges};

/// How long figures of the database are served again: any number of scrapers costs it one reading.
const FRESH: Duration = Duration::from_secs(5);

/// How long a scrape waits for them; then it goes without. Less than Prometheus waits (10 s).
const PATIENCE: Duration = Duration::from_secs(4);

/// What an answer in each of the two formats is called.
const OPEN_METRICS: &str = "application/openmetrics-text";
const OPEN_METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a page of metrics is made of.
#[derive(Debug)]
pub struct Metrics {
    parts: Parts,
    /// Where figures are read: the admin listener's own, so that a slow one holds up no consumer.
    pool: PgPool,
    known: Known,
    /// When the process began, in Unix seconds.
    started: i64,
    cached: Arc<Mutex<Option<Cached>>>,
}

#[derive(Debug)]
struct Cached {
    at: Instant,
    gauges: Arc<Gauges>,
}

/// How the page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// The older one, which every scraper reads.
    Text,
    OpenMetrics,
}

impl Metrics {
    /// To be made when the process starts: `clock` says when that was.
    pub fn new(parts: Parts, pool: PgPool, clock: &Clock) -> Self {
        let (known, started) = (Known::default(), clock.unix_seconds());
        Self { parts, pool, known, started, cached: Arc::default() }
    }

    /// All metrics as they are now.
    fn page(&self, format: Format, gauges: Arc<Gauges>) -> String {
        let snapshot = process::Snapshot::of(&self.parts, &self.pool, self.started);
        page::write(format, vec![Box::new(snapshot), Box::new(figures::Figures(gauges))])
    }

    /// Figures of the database, a few seconds old at most; none if it does not answer.
    async fn gauges(&self) -> Arc<Gauges> {
        let (cached, pool) = (Arc::clone(&self.cached), self.pool.clone());
        // A task of its own, which no scraper that hangs up cancels half-way. It holds the lock
        // meanwhile, so that those who come together read once.
        let reading = tokio::spawn(async move {
            let mut cached = cached.lock().await;
            if let Some(Cached { at, gauges }) = &*cached
                && at.elapsed() < FRESH
            {
                return Arc::clone(gauges);
            }
            let gauges = Arc::new(gauges::read(&pool).await);
            *cached = Some(Cached { at: Instant::now(), gauges: Arc::clone(&gauges) });
            gauges
        });
        match timeout(PATIENCE, reading).await {
            Ok(Ok(gauges)) => gauges,
            Ok(Err(_)) | Err(_) => Arc::default(),
        }
    }
}

/// Adds the route.
pub fn routes(config: &mut ServiceConfig) {
    config.route("/metrics", web::get().to(metrics));
}

/// `GET /metrics`.
async fn metrics(request: HttpRequest, metrics: Data<Metrics>) -> Result<HttpResponse, AdminError> {
    // Together, because a database that is down keeps both waiting.
    let (allowed, gauges) = tokio::join!(Read::extract(&request), metrics.gauges());
    metrics.known.judge(&request, allowed.map(drop))?;
    let accepted = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let (format, content_type) = match accepted {
        Some(accepted) if accepted.contains(OPEN_METRICS) => {
            (Format::OpenMetrics, OPEN_METRICS_TYPE)
        }
        _ => (Format::Text, TEXT_TYPE),
    };
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, content_type))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(metrics.page(format, gauges)))
}
