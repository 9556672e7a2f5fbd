//! Whether an answer was right for a limit, from times at the client alone.
//!
//! A proxy decides between the moment when a request is sent and the moment when its answer is there. Both judgements take the
//! end of this span that speaks for the proxy, so that a slow machine makes no mistakes.

use std::collections::VecDeque;
use std::time::Duration;

/// A limit as it is documented.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Tokens of the bucket.
    pub bucket: u32,
    /// In which they come back.
    pub interval: Duration,
    /// What a limit that follows a metric may leak: a share of the whole. 0 for a constant quota.
    pub leak: f64,
}

/// What is known of one bucket.
#[derive(Debug)]
pub struct Judge {
    limit: Limit,
    /// Since when its requests are known.
    begun: Duration,
    /// Tokens of the fullest bucket that would be right, at the last answer.
    tokens: f64,
    last: Duration,
    /// When requests of the last interval were sent and answered, and whether they passed.
    recent: VecDeque<(Duration, Duration, bool)>,
}

/// Requests that one span between send and answer may hide at each end.
const SLACK: f64 = 2.0;

impl Judge {
    /// Of a bucket of which nothing is known before `begun`.
    pub fn new(limit: Limit, begun: Duration) -> Self {
        Self {
            limit,
            begun,
            tokens: Self::capacity(limit),
            last: begun,
            recent: VecDeque::new(),
        }
    }

    /// The proxy has started anew: its bucket is full.
    pub fn refill(&mut self) {
        self.tokens = Self::capacity(self.limit);
    }

    fn capacity(limit: Limit) -> f64 {
        f64::from(limit.bucket) * (1.0 + limit.leak) + SLACK
    }

    /// Whether an answer is right.
    pub fn right(&mut self, sent: Duration, answered: Duration, passed: bool) -> bool {
        let right = if passed {
            self.may_pass(answered)
        } else {
            self.may_refuse(sent)
        };
        self.recent.push_back((sent, answered, passed));
        right
    }

    fn may_pass(&mut self, answered: Duration) -> bool {
        let rate = f64::from(self.limit.bucket) / self.limit.interval.as_secs_f64();
        let passed = answered.saturating_sub(self.last).as_secs_f64();
        // A hundredth for clocks and the timer of the proxy.
        let more = passed * rate * (1.01 + self.limit.leak);
        self.tokens = Self::capacity(self.limit).min(self.tokens + more);
        self.last = answered;
        let right = self.tokens >= 1.0;
        self.tokens = (self.tokens - 1.0).max(0.0);
        right
    }

    /// A bucket is empty only if it let its content pass in the last interval. A tenth is for fills that come in lumps.
    fn may_refuse(&mut self, sent: Duration) -> bool {
        let from = sent.saturating_sub(self.limit.interval);
        while self.recent.front().is_some_and(|(_, at, _)| *at <= from) {
            self.recent.pop_front();
        }
        let passed = self.recent.iter().filter(|(_, _, passed)| *passed).count();
        let needed = f64::from(self.limit.bucket) * 0.9 - 1.0;
        let known = from >= self.begun;
        !known || f64::from(u32::try_from(passed).unwrap_or(u32::MAX)) >= needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit {
        bucket: 20,
        interval: Duration::from_secs(1),
        leak: 0.0,
    };

    /// A client with a request each `gap` for ten seconds; answers that were not right.
    fn wrong(gap: u64, mut passes: impl FnMut(u64) -> bool) -> usize {
        let mut judge = Judge::new(LIMIT, Duration::ZERO);
        let times = (0..10_000).step_by(usize::try_from(gap).unwrap());
        times
            .filter(|at| {
                let sent = Duration::from_millis(*at);
                !judge.right(sent, sent + Duration::from_millis(3), passes(*at))
            })
            .count()
    }

    /// What a bucket says.
    fn bucket(size: f64) -> impl FnMut(u64) -> bool {
        let (mut tokens, mut last) = (size, 0);
        move |at| {
            tokens = size.min(tokens + (at - last) as f64 / 1000.0 * size);
            last = at;
            let passes = tokens >= 1.0;
            tokens -= if passes { 1.0 } else { 0.0 };
            passes
        }
    }

    #[test]
    fn the_right_bucket_is_right_and_others_are_not() {
        for gap in [10, 25, 50, 100] {
            assert_eq!(wrong(gap, bucket(20.0)), 0, "{gap}");
        }
        assert!(wrong(25, |_| true) > 100, "no limit");
        assert!(wrong(25, bucket(24.0)) > 5, "too large");
        assert!(wrong(25, bucket(15.0)) > 50, "too small");
        assert!(wrong(100, |at| at != 5_000) == 1, "one is refused");
    }
}
