//! Lanes: each HTTP thread has a queue and writers of its own, on that same thread. An event that
//! crossed to another thread and back would pay two wake-ups, which for a lone one is a tenth of
//! its latency. What a queue and a writer do stands in their own files.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;

use super::queue::{Depth, Limits, Queue};
use super::writer::{Writer, WriterOptions};
use crate::store::connect::Database;

/// All lanes of a gateway.
#[derive(Debug)]
pub struct Lanes {
    queues: Vec<Arc<Queue>>,
    /// Lanes that have found their thread.
    started: AtomicUsize,
    writers_each: usize,
    database: Database,
    options: WriterOptions,
    /// Cancelled when a writer ends, which none does while its queue is open.
    ended: CancellationToken,
}

impl Lanes {
    /// As many lanes as there are threads. `waiting` bounds them all together; each takes at least
    /// `largest` bytes, however many there are.
    pub fn new(
        threads: usize,
        writers_each: usize,
        waiting: Limits,
        largest: usize,
        database: Database,
        options: WriterOptions,
    ) -> Self {
        let share = Limits {
            events: waiting.events.div_ceil(threads),
            bytes: waiting.bytes.div_ceil(threads).max(largest),
        };
        Self {
            queues: (0..threads).map(|_| Arc::new(Queue::new(share))).collect(),
            started: AtomicUsize::new(0),
            writers_each,
            database,
            options,
            ended: CancellationToken::new(),
        }
    }

    /// Gives the calling thread its lane: starts the writers on it and returns the queue. The
    /// thread must run an actix worker; it is to ask once.
    pub fn start_here(&self) -> Arc<Queue> {
        let lane = self.started.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        let queue = &self.queues[lane];
        for _ in 0..self.writers_each {
            let writer = self.writer(queue);
            let ended = self.ended.clone().drop_guard();
            actix_web::rt::spawn(async move {
                writer.run().await;
                drop(ended);
            });
        }
        Arc::clone(queue)
    }

    fn writer(&self, queue: &Arc<Queue>) -> Writer {
        Writer::new(Arc::clone(queue), self.database.clone(), self.options.clone())
    }

    /// Returns when a writer has ended though its queue is open: nothing would be written any more.
    pub async fn writer_ended(&self) {
        self.ended.cancelled().await;
    }

    /// How full the queues are together.
    pub fn depth(&self) -> Depth {
        self.queues.iter().map(|queue| queue.depth()).fold(Depth::default(), |all, one| Depth {
            events: all.events + one.events,
            bytes: all.bytes + one.bytes,
            limits: Limits {
                events: all.limits.events + one.limits.events,
                bytes: all.limits.bytes + one.limits.bytes,
            },
        })
    }

    /// Refuses new events and writes those that still wait: the threads, and with them the writers,
    /// are gone by now, and so is everyone who could be answered.
    pub async fn drain(&self) {
        for queue in &self.queues {
            queue.close();
            self.writer(queue).run().await;
        }
    }
}
