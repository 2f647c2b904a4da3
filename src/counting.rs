//! Counters and histograms of plain atomics: to count is a few relaxed additions, without a lock.
//! What is counted, and who reads it, is not decided here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// So many of them, all zero.
pub fn counters<const N: usize>() -> [Counter; N] {
    std::array::from_fn(|_| Counter::default())
}

/// What they say.
pub fn read_all<const N: usize>(counters: &[Counter; N]) -> [u64; N] {
    counters.each_ref().map(Counter::read)
}

/// How many values fell into each bucket, and their sum. The last bucket is open.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    sum: Counter,
    buckets: [Counter; N],
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { sum: Counter::default(), buckets: counters() }
    }
}

impl<const N: usize> Histogram<N> {
    /// Counts a number; `bounds` are one fewer than the buckets.
    pub fn count(&self, bounds: &[u64], value: u64) {
        self.put(bucket(bounds, value), value);
    }

    /// Counts a time, which adds whole microseconds to the sum; `bounds` are in seconds.
    pub fn time(&self, bounds: &[f64], took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.put(bucket(bounds, took.as_secs_f64()), micros);
    }

    fn put(&self, bucket: usize, value: u64) {
        self.sum.add(value);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.add(1);
        }
    }

    /// The sum, and what each bucket holds.
    pub fn read(&self) -> (u64, [u64; N]) {
        (self.sum.read(), read_all(&self.buckets))
    }

    /// As `read`, of times: their sum in seconds.
    pub fn read_times(&self) -> (f64, [u64; N]) {
        let (micros, buckets) = self.read();
        (Duration::from_micros(micros).as_secs_f64(), buckets)
    }
}

/// The bucket that a value falls into: its bound is the first that is not less.
fn bucket<T: PartialOrd + Copy>(bounds: &[T], value: T) -> usize {
    bounds.partition_point(|bound| *bound < value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        let times = Histogram::<4>::default();
        for millis in [0, 1, 2, 10, 11, 99, 100, 101] {
            times.time(&[0.001, 0.01, 0.1], Duration::from_millis(millis));
        }
        let (sum, buckets) = times.read_times();
        assert_eq!(buckets, [2, 2, 3, 1]);
        assert!((sum - 0.324).abs() < 1e-9, "{sum}");
        let sizes = Histogram::<3>::default();
        for size in [0, 1, 2, 3, u64::MAX / 2] {
            sizes.count(&[1, 2], size);
        }
        assert_eq!(sizes.read().1, [2, 1, 2]);
    }
}
