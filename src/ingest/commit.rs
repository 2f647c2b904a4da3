//! One attempt at one batch: in one round trip where that does, else step by step in a
//! transaction: log, billing tables, handlers, notifications. When to try again is the writer's.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::store::connect::{Transaction, WriterConnection};
use crate::store::events::{self, NewEvent, Notify, Recorded};
use crate::store::failures::{self, Failed, Stage};
use crate::store::handlers::{Policy, Registered};
use crate::store::hooks::{Handler, Hooks};
use crate::store::objects::{self, Crowd, ObjectRow};
use crate::store::projections::{self, Written};
use crate::store::{Fault, StoreError};

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
    /// Whether the last batch took several steps: then the next one probably will.
    stepwise: bool,
}

impl Committer {
    pub fn new(options: Arc<CommitOptions>) -> Self {
        let registered = Registered { generation: -1, handlers: Vec::new() };
        Self { options, registered, stepwise: false }
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
                Err(error) if matches!(error.fault(), Fault::Undecided | Fault::Handlers) => {}
                Err(error) if error.fault() == Fault::Data && batch.len() == 1 => {}
                done => return Ok(done?),
            }
        }
        let mut parked: Option<String> = None;
        loop {
            let parked_for = parked.as_deref();
            let mut steps =
                Steps { committer: self, started, batch, rows: &rows, parked: parked_for };
            match steps.run(connection).await {
                Err(CommitError::Store(error)) if error.fault() == Fault::Handlers => {
                    self.registered = connection.handlers().await?;
                }
                // Whatever the handlers did, the event is kept.
                Err(CommitError::Spoiled(why)) if batch.len() == 1 && parked.is_none() => {
                    parked = Some(why);
                }
                Err(error) => return Err(error),
                Ok((recorded, needed)) => {
                    self.stepwise = needed;
                    return Ok(recorded);
                }
            }
        }
    }

    fn takes_steps(&self, batch: &[&NewEvent], rows: &[ObjectRow<'_>]) -> bool {
        self.stepwise
            || rows.iter().any(|row| row.crowd >= Crowd::Tied)
            || batch.iter().any(|event| self.has_handler(&event.envelope.event_type))
    }

    fn has_handler(&self, event_type: &str) -> bool {
        Handler::all(&self.registered, &self.options.hooks).any(|handler| handler.wants(event_type))
    }
}

/// One transaction of several statements.
struct Steps<'a> {
    committer: &'a mut Committer,
    started: Instant,
    batch: &'a [&'a NewEvent],
    rows: &'a [ObjectRow<'a>],
    /// Do not call handlers, for this reason.
    parked: Option<&'a str>,
}

impl<'a> Steps<'a> {
    /// Also says whether one statement would not have done.
    async fn run(
        &mut self,
        connection: &mut WriterConnection,
    ) -> Result<(Vec<Recorded>, bool), CommitError> {
        let mut transaction = connection.begin().await?;
        let (new, undecided) = self.write(&mut transaction).await?;
        let called = self.call_handlers(&mut transaction, &new).await?;
        let notify = self.committer.options.notify;
        let finish = async {
            let recorded = events::publish(&mut transaction, &new, notify).await?;
            transaction.commit().await?;
            Ok::<_, StoreError>(recorded)
        };
        match finish.await {
            Ok(recorded) => Ok((recorded, called || undecided)),
            Err(error) if called && error.is_about_statement() => {
                Err(CommitError::Spoiled(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Log and billing tables; returns the new events, and whether the log had to be asked. A lone
    /// event whose object no table takes is recorded all the same.
    async fn write(
        &mut self,
        transaction: &mut Transaction<'_>,
    ) -> Result<(Vec<&'a NewEvent>, bool), CommitError> {
        let generation = self.committer.registered.generation;
        if self.batch.len() > 1 {
            let written = write_and_settle(transaction, self.batch, self.rows, generation).await?;
            return Ok((self.news_in(&written), written.is_undecided()));
        }
        transaction.save(None).await?;
        let why = match write_and_settle(transaction, self.batch, self.rows, generation).await {
            Ok(written) => {
                transaction.keep().await?;
                return Ok((self.news_in(&written), written.is_undecided()));
            }
            Err(error) if error.is_about_statement() => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        transaction.undo().await?;
        let written = projections::write(transaction, self.batch, &[], generation).await?;
        let new = self.news_in(&written);
        for event in &new {
            self.keep_failure(transaction, event, Stage::Projection, why.clone(), 1, true).await?;
        }
        Ok((new, false))
    }

    fn news_in(&self, written: &Written) -> Vec<&'a NewEvent> {
        let is_new = |event: &&&'a NewEvent| {
            written.new.iter().any(|(created, id)| {
                event.envelope.created == *created && event.envelope.id.as_str() == id
            })
        };
        self.batch.iter().filter(is_new).copied().collect()
    }

    /// Calls what is registered for each new event; true if anything was called.
    async fn call_handlers(
        &mut self,
        transaction: &mut Transaction<'_>,
        new: &[&'a NewEvent],
    ) -> Result<bool, CommitError> {
        let options = Arc::clone(&self.committer.options);
        let registered = self.committer.registered.clone();
        let mut called = false;
        for event in new {
            let event_type = &event.envelope.event_type;
            for handler in Handler::all(&registered, &options.hooks) {
                if handler.wants(event_type) {
                    called = true;
                    self.call(transaction, event, handler).await?;
                }
            }
        }
        Ok(called)
    }

    async fn call(
        &mut self,
        transaction: &mut Transaction<'_>,
        event: &NewEvent,
        handler: Handler<'_>,
    ) -> Result<(), CommitError> {
        let share = self.committer.options.limit.mul_f64(HANDLERS_SHARE);
        let left = share.saturating_sub(self.started.elapsed());
        let stage = || Stage::Handler(handler.name().to_owned());
        if left.is_zero() && handler.policy() == Policy::Park {
            let why = "put off: the handlers before it took all the time".to_owned();
            return self.keep_failure(transaction, event, stage(), why, 0, true).await;
        }
        let failed = match self.parked {
            Some(why) => Err(why.to_owned()),
            None => {
                let limit = left.max(LEAST_TIME);
                handler.call(transaction, event, limit).await?
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
        &self,
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
        Ok(failures::keep(transaction, &failed).await?)
    }
}

async fn write_and_settle(
    transaction: &mut Transaction<'_>,
    batch: &[&NewEvent],
    rows: &[ObjectRow<'_>],
    generation: i64,
) -> Result<Written, StoreError> {
    let written = projections::write(transaction, batch, rows, generation).await?;
    projections::settle(transaction, rows, &written).await?;
    Ok(written)
}
