//! The seam between the engine and what it delivers to: one attempt at one event. A new sink
//! implements [`Target`]; claims, retries, breakers and dead letters are the engine's.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// One event on its way to a target.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The consumer it is for.
    pub consumer: String,
    pub position: i64,
    pub event_id: String,
    pub event_type: String,
    /// The connected account; empty for the platform's own.
    pub account: String,
    pub livemode: bool,
    /// 1 for the first.
    pub attempt: i32,
    /// The body as Stripe sent it.
    pub raw: Bytes,
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The target has it.
    Delivered,
    /// Not now; the target may say how long to wait at least.
    Retry { after: Option<Duration> },
    /// Never: this event cannot be delivered to this target, whenever it is tried.
    Refused,
    /// The target wants no more events (410 Gone): the consumer is paused.
    Gone,
}

/// Most bytes of an answer that are kept.
pub const ANSWER_KEPT: usize = 2048;

/// What came of one attempt, as it is kept in the history.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub verdict: Verdict,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// What went wrong, in a sentence; empty if nothing did.
    pub error: String,
    /// The beginning of the answer, at most [`ANSWER_KEPT`] bytes, made text.
    pub answer: String,
    pub took: Duration,
}

/// Where events are delivered to.
pub trait Target: Send + Sync {
    /// Makes one attempt, which ends within the target's own timeout. May be dropped at any time:
    /// the event then counts as not delivered.
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Attempt>;
}
