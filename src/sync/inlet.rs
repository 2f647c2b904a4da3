//! The way into the log for what Stripe was asked for: the same queue and the same writer that a
//! webhook's event meets, with a lane of its own beside those of the HTTP threads.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::error::{ApiError, SyncError};
use crate::ingest::error::NotWritten;
use crate::ingest::queue::{Limits, Outcome, Queue, Work};
use crate::ingest::writer::{Writer, WriterOptions};
use crate::store::connect::Database;
use crate::store::events::NewEvent;

/// Waits before what was not written in time is handed over again, doubling; then it is an error.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const TRIES: u32 = 4;

/// A queue with a writer behind it.
#[derive(Debug)]
pub struct Inlet {
    queue: Arc<Queue>,
    writer: JoinHandle<()>,
    /// How long an event may take to COMMIT.
    deadline: Duration,
}

impl Inlet {
    /// Starts the writer.
    pub fn open(database: Database, options: WriterOptions, deadline: Duration) -> Self {
        // Whoever hands over waits for the answer: what waits is bounded by what they hold.
        let queue = Arc::new(Queue::new(Limits { events: usize::MAX, bytes: usize::MAX }));
        let writer = Writer::new(Arc::clone(&queue), database, options);
        Self { queue, writer: tokio::spawn(writer.run()), deadline }
    }

    /// Has events committed; returns what became of each, in their order. One that a handler rejects
    /// is `None`: it is not in the log, as a webhook's would not be.
    pub async fn commit(&self, events: &[NewEvent]) -> Result<Vec<Option<Outcome>>, SyncError> {
        let mut outcomes = vec![None; events.len()];
        let mut left: Vec<usize> = (0..events.len()).collect();
        let mut wait = FIRST_WAIT;
        let mut tries = 0;
        loop {
            let deadline = Instant::now() + self.deadline;
            let handed: Vec<_> = left
                .iter()
                .map(|at| (*at, self.queue.submit(Work::Event(events[*at].clone()), deadline)))
                .collect();
            let many = left.len();
            left.clear();
            for (at, answer) in handed {
                let answer = match answer {
                    Ok(answer) => answer.await.unwrap_or(Err(NotWritten::Database)),
                    Err(refused) => Err(refused),
                };
                match answer {
                    Ok(outcome) => outcomes[at] = Some(outcome),
                    Err(NotWritten::Rejected) => {}
                    Err(NotWritten::ShuttingDown) => return Err(ApiError::Stopped.into()),
                    Err(NotWritten::Database | NotWritten::QueueFull) => left.push(at),
                }
            }
            if left.is_empty() {
                return Ok(outcomes);
            }
            // Slow handlers may leave time for a few only, but then for a few more.
            (tries, wait) = if left.len() < many { (0, FIRST_WAIT) } else { (tries + 1, wait) };
            if tries == TRIES {
                return Err(NotWritten::Database.into());
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }

    /// Writes what still waits and ends the writer.
    pub async fn close(self) {
        self.queue.close();
        drop(self.writer.await);
    }
}
