//! Handlers in Rust, for those who embed Tollgate as a library, and how any handler, Rust or SQL, is
//! called inside a transaction. Which are called, and what follows from a failure, is the callers'.

use std::error::Error;
use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::PgConnection;

use super::connect::Transaction;
use super::events::NewEvent;
use super::handlers::{self, Policy, Registered, SqlHandler, is_own};
use super::{Fault, StoreError};
use crate::stripe::event::Envelope;

/// Something of yours that happens in the transaction that records an event, once for each event.
///
/// It runs in a savepoint: an error, or a panic, undoes what it did and nothing else. It may do
/// whatever SQL can do inside a transaction; what it does elsewhere is not undone, and may happen
/// again when the transaction is repeated. While it waits, so does every event behind it; one that
/// does not come back within the time for a batch, a fifth of `TOLLGATE_WRITE_DEADLINE`, is dropped
/// where it waits, and the transaction is repeated, the third time without it.
pub trait EventHandler: Debug + Send + Sync {
    /// What failures call it. Unique; do not change it while failures of it are kept.
    fn name(&self) -> &str;

    /// Is this type of event for it?
    fn wants(&self, event_type: &str) -> bool;

    /// Are events of Tollgate's own for it too, of types that begin with `tollgate.`? Stripe never
    /// sent them: so not unless it says so, and wants the type.
    fn wants_own(&self) -> bool {
        false
    }

    /// What happens to an event when it fails.
    fn policy(&self) -> Policy {
        Policy::Park
    }

    /// The longest that one of its SQL statements may take.
    fn timeout(&self) -> Duration {
        Duration::from_secs(2)
    }

    /// Calls for one event until it is given up, the first included.
    fn max_attempts(&self) -> i32 {
        12
    }

    /// Handles an event, whose body is `body` byte for byte.
    fn handle<'a>(
        &'a self,
        event: &'a Envelope,
        body: &'a [u8],
        transaction: &'a mut PgConnection,
    ) -> HandlerFuture<'a>;
}

/// What [`EventHandler::handle`] returns.
pub type HandlerFuture<'a> =
    Pin<Box<dyn Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send + 'a>>;

/// The handlers in Rust of a gateway; called after those in SQL, in this order.
pub type Hooks = Arc<[Arc<dyn EventHandler>]>;

/// A handler, wherever it is written.
#[derive(Clone, Copy, Debug)]
pub enum Handler<'a> {
    Sql(&'a SqlHandler),
    Rust(&'a dyn EventHandler),
}

impl<'a> Handler<'a> {
    /// All of them, in the order in which they are called.
    pub fn all(registered: &'a Registered, hooks: &'a Hooks) -> impl Iterator<Item = Self> {
        let hooks = hooks.iter().map(|hook| Self::Rust(hook.as_ref()));
        registered.handlers.iter().map(Self::Sql).chain(hooks)
    }

    pub fn name(self) -> &'a str {
        match self {
            Self::Sql(handler) => &handler.name,
            Self::Rust(handler) => handler.name(),
        }
    }

    pub fn wants(self, event_type: &str) -> bool {
        match self {
            Self::Sql(handler) => handler.pattern.fits(event_type),
            Self::Rust(handler) => {
                (!is_own(event_type) || handler.wants_own()) && handler.wants(event_type)
            }
        }
    }

    pub fn policy(self) -> Policy {
        match self {
            Self::Sql(handler) => handler.policy,
            Self::Rust(handler) => handler.policy(),
        }
    }

    fn timeout(self) -> Duration {
        match self {
            Self::Sql(handler) => handler.timeout,
            Self::Rust(handler) => handler.timeout(),
        }
    }

    pub fn max_attempts(self) -> i32 {
        match self {
            Self::Sql(handler) => handler.max_attempts,
            Self::Rust(handler) => handler.max_attempts(),
        }
    }

    /// Calls it in a savepoint, for at most `limit` or its own timeout. The inner error is the
    /// handler's, whose effect is undone; the outer one the transaction's, which is lost.
    pub async fn call(
        self,
        transaction: &mut Transaction<'_>,
        event: &NewEvent,
        limit: Duration,
    ) -> Result<Result<(), String>, StoreError> {
        transaction.save(Some(self.timeout().min(limit))).await?;
        let done = match self {
            Self::Sql(handler) => handlers::call(transaction, &handler.function, event.key()).await,
            // Dropped half-way it leaves the connection in no known state.
            Self::Rust(handler) => tokio::time::timeout(limit, run(handler, transaction, event))
                .await
                .unwrap_or(Err(StoreError::TimedOut)),
        };
        // Releasing can fail too: for a handler that swallowed an error of the database.
        let done = match done {
            Ok(()) => transaction.keep().await.map_err(StoreError::from),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => Ok(Ok(())),
            Err(error) if error.fault() == Fault::Transient && !error.is_answer() => Err(error),
            Err(error) => {
                transaction.undo().await?;
                Ok(Err(error.to_string()))
            }
        }
    }
}

async fn run(
    handler: &dyn EventHandler,
    transaction: &mut Transaction<'_>,
    event: &NewEvent,
) -> Result<(), StoreError> {
    // A panic must not take the writer down, and with it everyone who waits.
    let call =
        AssertUnwindSafe(handler.handle(&event.envelope, &event.raw, transaction.connection()));
    match call.catch_unwind().await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(StoreError::Handler(error.to_string())),
        Err(_) => Err(StoreError::Handler("it panicked".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct All {
        own: bool,
    }

    impl EventHandler for All {
        fn name(&self) -> &'static str {
            "all"
        }

        fn wants(&self, _event_type: &str) -> bool {
            true
        }

        fn wants_own(&self) -> bool {
            self.own
        }

        fn handle<'a>(
            &'a self,
            _: &'a Envelope,
            _: &'a [u8],
            _: &'a mut PgConnection,
        ) -> HandlerFuture<'a> {
            Box::pin(std::future::ready(Ok(())))
        }
    }

    #[test]
    fn events_of_our_own_are_for_those_who_say_so() {
        for own in [false, true] {
            let handler = All { own };
            assert!(Handler::Rust(&handler).wants("invoice.paid"));
            assert_eq!(Handler::Rust(&handler).wants("tollgate.snapshot"), own);
        }
    }
}
