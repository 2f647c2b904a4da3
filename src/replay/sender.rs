//! Makes a plan's deliveries over HTTP as Stripe makes them: its headers, a fresh signature each.
//! What is sent, and in which order, is `plan`'s affair.

use std::error::Error;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use reqwest::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::plan::{Delivery, Plan};
use super::report::{Delivered, Outcome, Report};
use crate::clock::Clock;
use crate::http_client;
use crate::stripe::signature::SigningSecret;

/// How long an answer may take. Stripe does not say how long it waits; it is less than this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Wait before the first retry where the receiver does not name one; doubled for each further.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Longest wait before a retry, whoever chose it.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Where deliveries go.
#[derive(Clone, Debug)]
pub struct Target {
    pub url: Url,
    pub secret: SigningSecret,
}

/// How fast, and how persistently.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Most deliveries under way at a time, each on a connection of its own that is kept open.
    pub concurrency: NonZeroUsize,
    /// Time between two deliveries, whether or not the one before is answered; `None`: as soon as
    /// there is a free connection.
    pub interval: Option<Duration>,
    /// Further attempts after a 503 or no answer at all.
    pub retries: u32,
}

/// Why nothing can be sent at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up an HTTP client")]
pub struct SetupError(#[from] reqwest::Error);

/// Sends deliveries to one target.
#[derive(Debug)]
pub struct Sender {
    client: Client,
    target: Target,
    pace: Pace,
    clock: Clock,
}

/// What an attempt led to.
enum Attempt {
    Final(Outcome),
    /// Worth another one, after the time the receiver asked for.
    Again(Outcome, Option<Duration>),
}

impl Sender {
    /// Sets up the connections' client; nothing is sent yet.
    pub fn new(target: Target, pace: Pace, clock: Clock) -> Result<Self, SetupError> {
        let client = http_client::builder(&target.url)
            .default_headers(headers())
            .http1_title_case_headers()
            .pool_max_idle_per_host(pace.concurrency.get())
            .timeout(ANSWER_TIMEOUT);
        Ok(Self { client: client.build()?, target, pace, clock })
    }

    /// Makes the plan's deliveries until they are done or `stop` is cancelled; what is under way
    /// then counts as not sent. `progress` sees the report after each.
    pub async fn send(
        &self,
        plan: &Plan,
        stop: &CancellationToken,
        progress: impl FnMut(&Report),
    ) -> Report {
        let deliveries = stream::iter(plan.deliveries().iter().cloned());
        self.send_from(deliveries, plan.deliveries().len(), stop, progress).await
    }

    /// The same with deliveries that are fetched as they are sent, `planned` of them: where fewer
    /// come, the others count as not sent.
    pub async fn send_from(
        &self,
        deliveries: impl Stream<Item = Delivery>,
        planned: usize,
        stop: &CancellationToken,
        mut progress: impl FnMut(&Report),
    ) -> Report {
        let mut report = Report { planned, ..Report::default() };
        let start = Instant::now();
        let due = |index: usize| {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            self.pace.interval.map(|interval| start + interval.saturating_mul(index))
        };
        let done = deliveries
            .enumerate()
            .map(|(index, delivery)| self.deliver(delivery, due(index)))
            .buffer_unordered(self.pace.concurrency.get())
            .take_until(stop.cancelled());
        let mut done = pin!(done);
        while let Some(delivered) = done.next().await {
            report.add(delivered);
            report.elapsed = start.elapsed();
            progress(&report);
        }
        report.latencies.sort_unstable();
        report
    }

    /// Makes one delivery, when it is due.
    async fn deliver(&self, delivery: Delivery, due: Option<Instant>) -> Delivered {
        let now = Instant::now();
        let start = due.unwrap_or(now);
        // The timer's resolution is a millisecond: without a need it must not be asked.
        if start > now {
            tokio::time::sleep_until(start).await;
        }
        let mut retries = 0;
        let outcome = loop {
            match self.attempt(&delivery.body).await {
                Attempt::Again(_, wait) if retries < self.pace.retries => {
                    let wait = wait.unwrap_or(FIRST_WAIT * 2_u32.saturating_pow(retries.min(16)));
                    tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
                    retries += 1;
                }
                Attempt::Final(outcome) | Attempt::Again(outcome, _) => break outcome,
            }
        };
        Delivered { outcome, latency: start.elapsed(), retries, origin: delivery.origin }
    }

    async fn attempt(&self, body: &Bytes) -> Attempt {
        let signature = self.target.secret.sign(self.clock.unix_seconds(), body);
        let request = self
            .client
            .post(self.target.url.clone())
            .header("Stripe-Signature", signature)
            .body(body.clone());
        match request.send().await {
            Ok(response) => answered(response).await,
            Err(error) => Attempt::Again(failure(&error), None),
        }
    }
}

/// The headers Stripe sends with each delivery.
fn headers() -> HeaderMap {
    [
        (USER_AGENT, "Stripe/1.0 (+https://stripe.com/docs/webhooks)"),
        (ACCEPT, "*/*; q=0.5, application/xml"),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_TYPE, "application/json; charset=utf-8"),
    ]
    .into_iter()
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
    .collect()
}

async fn answered(response: Response) -> Attempt {
    let status = response.status();
    let wait = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|seconds| seconds.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let said = response.headers().get("x-event-status").cloned();
    // Also where it is of no interest: only a connection whose answer was read is used again.
    let body = response.bytes().await.unwrap_or_default();
    if status.is_success() {
        return Attempt::Final(match said.as_ref().map(HeaderValue::as_bytes) {
            Some(b"RECORDED") => Outcome::Recorded,
            Some(b"DUPLICATE") => Outcome::Duplicate,
            Some(b"QUARANTINED") => Outcome::Quarantined,
            _ => Outcome::Accepted,
        });
    }
    let Problem { code, detail } = serde_json::from_slice(&body).unwrap_or_default();
    let refused = Outcome::Refused { status: status.as_u16(), code, detail };
    if status == StatusCode::SERVICE_UNAVAILABLE {
        Attempt::Again(refused, wait)
    } else {
        Attempt::Final(refused)
    }
}

/// What is of interest in a problem+json answer; other answers have none of it.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Problem {
    code: String,
    detail: String,
}

fn failure(error: &reqwest::Error) -> Outcome {
    let kind = if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "no_connection"
    } else {
        "connection_lost"
    };
    // The outer errors only repeat that the request failed; the innermost says why.
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Outcome::Failed { kind, detail: cause.to_string() }
}

#[cfg(test)]
mod tests;
