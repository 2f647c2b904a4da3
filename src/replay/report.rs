//! What became of the deliveries, counted and timed.
//! How they are sent is `sender`'s affair; how the figures are shown, the caller's.

use std::collections::BTreeMap;
use std::time::Duration;

use super::source::Origin;

/// How one delivery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Committed, for the first time.
    Recorded,
    /// Committed before.
    Duplicate,
    /// Put aside: signed, but no usable event.
    Quarantined,
    /// A 2xx that does not say which of these: the receiver is no Tollgate.
    Accepted,
    /// An answer that is no 2xx.
    Refused { status: u16, code: String, detail: String },
    /// No answer. `kind` is a stable name, `detail` what the system said.
    Failed { kind: &'static str, detail: String },
}

/// One delivery, done.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub outcome: Outcome,
    /// From the time it was due to its last answer, waits between attempts included.
    pub latency: Duration,
    /// Attempts after the first.
    pub retries: u32,
    pub origin: Origin,
}

/// Deliveries that ended the same way, and the first of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub count: usize,
    /// The first one's explanation.
    pub detail: String,
    /// Where the first one came from.
    pub origin: Origin,
}

/// The sum of all deliveries so far.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Deliveries to make; more than [`Report::sent`] when the run was ended early.
    pub planned: usize,
    pub recorded: usize,
    pub duplicate: usize,
    pub quarantined: usize,
    pub accepted: usize,
    /// By status and the problem's `code`, which is empty where the answer gave none.
    pub refusals: BTreeMap<(u16, String), Group>,
    /// By kind of failure.
    pub failures: BTreeMap<&'static str, Group>,
    pub retries: u64,
    /// From the first delivery's start to the last one's end.
    pub elapsed: Duration,
    /// In ascending order once the run is over.
    pub latencies: Vec<Duration>,
}

impl Report {
    pub(super) fn add(&mut self, delivered: Delivered) {
        self.latencies.push(delivered.latency);
        self.retries += u64::from(delivered.retries);
        let group = |detail| Group { count: 0, detail, origin: delivered.origin };
        match delivered.outcome {
            Outcome::Recorded => self.recorded += 1,
            Outcome::Duplicate => self.duplicate += 1,
            Outcome::Quarantined => self.quarantined += 1,
            Outcome::Accepted => self.accepted += 1,
            Outcome::Refused { status, code, detail } => {
                self.refusals.entry((status, code)).or_insert_with(|| group(detail)).count += 1;
            }
            Outcome::Failed { kind, detail } => {
                self.failures.entry(kind).or_insert_with(|| group(detail)).count += 1;
            }
        }
    }

    /// Deliveries that got an answer, or of which it is known that there is none.
    pub fn sent(&self) -> usize {
        self.latencies.len()
    }

    pub fn refused(&self) -> usize {
        self.refusals.values().map(|group| group.count).sum()
    }

    pub fn failed(&self) -> usize {
        self.failures.values().map(|group| group.count).sum()
    }

    /// Whether everything planned was sent and answered with 2xx.
    pub fn complete(&self) -> bool {
        self.refusals.is_empty() && self.failures.is_empty() && self.sent() == self.planned
    }

    /// Deliveries per second; 0 if no time has passed.
    pub fn rate(&self) -> f64 {
        let sent = f64::from(u32::try_from(self.sent()).unwrap_or(u32::MAX));
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { sent / seconds } else { 0.0 }
    }

    /// The latency that `per_mille` thousandths of the deliveries did not exceed; zero if there
    /// were none. Holds once the run is over.
    pub fn latency(&self, per_mille: usize) -> Duration {
        quantile(&self.latencies, per_mille).unwrap_or_default()
    }
}

/// The smallest of `sorted` that at least `per_mille` thousandths of them do not exceed.
pub fn quantile<T: Copy>(sorted: &[T], per_mille: usize) -> Option<T> {
    let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_nearest_rank() {
        let hundred: Vec<_> = (1..=100).collect();
        for (per_mille, expected) in [(0, 1), (500, 50), (990, 99), (999, 100), (1000, 100)] {
            assert_eq!(quantile(&hundred, per_mille), Some(expected));
        }
        assert_eq!(quantile(&[7], 500), Some(7));
        assert_eq!(quantile::<u32>(&[], 500), None);
    }
}
