//! Group commit: each writer takes everything that waits and commits it in one transaction.
//! Nobody waits on a timer: a lone event pays for one transaction, a burst shares one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use tokio::time::Instant;

use super::error::Unavailable;
use super::queue::{Limits, Outcome, Queue, Submission, Work};
use crate::store::connect::Database;
use crate::store::events::{self, NewEvent, Notify};
use crate::store::quarantine::{self, Quarantined};
use crate::store::{Fault, StoreError};

/// How a writer works.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// The most that one transaction takes.
    pub batch: Limits,
    pub notify: Notify,
    /// Longest wait for the database's answer to one statement.
    pub attempt_timeout: Duration,
}

/// Waits between attempts, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// One writer with a connection of its own. It must run in a task that nobody cancels: an answer
/// is owed to everyone whose work it took.
#[derive(Debug)]
pub struct Writer {
    queue: Arc<Queue>,
    database: Database,
    options: WriterOptions,
    connection: Option<PgConnection>,
}

/// Why a statement was given up.
enum GivenUp {
    /// The values were refused; the message says why.
    Refused(String),
    /// The deadline passed.
    Late,
}

impl Writer {
    pub fn new(queue: Arc<Queue>, database: Database, options: WriterOptions) -> Self {
        Self { queue, database, options, connection: None }
    }

    /// Works until the queue is closed and empty.
    pub async fn run(mut self) {
        while self.run_once().await {}
    }

    /// Takes one batch and commits it; false once the queue is closed and empty.
    pub async fn run_once(&mut self) -> bool {
        let Some(batch) = self.queue.take(self.options.batch).await else {
            return false;
        };
        let now = Instant::now();
        let mut events = Vec::with_capacity(batch.len());
        for submission in batch {
            if submission.deadline <= now {
                submission.answer(Err(Unavailable::Database));
            } else if let Work::Quarantine(body) = &submission.work {
                let answer = self.quarantine(body, submission.deadline).await;
                submission.answer(answer);
            } else {
                events.push(submission);
            }
        }
        self.commit(events).await;
        true
    }

    /// Commits the events together; if the database refuses one of them, each by itself, so that
    /// a poison event takes no neighbour down.
    async fn commit(&mut self, submissions: Vec<Submission>) {
        let Some(deadline) = submissions.iter().map(|submission| submission.deadline).min() else {
            return;
        };
        match self.append(&submissions, deadline).await {
            Ok(positions) => answer_all(submissions, &positions),
            Err(GivenUp::Late) => {
                for submission in submissions {
                    submission.answer(Err(Unavailable::Database));
                }
            }
            Err(GivenUp::Refused(why)) if submissions.len() == 1 => {
                for submission in submissions {
                    let answer = self.set_aside(&submission, &why).await;
                    submission.answer(answer);
                }
            }
            Err(GivenUp::Refused(_)) => {
                for submission in submissions {
                    Box::pin(self.commit(vec![submission])).await;
                }
            }
        }
    }

    /// Appends each distinct event of the batch, in key order; the positions of those that are new.
    async fn append(
        &mut self,
        submissions: &[Submission],
        deadline: Instant,
    ) -> Result<Positions, GivenUp> {
        let distinct: BTreeMap<_, _> = submissions
            .iter()
            .filter_map(|submission| event_of(submission))
            .map(|event| (event.key(), event))
            .collect();
        let batch: Vec<&NewEvent> = distinct.into_values().collect();
        let notify = self.options.notify;
        let recorded = self
            .persist(deadline, async |connection| events::append(connection, &batch, notify).await)
            .await?;
        Ok(recorded.into_iter().map(|new| ((new.created, new.id), new.position)).collect())
    }

    /// What the log cannot hold goes where anything can be held.
    async fn set_aside(
        &mut self,
        submission: &Submission,
        why: &str,
    ) -> Result<Outcome, Unavailable> {
        let Some(event) = event_of(submission) else {
            return Err(Unavailable::Database);
        };
        tracing::error!(event_id = %event.envelope.id, error = why, "the database refused an event; it goes to quarantine");
        let body = Quarantined {
            endpoint: event.endpoint.clone(),
            reason: "refused_by_database",
            detail: Some(why.to_owned()),
            event_id: Some(event.envelope.id.to_string()),
            raw: event.raw.clone(),
        };
        self.quarantine(&body, submission.deadline).await
    }

    async fn quarantine(
        &mut self,
        body: &Quarantined,
        deadline: Instant,
    ) -> Result<Outcome, Unavailable> {
        self.persist(deadline, async |connection| quarantine::keep(connection, body).await)
            .await
            .map(|()| Outcome::Quarantined { reason: body.reason })
            .map_err(|_| Unavailable::Database)
    }

    /// Runs a statement until it succeeds, is refused, or the deadline passes. After any error the
    /// connection is dropped: its state is unknown, and a new one costs little.
    async fn persist<T>(
        &mut self,
        deadline: Instant,
        statement: impl AsyncFn(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, GivenUp> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.attempt(&statement).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if error.fault() == Fault::Data {
                return Err(GivenUp::Refused(error.to_string()));
            }
            self.connection = None;
            if Instant::now() + pause >= deadline {
                tracing::error!(%error, "the database did not take a batch in time");
                return Err(GivenUp::Late);
            }
            tracing::warn!(%error, "writing failed, trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt<T>(
        &mut self,
        statement: &impl AsyncFn(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.database.connect().await?,
        };
        let timeout = self.options.attempt_timeout;
        let done = tokio::time::timeout(timeout, statement(&mut connection))
            .await
            .map_err(|_| StoreError::TimedOut(timeout))
            .flatten();
        // A refusal of data leaves the connection as good as new.
        if done.as_ref().map_or_else(|error| error.fault() == Fault::Data, |_| true) {
            self.connection = Some(connection);
        }
        done
    }
}

/// The positions of new events, by key.
type Positions = BTreeMap<(time::OffsetDateTime, String), i64>;

fn event_of(submission: &Submission) -> Option<&NewEvent> {
    match &submission.work {
        Work::Event(event) => Some(event),
        Work::Quarantine(_) => None,
    }
}

/// Of several deliveries of one new event, the first is told that it was recorded.
fn answer_all(submissions: Vec<Submission>, positions: &Positions) {
    let mut positions = positions.clone();
    for submission in submissions {
        let recorded = event_of(&submission).and_then(|event| {
            positions.remove(&(event.envelope.created, event.envelope.id.to_string()))
        });
        let outcome =
            recorded.map_or(Outcome::Duplicate, |position| Outcome::Recorded { position });
        submission.answer(Ok(outcome));
    }
}
