//! How many writes may be made in a minute.

use std::time::Duration;

use parking_lot::Mutex;

/// So many writes a minute, with a burst of a minute's writes.
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
