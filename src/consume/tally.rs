//! What came of attempts at deliveries, counted as they are settled, one set per gateway.
//! What is still to be delivered stands in the database (`store::gauges`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::target::Verdict;
use crate::counting::{Counter, Histogram, counters, read_all};

/// Most consumers that are told apart; further ones are counted as [`REST`].
pub const MOST_CONSUMERS: usize = 200;

/// The label of all other consumers together; none can have that name.
pub const REST: &str = "(rest)";

/// Upper bounds for the time that an attempt takes, in seconds.
pub const TIME_BOUNDS: [f64; 13] =
    [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What an attempt can come to, and what a circuit breaker can turn to: in the order of their counts.
pub const VERDICTS: [&str; 4] = ["delivered", "retry", "refused", "gone"];
pub const TURNS: [&str; 3] = ["open", "half_open", "closed"];

/// All attempts of this gateway.
#[derive(Debug, Default)]
pub struct Tally {
    consumers: Mutex<BTreeMap<String, Arc<Attempts>>>,
    time: Histogram<{ TIME_BOUNDS.len() + 1 }>,
}

/// Those for one consumer.
#[derive(Debug)]
pub struct Attempts {
    verdicts: [Counter; VERDICTS.len()],
    turns: [Counter; TURNS.len()],
    stale: Counter,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { verdicts: counters(), turns: counters(), stale: Counter::default() }
    }
}

impl Tally {
    /// Where a consumer's attempts are counted. Takes a lock: ask once.
    pub fn of(&self, consumer: &str) -> Arc<Attempts> {
        // Nothing panics while holding the lock, so a poisoned map is still whole.
        let mut consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attempts) = consumers.get(consumer) {
            return Arc::clone(attempts);
        }
        let own = consumers.keys().filter(|name| *name != REST).count() < MOST_CONSUMERS;
        let name = if own { consumer } else { REST };
        Arc::clone(consumers.entry(name.to_owned()).or_default())
    }

    /// An attempt took so long.
    pub fn took(&self, took: Duration) {
        self.time.time(&TIME_BOUNDS, took);
    }

    /// The attempts of each consumer, by name.
    pub fn all(&self) -> Vec<(String, Arc<Attempts>)> {
        let consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        consumers.iter().map(|(name, attempts)| (name.clone(), Arc::clone(attempts))).collect()
    }

    /// What attempts took: the sum in seconds, and how many fell into each bucket of [`TIME_BOUNDS`].
    pub fn times(&self) -> (f64, [u64; TIME_BOUNDS.len() + 1]) {
        self.time.read_times()
    }
}

impl Attempts {
    /// An attempt was settled.
    pub fn settled(&self, verdict: Verdict) {
        let at = match verdict {
            Verdict::Delivered => 0,
            Verdict::Retry { .. } => 1,
            Verdict::Refused => 2,
            Verdict::Gone => 3,
        };
        self.verdicts[at].add(1);
    }

    /// The circuit breaker turned to a state.
    pub fn turned(&self, to: &str) {
        if let Some(at) = TURNS.iter().position(|known| *known == to) {
            self.turns[at].add(1);
        }
    }

    /// So many were settled too late to count.
    pub fn stale(&self, events: usize) {
        self.stale.add(events as u64);
    }

    /// In the order of [`VERDICTS`].
    pub fn verdicts(&self) -> [u64; VERDICTS.len()] {
        read_all(&self.verdicts)
    }

    /// In the order of [`TURNS`].
    pub fn turns(&self) -> [u64; TURNS.len()] {
        read_all(&self.turns)
    }

    pub fn settled_late(&self) -> u64 {
        self.stale.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_consumers_are_told_apart_and_the_rest_is_summed() {
        let tally = Tally::default();
        for round in 0..2 {
            for number in 0..MOST_CONSUMERS + 50 {
                tally.of(&format!("c{number}")).settled(Verdict::Gone);
            }
            assert_eq!(tally.all().len(), MOST_CONSUMERS + 1, "round {round}");
        }
        assert_eq!(tally.of("c7").verdicts(), [0, 0, 0, 2]);
        assert_eq!(tally.of(REST).verdicts(), [0, 0, 0, 100]);
    }
}
