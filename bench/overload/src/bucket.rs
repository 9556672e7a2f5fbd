//! Envoy's token bucket: whole tokens, filled in steps of at least 50 ms, full after each change of its configuration.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tokens and nanoseconds of a simulation"
)]

/// Shortest fill interval that Envoy takes.
const STEP_MS: u64 = 50;
const MS: u64 = 1_000_000;

/// A bucket of one proxy. Times are nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    tokens: u64,
    max: u64,
    per_fill: u64,
    every: u64,
    filled_at: u64,
    /// The configuration, to see whether it changes.
    rate: f64,
    seconds: f64,
}

impl Bucket {
    /// A full bucket for `rate` requests per second that lasts `seconds` at that rate.
    pub fn new(rate: f64, seconds: f64, now: u64) -> Self {
        let (per_fill, every) = steps(rate);
        let max = ((rate * seconds).round() as u64).max(per_fill).max(1);
        Self {
            tokens: max,
            max,
            per_fill,
            every,
            filled_at: now,
            rate,
            seconds,
        }
    }

    /// Whether it was made for this configuration.
    pub fn is_for(&self, rate: f64, seconds: f64) -> bool {
        self.rate.total_cmp(&rate).is_eq() && self.seconds.total_cmp(&seconds).is_eq()
    }

    /// Whether one more request is let in.
    pub fn take(&mut self, now: u64) -> bool {
        let fills = (now - self.filled_at) / self.every;
        if fills > 0 {
            self.filled_at += fills * self.every;
            self.tokens = self
                .tokens
                .saturating_add(fills.saturating_mul(self.per_fill))
                .min(self.max);
        }
        let some = self.tokens > 0;
        self.tokens -= u64::from(some);
        some
    }
}

/// Whole tokens and the interval in nanoseconds: the shortest multiple of 50 ms with an error of at most 1 %, else one token
/// as often as the rate says.
fn steps(rate: f64) -> (u64, u64) {
    for step in 1..=20 {
        let every = step * STEP_MS;
        let exact = rate * every as f64 / 1000.0;
        let whole = exact.round();
        if whole >= 1.0 && (whole - exact).abs() <= 0.01 * exact {
            return (whole as u64, every * MS);
        }
    }
    if rate >= 1.0 {
        return (rate.round() as u64, 1000 * MS);
    }
    (1, (1000.0 / rate.max(1e-3)).round() as u64 * MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_full_and_then_keeps_its_rate() {
        for rate in [0.5, 3.0, 40.0, 391.7] {
            let mut bucket = Bucket::new(rate, 1.0, 0);
            let admitted = (0..100_000_u64).filter(|i| bucket.take(i * MS)).count() as f64;
            let expected = rate * 100.0 + rate.max(1.0);
            assert!(
                (admitted / expected - 1.0).abs() < 0.02,
                "{rate}: {admitted}"
            );
        }
    }
}
