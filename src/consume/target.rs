//! The seam between the engine and what it delivers to: one attempt at one event. A new sink
//! implements [`Target`]; claims, retries, breakers and dead letters are the engine's.

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use crate::store::consumers::{ANSWER_KEPT, Attempt, Verdict};

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

/// Where events are delivered to.
pub trait Target: Send + Sync {
    /// Makes one attempt, which ends within the target's own timeout. May be dropped at any time:
    /// the event then counts as not delivered.
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Attempt>;
}
