//! How much is told of one object: one that flaps is no flood for the API server, whose Events all of the cluster shares. Pure; time
//! comes in.

use std::collections::BTreeMap;
use std::time::Duration;

/// At once.
const BURST: u32 = 20;
/// Until one more.
const EACH: Duration = Duration::from_secs(120);
/// Objects that are remembered, at most; then those that have been silent are forgotten.
const MOST: usize = 10_000;

/// What may still be told, by object.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// The time at which all of it is there again.
    full: BTreeMap<String, Duration>,
}

impl Allowance {
    /// Takes one for an object. False: there is none left.
    pub(super) fn take(&mut self, object: &str, now: Duration) -> bool {
        if self.full.len() >= MOST && !self.full.contains_key(object) {
            self.full.retain(|_, full| *full > now);
        }
        let full = self.full.get(object).copied().unwrap_or_default().max(now) + EACH;
        if full > now + EACH * BURST {
            return false;
        }
        self.full.insert(object.to_owned(), full);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_flaps_is_told_of_twenty_times_then_every_two_minutes() {
        let mut allowance = Allowance::default();
        let mut told = |object: &str, second| allowance.take(object, Duration::from_secs(second));
        let at_once = (0..100).filter(|_| told("a", 5)).count();
        assert_eq!(at_once, 20);
        assert!(told("b", 5), "each object has its own");
        let hour = (6..=3605).filter(|second| told("a", *second)).count();
        assert_eq!(hour, 30);
        assert!(told("a", 100_000));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut allowance = Allowance::default();
        for n in 0..3 * MOST {
            let now = Duration::from_secs(n as u64);
            assert!(allowance.take(&n.to_string(), now));
        }
        assert!(allowance.full.len() <= MOST + 1);
    }
}
