//! When failed work is tried again, and how much work may be done in a minute.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;

/// First pause after a failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default)]
struct Attempt {
    failures: u32,
    waits: bool,
}

/// Failures by key: one try for each key is under way, however often it fails meanwhile.
#[derive(Debug)]
pub struct Retries<K> {
    attempts: Mutex<HashMap<K, Attempt>>,
}

impl<K> Default for Retries<K> {
    fn default() -> Self {
        Self {
            attempts: Mutex::default(),
        }
    }
}

impl<K: Clone + Eq + Hash> Retries<K> {
    /// Counts a failure. The pause before the next try; `None`: a try is under way already.
    pub fn after(&self, key: &K) -> Option<Duration> {
        let mut attempts = self.attempts.lock();
        let attempt = attempts.entry(key.clone()).or_default();
        if attempt.waits {
            return None;
        }
        attempt.waits = true;
        attempt.failures = attempt.failures.saturating_add(1);
        let doubled = FIRST_PAUSE.saturating_mul(1 << attempt.failures.min(8).saturating_sub(1));
        Some(doubled.min(LONGEST_PAUSE))
    }

    /// The pause is over.
    pub fn begin(&self, key: &K) {
        if let Some(attempt) = self.attempts.lock().get_mut(key) {
            attempt.waits = false;
        }
    }

    /// It worked.
    pub fn succeeded(&self, key: &K) {
        let mut attempts = self.attempts.lock();
        if attempts.get(key).is_some_and(|a| !a.waits) {
            attempts.remove(key);
        }
    }
}

/// So much work a minute, with a burst of a minute's work.
#[derive(Debug)]
pub struct Budget {
    state: Mutex<(f64, Duration)>,
}

impl Budget {
    /// A full budget of `per_minute`, at the monotonic time `now`.
    pub fn new(per_minute: u32, now: Duration) -> Self {
        Self {
            state: Mutex::new((f64::from(per_minute), now)),
        }
    }

    /// Takes one. `None`: it may be done now; else the pause after which to ask again. `per_minute` 0: no bound.
    pub fn take(&self, per_minute: u32, now: Duration) -> Option<Duration> {
        if per_minute == 0 {
            return None;
        }
        let rate = f64::from(per_minute) / 60.0;
        let mut state = self.state.lock();
        let (left, since) = *state;
        let elapsed = now.saturating_sub(since).as_secs_f64();
        let left = (left + elapsed * rate).min(f64::from(per_minute));
        if left < 1.0 {
            *state = (left, now);
            return Some(Duration::from_secs_f64((1.0 - left) / rate));
        }
        *state = (left - 1.0, now);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_one_try_is_under_way() {
        let retries = Retries::default();
        assert_eq!(retries.after(&"a"), Some(FIRST_PAUSE));
        assert_eq!(retries.after(&"a"), None, "it waits already");
        for _ in 0..10 {
            retries.begin(&"a");
            assert!(retries.after(&"a").is_some_and(|p| p <= LONGEST_PAUSE));
        }
        retries.begin(&"a");
        assert_eq!(retries.after(&"a"), Some(LONGEST_PAUSE));
        retries.begin(&"a");
        retries.succeeded(&"a");
        assert_eq!(retries.after(&"a"), Some(FIRST_PAUSE));
    }

    #[test]
    fn a_budget_has_a_burst_and_fills_up_again() {
        let second = Duration::from_secs(1);
        let budget = Budget::new(60, Duration::ZERO);
        for _ in 0..60 {
            assert_eq!(budget.take(60, Duration::ZERO), None);
        }
        assert_eq!(budget.take(60, Duration::ZERO), Some(second));
        assert_eq!(budget.take(60, second), None);
        assert_eq!(budget.take(60, second), Some(second));
        assert_eq!(budget.take(0, second), None, "no bound");
    }
}
