//! Times in buckets, without a metrics library.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in seconds, inclusive; one more bucket takes what is longer.
const BOUNDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Counts of times by length; O(1) to add.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, time: Duration) {
        self.observe_all(std::iter::once(time));
    }

    /// Touches what all threads share once for times that are alike, as those of one message are.
    pub(crate) fn observe_all(&self, times: impl Iterator<Item = Duration>) {
        let mut sum = Duration::ZERO;
        let (mut bucket, mut count) = (0, 0);
        let add = |bucket: usize, by| {
            if let Some(count) = self.counts.get(bucket) {
                count.fetch_add(by, Ordering::Relaxed);
            }
        };
        for time in times {
            sum = sum.saturating_add(time);
            let seconds = time.as_secs_f64();
            let place = BOUNDS.partition_point(|bound| *bound < seconds);
            if place != bucket {
                add(bucket, std::mem::take(&mut count));
                bucket = place;
            }
            count += 1;
        }
        add(bucket, count);
        let micros = u64::try_from(sum.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Times {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let counts = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        Times {
            buckets: bounds.zip(counts).collect(),
            sum_seconds: Duration::from_micros(self.sum_micros.load(Ordering::Relaxed))
                .as_secs_f64(),
        }
    }
}

/// A reading of a histogram of times.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    /// Upper bound in seconds, inclusive, and how many fell between the bound before and this one. The last bound is
    /// infinite. The counts do not add up over the buckets.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of all times in seconds.
    pub sum_seconds: f64,
}

impl Times {
    /// How many times there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_bucket_that_ends_at_it_or_after() {
        let histogram = Histogram::default();
        for micros in [1_000, 1_001, 99_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let times = histogram.read();
        assert_eq!(times.buckets.first(), Some(&(0.001, 1)));
        assert_eq!(times.buckets.get(1), Some(&(0.0025, 1)));
        assert_eq!(times.buckets.last(), Some(&(f64::INFINITY, 1)));
        assert_eq!(times.count(), 3);
        assert!((times.sum_seconds - 99.002_001).abs() < 1e-9);
    }
}
