//! One request to Stripe's API: authenticated, within the budget of all replicas, tried again where
//! that may help. What is asked for, and what an answer means, is up to the caller.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{DATE, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use sqlx::PgPool;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{ApiError, Said};
use crate::clock::Clock;
use crate::http_client;
use crate::store::sync::budget;
use crate::stripe::api_key::ApiKey;

/// The version that objects are asked for in, the newest that the billing tables were made for
/// (<https://docs.stripe.com/api/versioning>). Events come in the version they were made in.
pub const API_VERSION: &str = "2025-09-30.clover";

/// Longest that one request may take; Stripe's own libraries wait for 80 s.
const PATIENCE: Duration = Duration::from_secs(40);

/// How far clocks may differ without anybody minding; also a slow answer makes them seem to.
const SKEW: time::Duration = time::Duration::minutes(2);

/// Attempts at one request, and the wait after the first; it doubles.
const ATTEMPTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Longest wait that Stripe may ask for before an attempt.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// How long everybody waits at most because Stripe said that it is too much.
const LONGEST_HOLD: Duration = Duration::from_mins(10);

/// Largest answer: a hundred objects of some hundred kilobytes each are no page of Stripe's.
const LARGEST_ANSWER: usize = 64 << 20;

/// Longest part of an error message that is passed on, in characters.
const MESSAGE_MAX: usize = 500;

/// How Stripe is asked.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `https://api.stripe.com`, or where a test has it.
    pub base: Url,
    pub key: ApiKey,
    /// Requests per second over all replicas.
    pub rate: f64,
}

/// Asks Stripe. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    options: ClientOptions,
    pool: PgPool,
    clock: Clock,
    stop: CancellationToken,
}

/// What Stripe answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub body: Bytes,
    /// The second, on Stripe's clock, in which it looked, or an earlier one.
    pub second: OffsetDateTime,
}

/// What an attempt led to that is not an answer.
enum Failed {
    /// Perhaps not the next time; Stripe may say when.
    ForNow {
        why: String,
        wait: Option<Duration>,
        everybody: bool,
    },
    ForGood(ApiError),
}

#[derive(Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error: ErrorMembers,
}

#[derive(Default, Deserialize)]
struct ErrorMembers {
    code: Option<String>,
    message: Option<String>,
}

impl Client {
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(
        options: ClientOptions,
        pool: PgPool,
        clock: Clock,
        stop: CancellationToken,
    ) -> Result<Self, reqwest::Error> {
        let http = http_client::builder(&options.base).timeout(PATIENCE).build()?;
        Ok(Self { http, options, pool, clock, stop })
    }

    /// Whether the key opens live data.
    pub fn livemode(&self) -> bool {
        self.options.key.livemode()
    }

    /// Fetches a path, with its query, as the account that the key belongs to or, if one is named,
    /// as the account that is connected to it.
    pub async fn get(&self, path: &str, account: &str) -> Result<Answer, ApiError> {
        let mut wait = FIRST_WAIT;
        for attempt in 1.. {
            self.wait_for_turn().await?;
            let failed = match self.attempt(path, account).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::ForGood(error)) => return Err(error),
                Err(failed @ Failed::ForNow { .. }) => failed,
            };
            let Failed::ForNow { why, wait: asked, everybody } = failed else { continue };
            let pause = asked.unwrap_or_default().max(wait);
            if everybody {
                budget::hold(&self.pool, self.options.rate, pause.min(LONGEST_HOLD)).await?;
            }
            if attempt >= ATTEMPTS || pause > LONGEST_WAIT {
                return Err(ApiError::Unavailable { attempts: attempt, why });
            }
            tracing::debug!(path, attempt, why, "Stripe is asked again");
            if !everybody {
                self.sleep(pause).await?;
            }
            wait *= 2;
        }
        Err(ApiError::Stopped)
    }

    /// Waits until all who share the budget may make one more request.
    async fn wait_for_turn(&self) -> Result<(), ApiError> {
        let wait = budget::take(&self.pool, self.options.rate).await?;
        self.sleep(wait).await
    }

    /// How far this side's clock is ahead of Stripe's, if so far that it matters.
    pub async fn skew(&self, account: &str) -> Result<time::Duration, ApiError> {
        let answer = self.get("/v1/events?limit=1", account).await?;
        let skew = self.clock.now() - answer.second;
        Ok(if skew.abs() > SKEW { skew } else { time::Duration::ZERO })
    }

    /// Waits, unless the gateway goes down.
    pub async fn sleep(&self, time: Duration) -> Result<(), ApiError> {
        let slept = self.stop.run_until_cancelled(tokio::time::sleep(time)).await;
        slept.ok_or(ApiError::Stopped)
    }

    async fn attempt(&self, path: &str, account: &str) -> Result<Answer, Failed> {
        let begun = Instant::now();
        let url = self.options.base.join(path).map_err(|error| {
            Failed::ForGood(ApiError::NotStripe(format!("{path} is no path: {error}")))
        })?;
        let mut request = self
            .http
            .get(url)
            .bearer_auth(self.options.key.secret())
            .header("stripe-version", API_VERSION);
        if !account.is_empty() {
            let header = if path.starts_with("/v2/") { "stripe-context" } else { "stripe-account" };
            request = request.header(header, account);
        }
        let asked = self.stop.run_until_cancelled(async {
            let response = request.send().await?;
            let head = Head::of(&response);
            Ok((head, body(response).await?))
        });
        let (head, body) = asked
            .await
            .ok_or(Failed::ForGood(ApiError::Stopped))?
            .map_err(|error: reqwest::Error| self.for_now(&reason(&error), None))?;
        let answered = head.date.unwrap_or_else(|| self.clock.now());
        let second = (answered - begun.elapsed()).truncate_to_second();
        if head.status != StatusCode::OK {
            return Err(self.refused(&head, &body, second));
        }
        let object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        if !object || serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
            // A proxy in between, or an answer that broke off.
            return Err(self.for_now("200, but the body is not a JSON object", None));
        }
        Ok(Answer { body, second })
    }

    fn for_now(&self, why: &str, wait: Option<Duration>) -> Failed {
        Failed::ForNow { why: self.options.key.scrubbed(why), wait, everybody: false }
    }

    /// What an answer other than 200 means (<https://docs.stripe.com/api/errors>).
    fn refused(&self, head: &Head, body: &[u8], second: OffsetDateTime) -> Failed {
        let ErrorBody { error } = serde_json::from_slice(body).unwrap_or_default();
        let message: String = error.message.unwrap_or_default().chars().take(MESSAGE_MAX).collect();
        let said = Said {
            status: head.status.as_u16(),
            code: error.code,
            message: self.options.key.scrubbed(&message),
            request_id: head.request_id.clone(),
        };
        match said.status {
            429 => {
                Failed::ForNow { why: said.to_string(), wait: head.retry_after, everybody: true }
            }
            // 409: Stripe was busy with the same thing.
            409 | 500.. => self.for_now(&said.to_string(), head.retry_after),
            401 => Failed::ForGood(ApiError::Unauthorized(said)),
            403 => Failed::ForGood(ApiError::Forbidden(said)),
            404 => Failed::ForGood(ApiError::NotFound { said, second }),
            300..=399 => Failed::ForGood(ApiError::NotStripe(format!("a redirect: {said}"))),
            _ => Failed::ForGood(ApiError::Refused(said)),
        }
    }
}

/// What is read of an answer before its body.
struct Head {
    status: StatusCode,
    date: Option<OffsetDateTime>,
    retry_after: Option<Duration>,
    request_id: Option<String>,
}

impl Head {
    fn of(response: &Response) -> Self {
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        Self {
            status: response.status(),
            date: text(DATE.as_str()).and_then(|it| OffsetDateTime::parse(it, &Rfc2822).ok()),
            retry_after: text(RETRY_AFTER.as_str())
                .and_then(|it| it.trim().parse().ok())
                .map(Duration::from_secs),
            request_id: text("request-id").map(|it| it.chars().take(100).collect()),
        }
    }
}

/// The body, as far as it is not absurdly large: what is cut off is no JSON.
async fn body(mut response: Response) -> Result<Bytes, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// What went wrong on the way, without the URL, which every line about a path has already.
fn reason(error: &reqwest::Error) -> String {
    let mut reason = if error.is_timeout() { "no answer in time" } else { "no answer" }.to_owned();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    reason
}
