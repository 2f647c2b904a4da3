//! What a consumer is like, as flags of `tollgate consumers create` and `alter`, and its filter as a
//! list shows it. What the values may be is checked in the database.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::Value;

use super::Misconfigured;
use crate::store::consumer_admin::{
    self, ConsumerFilter, ConsumerOptions, PLATFORM, Row, TargetOptions,
};
use crate::store::handlers::Pattern;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Ordering {
    /// Any order
    None,
    /// Events of one Stripe object one after the other
    Object,
}

#[derive(Debug, clap::Args)]
pub struct ConsumerFlags {
    /// Only these types: invoice.paid, invoice.* or *; may be repeated [default: *]
    #[arg(long = "type", value_name = "PATTERN")]
    types: Vec<Pattern>,
    /// Whether events of one object come one after the other [default: none]
    #[arg(long)]
    ordering: Option<Ordering>,
    /// Attempts until an event is a dead letter [default: 20]
    #[arg(long)]
    max_attempts: Option<i32>,
    /// How long a claim is a worker's own [default: 30s]
    #[arg(long, value_parser = humantime::parse_duration)]
    lease: Option<Duration>,
    /// Wait after the first failed attempt, doubled after each further one [default: 5s]
    #[arg(long, value_parser = humantime::parse_duration)]
    retry_first: Option<Duration>,
    /// The longest such wait [default: 1h]
    #[arg(long, value_parser = humantime::parse_duration)]
    retry_most: Option<Duration>,
}

impl ConsumerFlags {
    pub fn options(&self, filter: ConsumerFilter) -> ConsumerOptions {
        let types = self.types.iter().map(|pattern| pattern.as_str().to_owned()).collect();
        ConsumerOptions {
            types: Some(types).filter(|types: &Vec<_>| !types.is_empty()),
            ordering: self.ordering.map(|ordering| match ordering {
                Ordering::None => "none".to_owned(),
                Ordering::Object => "object".to_owned(),
            }),
            max_attempts: self.max_attempts,
            lease: seconds(self.lease),
            retry_first: seconds(self.retry_first),
            retry_most: seconds(self.retry_most),
            filter,
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct FilterFlags {
    /// Only events that this endpoint received first; may be repeated [default: any]
    #[arg(long = "endpoint", value_name = "NAME", help_heading = "Filter")]
    endpoints: Vec<String>,
    /// Only events of this connected account, or platform for its own; may be repeated
    #[arg(long = "account", value_name = "ACCOUNT", help_heading = "Filter")]
    accounts: Vec<String>,
    /// Only live, or only test events
    #[arg(long, value_name = "MODE", help_heading = "Filter")]
    livemode: Option<Mode>,
    /// Only events whose object has this in its metadata; of several, all
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Filter", value_parser = pair)]
    metadata: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Live,
    Test,
}

/// What may be unset.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Part {
    Endpoint,
    Account,
    Livemode,
    Metadata,
}

impl Part {
    /// As the database calls it.
    fn column(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoints",
            Self::Account => "accounts",
            Self::Livemode => "livemode",
            Self::Metadata => "metadata",
        }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as app=shop")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl FilterFlags {
    /// # Errors
    /// If a key is given twice: no event has both values.
    pub fn filter(self, unset: &[Part]) -> Result<ConsumerFilter, Misconfigured> {
        fn given<T>(all: Vec<T>) -> Option<Vec<T>> {
            Some(all).filter(|all| !all.is_empty())
        }
        let metadata: BTreeMap<_, _> = self.metadata.iter().cloned().collect();
        if metadata.len() < self.metadata.len() {
            let twice = "--metadata: a key is given twice, and no event has both values: make two consumers";
            return Err(Misconfigured(twice.to_owned()));
        }
        Ok(ConsumerFilter {
            endpoints: given(self.endpoints),
            accounts: given(self.accounts).map(consumer_admin::accounts),
            livemode: self.livemode.map(|mode| mode == Mode::Live),
            metadata: Some(metadata).filter(|metadata| !metadata.is_empty()),
            unset: unset.iter().map(|part| part.column().to_owned()).collect(),
        })
    }
}

#[derive(clap::Args)]
pub struct TargetFlags {
    /// Have the gateway deliver: http://, https://, nats:// or tls://
    #[arg(long)]
    url: Option<String>,
    /// Signing secret of a push, whsec_…; twice while one is rolled [default: a new one]
    #[arg(long)]
    secret: Vec<String>,
    /// Longest that one attempt may take [default: 10s]
    #[arg(long, value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Most events under way at once, over all replicas [default: 16]
    #[arg(long)]
    concurrency: Option<i32>,
    /// Most attempts per second, over all replicas; 0 for no limit [default: no limit]
    #[arg(long)]
    rate: Option<f64>,
    /// How many of them may come at once after a quiet time [default: those of one second]
    #[arg(long)]
    burst: Option<i32>,
    /// What NATS subjects begin with [default: stripe]
    #[arg(long)]
    subject: Option<String>,
    /// Failures in a row after which the circuit breaker opens [default: 10]
    #[arg(long)]
    breaker_after: Option<i32>,
    /// How long it stays open at first [default: 5s]
    #[arg(long, value_parser = humantime::parse_duration)]
    breaker_wait: Option<Duration>,
}

impl std::fmt::Debug for TargetFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TargetFlags")
    }
}

impl TargetFlags {
    /// None if nothing is given.
    pub fn options(self) -> Option<TargetOptions> {
        let given = self.url.is_some()
            || !self.secret.is_empty()
            || self.timeout.is_some()
            || self.concurrency.is_some()
            || self.rate.is_some()
            || self.burst.is_some()
            || self.subject.is_some()
            || self.breaker_after.is_some()
            || self.breaker_wait.is_some();
        given.then(|| TargetOptions {
            url: self.url,
            secrets: Some(self.secret).filter(|secrets| !secrets.is_empty()),
            timeout: seconds(self.timeout),
            concurrency: self.concurrency,
            rate: self.rate,
            burst: self.burst,
            subject: self.subject,
            breaker_after: self.breaker_after,
            breaker_wait: seconds(self.breaker_wait),
        })
    }
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

/// Which part of the log it sees, as the flags have it.
pub fn filter_of(row: &Row) -> String {
    let texts = |name: &str| {
        let all = row.get(name).and_then(Value::as_array).into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut parts = texts("endpoints");
    parts.extend(
        texts("accounts").into_iter().map(
            |it| {
                if it.is_empty() { PLATFORM.to_owned() } else { it }
            },
        ),
    );
    let mode = row.get("livemode").and_then(Value::as_bool);
    parts.extend(mode.map(|live| if live { "live" } else { "test" }.to_owned()));
    let metadata = row.get("metadata").and_then(Value::as_object).into_iter().flatten();
    parts.extend(metadata.map(|(key, it)| format!("{key}={}", it.as_str().unwrap_or_default())));
    parts.join(", ")
}
