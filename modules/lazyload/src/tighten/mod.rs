//! Mode `Auto`: everything at first, the scope alone once it is proven that nothing is missed, and back when calls out of
//! scope rise. Pure: time and what was seen come in as arguments.
//!
//! ```text
//!            watched for `learn`, no call outside the scope for `quiet`,
//!            the fallback carries calls, and the step is as old as `hold`
//!  Exclude ──────────────────────────────────────────────────────────────> Enforce
//!     ^──────── more calls out of scope in `window` than are usual ───────────┘
//! ```
//!
//! Going back needs no wait. Each return doubles the hold, up to 64 times, so that it does not swing.

mod stored;

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use trimtab_crds::fence::Mode;

use crate::config::AutoMode;

/// A hold is doubled this often, at most.
const MOST_DOUBLINGS: u32 = 6;

/// Where a fence of mode `Auto` stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tighten {
    /// Whether it is at `Enforce`.
    pub enforced: bool,
    /// When this step began.
    pub since: Timestamp,
    /// Watched time in this step.
    pub watched: Duration,
    /// Watched time since the last call outside the scope.
    pub quiet: Duration,
    /// Most calls to unknown hosts in one window while nothing was out of scope.
    pub usual: u64,
    /// How often it went back.
    pub returns: u32,
    /// Calls to unknown hosts, by when they were seen on the monotonic clock.
    strays: VecDeque<(Duration, u64)>,
}

/// What was seen since the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// For how long all workloads were watched; `None`: they were not.
    pub watched: Option<Duration>,
    /// Calls that went to the fallback, `PassthroughCluster` or `BlackHoleCluster`.
    pub strays: u64,
    /// Hosts that were called and were not in the scope.
    pub new_hosts: u64,
    /// Calls out of scope are carried, or the configuration does without a fallback.
    pub carried: bool,
}

/// When it is.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// By the wall clock.
    pub wall: Timestamp,
    /// By the clock that never goes back.
    pub monotonic: Duration,
}

/// A step that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// To `Enforce`.
    Tightened,
    /// Back, with so many calls in the window.
    WentBack(u64),
}

/// What it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Workloads to be watched for so long.
    Learning(Duration),
    /// No call outside the scope for so long.
    Quiet(Duration),
    /// The hold after a return, until then.
    Hold(Timestamp),
    /// A fallback.
    Fallback,
    /// Nothing but the next complete telemetry.
    Telemetry,
}

impl Tighten {
    /// Begins to learn.
    pub fn new(now: Timestamp) -> Self {
        Self {
            enforced: false,
            since: now,
            watched: Duration::ZERO,
            quiet: Duration::ZERO,
            usual: 0,
            returns: 0,
            strays: VecDeque::new(),
        }
    }

    /// The mode that it has come to.
    pub fn mode(&self) -> Mode {
        if self.enforced {
            Mode::Enforce
        } else {
            Mode::Exclude
        }
    }

    /// Takes what was seen, and the step that follows from it.
    pub fn step(&mut self, seen: &Seen, config: &AutoMode, now: Now) -> Option<Turn> {
        // A clock that goes back must not make a hold longer.
        self.since = self.since.min(now.wall);
        let strays = seen.strays + if self.enforced { seen.new_hosts } else { 0 };
        let count = self.count(strays, *config.window, now.monotonic);
        if self.enforced {
            return (count > self.bound(config)).then(|| {
                self.turn(now.wall);
                self.returns = self.returns.saturating_add(1);
                Turn::WentBack(count)
            });
        }
        self.usual = self.usual.max(count);
        if let Some(by) = seen.watched {
            self.watched = self.watched.saturating_add(by);
            self.quiet = self.quiet.saturating_add(by);
        }
        if seen.new_hosts > 0 {
            self.quiet = Duration::ZERO;
        }
        let ready = seen.watched.is_some()
            && matches!(
                self.waits_for(seen.carried, config, now.wall),
                Wait::Telemetry
            );
        ready.then(|| {
            self.turn(now.wall);
            Turn::Tightened
        })
    }

    /// What it waits for at `Exclude`.
    pub fn waits_for(&self, carried: bool, config: &AutoMode, now: Timestamp) -> Wait {
        let held = self.held_until(config);
        if self.watched < *config.learn {
            Wait::Learning(config.learn.saturating_sub(self.watched))
        } else if self.quiet < *config.quiet {
            Wait::Quiet(config.quiet.saturating_sub(self.quiet))
        } else if now < held {
            Wait::Hold(held)
        } else if carried {
            Wait::Telemetry
        } else {
            Wait::Fallback
        }
    }

    /// More calls than this in one window and it goes back.
    pub fn bound(&self, config: &AutoMode) -> u64 {
        config.calls.saturating_add(self.usual.saturating_mul(2))
    }

    fn turn(&mut self, now: Timestamp) {
        if self.enforced {
            self.usual = 0;
        }
        self.enforced = !self.enforced;
        self.since = now;
        self.watched = Duration::ZERO;
        self.quiet = Duration::ZERO;
        self.strays.clear();
    }

    fn held_until(&self, config: &AutoMode) -> Timestamp {
        let times = 1_u32 << self.returns.min(MOST_DOUBLINGS);
        let hold = config.hold.checked_mul(times).unwrap_or(Duration::MAX);
        let hold = SignedDuration::try_from(hold).unwrap_or(SignedDuration::MAX);
        self.since.checked_add(hold).unwrap_or(Timestamp::MAX)
    }

    /// Calls in the last window, with these.
    fn count(&mut self, strays: u64, window: Duration, at: Duration) -> u64 {
        if strays > 0 {
            self.strays.push_back((at, strays));
        }
        let first = at.saturating_sub(window);
        while self.strays.front().is_some_and(|(then, _)| *then < first) {
            self.strays.pop_front();
        }
        self.strays.iter().map(|(_, n)| n).sum()
    }
}

#[cfg(test)]
mod tests;
