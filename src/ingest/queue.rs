//! What waits to be written: a queue bounded by count and by bytes, shared by all writers.
//! Refuses rather than waits, so that a sender learns at once that it should come back.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::error::NotWritten;
use crate::store::events::NewEvent;
use crate::store::quarantine::Quarantined;

/// Something signed that must be kept.
#[derive(Debug)]
pub enum Work {
    Event(NewEvent),
    Quarantine(Quarantined),
}

impl Work {
    fn bytes(&self) -> usize {
        match self {
            Self::Event(event) => event.raw.len(),
            Self::Quarantine(body) => body.raw.len(),
        }
    }
}

/// What became of it, after COMMIT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Recorded { position: i64 },
    Duplicate,
    Quarantined { reason: &'static str },
}

impl Outcome {
    /// A stable name for answers, logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Recorded { .. } => "recorded",
            Self::Duplicate => "duplicate",
            Self::Quarantined { .. } => "quarantined",
        }
    }
}

/// A piece of work and the one who waits for it.
#[derive(Debug)]
pub struct Submission {
    pub work: Work,
    /// When it is no longer worth writing: the sender will have given up.
    pub deadline: Instant,
    waiter: oneshot::Sender<Result<Outcome, NotWritten>>,
}

impl Submission {
    /// Tells the waiter, if it is still there.
    pub fn answer(self, answer: Result<Outcome, NotWritten>) {
        // A client that hung up is no concern of the writer's: the event is kept all the same.
        drop(self.waiter.send(answer));
    }

    /// Tells the waiter that its work was not written in time.
    pub fn come_back(self) {
        self.answer(Err(NotWritten::Database));
    }
}

/// How much may wait, and how much is taken at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub events: usize,
    pub bytes: usize,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Submission>,
    bytes: usize,
    closed: bool,
}

/// How full the queue is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Depth {
    pub events: usize,
    pub bytes: usize,
    pub limits: Limits,
}

impl Queue {
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: Mutex::default(), arrived: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts work in line; what comes back resolves after COMMIT.
    pub fn submit(
        &self,
        work: Work,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Result<Outcome, NotWritten>>, NotWritten> {
        let (waiter, answer) = oneshot::channel();
        {
            let mut state = self.state();
            if state.closed {
                return Err(NotWritten::ShuttingDown);
            }
            let bytes = state.bytes + work.bytes();
            if state.waiting.len() >= self.limits.events || bytes > self.limits.bytes {
                return Err(NotWritten::QueueFull);
            }
            state.bytes = bytes;
            state.waiting.push_back(Submission { work, deadline, waiter });
        }
        self.arrived.notify_one();
        Ok(answer)
    }

    /// Waits for work, then takes all there is, up to `most`, without waiting for more.
    /// `None` once the queue is closed and empty.
    pub async fn take(&self, most: Limits) -> Option<Vec<Submission>> {
        loop {
            self.settle().await;
            {
                let mut state = self.state();
                if !state.waiting.is_empty() {
                    let batch = state.take(most);
                    if !state.waiting.is_empty() {
                        self.arrived.notify_one();
                    }
                    return Some(batch);
                }
                if state.closed {
                    // One notification wakes one writer: pass it on.
                    self.arrived.notify_one();
                    return None;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Lets the thread read first what has arrived at its sockets meanwhile, as long as that adds
    /// to what waits. No timer: an idle thread has nothing to read.
    async fn settle(&self) {
        let mut before = 0;
        loop {
            tokio::task::yield_now().await;
            let now = self.state().waiting.len();
            if now <= before {
                return;
            }
            before = now;
        }
    }

    /// Refuses new work; what is in line is still handed out.
    pub fn close(&self) {
        self.state().closed = true;
        self.arrived.notify_one();
    }

    pub fn depth(&self) -> Depth {
        let state = self.state();
        Depth { events: state.waiting.len(), bytes: state.bytes, limits: self.limits }
    }
}

impl State {
    /// At least one, however large.
    fn take(&mut self, most: Limits) -> Vec<Submission> {
        let mut batch = Vec::with_capacity(self.waiting.len().min(most.events));
        let mut taken = 0;
        while let Some(next) = self.waiting.front() {
            let bytes = next.work.bytes();
            if !batch.is_empty() && (batch.len() >= most.events || taken + bytes > most.bytes) {
                break;
            }
            taken += bytes;
            batch.extend(self.waiting.pop_front());
        }
        self.bytes -= taken;
        batch
    }
}
