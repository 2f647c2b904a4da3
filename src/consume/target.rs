//! The seam between the engine and what it delivers to: one attempt at one event. A new sink
//! implements [`Target`]; claims, retries, breakers and dead letters are the engine's.

use futures_util::future::BoxFuture;

pub use crate::store::consumers::{ANSWER_KEPT, Attempt, Delivery, Verdict};

/// Where events are delivered to.
pub trait Target: Send + Sync {
    /// Makes one attempt, which ends within the target's own timeout. May be dropped at any time:
    /// the event then counts as not delivered.
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Attempt>;
}
