//! Group commit: each writer takes everything that waits and commits it in one transaction.
//! Nobody waits on a timer: a lone event pays for one transaction, a burst shares one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::commit::{CommitError, CommitOptions, Committer};
use super::error::NotWritten;
use super::queue::{Limits, Outcome, Queue, Submission, Work};
use super::spans;
use crate::store::connect::{Database, WriterConnection};
use crate::store::events::{NewEvent, Recorded};
use crate::store::quarantine::{self, Quarantined};
use crate::store::{Fault, StoreError};
use crate::traces::Traces;

/// How a writer works.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// The most that one transaction takes.
    pub batch: Limits,
    pub commit: Arc<CommitOptions>,
    pub traces: Traces,
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
    committer: Committer,
    connection: Option<WriterConnection>,
}

/// Why a statement was given up.
enum GivenUp {
    /// The values were refused; the message says why.
    Refused(String),
    /// A handler refused one of them.
    Rejected,
    /// There was no time to ask handlers about more than so many of them.
    TooMany { fits: usize },
    /// The deadline passed.
    Late,
}

impl GivenUp {
    /// A kind for traces, and a sentence.
    fn told(&self) -> (&'static str, &str) {
        match self {
            Self::Refused(why) => ("refused", why),
            Self::Rejected => ("rejected", "a handler refused an event"),
            Self::TooMany { .. } => ("too_many", "the handlers took too long for so many events"),
            Self::Late => ("late", "the database did not take the batch in time"),
        }
    }

    /// How many of the events may be tried together next.
    fn fits(&self) -> usize {
        match self {
            Self::TooMany { fits } => *fits,
            Self::Refused(_) | Self::Rejected | Self::Late => 1,
        }
    }
}

impl Writer {
    pub fn new(queue: Arc<Queue>, database: Database, options: WriterOptions) -> Self {
        let committer = Committer::new(Arc::clone(&options.commit));
        Self { queue, database, options, committer, connection: None }
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
                submission.come_back();
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

    /// Commits the events together, or if that does not do, in parts: each by itself where one of
    /// them is refused, so that a poison event takes no neighbour down.
    async fn commit(&mut self, submissions: Vec<Submission>) {
        let mut parts = vec![submissions];
        while let Some(mut part) = parts.pop() {
            match self.append(&part).await {
                Ok(positions) => answer_all(part, positions),
                Err(GivenUp::Late) => part.into_iter().for_each(Submission::come_back),
                Err(given_up) if part.len() > 1 => parts.extend(split(part, given_up.fits())),
                Err(given_up) => {
                    let Some(lone) = part.pop() else { continue };
                    match given_up {
                        GivenUp::Refused(why) => self.set_aside(lone, why).await,
                        _ => lone.answer(Err(NotWritten::Rejected)),
                    }
                }
            }
        }
    }

    /// Appends each distinct event of the batch, in key order; the positions of those that are new.
    async fn append(&mut self, submissions: &[Submission]) -> Result<Positions, GivenUp> {
        let Some(deadline) = submissions.iter().map(|submission| submission.deadline).min() else {
            return Ok(Positions::new());
        };
        let mut distinct: BTreeMap<_, &NewEvent> = BTreeMap::new();
        for event in submissions.iter().filter_map(event_of) {
            let kept = distinct.entry(event.key()).or_insert(event);
            // One event, rendered for two endpoints: the later rendering is kept.
            if event.envelope.api_version > kept.envelope.api_version {
                *kept = event;
            }
        }
        let batch: Vec<&NewEvent> = distinct.into_values().collect();
        let mut spans = spans::commits(&self.options.traces, submissions);
        let recorded = self.persist(Statement::Append(&batch), deadline).await;
        if let Err(given_up) = &recorded {
            let (kind, sentence) = given_up.told();
            for span in &mut spans {
                span.fail(kind, sentence);
            }
        }
        // They end before those of the webhooks.
        drop(spans);
        let recorded = recorded?;
        Ok(recorded.into_iter().map(|new| ((new.created, new.id), new.position)).collect())
    }

    /// What the log cannot hold goes where anything can be held.
    async fn set_aside(&mut self, submission: Submission, why: String) {
        let Some(event) = event_of(&submission) else {
            return submission.come_back();
        };
        tracing::error!(event_id = %event.envelope.id, error = why, "the database refused an event; it goes to quarantine");
        let body = Quarantined {
            endpoint: event.endpoint.clone(),
            reason: "refused_by_database",
            detail: Some(why),
            event_id: Some(event.envelope.id.to_string()),
            raw: event.raw.clone(),
        };
        let answer = self.quarantine(&body, submission.deadline).await;
        submission.answer(answer);
    }

    async fn quarantine(
        &mut self,
        body: &Quarantined,
        deadline: Instant,
    ) -> Result<Outcome, NotWritten> {
        match self.persist(Statement::Keep(body), deadline).await {
            Ok(_) => Ok(Outcome::Quarantined { reason: body.reason }),
            Err(_) => Err(NotWritten::Database),
        }
    }

    /// Runs a statement until it succeeds, is refused, or the deadline passes.
    async fn persist(
        &mut self,
        statement: Statement<'_>,
        deadline: Instant,
    ) -> Result<Vec<Recorded>, GivenUp> {
        let mut pause = FIRST_PAUSE;
        let started = Instant::now();
        loop {
            let error = match self.attempt(statement, deadline).await {
                Ok(done) => {
                    let traffic = &self.options.commit.traffic;
                    traffic.committed(statement.events(), started.elapsed());
                    return Ok(done);
                }
                Err(error) => error,
            };
            match error {
                CommitError::Rejected { .. } => {
                    tracing::warn!(%error, "an event is refused");
                    return Err(GivenUp::Rejected);
                }
                CommitError::Spoiled(why) => return Err(GivenUp::Refused(why)),
                CommitError::Store(error) if error.fault() == Fault::Data => {
                    return Err(GivenUp::Refused(error.to_string()));
                }
                // One of them was too much for a statement of all; alone it is taken apart.
                CommitError::Store(error)
                    if error.fault() == Fault::Undecided && statement.events() > 1 =>
                {
                    return Err(GivenUp::Refused(error.to_string()));
                }
                CommitError::TooMany { fits } => return Err(GivenUp::TooMany { fits }),
                CommitError::Store(_) | CommitError::Interrupted { .. } => {}
            }
            if Instant::now() + pause >= deadline {
                tracing::error!(%error, "the database did not take a batch in time");
                return Err(GivenUp::Late);
            }
            tracing::warn!(%error, "writing failed, trying again");
            self.options.commit.traffic.retried();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(
        &mut self,
        statement: Statement<'_>,
        deadline: Instant,
    ) -> Result<Vec<Recorded>, CommitError> {
        let limit = self.options.commit.limit;
        let held = self.connection.take();
        let (database, committer) = (&self.database, &mut self.committer);
        let attempt = async {
            let mut connection = match held {
                Some(connection) => connection,
                None => database.connect_writer(limit).await?,
            };
            let done = statement.run(&mut connection, committer).await;
            Ok((done, connection))
        };
        let end = deadline.min(Instant::now() + limit);
        let (done, connection) = match timeout_at(end, attempt).await {
            Ok(finished) => finished.map_err(StoreError::Database)?,
            Err(_) => return Err(StoreError::TimedOut.into()),
        };
        // After some errors its state is unknown, and a new one costs little.
        let lost = match &done {
            Err(CommitError::Store(error)) => error.fault() == Fault::Transient,
            Err(CommitError::Interrupted { .. }) => true,
            Err(
                CommitError::Rejected { .. }
                | CommitError::Spoiled(_)
                | CommitError::TooMany { .. },
            )
            | Ok(_) => false,
        };
        if !lost {
            self.connection = Some(connection);
        }
        done
    }
}

/// What a writer asks of the database.
#[derive(Clone, Copy)]
enum Statement<'a> {
    Append(&'a [&'a NewEvent]),
    Keep(&'a Quarantined),
}

impl Statement<'_> {
    /// How many events it holds; a quarantined body counts as one.
    fn events(self) -> usize {
        match self {
            Self::Append(batch) => batch.len(),
            Self::Keep(_) => 1,
        }
    }

    /// The new events, of which a quarantined body is none.
    async fn run(
        self,
        connection: &mut WriterConnection,
        committer: &mut Committer,
    ) -> Result<Vec<Recorded>, CommitError> {
        match self {
            Self::Append(batch) => committer.commit(connection, batch).await,
            Self::Keep(body) => {
                Ok(quarantine::keep(connection, body).await.map(|()| Vec::new())?)
            }
        }
    }
}

/// The positions of new events, by key.
type Positions = BTreeMap<(time::OffsetDateTime, String), i64>;

/// Parts of at most `size`, and smaller than the whole; the first one comes last.
fn split(mut whole: Vec<Submission>, size: usize) -> Vec<Vec<Submission>> {
    let size = size.min(whole.len() - 1).max(1);
    let mut parts = Vec::new();
    while whole.len() > size {
        let rest = whole.split_off(size);
        parts.push(std::mem::replace(&mut whole, rest));
    }
    parts.push(whole);
    parts.reverse();
    parts
}

fn event_of(submission: &Submission) -> Option<&NewEvent> {
    match &submission.work {
        Work::Event(event) => Some(event),
        Work::Quarantine(_) => None,
    }
}

/// Of several deliveries of one new event, the first is told that it was recorded.
fn answer_all(submissions: Vec<Submission>, mut positions: Positions) {
    for submission in submissions {
        let position = event_of(&submission).and_then(|event| {
            positions.remove(&(event.envelope.created, event.envelope.id.to_string()))
        });
        let outcome =
            position.map_or(Outcome::Duplicate, |position| Outcome::Recorded { position });
        submission.answer(Ok(outcome));
    }
}
