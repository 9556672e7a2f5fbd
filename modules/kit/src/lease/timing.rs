//! How long a lease holds, and when it is renewed.

use std::time::Duration;

/// Time limit of a write while leaders are elected: it must be over before another replica may begin.
pub const WRITE_LIMIT: Duration = Duration::from_secs(4);
/// Shortest time between renewals.
const SHORTEST: Duration = Duration::from_millis(100);

/// Times of the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Others take a lease over when they have seen no renewal for this long.
    pub lease: Duration,
    /// The leader begins no write when its last renewal is older than this.
    pub renew_deadline: Duration,
    /// Time between renewals.
    pub retry: Duration,
    /// Time limit of a write.
    pub write_limit: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
            write_limit: WRITE_LIMIT,
        }
    }
}

impl Timing {
    /// Whether what a leader has begun is over before another one begins. `section`: where the keys stand.
    pub fn check(&self, section: &str) -> Result<(), String> {
        let seconds = Duration::as_secs_f64;
        let Self {
            lease,
            renew_deadline,
            retry,
            write_limit,
        } = self;
        if lease.subsec_nanos() != 0 {
            return Err(format!(
                "{section}.leaseDuration: {}s: a Lease has whole seconds: write for example 15s",
                seconds(lease)
            ));
        }
        let least = *renew_deadline + *write_limit;
        if *lease <= least {
            return Err(format!(
                "{section}.leaseDuration: {}s is too short: a write may begin until renewDeadline ({}s) and take {}s, and another replica must not begin before: write more than {}s, or a shorter renewDeadline",
                seconds(lease),
                seconds(renew_deadline),
                seconds(write_limit),
                seconds(&least)
            ));
        }
        if *retry < SHORTEST {
            return Err(format!(
                "{section}.retryPeriod: {}s is shorter than 100ms: write for example 2s",
                seconds(retry)
            ));
        }
        if *renew_deadline < *retry * 2 {
            return Err(format!(
                "{section}.renewDeadline: {}s leaves no time for a second attempt: write at least {}s, twice retryPeriod",
                seconds(renew_deadline),
                seconds(&(*retry * 2))
            ));
        }
        Ok(())
    }

    /// Time limit of one request for the Lease: a second one must fit in before the deadline.
    pub fn request_limit(&self) -> Duration {
        self.renew_deadline / 2
    }

    /// The pause before the next attempt, a little longer by `jitter`, from 0 to 1.
    pub(super) fn pause(&self, jitter: f64) -> Duration {
        self.retry.mul_f64(1.0 + 0.2 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_would_allow_two_writers_are_refused() {
        let default = Timing::default();
        assert_eq!(default.check("leaderElection"), Ok(()));
        let second = Duration::from_secs(1);
        let wrong = |timing: Timing, key: &str, words: &str| {
            let error = timing.check("leaderElection").unwrap_err();
            assert!(
                error.starts_with(&format!("leaderElection.{key}: ")),
                "{error}"
            );
            assert!(error.contains(words), "{error}");
        };
        let lease = |lease| Timing { lease, ..default };
        wrong(lease(second * 14), "leaseDuration", "more than 14s");
        wrong(
            lease(second * 15 + second / 2),
            "leaseDuration",
            "whole seconds",
        );
        let retry = |retry| Timing { retry, ..default };
        wrong(retry(second * 6), "renewDeadline", "12s");
        wrong(retry(Duration::ZERO), "retryPeriod", "100ms");
    }
}
