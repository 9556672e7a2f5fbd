//! The load of the scenario as a function of time. Pure.

use std::time::Duration;

/// Requests a second at rest.
const CALM: f64 = 8.0;
/// Requests a second at the peak: twice what the limit lets through.
const PEAK: f64 = 60.0;
/// Requests a second that fill one pod's CPU. With 3 pods at 10 each the CPU stays above 0.8, so the limit stays on.
pub(super) const CAPACITY: f64 = 11.0;

/// When things happen, as shares of the run.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    duration: Duration,
}

impl Scenario {
    pub fn new(duration: Duration) -> Self {
        Self { duration }
    }

    pub fn seconds(&self) -> u64 {
        self.duration.as_secs()
    }

    fn share(&self, numerator: u64) -> u64 {
        self.seconds() * numerator / 100
    }

    pub fn rise_at(&self) -> u64 {
        self.share(15)
    }

    pub fn scale_up_at(&self) -> u64 {
        self.share(45)
    }

    pub fn fall_at(&self) -> u64 {
        self.share(75)
    }

    /// Offered requests per second at `elapsed`.
    pub fn rate(&self, elapsed: Duration) -> f64 {
        let second = elapsed.as_secs();
        if second >= self.rise_at() && second < self.fall_at() {
            PEAK
        } else {
            CALM
        }
    }

    pub fn phase(&self, second: u64) -> &'static str {
        if second < self.rise_at() {
            "calm"
        } else if second < self.scale_up_at() {
            "peak, 2 pods"
        } else if second < self.fall_at() {
            "peak, 3 pods"
        } else {
            "calm again"
        }
    }
}
