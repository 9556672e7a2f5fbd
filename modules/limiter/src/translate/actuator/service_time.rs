//! The time of an answer that did not wait, learned from mean times.

/// Part of the way to a new mean in calm.
const STEP: f64 = 0.3;

/// What was learned.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServiceTime {
    seconds: Option<f64>,
}

impl ServiceTime {
    /// One mean over the answers of a window, in seconds. `calm`: nothing was refused and nothing was late, so that hardly any of
    /// them waited. Else they may have, and the mean is an upper bound only.
    pub fn observe(&mut self, mean_s: Option<f64>, calm: bool) {
        let Some(mean) = mean_s.filter(|mean| mean.is_finite() && *mean > 0.0) else {
            return;
        };
        self.seconds = Some(match self.seconds {
            None => mean,
            Some(known) if calm => known + STEP * (mean - known),
            Some(known) => known.min(mean),
        });
    }

    /// The time, in seconds.
    pub fn value(&self) -> Option<f64> {
        self.seconds
    }
}
