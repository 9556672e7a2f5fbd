//! For how long the workloads of a fence were watched. Pure.
//!
//! Time comes as *windows*, numbered from 1: the time between two complete answers of telemetry, one after the other. A
//! service that is known since window `b` was watched in the windows after `b`.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::edges::Window;
use crate::object::Caller;

/// Windows are kept in this many parts of the time that proves.
const PARTS: u32 = 64;

/// Some windows, one after the other.
#[derive(Clone, Copy, Debug)]
struct Part {
    first: u64,
    sum: Duration,
}

/// Watched time of one fence, as far back as it matters.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    parts: VecDeque<Part>,
    sum: Duration,
    callers: BTreeSet<Caller>,
}

impl Watched {
    /// Whose telemetry counts, all of it at once. Others than before: nothing was watched yet.
    pub fn of(&mut self, callers: &BTreeSet<Caller>) {
        if self.callers != *callers {
            self.restart();
            self.callers.clone_from(callers);
        }
    }

    /// What was watched proves nothing any more.
    pub fn restart(&mut self) {
        self.parts.clear();
        self.sum = Duration::ZERO;
    }

    /// Whether a workload is one of them.
    pub fn has(&self, caller: &Caller) -> bool {
        self.callers.contains(caller)
    }

    /// Whether all of them are among those that were watched.
    pub fn is_in(&self, watched: &BTreeSet<Caller>) -> bool {
        !self.callers.is_empty() && self.callers.is_subset(watched)
    }

    /// Takes a window. `min` is the time that proves. Whether all were watched in it.
    pub fn take(&mut self, window: &Window, min: Duration) -> bool {
        if !self.is_in(&window.callers) {
            return false;
        }
        let grain = min / PARTS;
        self.sum += window.by;
        match self.parts.back_mut() {
            Some(last) if last.sum + window.by <= grain => last.sum += window.by,
            _ => self.parts.push_back(Part {
                first: window.number,
                sum: window.by,
            }),
        }
        // The oldest part goes when the others prove as much without it.
        while let Some(oldest) = self.parts.front()
            && self.sum.saturating_sub(oldest.sum) >= min
            && self.parts.len() > 1
        {
            self.sum = self.sum.saturating_sub(oldest.sum);
            self.parts.pop_front();
        }
        true
    }

    /// The last window such that what is known since then was watched for `min`. `None`: nothing was.
    pub fn proven(&self, min: Duration) -> Option<u64> {
        let mut sum = Duration::ZERO;
        for part in self.parts.iter().rev() {
            sum += part.sum;
            if sum >= min {
                return Some(part.first.saturating_sub(1));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIN: Duration = Duration::from_secs(100);

    fn caller(name: &str) -> Caller {
        Caller::new("shop", name)
    }

    fn window(number: u64, seconds: u64, callers: &[&str]) -> Window {
        Window {
            number,
            by: Duration::from_secs(seconds),
            callers: callers.iter().map(|c| caller(c)).collect(),
        }
    }

    fn watched(callers: &[&str]) -> Watched {
        let mut out = Watched::default();
        out.of(&callers.iter().map(|c| caller(c)).collect());
        out
    }

    #[test]
    fn time_counts_when_all_workloads_were_watched() {
        let mut both = watched(&["a", "b"]);
        assert!(!both.take(&window(1, 200, &["a"]), MIN));
        assert_eq!(both.proven(MIN), None);
        assert!(both.take(&window(2, 200, &["a", "b", "c"]), MIN));
        assert_eq!(both.proven(MIN), Some(1), "what was known in window 1");
    }

    #[test]
    fn without_workloads_nothing_is_watched() {
        let mut none = watched(&[]);
        assert!(!none.take(&window(1, 200, &["a"]), MIN));
        assert_eq!(none.proven(MIN), None);
    }

    #[test]
    fn another_workload_begins_anew() {
        let mut one = watched(&["a"]);
        one.take(&window(1, 200, &["a", "b"]), MIN);
        one.of(&[caller("a"), caller("b")].into());
        assert_eq!(one.proven(MIN), None);
        one.take(&window(2, 200, &["a", "b"]), MIN);
        one.of(&[caller("a"), caller("b")].into());
        assert_eq!(one.proven(MIN), Some(1));
    }

    proptest! {
        /// Against the definition: of what is known since window `b` the windows after `b` count.
        #[test]
        fn what_is_proven_was_watched_for_that_long(
            seen in prop::collection::vec((0_u64..40, any::<bool>()), 0..300),
        ) {
            let mut one = watched(&["a"]);
            let mut all: Vec<(u64, u64)> = Vec::new();
            let mut last = None;
            for (i, (seconds, there)) in seen.iter().enumerate() {
                let number = i as u64 + 1;
                let callers: &[&str] = if *there { &["a"] } else { &["b"] };
                one.take(&window(number, *seconds, callers), MIN);
                if *there {
                    all.push((number, *seconds));
                }
                let proven = one.proven(MIN);
                if let Some(b) = proven {
                    let sum: u64 = all.iter().filter(|(n, _)| *n > b).map(|(_, s)| s).sum();
                    prop_assert!(sum >= MIN.as_secs(), "{b}: {sum}");
                }
                prop_assert!(proven >= last, "it never goes back");
                last = proven;
                // Nothing is forgotten that proves: one part more than enough is the most that is missing.
                let total: u64 = all.iter().map(|(_, s)| s).sum();
                prop_assert_eq!(proven.is_some(), total >= MIN.as_secs());
                prop_assert!(one.parts.len() <= 2 * PARTS as usize + 2);
            }
        }
    }
}
