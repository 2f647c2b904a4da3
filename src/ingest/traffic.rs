//! What deliveries came to, counted as they end: plain atomics, one set per gateway. Who writes the
//! counts down (`maintain::traffic`) and who shows them (`http::metrics`) is not decided here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::IngestError;
use super::queue::Outcome;
use crate::store::failures::Stage;
use crate::store::traffic::{Counts, Ending, LATENCY_BOUNDS, LATENCY_BUCKETS};
use crate::stripe::order::Basis;
use crate::stripe::types::{self, TYPES};

/// Every code that a delivery can end with, and how it then ended. The first three are [`Outcome`]'s
/// and stand in the order of [`Ending`].
pub const CODES: [(&str, Ending); 20] = [
    ("recorded", Ending::Recorded),
    ("duplicate", Ending::Duplicate),
    ("quarantined", Ending::Quarantined),
    ("endpoint_unknown", Ending::Refused),
    ("body_too_large", Ending::Refused),
    ("body_timeout", Ending::Refused),
    ("body_incomplete", Ending::Refused),
    ("signature_missing", Ending::Refused),
    ("signature_malformed", Ending::Refused),
    ("signature_no_v1", Ending::Refused),
    ("signature_mismatch", Ending::Refused),
    ("timestamp_too_old", Ending::Refused),
    ("timestamp_in_future", Ending::Refused),
    ("body_altered", Ending::Refused),
    (CLIENT_GONE, Ending::Refused),
    ("queue_full", Ending::Failed),
    ("shutting_down", Ending::Failed),
    ("database_unavailable", Ending::Failed),
    ("handler_rejected", Ending::Failed),
    (UNLISTED, Ending::Failed),
];

/// The sender hung up before its answer was ready. The event may have been recorded all the same.
pub const CLIENT_GONE: &str = "client_gone";

/// For a code that is missing above; a test keeps it at zero.
const UNLISTED: &str = "unlisted";

/// Upper bounds for the number of events in one commit.
pub const BATCH_BOUNDS: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// The ways in which a tie is decided, in the order of their counts.
pub const BASES: [Basis; 6] =
    [Basis::Unique, Basis::Same, Basis::Chain, Basis::Pairwise, Basis::Rank, Basis::Tiebreak];

/// Everything that is counted of ingest. To count is a few relaxed additions: the numbers may be
/// read a little apart, and none gets lost.
#[derive(Debug)]
pub struct Traffic {
    codes: [AtomicU64; CODES.len()],
    endings: [Tally; Ending::ALL.len()],
    types: [AtomicU64; TYPES.len() + 1],
    commits: AtomicU64,
    retries: AtomicU64,
    batch_events: Histogram<{ BATCH_BOUNDS.len() + 1 }>,
    batch_time: Histogram<LATENCY_BUCKETS>,
    ties: [AtomicU64; BASES.len()],
    projection_failures: AtomicU64,
    handler_failures: AtomicU64,
}

#[derive(Debug, Default)]
struct Tally {
    bytes: AtomicU64,
    time: Histogram<LATENCY_BUCKETS>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            codes: zeros(),
            endings: Default::default(),
            types: zeros(),
            commits: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            batch_events: Histogram::default(),
            batch_time: Histogram::default(),
            ties: zeros(),
            projection_failures: AtomicU64::new(0),
            handler_failures: AtomicU64::new(0),
        }
    }
}

impl Traffic {
    /// A delivery got its answer.
    pub fn answered(
        &self,
        answer: Result<&Outcome, &IngestError>,
        event_type: Option<&str>,
        bytes: usize,
        took: Duration,
    ) {
        let code = match answer {
            Ok(Outcome::Recorded { .. }) => {
                add(&self.types[event_type.map_or(TYPES.len(), types::index)], 1);
                0
            }
            Ok(Outcome::Duplicate) => 1,
            Ok(Outcome::Quarantined { .. }) => 2,
            Err(error) => place(error.code()),
        };
        self.ended(code, bytes, took);
    }

    /// A sender hung up before that.
    pub fn abandoned(&self, bytes: usize, took: Duration) {
        self.ended(place(CLIENT_GONE), bytes, took);
    }

    fn ended(&self, code: usize, bytes: usize, took: Duration) {
        add(&self.codes[code], 1);
        let tally = &self.endings[CODES[code].1 as usize];
        add(&tally.bytes, bytes as u64);
        tally.time.observe(took);
    }

    /// A transaction of so many events was committed, in so much time, with all its attempts.
    pub fn committed(&self, events: usize, took: Duration) {
        add(&self.commits, 1);
        let events = events as u64;
        self.batch_events.count(events, bucket(&BATCH_BOUNDS, events));
        self.batch_time.observe(took);
    }

    /// A transaction failed and is tried again.
    pub fn retried(&self) {
        add(&self.retries, 1);
    }

    /// An object's newest state was found in the log.
    pub fn tied(&self, basis: Basis) {
        if let Some(at) = BASES.iter().position(|known| *known == basis) {
            add(&self.ties[at], 1);
        }
    }

    /// An attempt of a billing table or a handler failed, and that was committed.
    pub fn failed(&self, stage: &Stage) {
        match stage {
            Stage::Projection => add(&self.projection_failures, 1),
            Stage::Handler(_) => add(&self.handler_failures, 1),
        }
    }

    /// How many deliveries ended with each code, in the order of [`CODES`].
    pub fn codes(&self) -> [u64; CODES.len()] {
        read(&self.codes)
    }

    /// What ended how, in the order of [`Ending::ALL`].
    pub fn endings(&self) -> [Counts; Ending::ALL.len()] {
        self.endings.each_ref().map(|tally| {
            let (micros, latency) = tally.time.read();
            let seconds = Duration::from_micros(micros).as_secs_f64();
            Counts { bytes: tally.bytes.load(Ordering::Relaxed), seconds, latency }
        })
    }

    /// How many new events there were of each type, in the order of [`TYPES`] and then all others.
    pub fn types(&self) -> [u64; TYPES.len() + 1] {
        read(&self.types)
    }

    /// How many transactions were committed.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// How often one was tried again.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Events per commit: their sum, and how many commits fell into each bucket of [`BATCH_BOUNDS`].
    pub fn batch_events(&self) -> (u64, [u64; BATCH_BOUNDS.len() + 1]) {
        self.batch_events.read()
    }

    /// Time per commit: its sum, and how many fell into each bucket of [`LATENCY_BOUNDS`].
    pub fn batch_time(&self) -> (Duration, [u64; LATENCY_BUCKETS]) {
        let (micros, buckets) = self.batch_time.read();
        (Duration::from_micros(micros), buckets)
    }

    /// How many ties were decided in each way, in the order of [`BASES`].
    pub fn ties(&self) -> [u64; BASES.len()] {
        read(&self.ties)
    }

    /// Failed attempts of billing tables, and of handlers.
    pub fn failures(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.projection_failures), read(&self.handler_failures))
    }
}

/// How many values fell into each bucket, and their sum.
#[derive(Debug)]
struct Histogram<const N: usize> {
    sum: AtomicU64,
    buckets: [AtomicU64; N],
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { sum: AtomicU64::new(0), buckets: zeros() }
    }
}

impl<const N: usize> Histogram<N> {
    fn count(&self, value: u64, bucket: usize) {
        add(&self.sum, value);
        add(&self.buckets[bucket], 1);
    }

    fn read(&self) -> (u64, [u64; N]) {
        (self.sum.load(Ordering::Relaxed), read(&self.buckets))
    }
}

impl Histogram<LATENCY_BUCKETS> {
    /// In whole microseconds.
    fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.count(micros, bucket(&LATENCY_BOUNDS, took.as_secs_f64()));
    }
}

/// The bucket that a value falls into: its bound is the first that is not less.
fn bucket<T: PartialOrd + Copy>(bounds: &[T], value: T) -> usize {
    bounds.partition_point(|bound| *bound < value)
}

fn place(code: &str) -> usize {
    CODES.iter().position(|(known, _)| *known == code).unwrap_or(CODES.len() - 1)
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

fn read<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    counters.each_ref().map(|counter| counter.load(Ordering::Relaxed))
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::error::NotWritten;
    use crate::stripe::signature::{Alteration, SignatureError};

    #[test]
    fn every_code_has_its_place() {
        use SignatureError as Bad;
        let errors = [
            IngestError::UnknownEndpoint,
            IngestError::BodyTooLarge { limit: 1 },
            IngestError::BodyTimeout(Duration::ZERO),
            IngestError::BodyIncomplete,
            IngestError::Signature(Bad::Missing),
            IngestError::Signature(Bad::Malformed),
            IngestError::Signature(Bad::NoV1),
            IngestError::Signature(Bad::NoMatch),
            IngestError::Signature(Bad::TooOld { age: 1, tolerance: 1 }),
            IngestError::Signature(Bad::InFuture { ahead: 1, tolerance: 1 }),
            IngestError::Signature(Bad::Altered(Alteration::WhiteSpace)),
            IngestError::NotWritten(NotWritten::QueueFull),
            IngestError::NotWritten(NotWritten::ShuttingDown),
            IngestError::NotWritten(NotWritten::Database),
            IngestError::NotWritten(NotWritten::Rejected),
        ];
        let traffic = Traffic::default();
        for error in &errors {
            traffic.answered(Err(error), None, 0, Duration::ZERO);
        }
        for outcome in [
            Outcome::Recorded { position: 1 },
            Outcome::Duplicate,
            Outcome::Quarantined { reason: "x" },
        ] {
            assert_eq!(outcome.as_str(), CODES[place(outcome.as_str())].1.as_str());
            traffic.answered(Ok(&outcome), None, 0, Duration::ZERO);
        }
        traffic.abandoned(0, Duration::ZERO);
        let mut once = [1; CODES.len()];
        once[CODES.len() - 1] = 0;
        assert_eq!(traffic.codes(), once);
    }

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        let traffic = Traffic::default();
        for micros in [0, 250, 251, 200_000, 30_000_000, 30_000_001] {
            traffic.abandoned(10, Duration::from_micros(micros));
        }
        let refused = traffic.endings()[Ending::Refused as usize];
        let filled: Vec<_> = (0..LATENCY_BUCKETS).filter(|at| refused.latency[*at] > 0).collect();
        assert_eq!(filled, [0, 1, 16, 23, 24]);
        assert_eq!(refused.latency[0], 2);
        assert_eq!((refused.deliveries(), refused.bytes), (6, 60));
        assert!((refused.seconds - 60.200_502).abs() < 1e-9);
    }
}
