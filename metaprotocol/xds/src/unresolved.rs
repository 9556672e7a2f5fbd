//! Resources that a process cannot judge.
//!
//! A process that has just begun may not be able to read what an earlier one has served: a file with a mistake, an object
//! that is refused and of which no good version is known. What is made of it is not absent, it is unknown. So a client
//! that connects with something keeps it: it is neither told that it is gone, nor given the content that was made without
//! what could not be read. What changes from then on is sent.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Instant;

use crate::entry::Entry;

/// What cannot be judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Unresolved {
    /// Nothing: all is known.
    #[default]
    Nothing,
    /// Resources of any type with these names, or with names that end in `/` and one of these.
    Names(BTreeSet<String>),
    /// Everything.
    Everything,
}

impl Unresolved {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Names(names) => {
                let last = name.rsplit_once('/').map_or(name, |(_, last)| last);
                names.contains(name) || names.contains(last)
            }
        }
    }
}

/// What several parts of the host cannot judge, as a table sees it.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    by: BTreeMap<&'static str, Unresolved>,
    /// Until when contents count as made without what could not be read; `None`: until now.
    until: Option<Instant>,
    /// Names that were removed on purpose since.
    removed: HashSet<String>,
    /// Number of times that something became known.
    released: u64,
}

impl Holds {
    /// Whether there is anything.
    pub(crate) fn any(&self) -> bool {
        !self.by.is_empty()
    }

    /// Number of times that something became known: clients must be looked at again then.
    pub(crate) fn released(&self) -> u64 {
        self.released
    }

    /// Replaces what `by` cannot judge.
    pub(crate) fn set(&mut self, by: &'static str, what: Unresolved) -> bool {
        let before = self.by.get(by).cloned().unwrap_or_default();
        if before == what {
            return false;
        }
        self.released += 1;
        if what == Unresolved::Nothing {
            self.by.remove(by);
        } else {
            self.by.insert(by, what);
        }
        if self.by.is_empty() {
            self.removed = HashSet::new();
        }
        true
    }

    /// The first contents are complete: later ones are changes.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.until.get_or_insert(now);
    }

    /// A name was removed.
    pub(crate) fn remove(&mut self, name: &str) {
        if self.any() && self.until.is_some() {
            self.removed.insert(name.to_owned());
        }
    }

    /// Whether a client keeps what it has of a name from before the stream.
    pub(crate) fn keeps(&self, name: &str, current: Option<&Entry>) -> bool {
        if !self.by.values().any(|u| u.has(name)) {
            return false;
        }
        match current {
            Some(entry) => self.until.is_none_or(|until| entry.published <= until),
            None => !self.removed.contains(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_held_until_it_is_changed_removed_or_known() {
        let mut holds = Holds::default();
        assert!(!holds.keeps("a_80", None));
        let names = Unresolved::Names(BTreeSet::from(["a_80".to_owned()]));
        assert!(holds.set("x", names.clone()) && !holds.set("x", names));
        assert!(holds.keeps("a_80", None) && holds.keeps("xdstp://t/routes/a_80", None));
        assert!(!holds.keeps("b_80", None) && !holds.keeps("a_8", None));
        holds.begin(Instant::now());
        holds.remove("a_80");
        assert!(!holds.keeps("a_80", None));
        holds.set("y", Unresolved::Everything);
        assert!(holds.keeps("b_80", None));
        let released = holds.released();
        holds.set("x", Unresolved::Nothing);
        holds.set("y", Unresolved::Nothing);
        assert_eq!(holds.released(), released + 2);
        assert!(!holds.any() && !holds.keeps("b_80", None));
    }
}
