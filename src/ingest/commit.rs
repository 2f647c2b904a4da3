//! One attempt at one batch: in one round trip where that does, else step by step in a
//! transaction: log, billing tables, handlers, notifications. When to try again is the writer's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

use super::interrupted::Interrupted;
use super::recent::Recent;
use super::traffic::Traffic;
use crate::store::connect::{Transaction, WriterConnection};
use crate::store::events::{self, NewEvent, Notify, Recorded};
use crate::store::failures::{self, Failed, Stage};
use crate::store::handlers::{Policy, Registered};
use crate::store::hooks::{Handler, Hooks};
use crate::store::objects::{self, Crowd, ObjectRow};
use crate::store::projections::{self, Decision, Written};
use crate::store::{Fault, StoreError};
use crate::stripe::event::EventId;
use crate::stripe::order::Basis;

/// The share of an attempt's time that handlers may take; what is left then is put off.
const HANDLERS_SHARE: f64 = 0.6;

/// What a handler that rejects gets at least, however late it is.
const LEAST_TIME: Duration = Duration::from_millis(100);

/// What a committer does, and for how long.
#[derive(Clone, Debug)]
pub struct CommitOptions {
    pub notify: Notify,
    /// Whether the billing tables are kept.
    pub tables: bool,
    /// Longest that an attempt may take.
    pub limit: Duration,
    pub hooks: Hooks,
    pub traffic: Arc<Traffic>,
    pub recent: Arc<Recent>,
}

/// Why a batch was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A handler with the policy `reject` failed.
    #[error("handler {handler} refused the event: {reason}")]
    Rejected { handler: String, reason: String },
    /// A handler let the transaction fail after its call.
    #[error("after the handlers: {0}")]
    Spoiled(String),
    /// The connection was lost while a handler ran.
    #[error("while handler {handler} ran with {}: {error}", .event.1)]
    Interrupted { handler: String, event: (OffsetDateTime, EventId), error: StoreError },
    /// Handlers that reject had no time left after so many events.
    #[error("handlers took all the time for {fits} events")]
    TooMany { fits: usize },
}

impl From<sqlx::Error> for CommitError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Commits batches, and remembers what makes the next one cheaper.
#[derive(Debug)]
pub struct Committer {
    options: Arc<CommitOptions>,
    registered: Registered,
    /// Whether events tied though nothing of it was known: then other gateways write to the same
    /// objects, and the next batch is not tried in one step.
    surprised: bool,
    interrupted: Interrupted,
}

impl Committer {
    pub fn new(options: Arc<CommitOptions>) -> Self {
        let registered = Registered { generation: -1, handlers: Vec::new() };
        Self { options, registered, surprised: false, interrupted: Interrupted::default() }
    }

    /// Commits `batch`, whose events are distinct and sorted by key; returns the new ones.
    pub async fn commit(
        &mut self,
        connection: &mut WriterConnection,
        batch: &[&NewEvent],
    ) -> Result<Vec<Recorded>, CommitError> {
        let started = Instant::now();
        let rows = if self.options.tables { objects::fold(batch) } else { Vec::new() };
        if !self.takes_steps(batch, &rows) {
            let (notify, generation) = (self.options.notify, self.registered.generation);
            let done = events::commit(connection, batch, &rows, notify, generation).await;
            match done {
                Err(error) if error.fault() == Fault::Undecided => self.surprised = true,
                Err(error) if matches!(error.fault(), Fault::Handlers | Fault::Raced) => {}
                Err(error) if error.fault() == Fault::Data && batch.len() == 1 => {}
                done => return Ok(done?),
            }
        }
        let mut plan = Plan::default();
        loop {
            let noted = Noted::default();
            let steps = Steps { committer: self, started, batch, rows: &rows, plan: &plan, noted };
            match steps.run(connection).await {
                Err(CommitError::Store(error)) if error.fault() == Fault::Handlers => {
                    self.registered = connection.handlers().await?;
                }
                Err(CommitError::Store(error)) if error.fault() == Fault::Raced => {}
                // A lone event is kept, whatever a table says to its object or its handlers did.
                Err(CommitError::Store(error))
                    if batch.len() == 1 && error.is_about_statement() && plan.unshown.is_none() =>
                {
                    plan.unshown = Some(error.to_string());
                }
                Err(CommitError::Spoiled(why)) if batch.len() == 1 && plan.parked.is_none() => {
                    plan.parked = Some(why);
                }
                Err(error) => {
                    if let CommitError::Interrupted { handler, event, .. } = &error {
                        self.interrupted.note(handler, event);
                    }
                    return Err(error);
                }
                Ok(Done { recorded, needed, noted }) => {
                    self.surprised &= needed;
                    self.interrupted.forget();
                    noted.count(&self.options.traffic);
                    return Ok(recorded);
                }
            }
        }
    }

    fn takes_steps(&self, batch: &[&NewEvent], rows: &[ObjectRow<'_>]) -> bool {
        // All of them: each is to be remembered.
        let ties = rows.iter().filter(|row| self.options.recent.ties(row)).count();
        ties > 0
            || self.surprised && batch.len() > 1
            || rows.iter().any(|row| row.crowd >= Crowd::Tied)
            || batch.iter().any(|event| self.has_handler(&event.envelope.event_type))
    }

    fn has_handler(&self, event_type: &str) -> bool {
        Handler::all(&self.registered, &self.options.hooks).any(|handler| handler.wants(event_type))
    }
}

/// What to leave out of a lone event's transaction, and why, because it failed before.
#[derive(Default)]
struct Plan {
    /// The billing tables.
    unshown: Option<String>,
    /// All handlers.
    parked: Option<String>,
}

/// One transaction of several statements.
struct Steps<'a> {
    committer: &'a Committer,
    started: Instant,
    batch: &'a [&'a NewEvent],
    rows: &'a [ObjectRow<'a>],
    plan: &'a Plan,
    noted: Noted,
}

/// What is counted once it is committed.
#[derive(Default)]
struct Noted {
    ties: Vec<Basis>,
    failures: Vec<Stage>,
}

impl Noted {
    fn count(&self, traffic: &Traffic) {
        self.ties.iter().for_each(|basis| traffic.tied(*basis));
        self.failures.iter().for_each(|stage| traffic.failed(stage));
    }
}

/// What came of a transaction.
struct Done {
    recorded: Vec<Recorded>,
    /// Whether one statement would not have done.
    needed: bool,
    noted: Noted,
}

impl<'a> Steps<'a> {
    async fn run(mut self, connection: &mut WriterConnection) -> Result<Done, CommitError> {
        let mut transaction = connection.begin().await?;
        let (new, mut decisions) = self.write(&mut transaction).await?;
        let called = self.has_handlers(&new);
        let needed = called || !decisions.is_empty();
        self.noted.ties = decisions.iter().map(Decision::basis).collect();
        if called {
            // Handlers see the tables as they will be.
            projections::settle(&mut transaction, &decisions).await?;
            decisions.clear();
            self.call_handlers(&mut transaction, &new).await?;
        }
        let notify = self.committer.options.notify;
        let finish = async {
            let recorded = events::finish(&mut transaction, &decisions, &new, notify).await?;
            transaction.commit().await?;
            Ok::<_, StoreError>(recorded)
        };
        match finish.await {
            Ok(recorded) => Ok(Done { recorded, needed, noted: self.noted }),
            Err(error) if called && error.is_about_statement() => {
                Err(CommitError::Spoiled(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Log and billing tables; returns the new events, and what is still to be written to the tables.
    async fn write(
        &mut self,
        transaction: &mut Transaction<'_>,
    ) -> Result<(Vec<&'a NewEvent>, Vec<Decision>), CommitError> {
        let generation = self.committer.registered.generation;
        let rows = if self.plan.unshown.is_none() { self.rows } else { &[] };
        let written = projections::write(transaction, self.batch, rows, generation).await?;
        let decisions = projections::decide_all(transaction, rows, &written).await?;
        let new = self.news_in(&written);
        if let Some(why) = &self.plan.unshown {
            for event in &new {
                let event_id = event.envelope.id.as_str();
                tracing::warn!(
                    event_id,
                    reason = why,
                    "a billing table did not take an event; it is kept"
                );
                self.keep_failure(transaction, event, Stage::Projection, why.clone(), 1, true)
                    .await?;
            }
        }
        Ok((new, decisions))
    }

    fn news_in(&self, written: &Written) -> Vec<&'a NewEvent> {
        let new: BTreeSet<_> =
            written.new.iter().map(|(created, id)| (*created, id.as_str())).collect();
        let is_new = |event: &&&NewEvent| {
            new.contains(&(event.envelope.created, event.envelope.id.as_str()))
        };
        self.batch.iter().filter(is_new).copied().collect()
    }

    fn has_handlers(&self, new: &[&NewEvent]) -> bool {
        new.iter().any(|event| self.committer.has_handler(&event.envelope.event_type))
    }

    /// Calls what is registered for each new event.
    async fn call_handlers(
        &mut self,
        transaction: &mut Transaction<'_>,
        new: &[&'a NewEvent],
    ) -> Result<(), CommitError> {
        let Committer { options, registered, .. } = self.committer;
        for (at, event) in new.iter().enumerate() {
            for handler in Handler::all(registered, &options.hooks) {
                if !handler.wants(&event.envelope.event_type) {
                    continue;
                }
                let rejects = handler.policy() == Policy::Reject;
                if rejects && self.batch.len() > 1 && self.time_left() < LEAST_TIME {
                    return Err(CommitError::TooMany { fits: at });
                }
                self.call(transaction, event, handler).await?;
            }
        }
        Ok(())
    }

    /// How much of the time for handlers is left.
    fn time_left(&self) -> Duration {
        let share = self.committer.options.limit.mul_f64(HANDLERS_SHARE);
        share.saturating_sub(self.started.elapsed())
    }

    async fn call(
        &mut self,
        transaction: &mut Transaction<'_>,
        event: &NewEvent,
        handler: Handler<'_>,
    ) -> Result<(), CommitError> {
        let left = self.time_left();
        let stage = || Stage::Handler(handler.name().to_owned());
        if left.is_zero() && handler.policy() == Policy::Park {
            let why = "put off: the handlers before it took all the time".to_owned();
            return self.keep_failure(transaction, event, stage(), why, 0, true).await;
        }
        let spared = self.plan.parked.clone();
        let spared = spared.or_else(|| self.committer.interrupted.tell(handler, event));
        let failed = match spared {
            Some(why) => Err(why),
            None => {
                handler.call(transaction, event, left.max(LEAST_TIME)).await.map_err(|error| {
                    let (created, id) = event.key();
                    let event = (created, id.to_owned());
                    CommitError::Interrupted { handler: handler.name().to_owned(), event, error }
                })?
            }
        };
        let Err(reason) = failed else {
            return Ok(());
        };
        if handler.policy() == Policy::Reject {
            return Err(CommitError::Rejected { handler: handler.name().to_owned(), reason });
        }
        tracing::warn!(event_id = %event.envelope.id, handler = handler.name(), reason, "a handler failed; the event is kept");
        self.keep_failure(transaction, event, stage(), reason, 1, handler.max_attempts() > 1).await
    }

    async fn keep_failure(
        &mut self,
        transaction: &mut Transaction<'_>,
        event: &NewEvent,
        stage: Stage,
        error: String,
        attempts: i32,
        again: bool,
    ) -> Result<(), CommitError> {
        let retry_in = if attempts == 0 { Duration::ZERO } else { failures::FIRST_WAIT };
        let failed = Failed {
            stage,
            created: event.envelope.created,
            event_id: event.envelope.id.as_str(),
            event_type: &event.envelope.event_type,
            error,
            attempts,
            retry_in: again.then_some(retry_in),
        };
        failures::keep(transaction, &failed).await?;
        self.noted.failures.push(failed.stage);
        Ok(())
    }
}
