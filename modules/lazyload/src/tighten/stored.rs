//! Where mode `Auto` stands, as it is in the status and read back from it.

use std::time::Duration as StdDuration;

use jiff::Timestamp;
use trimtab_crds::Duration;
use trimtab_crds::fence::{AutoStatus, Mode};

use super::Tighten;
use crate::config::AutoMode;

/// Watched time is written in this many steps of what is asked for: each is a write.
const STEPS: u32 = 8;

impl Tighten {
    /// For the status. What is between two steps of watched time is lost at a restart.
    pub fn to_status(&self, config: &AutoMode) -> AutoStatus {
        let some = |count: u64| (count > 0).then(|| i64::try_from(count).unwrap_or(i64::MAX));
        // Rounded up, so that a little more is no write.
        let usual = self.usual.checked_next_power_of_two().unwrap_or(u64::MAX);
        let usual = if self.usual == 0 { 0 } else { usual };
        AutoStatus {
            step: Some(self.mode()),
            since: self.since.to_string(),
            watched: coarse(self.watched, *config.learn),
            quiet: coarse(self.quiet, *config.quiet),
            usual: some(usual),
            returns: some(u64::from(self.returns)),
        }
    }

    /// From a status. A time that cannot be read is now: a hold begins anew.
    pub fn from_status(status: &AutoStatus, now: Timestamp) -> Self {
        let since = status.since.parse::<Timestamp>().unwrap_or(now).min(now);
        let time = |text: &Option<String>| -> StdDuration {
            let time = text.as_deref().and_then(|t| t.parse::<Duration>().ok());
            *time.unwrap_or_default()
        };
        let count = |count: Option<i64>| u64::try_from(count.unwrap_or(0)).unwrap_or(0);
        Self {
            enforced: status.step == Some(Mode::Enforce),
            watched: time(&status.watched),
            quiet: time(&status.quiet),
            usual: count(status.usual),
            returns: u32::try_from(count(status.returns)).unwrap_or(u32::MAX),
            ..Self::new(since)
        }
    }
}

/// In steps of what is asked for; no more than that is of interest.
fn coarse(time: StdDuration, asked: StdDuration) -> Option<String> {
    let grain = (asked / STEPS).as_millis().max(1);
    let millis = time.min(asked).as_millis() / grain * grain;
    let millis = u64::try_from(millis).unwrap_or(u64::MAX);
    (millis > 0).then(|| Duration::from_millis(millis).to_string())
}
