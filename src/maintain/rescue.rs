//! Tries again what a billing table or a handler did not take: the rows of `tollgate.failures`.
//! What counts as a failure is decided where events are committed.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ingest::traffic::Traffic;
use crate::store::connect::{Database, Transaction, WriterConnection};
use crate::store::events::NewEvent;
use crate::store::failures::{self, Due, Stage};
use crate::store::handlers::{self, Registered};
use crate::store::hooks::{Handler, Hooks};
use crate::store::{StoreError, objects, projections};

/// How often to look for what is due.
const INTERVAL: Duration = Duration::from_secs(1);

/// Wait after a look that failed.
const RETRY: Duration = Duration::from_secs(10);

/// The wait doubles from `failures::FIRST_WAIT` up to this one.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// Attempts for a billing table, the first included: a little over a day.
const PROJECTION_ATTEMPTS: i32 = 36;

/// Longest that one attempt may take: as long as a handler's timeout can be.
const LIMIT: Duration = Duration::from_mins(1);

/// The duty, with a connection of its own.
#[derive(Debug)]
pub struct Rescue {
    database: Database,
    hooks: Hooks,
    traffic: Arc<Traffic>,
    connection: Option<WriterConnection>,
    /// The last attempt, if it failed and that is not written down yet.
    failed: Option<FailedAttempt>,
}

#[derive(Debug)]
struct FailedAttempt {
    due: Due,
    reason: String,
    retry_in: Option<Duration>,
}

impl Rescue {
    pub fn new(database: Database, hooks: Hooks, traffic: Arc<Traffic>) -> Self {
        Self { database, hooks, traffic, connection: None, failed: None }
    }

    /// Looks again and again, until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let pause = match self.run_once().await {
                Ok(true) => continue_unless(&stop),
                Ok(false) => Some(INTERVAL),
                Err(error) => {
                    self.connection = None;
                    tracing::warn!(%error, "looking for failures to try again did not work");
                    Some(RETRY)
                }
            };
            // Only the sleep is cut short: a statement is always awaited to its end.
            let Some(pause) = pause else {
                return;
            };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Tries the failure that has been due for longest; false if none is.
    pub async fn run_once(&mut self) -> Result<bool, StoreError> {
        let mut connection = self.connect().await?;
        // Left over if the database went away.
        self.write_down(&mut connection).await?;
        let found = self.attempt(&mut connection).await?;
        if let Tried::Lost = found {
            connection = self.connect().await?;
        }
        self.write_down(&mut connection).await?;
        self.connection = Some(connection);
        Ok(found != Tried::Nothing)
    }

    async fn connect(&mut self) -> Result<WriterConnection, StoreError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => Ok(self.database.connect_writer(LIMIT).await?),
        }
    }

    async fn attempt(&mut self, connection: &mut WriterConnection) -> Result<Tried, StoreError> {
        let mut transaction = connection.begin().await?;
        let registered = handlers::registered(transaction.connection()).await?;
        let names: Vec<_> = Handler::all(&registered, &self.hooks).map(Handler::name).collect();
        let Some(due) = failures::claim(&mut transaction, &names).await? else {
            transaction.commit().await?;
            return Ok(Tried::Nothing);
        };
        let work = Work::of(&due, &registered, &self.hooks);
        let (most, done) = (work.most(), work.redo(transaction, &due).await);
        let (reason, tried) = match done {
            Ok(Ok(())) => return Ok(Tried::Done),
            Ok(Err(reason)) => (reason, Tried::Done),
            // Counted all the same: what always ends like this would be tried for ever.
            Err(error) => (error.to_string(), Tried::Lost),
        };
        let attempts = due.attempts.saturating_add(1);
        let retry_in = (attempts < most).then(|| wait(attempts));
        self.failed = Some(FailedAttempt { due, reason, retry_in });
        Ok(tried)
    }

    /// Writes down that the last attempt failed, in a transaction that the attempt cannot spoil.
    async fn write_down(&mut self, connection: &mut WriterConnection) -> Result<(), StoreError> {
        let Some(FailedAttempt { due, reason, retry_in }) = &self.failed else {
            return Ok(());
        };
        let mut transaction = connection.begin().await?;
        failures::keep_again(&mut transaction, due, reason, *retry_in).await?;
        transaction.commit().await?;
        if retry_in.is_none() {
            tracing::error!(
                event_id = due.event_id,
                stage = ?due.stage,
                attempts = due.attempts + 1,
                reason,
                "given up; the event is in the log, the failure in tollgate.failures"
            );
        }
        self.traffic.failed(&due.stage);
        self.failed = None;
        Ok(())
    }
}

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    /// Nothing is due.
    Nothing,
    Done,
    /// With it the connection was lost, or its state is unknown.
    Lost,
}

/// What is to be done about a failure.
#[derive(Clone, Copy)]
enum Work<'a> {
    Project(&'a NewEvent),
    Call(Handler<'a>, &'a NewEvent),
    /// It is too late; the sentence says why.
    Nothing(&'static str),
}

impl<'a> Work<'a> {
    fn of(due: &'a Due, registered: &'a Registered, hooks: &'a Hooks) -> Self {
        match (&due.event, &due.stage) {
            (None, _) => Self::Nothing("the event is not in the log any more"),
            (Some(event), Stage::Projection) => Self::Project(event),
            (Some(event), Stage::Handler(name)) => {
                let handler = Handler::all(registered, hooks).find(|one| one.name() == name);
                handler.map_or(Self::Nothing("the handler is not registered any more"), |handler| {
                    Self::Call(handler, event)
                })
            }
        }
    }

    /// Attempts until it is given up.
    fn most(self) -> i32 {
        match self {
            Self::Project(_) => PROJECTION_ATTEMPTS,
            Self::Call(handler, _) => handler.max_attempts(),
            Self::Nothing(_) => 0,
        }
    }

    /// The inner error is the attempt's, the outer one the transaction's. Nothing is left of either.
    async fn redo(
        self,
        mut transaction: Transaction<'_>,
        due: &Due,
    ) -> Result<Result<(), String>, StoreError> {
        let done = match self {
            Self::Project(event) => project(&mut transaction, event).await?,
            Self::Call(handler, event) => handler.call(&mut transaction, event, LIMIT).await?,
            Self::Nothing(why) => Err(why.to_owned()),
        };
        if done.is_err() {
            return Ok(done);
        }
        failures::forget(&mut transaction, due.failure).await?;
        match transaction.commit().await.map_err(StoreError::from) {
            // What the handler did fails only now, a deferred constraint say.
            Err(error) if error.is_about_statement() => Ok(Err(error.to_string())),
            committed => committed.map(Ok),
        }
    }
}

fn continue_unless(stop: &CancellationToken) -> Option<Duration> {
    (!stop.is_cancelled()).then_some(Duration::ZERO)
}

async fn project(
    transaction: &mut Transaction<'_>,
    event: &NewEvent,
) -> Result<Result<(), String>, StoreError> {
    let restore = async |transaction: &mut Transaction<'_>| {
        for row in objects::fold(&[event]) {
            projections::restore(transaction, row).await?;
        }
        Ok(())
    };
    Ok(transaction.attempt(restore).await?.map_err(|error| error.to_string()))
}

/// The wait after so many attempts.
fn wait(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(20);
    failures::FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour() {
        let waits: Vec<_> = [0, 1, 2, 3, 10, 11, i32::MAX].map(|n| wait(n).as_secs()).into();
        assert_eq!(waits, [5, 5, 10, 20, 2560, 3600, 3600]);
    }
}
