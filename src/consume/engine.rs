//! Delivers one consumer's events to its target: claims, has as many attempts under way as are
//! allowed, settles what came of them. What an attempt is, is the target's.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::spans::AttemptSpans;
use super::tally::{Attempts, Tally};
use super::target::{Attempt, Delivery, Target, Verdict};
use super::wake::Waker;
use crate::store::StoreError;
use crate::store::consumers::{self, Settled, Settlement, Taken, TargetKind};
use crate::traces::Traces;

/// Most events that one claim takes: it bounds the bodies in memory, with the concurrency.
const MOST_AT_ONCE: usize = 64;

/// The state of a circuit breaker that lets one attempt through.
const HALF_OPEN: &str = "half_open";

/// Wait after the database failed, so that it is not asked in a hot loop.
const RETRY: Duration = Duration::from_secs(1);

/// One consumer's deliveries in this process. Others may do the same at the same time.
pub struct Engine {
    pool: PgPool,
    consumer: String,
    target: Arc<dyn Target>,
    concurrency: usize,
    tally: Arc<Tally>,
    attempts: Arc<Attempts>,
    under_way: JoinSet<Settlement>,
    done: Vec<Settlement>,
    /// Whether there may be more to claim.
    hungry: bool,
    /// When to look again at the latest; None for when woken.
    look_at: Option<Instant>,
    spans: AttemptSpans,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}

impl Engine {
    pub fn new(
        pool: PgPool,
        consumer: String,
        target: Arc<dyn Target>,
        concurrency: usize,
        tally: Arc<Tally>,
    ) -> Self {
        let attempts = tally.of(&consumer);
        Self {
            pool,
            consumer,
            target,
            concurrency,
            tally,
            attempts,
            under_way: JoinSet::new(),
            done: Vec::new(),
            hungry: true,
            look_at: None,
            spans: AttemptSpans::new(Traces::off(), TargetKind::Push),
        }
    }

    /// Makes a span of each attempt at an event that is traced.
    #[must_use]
    pub fn traced(self, traces: Traces, kind: TargetKind) -> Self {
        Self { spans: AttemptSpans::new(traces, kind), ..self }
    }

    /// Delivers until told to stop; attempts under way are then awaited and settled. Ends by itself
    /// when the consumer is dropped: there is nothing to settle then, however often it is tried.
    pub async fn run(mut self, mut waker: Waker, stop: CancellationToken) {
        loop {
            let stopping = stop.is_cancelled();
            // Database work is never cut short: a statement that is cancelled may have been done.
            let worked = match self.settle().await {
                Ok(()) if stopping => Ok(()),
                Ok(()) => self.fill().await,
                Err(error) => Err(error),
            };
            if let Err(error) = worked {
                if consumers::is_dropped(&error) {
                    tracing::info!(consumer = self.consumer, "the consumer was dropped");
                    return;
                }
                tracing::warn!(consumer = self.consumer, %error, "cannot claim or settle, trying again");
                self.hungry = true;
                tokio::time::sleep(RETRY).await;
                continue;
            }
            if stopping && self.under_way.is_empty() && self.done.is_empty() {
                return;
            }
            self.wait(&mut waker, &stop, stopping).await;
        }
    }

    /// Claims once, makes the attempts, settles them; returns how many there were.
    pub async fn run_once(&mut self) -> Result<usize, StoreError> {
        self.claim().await?;
        let attempts = self.under_way.len();
        while let Some(ended) = self.under_way.join_next().await {
            self.note(ended);
        }
        self.settle().await?;
        Ok(attempts)
    }

    /// Until something ended, or there may be something to claim; or until `stop`, unless that is
    /// known already, when something must be under way.
    async fn wait(&mut self, waker: &mut Waker, stop: &CancellationToken, stopping: bool) {
        let look_at = self.look_at;
        let due = async {
            match look_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let room = self.room() > 0 && !stopping;
        tokio::select! {
            Some(ended) = self.under_way.join_next() => {
                self.note(ended);
                // Whatever else has ended is settled with it.
                while let Some(ended) = self.under_way.try_join_next() {
                    self.note(ended);
                }
            }
            () = waker.next(), if room => self.hungry = true,
            () = due, if room => self.hungry = true,
            () = stop.cancelled(), if !stopping => {}
        }
    }

    /// One that panicked or was dropped is not settled: its lease runs out.
    fn note(&mut self, ended: Result<Settlement, tokio::task::JoinError>) {
        match ended {
            Ok(settlement) => self.done.push(settlement),
            Err(error) => tracing::error!(consumer = self.consumer, %error, "an attempt broke off"),
        }
    }

    fn room(&self) -> usize {
        self.concurrency.saturating_sub(self.under_way.len())
    }

    /// Claims while there is room and something to claim.
    async fn fill(&mut self) -> Result<(), StoreError> {
        while self.hungry && self.room() > 0 {
            self.claim().await?;
        }
        Ok(())
    }

    async fn claim(&mut self) -> Result<(), StoreError> {
        let most = self.room().min(MOST_AT_ONCE);
        self.look_at = None;
        match consumers::take(&self.pool, &self.consumer, most).await? {
            Taken::Nothing { due_in } => {
                self.hungry = false;
                self.look_at = due_in.map(|wait| Instant::now() + wait);
            }
            Taken::Batch { claim, mut events } => {
                self.spans.find(&self.pool, &mut events).await;
                // Still hungry, also if these are fewer than wanted: the rest may be behind others of
                // their objects, or wait for the rate or a retry, and the next look tells how long.
                for event in events {
                    let target = Arc::clone(&self.target);
                    self.under_way.spawn(attempt(target, self.spans.clone(), claim, event));
                }
            }
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), StoreError> {
        if self.done.is_empty() {
            return Ok(());
        }
        let settled = consumers::settle(&self.pool, &self.consumer, &self.done).await?;
        self.tell(&settled);
        self.done.clear();
        // Room, and perhaps events that waited for one of these.
        self.hungry = true;
        Ok(())
    }

    fn tell(&self, settled: &Settled) {
        let consumer = self.consumer.as_str();
        for Settlement { position, number, attempt, trace_id, .. } in &self.done {
            let Attempt { verdict, status, error, took, .. } = attempt;
            self.tally.took(*took);
            self.attempts.settled(*verdict);
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            match verdict {
                Verdict::Delivered => {
                    tracing::debug!(
                        consumer,
                        position,
                        attempt = number,
                        status,
                        took_ms,
                        trace_id,
                        "delivery.delivered"
                    );
                }
                Verdict::Retry { .. } | Verdict::Refused | Verdict::Gone => {
                    tracing::info!(consumer, position, attempt = number, status, took_ms, trace_id, %error, "delivery.failed");
                }
            }
        }
        let (was, is) = &settled.breaker;
        if was != is {
            if was == HALF_OPEN {
                // It turned to that when the probe was claimed, which is told with what came of it.
                self.attempts.turned(was);
                tracing::warn!(consumer, was = "open", is = was, "delivery.breaker");
            }
            self.attempts.turned(is);
            let until = settled.breaker_until.map(tracing::field::display);
            tracing::warn!(consumer, was, is, until, "delivery.breaker");
        }
        if settled.paused {
            tracing::warn!(consumer, "delivery.paused: the target answered 410 Gone");
        }
        if settled.stale > 0 {
            self.attempts.stale(settled.stale);
            tracing::warn!(
                consumer,
                events = settled.stale,
                "settled too late: the lease had run out, or the consumer was reset"
            );
        }
    }
}

async fn attempt(
    target: Arc<dyn Target>,
    spans: AttemptSpans,
    claim: i64,
    mut delivery: Delivery,
) -> Settlement {
    let span = spans.begin(&mut delivery);
    let attempt = target.deliver(&delivery).await;
    let trace_id = span.trace_id();
    AttemptSpans::end(span, &attempt);
    Settlement { claim, position: delivery.position, number: delivery.attempt, attempt, trace_id }
}
