//! Tries again what a billing table or a handler did not take: the rows of `tollgate.failures`.
//! What counts as a failure is decided where events are committed.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ingest::traffic::Traffic;
use crate::store::connect::{Database, Transaction, WriterConnection};
use crate::store::events::NewEvent;
use crate::store::failures::{self, Due, Failed, Stage};
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
}

impl Rescue {
    pub fn new(database: Database, hooks: Hooks, traffic: Arc<Traffic>) -> Self {
        Self { database, hooks, traffic, connection: None }
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
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.database.connect_writer(LIMIT).await?,
        };
        let found = self.attempt(&mut connection).await?;
        self.connection = Some(connection);
        Ok(found)
    }

    async fn attempt(&self, connection: &mut WriterConnection) -> Result<bool, StoreError> {
        let mut transaction = connection.begin().await?;
        let registered = handlers::registered(transaction.connection()).await?;
        let names: Vec<_> = Handler::all(&registered, &self.hooks).map(Handler::name).collect();
        let Some(due) = failures::claim(&mut transaction, &names).await? else {
            transaction.commit().await?;
            return Ok(false);
        };
        let (done, most) = self.redo(&mut transaction, &registered, &due).await?;
        let mut failed = done.is_err();
        match finish(transaction, &due, done, most).await {
            // What the handler did fails only now, a deferred constraint say.
            Err(error) if error.is_about_statement() => {
                let transaction = connection.begin().await?;
                finish(transaction, &due, Err(error.to_string()), most).await?;
                failed = true;
            }
            finished => finished?,
        }
        if failed {
            self.traffic.failed(&due.stage);
        }
        Ok(true)
    }

    /// The inner result is the attempt's; with it comes how many attempts there are.
    async fn redo(
        &self,
        transaction: &mut Transaction<'_>,
        registered: &Registered,
        due: &Due,
    ) -> Result<(Result<(), String>, i32), StoreError> {
        let Some(event) = &due.event else {
            return Ok((Err("the event is not in the log any more".to_owned()), 0));
        };
        match &due.stage {
            Stage::Projection => Ok((project(transaction, event).await?, PROJECTION_ATTEMPTS)),
            Stage::Handler(name) => {
                let handler =
                    Handler::all(registered, &self.hooks).find(|handler| handler.name() == name);
                let Some(handler) = handler else {
                    return Ok((Err("the handler is not registered any more".to_owned()), 0));
                };
                let done = handler.call(transaction, event, LIMIT).await?;
                Ok((done, handler.max_attempts()))
            }
        }
    }
}

async fn finish(
    mut transaction: Transaction<'_>,
    due: &Due,
    done: Result<(), String>,
    most: i32,
) -> Result<(), StoreError> {
    match done {
        Ok(()) => failures::forget(&mut transaction, due.failure).await?,
        Err(reason) => keep(&mut transaction, due, reason, most).await?,
    }
    Ok(transaction.commit().await?)
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

async fn keep(
    transaction: &mut Transaction<'_>,
    due: &Due,
    error: String,
    most: i32,
) -> Result<(), StoreError> {
    let attempts = due.attempts.saturating_add(1);
    let retry_in = (attempts < most).then(|| wait(attempts));
    if retry_in.is_none() {
        tracing::error!(
            event_id = due.event_id,
            stage = ?due.stage,
            attempts,
            reason = error,
            "given up; the event is in the log, the failure in tollgate.failures"
        );
    }
    let failed = Failed {
        stage: due.stage.clone(),
        created: due.created,
        event_id: &due.event_id,
        event_type: &due.event_type,
        error,
        attempts,
        retry_in,
    };
    failures::keep(transaction, &failed).await
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
