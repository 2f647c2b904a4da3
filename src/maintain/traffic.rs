//! Writes down what this gateway counted of deliveries, and forgets old minutes of all gateways.
//! What is counted is `ingest::traffic`'s, how it is added up `store::traffic`'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::ingest::traffic::Traffic;
use crate::store::StoreError;
use crate::store::traffic::{self, Counts, Ending, Minute};

/// How often counts are written: how far charts are behind.
const INTERVAL: Duration = Duration::from_secs(5);

/// Minutes kept for a database that does not answer. Beyond that the oldest are put together.
const MINUTES_WAITING: usize = 360;

/// How long minutes are kept.
const KEPT: Duration = Duration::from_hours(90 * 24);

/// Rows deleted in one statement, and statements in one run.
const ROWS_AT_ONCE: i64 = 10_000;
const STATEMENTS_AT_ONCE: usize = 100;

/// The duty, and what it has not written yet.
#[derive(Debug)]
pub struct Ledger {
    clock: Clock,
    traffic: Arc<Traffic>,
    seen: [Counts; Ending::ALL.len()],
    /// By minute, in Unix seconds, and ending.
    waiting: BTreeMap<(i64, Ending), Counts>,
}

impl Ledger {
    pub fn new(clock: Clock, traffic: Arc<Traffic>) -> Self {
        Self { clock, traffic, seen: Default::default(), waiting: BTreeMap::new() }
    }

    /// Writes every `INTERVAL` until told to stop, and then once more: by then nothing is counted
    /// any longer.
    pub async fn run(mut self, pool: PgPool, stop: CancellationToken) {
        let mut failing = false;
        loop {
            let stopping = stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none();
            match self.run_once(&pool).await {
                Ok(()) => failing = false,
                // Once, because it comes again every few seconds.
                Err(error) if !failing => {
                    tracing::warn!(%error, "the counts of deliveries are not written; they are kept for later");
                    failing = true;
                }
                Err(_) => {}
            }
            if stopping {
                return;
            }
        }
    }

    /// Writes what was counted since the last time. What cannot be written is kept; if only the
    /// answer of the database got lost it is written twice, which is well for a chart.
    pub async fn run_once(&mut self, pool: &PgPool) -> Result<(), StoreError> {
        self.take();
        if self.waiting.is_empty() {
            return Ok(());
        }
        let minute = |(key, counts): (&(i64, Ending), &Counts)| Minute {
            at: OffsetDateTime::from_unix_timestamp(key.0).unwrap_or(OffsetDateTime::UNIX_EPOCH),
            ending: key.1,
            counts: *counts,
        };
        let minutes: Vec<_> = self.waiting.iter().map(minute).collect();
        traffic::add(pool, &minutes).await?;
        self.waiting.clear();
        Ok(())
    }

    fn take(&mut self) {
        let minute = self.clock.unix_seconds().div_euclid(60) * 60;
        let now = self.traffic.endings();
        for (ending, (now, seen)) in Ending::ALL.into_iter().zip(now.iter().zip(&self.seen)) {
            let new = now.since(seen);
            if new.deliveries() > 0 {
                self.waiting.entry((minute, ending)).or_default().add(&new);
            }
        }
        self.seen = now;
        while self.waiting.len() > MINUTES_WAITING * Ending::ALL.len() {
            let Some(((at, ending), oldest)) = self.waiting.pop_first() else { break };
            let next = self.waiting.keys().find(|(_, other)| *other == ending).copied();
            self.waiting.entry(next.unwrap_or((at, ending))).or_default().add(&oldest);
            if next.is_none() {
                break;
            }
        }
    }
}

/// Forgets minutes older than `KEPT`.
pub async fn run_once(pool: &PgPool, clock: &Clock) -> Result<(), StoreError> {
    let before = clock.now() - KEPT;
    for _ in 0..STATEMENTS_AT_ONCE {
        if traffic::forget(pool, before, ROWS_AT_ONCE).await? == 0 {
            break;
        }
    }
    Ok(())
}
