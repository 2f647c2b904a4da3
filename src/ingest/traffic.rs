//! What deliveries came to, counted as they end: plain atomics, one set per gateway. Who writes the
//! counts down (`maintain::traffic`) and who shows them (`http::metrics`) is not decided here.

use std::time::Duration;

use super::IngestError;
use super::queue::Outcome;
use crate::counting::{Counter, Histogram, counters, read_all};
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
    codes: [Counter; CODES.len()],
    endings: [Ended; Ending::ALL.len()],
    types: [Counter; TYPES.len() + 1],
    commits: Counter,
    retries: Counter,
    batch_events: Histogram<{ BATCH_BOUNDS.len() + 1 }>,
    batch_time: Histogram<LATENCY_BUCKETS>,
    ties: [Counter; BASES.len()],
    projection_failures: Counter,
    handler_failures: Counter,
}

#[derive(Debug, Default)]
struct Ended {
    bytes: Counter,
    time: Histogram<LATENCY_BUCKETS>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            codes: counters(),
            endings: Default::default(),
            types: counters(),
            commits: Counter::default(),
            retries: Counter::default(),
            batch_events: Histogram::default(),
            batch_time: Histogram::default(),
            ties: counters(),
            projection_failures: Counter::default(),
            handler_failures: Counter::default(),
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
                self.types[event_type.map_or(TYPES.len(), types::index)].add(1);
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
        self.codes[code].add(1);
        let tally = &self.endings[CODES[code].1 as usize];
        tally.bytes.add(bytes as u64);
        tally.time.time(&LATENCY_BOUNDS, took);
    }

    /// A transaction of so many events was committed, in so much time, with all its attempts.
    pub fn committed(&self, events: usize, took: Duration) {
        self.commits.add(1);
        self.batch_events.count(&BATCH_BOUNDS, events as u64);
        self.batch_time.time(&LATENCY_BOUNDS, took);
    }

    /// A transaction failed and is tried again.
    pub fn retried(&self) {
        self.retries.add(1);
    }

    /// An object's newest state was found in the log.
    pub fn tied(&self, basis: Basis) {
        if let Some(at) = BASES.iter().position(|known| *known == basis) {
            self.ties[at].add(1);
        }
    }

    /// An attempt of a billing table or a handler failed, and that was committed.
    pub fn failed(&self, stage: &Stage) {
        match stage {
            Stage::Projection => self.projection_failures.add(1),
            Stage::Handler(_) => self.handler_failures.add(1),
        }
    }

    /// How many deliveries ended with each code, in the order of [`CODES`].
    pub fn codes(&self) -> [u64; CODES.len()] {
        read_all(&self.codes)
    }

    /// What ended how, in the order of [`Ending::ALL`].
    pub fn endings(&self) -> [Counts; Ending::ALL.len()] {
        self.endings.each_ref().map(|tally| {
            let (seconds, latency) = tally.time.read_times();
            Counts { bytes: tally.bytes.read(), seconds, latency }
        })
    }

    /// How many new events there were of each type, in the order of [`TYPES`] and then all others.
    pub fn types(&self) -> [u64; TYPES.len() + 1] {
        read_all(&self.types)
    }

    /// How many transactions were committed.
    pub fn commits(&self) -> u64 {
        self.commits.read()
    }

    /// How often one was tried again.
    pub fn retries(&self) -> u64 {
        self.retries.read()
    }

    /// Events per commit: their sum, and how many commits fell into each bucket of [`BATCH_BOUNDS`].
    pub fn batch_events(&self) -> (u64, [u64; BATCH_BOUNDS.len() + 1]) {
        self.batch_events.read()
    }

    /// Time per commit: its sum in seconds, and how many fell into each bucket of [`LATENCY_BOUNDS`].
    pub fn batch_time(&self) -> (f64, [u64; LATENCY_BUCKETS]) {
        self.batch_time.read_times()
    }

    /// How many ties were decided in each way, in the order of [`BASES`].
    pub fn ties(&self) -> [u64; BASES.len()] {
        read_all(&self.ties)
    }

    /// Failed attempts of billing tables, and of handlers.
    pub fn failures(&self) -> (u64, u64) {
        (self.projection_failures.read(), self.handler_failures.read())
    }
}

fn place(code: &str) -> usize {
    CODES.iter().position(|(known, _)| *known == code).unwrap_or(CODES.len() - 1)
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
}
