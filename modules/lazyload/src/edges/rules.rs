//! One edge: what an observed call, watched time and another replica's knowledge make of it. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::Retention;
use crate::object::Evidence;

/// How long edges live, and how many there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Watched time without a call after which an edge expires, at least.
    pub min: Duration,
    /// It lives for this many times its longest pause, if that is longer.
    pub gap_factor: u32,
    /// How long an expired edge stays in scope.
    pub grace: Duration,
    /// Watched time for which an expired edge is remembered.
    pub remember: Duration,
    /// Hosts of one caller, at most.
    pub hosts_per_caller: usize,
}

impl Limits {
    /// From the configuration.
    pub fn new(retention: &Retention, hosts_per_caller: usize) -> Self {
        Self {
            min: retention.min.into(),
            gap_factor: retention.gap_factor,
            grace: retention.grace.into(),
            remember: retention.remember.into(),
            hosts_per_caller,
        }
    }

    /// `idle` in coarse steps of the shortest life: 1/2, 3/4, 1, 3/2, 2, 3, ... 0 means "it is called". A step is all that
    /// is written, so that the writes of an edge that nobody calls grow as the logarithm of time.
    pub(super) fn step(&self, idle: u64) -> u32 {
        let half = millis(self.min) / 2;
        if half == 0 || idle < half {
            return 0;
        }
        let octave = (idle / half).ilog2();
        let base = half << octave;
        2 * octave + 1 + u32::from(idle - base >= base / 2)
    }

    /// Least `idle` of a step, in milliseconds.
    pub(super) fn step_start(&self, step: u32) -> u64 {
        let Some(above) = step.checked_sub(1) else {
            return 0;
        };
        let base = (millis(self.min) / 2) << (above / 2);
        if above % 2 == 1 {
            base + base / 2
        } else {
            base
        }
    }

    /// A pause as it is kept: 0 if it does not make an edge live longer, else rounded up to 1/24 of the shortest life, in
    /// seconds, so that a cadence that wobbles writes nothing.
    fn kept_gap(&self, pause: u64) -> u32 {
        if u64::from(self.gap_factor).saturating_mul(pause) <= millis(self.min) {
            return 0;
        }
        let grain = self.min.as_secs().div_ceil(24).max(1);
        let seconds = pause.div_ceil(1000).div_ceil(grain).saturating_mul(grain);
        self.bounded_gap(Duration::from_secs(seconds))
    }

    /// No pause is longer than what is remembered; a clock that jumps by years must not keep an edge for ever.
    pub(super) fn bounded_gap(&self, gap: Duration) -> u32 {
        let most = self.min.max(self.remember);
        u32::try_from(gap.min(most).as_secs()).unwrap_or(u32::MAX)
    }
}

/// Whole milliseconds, as many as fit.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Where an edge stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum EdgeState {
    /// In scope.
    #[default]
    Active,
    /// Expired, in scope until the grace is over.
    Expiring,
    /// Out of scope, remembered: its next call tells how seldom it is called.
    Expired,
}

/// A set of [`Evidence`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EvidenceSet(u8);

impl EvidenceSet {
    const ALL: [Evidence; 5] = [
        Evidence::AccessLog,
        Evidence::Prometheus,
        Evidence::Policy,
        Evidence::Template,
        Evidence::Restored,
    ];

    pub(super) fn of(evidence: Evidence) -> Self {
        Self(1 << evidence as u8)
    }

    /// Declared, not observed: as long as it is declared, the edge does not age.
    pub(super) fn hints() -> Self {
        Self::of(Evidence::Policy).with(Self::of(Evidence::Template))
    }

    #[must_use]
    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In the order of [`Evidence`].
    pub(super) fn iter(self) -> impl Iterator<Item = Evidence> {
        let has = move |e: &Evidence| self.meets(Self::of(*e));
        Self::ALL.into_iter().filter(has)
    }
}

/// An edge as the index keeps it. Times of calls are whole seconds since 1970; `idle` is in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) first: i64,
    pub(super) last: i64,
    /// The last call as it is written: it moves when something else is to be written, so that calls alone write nothing.
    pub(super) written: i64,
    pub(super) idle: u64,
    /// Longest pause in seconds, as [`Limits::kept_gap`] keeps it.
    pub(super) gap: u32,
    pub(super) evidence_set: EvidenceSet,
    /// Whether the host was a known service when it was seen.
    pub(super) known: bool,
    pub(super) state: EdgeState,
    /// For an edge in its grace: its caller was watched since the grace began.
    pub(super) confirmed: bool,
}

/// What a step changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aged {
    Nothing,
    /// What is written, or the scope.
    Changed,
    /// The grace begins.
    Expiring,
    /// To be forgotten.
    Gone,
}

impl Record {
    pub(super) fn new(evidence_set: EvidenceSet, known: bool, now: i64) -> Self {
        Self {
            first: now,
            last: now,
            written: now,
            idle: 0,
            gap: 0,
            evidence_set,
            known,
            state: EdgeState::Active,
            confirmed: false,
        }
    }

    /// Watched time after which it expires, in milliseconds.
    pub(super) fn life(&self, limits: &Limits) -> u64 {
        let gap = u64::from(self.gap) * 1000;
        millis(limits.min).max(gap.saturating_mul(u64::from(limits.gap_factor)))
    }

    /// A call. Whether something is to be written or the scope changes.
    pub(super) fn call(
        &mut self,
        evidence_set: EvidenceSet,
        known: bool,
        now: i64,
        limits: &Limits,
    ) -> bool {
        let step = limits.step(self.idle);
        let mut pause = self.idle;
        // An edge that is called has no exact last call after a restart, and an outage of the watch is no pause in its
        // calls; from the first step on, the last call is exact and the pause was real.
        if step > 0 {
            let wall = u64::try_from(now.saturating_sub(self.last)).unwrap_or(0);
            pause = pause.max(wall.saturating_mul(1000));
        }
        let before = (
            self.gap,
            self.evidence_set,
            self.known,
            self.state,
            self.first,
        );
        self.gap = self.gap.max(limits.kept_gap(pause));
        self.evidence_set = self.evidence_set.with(evidence_set);
        self.known |= known;
        self.state = EdgeState::Active;
        self.confirmed = false;
        self.idle = 0;
        // Also when the clock went back: what it said before was wrong.
        self.last = now;
        self.first = self.first.min(now);
        let after = (
            self.gap,
            self.evidence_set,
            self.known,
            self.state,
            self.first,
        );
        let changed = step > 0 || before != after;
        if changed {
            self.written = now;
        }
        changed
    }

    /// Watched time without a call.
    pub(super) fn age(&mut self, by: u64, limits: &Limits) -> Aged {
        if self.evidence_set.meets(EvidenceSet::hints()) {
            return Aged::Nothing;
        }
        let step = limits.step(self.idle);
        self.idle = self.idle.saturating_add(by);
        let life = self.life(limits);
        match self.state {
            EdgeState::Active if self.idle > life && self.known => {
                self.state = EdgeState::Expiring;
                self.confirmed = false;
                self.written = self.last;
                return Aged::Expiring;
            }
            // Not in scope: no grace, and no cadence worth remembering.
            EdgeState::Active if self.idle > life => return Aged::Gone,
            EdgeState::Expiring => self.confirmed = true,
            EdgeState::Expired if self.idle > life.saturating_add(millis(limits.remember)) => {
                return Aged::Gone;
            }
            _ => {}
        }
        if limits.step(self.idle) == step {
            return Aged::Nothing;
        }
        self.written = self.last;
        Aged::Changed
    }

    /// What two replicas know, as one: a join, so that the order and the number of merges do not matter.
    pub(super) fn join(&self, other: &Self, limits: &Limits) -> Self {
        let (a, b) = (self, other);
        // Less idle wins, it knows of a later call; within one step, which is all that is written, more idle wins: it is
        // the same call, watched for longer.
        let (step_a, step_b) = (limits.step(a.idle), limits.step(b.idle));
        let idle = match step_a.cmp(&step_b) {
            std::cmp::Ordering::Less => a.idle,
            std::cmp::Ordering::Greater => b.idle,
            std::cmp::Ordering::Equal => a.idle.max(b.idle),
        };
        // Only watched time ends a grace, so of two graces the one that was not watched wins.
        let (state, confirmed) = (a.state, a.confirmed).min((b.state, b.confirmed));
        Self {
            first: a.first.min(b.first),
            last: a.last.max(b.last),
            written: a.written.max(b.written),
            idle,
            gap: a.gap.max(b.gap),
            evidence_set: a.evidence_set.with(b.evidence_set),
            known: a.known || b.known,
            state,
            confirmed,
        }
    }

    /// Whether the same is written of both.
    pub(super) fn written_alike(&self, other: &Self, limits: &Limits) -> bool {
        (self.first, self.written, self.gap, self.evidence_set)
            == (other.first, other.written, other.gap, other.evidence_set)
            && (self.known, self.state) == (other.known, other.state)
            && limits.step(self.idle) == limits.step(other.idle)
    }
}

/// Seconds since 1970 as a timestamp.
pub(super) fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}
