//! For how long a static dependency holds.

use jiff::{SignedDuration, Timestamp};
use trimtab_crds::fence::{DomainState, ProtoTime, Strategy};

/// State of a dependency, and when it changes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) state: DomainState,
    pub(super) next: Option<Timestamp>,
    /// Why it cannot be timed.
    pub(super) untimed: Option<&'static str>,
}

impl Held {
    fn always(untimed: Option<&'static str>) -> Self {
        Self {
            state: DomainState::Active,
            next: None,
            untimed,
        }
    }

    /// Active until `end`, then for the grace.
    pub(super) fn until(end: Timestamp, grace: SignedDuration, now: Timestamp) -> Self {
        let gone = later(end, grace);
        let (state, next) = if now < end {
            (DomainState::Active, Some(end))
        } else if now < gone {
            (DomainState::ExpireWait, Some(gone))
        } else {
            (DomainState::Expire, None)
        };
        Self {
            state,
            next,
            untimed: None,
        }
    }
}

/// `at + by`, as far as time goes.
pub(super) fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn timestamp(time: ProtoTime) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// `started`: what `auto` counts from: the last call, or when the fence was made.
pub(super) fn held(
    strategy: &Strategy,
    started: Option<Timestamp>,
    grace: SignedDuration,
    now: Timestamp,
) -> Held {
    if strategy.stable.is_some() {
        return Held::always(None);
    }
    if let Some(deadline) = &strategy.deadline {
        return match deadline.expire.map(timestamp) {
            Some(Some(end)) => Held::until(end, grace, now),
            Some(None) => Held::always(Some("deadline.expire is no point in time")),
            None => Held::always(Some("deadline has no expire")),
        };
    }
    let Some(auto) = &strategy.auto else {
        return Held::always(None);
    };
    let Some(duration) = auto.duration else {
        return Held::always(Some("auto has no duration"));
    };
    if duration.seconds < 0 || duration.nanos < 0 {
        return Held::always(Some("auto.duration is negative"));
    }
    let called = strategy.recently_called.and_then(timestamp);
    match called.max(started) {
        Some(last) => {
            let length = SignedDuration::new(duration.seconds, duration.nanos.min(999_999_999));
            Held::until(later(last, length), grace, now)
        }
        None => Held::always(None),
    }
}
