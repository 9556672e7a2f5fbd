//! Token buckets, whole or in steps. Pure.

use serde::{Deserialize, Serialize};
use trimtab_crds::limiter::FillInterval;

/// Shortest step of a bucket in milliseconds. Envoy takes 50, but then a handful of requests at once would be refused.
const SHORTEST_STEP: i64 = 500;
/// Longest step in milliseconds.
const LONGEST_STEP: i64 = 30_000;
/// Envoy's shortest `fill_interval` in milliseconds.
const ENVOY_SHORTEST: i64 = 50;

/// A token bucket as Envoy has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Its size, and what one fill gives.
    pub tokens: i64,
    /// Milliseconds between fills.
    pub every: i64,
}

impl Bucket {
    /// The whole quota once an interval: Slime's.
    pub fn whole(quota: i64, interval: FillInterval) -> Self {
        Self {
            tokens: quota,
            every: interval.millis(),
        }
    }

    /// `rate` requests per second in a bucket that lasts `seconds` at that rate, and whole tokens at least as often as that.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "clamped before; a year and 32 bits at most"
    )]
    pub fn lasting(rate: f64, seconds: f64) -> Self {
        if !(rate > 0.0 && seconds.is_finite()) {
            return Self {
                tokens: 0,
                every: 1000,
            };
        }
        let rate = rate.min(f64::from(u32::MAX));
        let shortest = ENVOY_SHORTEST as f64 / 1000.0;
        let tokens = (rate * seconds.max(shortest)).round().max(1.0);
        let every = (1000.0 * tokens / rate).ceil();
        if every < ENVOY_SHORTEST as f64 {
            // Rounding took tokens away: the shortest fill with the tokens that are due in it.
            return Self {
                tokens: (rate * shortest).ceil() as i64,
                every: ENVOY_SHORTEST,
            };
        }
        Self {
            tokens: tokens.min(f64::from(u32::MAX)) as i64,
            every: every.min(31_536_000_000.0) as i64,
        }
    }

    /// The same rate in small fills, so that a bucket that is filled out of turn gives a tenth of the quota and not all of it.
    pub fn in_steps(quota: i64, interval: FillInterval) -> Self {
        let millis = interval.millis().max(ENVOY_SHORTEST);
        let step = (millis / 10)
            .clamp(SHORTEST_STEP, LONGEST_STEP)
            .min(millis / 2)
            .max(ENVOY_SHORTEST);
        if quota <= 1 || step >= millis {
            return Self::whole(quota, interval);
        }
        // Rounded against the caller; an interval is a year at most and a quota 32 bits, so nothing overflows.
        let tokens = (quota * step).div_euclid(millis).max(1);
        let tokens = if tokens * millis < quota * ENVOY_SHORTEST {
            tokens + 1
        } else {
            tokens
        };
        let every = (tokens * millis + quota - 1) / quota;
        Self {
            tokens,
            every: every.max(ENVOY_SHORTEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn steps(quota: i64, millis: i64) -> (i64, i64) {
        let bucket = Bucket::in_steps(quota, span(millis));
        (bucket.tokens, bucket.every)
    }

    fn span(millis: i64) -> FillInterval {
        FillInterval {
            seconds: millis / 1000,
            nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap(),
        }
    }

    #[test]
    fn a_step_is_a_tenth_of_the_interval_within_bounds() {
        assert_eq!(steps(10, 60_000), (1, 6_000));
        assert_eq!(steps(30, 1_000), (15, 500), "half a second at least");
        assert_eq!(
            steps(1_000, 3_600_000),
            (8, 28_800),
            "half a minute at most"
        );
        assert_eq!(steps(10, 3_600_000), (1, 360_000), "one request at least");
        assert_eq!(steps(1, 60_000), (1, 60_000));
        assert_eq!(steps(0, 60_000), (0, 60_000));
        assert_eq!(steps(4, 50), (4, 50), "Envoy takes no shorter fill");
    }

    proptest! {
        #[test]
        fn a_bucket_that_lasts_keeps_the_rate(rate in 0.01f64..100_000.0, seconds in 0.0f64..10.0) {
            let Bucket { tokens, every } = Bucket::lasting(rate, seconds);
            prop_assert!(tokens >= 1 && every >= 50);
            let kept = tokens as f64 * 1000.0 / every as f64 / rate;
            prop_assert!(kept > 0.95 && kept < 1.3, "{tokens} per {every}: {kept}");
            prop_assert!((0.98..1.02).contains(&kept) || seconds < 0.06 || rate * seconds < 2.0, "{tokens} per {every}: {kept}");
        }

        #[test]
        fn steps_keep_the_rate(quota in 1i64..=4_294_967_295, millis in 50i64..=31_536_000_000) {
            let (tokens, every) = steps(quota, millis);
            prop_assert!(tokens >= 1 && tokens <= quota && every >= 50 && every <= millis);
            let rate = (tokens as f64 / every as f64) / (quota as f64 / millis as f64);
            prop_assert!(rate <= 1.000_001 && rate > 0.97, "{tokens} per {every}: {rate}");
        }
    }
}
