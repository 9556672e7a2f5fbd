//! Time as modules see it: injected, so that tests decide what time it is.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

/// A source of time.
pub trait Clock: Send + Sync {
    /// Wall clock time, for status and logs.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary start; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands until it is moved.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    elapsed: Arc<Mutex<Duration>>,
}

impl ManualClock {
    /// Moves time forward.
    pub fn advance(&self, by: Duration) {
        *self.elapsed.lock() += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let seconds = i64::try_from(self.elapsed.lock().as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(1_700_000_000_i64.saturating_add(seconds)).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        *self.elapsed.lock()
    }
}
