//! Whose turn it is: pure.

use std::time::Duration;

use jiff::Timestamp;

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty: nobody.
    pub holder: String,
    /// How long it holds without a renewal, as its holder says.
    pub lasts: Duration,
    /// Changes of the holder so far: the epoch.
    pub transitions: i32,
    /// When the holder got it, on the holder's clock. For people.
    pub acquired: Option<Timestamp>,
    /// When it was renewed, on the holder's clock. Each renewal has a later one; it is not compared with any clock.
    pub renewed: Option<Timestamp>,
    /// `metadata.resourceVersion`.
    pub version: String,
}

/// The Lease as this process knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// What it says; `None`: there is none.
    pub record: Option<Record>,
    /// Since when, on the monotonic clock of this process, it has been known to say so.
    pub since: Duration,
    /// This process has known one before.
    pub vanished: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is free: take it. The time since which it is.
    Acquire(Duration),
    /// It is ours: renew it.
    Renew,
    /// It is another's until then, unless that one renews it.
    Wait(Duration),
}

/// What `me` does at the monotonic time `now`. `lease`: how long a lease holds whose record does not say.
pub fn step(observed: &Observed, me: &str, now: Duration, lease: Duration) -> Step {
    let ends = match &observed.record {
        // Its holder may not know yet that it was deleted.
        None if observed.vanished => observed.since + lease,
        None => return Step::Acquire(observed.since),
        Some(record) if record.holder.is_empty() => return Step::Acquire(observed.since),
        Some(record) if record.holder == me => return Step::Renew,
        Some(record) if record.lasts.is_zero() => observed.since + lease,
        Some(record) => observed.since + record.lasts,
    };
    if now < ends {
        Step::Wait(ends)
    } else {
        Step::Acquire(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn observed(holder: &str, since: u64) -> Observed {
        Observed {
            record: Some(Record {
                holder: holder.to_owned(),
                lasts: Duration::from_secs(6),
                transitions: 3,
                acquired: None,
                // Years away: nobody looks at it.
                renewed: Some(Timestamp::MAX),
                version: "7".to_owned(),
            }),
            since: Duration::from_secs(since),
            vanished: false,
        }
    }

    #[test]
    fn a_lease_ends_by_the_time_since_its_record_was_seen() {
        let at = Duration::from_secs;
        let of = |observed: &Observed, now| step(observed, "a", at(now), LEASE);
        assert_eq!(of(&observed("a", 10), 99), Step::Renew);
        assert_eq!(of(&observed("", 10), 10), Step::Acquire(at(10)));
        assert_eq!(of(&observed("b", 10), 10), Step::Wait(at(16)));
        assert_eq!(of(&observed("b", 10), 16), Step::Acquire(at(16)));
        let mut silent = observed("b", 10);
        silent.record.as_mut().unwrap().lasts = Duration::ZERO;
        assert_eq!(of(&silent, 16), Step::Wait(at(25)));
        let mut none = Observed {
            record: None,
            ..observed("", 10)
        };
        assert_eq!(of(&none, 10), Step::Acquire(at(10)));
        none.vanished = true;
        assert_eq!(of(&none, 10), Step::Wait(at(25)));
        assert_eq!(of(&none, 25), Step::Acquire(at(25)));
    }
}
