//! The HTTP push target: the original bytes, signed anew in Stripe's scheme, to the user's app.
//! When to try, and how often, is the engine's affair.

mod addresses;
mod answer;
mod guard;
mod url;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, ClientBuilder, RequestBuilder};
use tokio::time::Instant;

pub use guard::PrivateTargets;
use guard::{Forbidden, Guarded, Lookup, SystemLookup};
pub use url::{PushUrl, PushUrlError};

use super::target::{Attempt, Delivery, Target};
use crate::clock::Clock;
use crate::http_client;
use crate::stripe::signature::{SigningSecret, sign_with_all};

/// Bytes of an answer that a target may send ahead over HTTP/2, for each answer and for all of a
/// connection. Little of an answer is read; the protocol's own least is enough.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How often an HTTP/2 connection is asked whether it lives, and how long it may take to say so.
/// Without this one that broke silently would fail every attempt: a timeout ends the attempt only.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What is written as `%XX` in a header: all that a header cannot hold, and the sign itself.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// One consumer's push target.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Its user and password, if there are any, are sent as basic authentication.
    pub url: PushUrl,
    /// The consumer's own. Each gives a `v1`; two while one is being rolled.
    pub secrets: Vec<SigningSecret>,
    /// How long an attempt may take, from looking up the name to the end of the answer.
    pub timeout: Duration,
    /// Idle connections that are kept: as many as there are deliveries at a time.
    pub connections: usize,
}

/// Why there can be no target.
#[derive(Debug, thiserror::Error)]
pub enum PushTargetError {
    #[error("a push target needs a signing secret")]
    NoSecret,
    #[error("cannot set up an HTTP client")]
    Client(#[from] reqwest::Error),
}

/// Delivers events to a URL.
pub struct PushTarget {
    options: PushOptions,
    client: Client,
    clock: Clock,
    /// Set if the URL itself names an address that pushes may not go to.
    forbidden: Option<Forbidden>,
}

impl PushTarget {
    /// Sets up the client; nothing is looked up or sent yet. That the URL names a forbidden address
    /// is not an error here: each attempt says so, where people look for it.
    ///
    /// # Errors
    /// Without a secret, and where the system's root certificates cannot be read.
    pub fn new(
        options: PushOptions,
        private: PrivateTargets,
        clock: Clock,
    ) -> Result<Self, PushTargetError> {
        Self::with(options, private, clock, Arc::new(SystemLookup), |client| client)
    }

    fn with(
        options: PushOptions,
        private: PrivateTargets,
        clock: Clock,
        lookup: Arc<dyn Lookup>,
        trust: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Self, PushTargetError> {
        if options.secrets.is_empty() {
            return Err(PushTargetError::NoSecret);
        }
        let client = http_client::builder(options.url.expose())
            .user_agent(concat!("Tollgate/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Guarded::new(lookup, private))
            .http1_title_case_headers()
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            .pool_max_idle_per_host(options.connections)
            // A connection outlives the attempt that asked for it if another came free first.
            .connect_timeout(options.timeout);
        let forbidden = private.check_literal(options.url.expose()).err();
        Ok(Self { client: trust(client).build()?, options, clock, forbidden })
    }

    fn request(&self, delivery: &Delivery) -> RequestBuilder {
        let PushOptions { url, secrets, .. } = &self.options;
        let signature = sign_with_all(secrets, self.clock.unix_seconds(), &delivery.raw);
        let request = self
            .client
            .post(url.expose().clone())
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .header("Stripe-Signature", signature)
            .header("Tollgate-Consumer", header(&delivery.consumer))
            .header("Tollgate-Event-Id", header(&delivery.event_id))
            .header("Tollgate-Attempt", delivery.attempt)
            .header("Tollgate-Position", delivery.position)
            .body(delivery.raw.clone());
        match &delivery.traceparent {
            Some(traceparent) => request.header("traceparent", traceparent),
            None => request,
        }
    }

    async fn attempt(&self, delivery: &Delivery, start: Instant) -> Attempt {
        if let Some(forbidden) = &self.forbidden {
            return answer::failed(&forbidden.to_string());
        }
        let PushOptions { url, timeout, .. } = &self.options;
        let response = tokio::time::timeout(*timeout, self.request(delivery).send()).await;
        let left = timeout.saturating_sub(start.elapsed());
        match response {
            Ok(Ok(response)) => answer::taken(response, url, left, self.clock.now()).await,
            Ok(Err(error)) if !left.is_zero() => answer::failed(&answer::why(&error, url)),
            _ => answer::failed(&format!("no answer from {} within {timeout:?}", url.authority())),
        }
    }
}

impl Target for PushTarget {
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            let start = Instant::now();
            let attempt = self.attempt(delivery, start).await;
            Attempt { took: start.elapsed(), ..attempt }
        })
    }
}

impl fmt::Debug for PushTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PushTarget").field(&self.options).finish()
    }
}

/// Text as a header; an event's id is whatever its sender wrote.
fn header(text: &str) -> HeaderValue {
    let escaped = utf8_percent_encode(text, ESCAPED).to_string();
    HeaderValue::try_from(escaped).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests;
