//! Entries of a live Sidecar that nothing here explains: of a scope whose status was lost, of Slime, or of another replica
//! whose status has not come yet.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::scope;

/// Each of them stays for the grace, in which the call is learned again or the status comes. Later additions by hand
/// count only as far as a replica could have made them: exact hosts.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// When each was seen first.
    since: BTreeMap<String, Timestamp>,
    /// What the Sidecar that was wanted last has.
    named: BTreeSet<String>,
    /// Taken out on purpose, and live until the write has come round.
    dropped: BTreeSet<String>,
    met: bool,
}

impl Orphans {
    /// Looks at the live entries again. Gives when the next of them leaves.
    pub(super) fn look(
        &mut self,
        live: Option<&BTreeSet<String>>,
        wanted: &BTreeSet<&str>,
        now: Timestamp,
        grace: SignedDuration,
    ) -> Option<Timestamp> {
        let lost = |entry: &&String| !explained(wanted, entry);
        let lost: BTreeSet<&String> = live.into_iter().flatten().filter(lost).collect();
        self.dropped.retain(|entry| lost.contains(entry));
        for entry in lost {
            let by_us = self.named.contains(entry) || self.dropped.contains(entry);
            if self.since.contains_key(entry) {
                continue;
            }
            if by_us {
                self.dropped.insert(entry.clone());
            } else if !self.met || !entry.contains('*') {
                self.since.insert(entry.clone(), now);
            }
        }
        self.met = true;
        let dropped = &mut self.dropped;
        let mut next: Option<Timestamp> = None;
        self.since.retain(|entry, since| {
            if explained(wanted, entry) {
                return false;
            }
            // A clock that goes back must not make the grace longer.
            *since = (*since).min(now);
            let end = since.checked_add(grace).unwrap_or(Timestamp::MAX);
            if now >= end {
                dropped.insert(entry.clone());
                return false;
            }
            next = Some(next.map_or(end, |n| n.min(end)));
            true
        });
        next
    }

    /// What stays for now.
    pub(super) fn kept(&self) -> impl Iterator<Item = &String> {
        self.since.keys()
    }

    /// What the Sidecar is to have.
    pub(super) fn note_wanted(&mut self, hosts: BTreeSet<String>) {
        self.named = hosts;
    }
}

/// Whether a list of entries has all that another entry imports. Slime's `*/host` is what we write with a namespace.
fn explained(wanted: &BTreeSet<&str>, entry: &str) -> bool {
    // An exclusion imports nothing, and `~/*` neither.
    let nothing = entry.starts_with('~');
    if nothing || wanted.contains(entry) || wanted.contains(scope::EVERYTHING) {
        return true;
    }
    match entry.split_once('/') {
        Some(("*", host)) => wanted
            .iter()
            .any(|w| w.split_once('/').is_some_and(|(_, h)| h == host)),
        Some((namespace, _)) => wanted.contains(format!("{namespace}/*").as_str()),
        None => false,
    }
}

/// Adds what is not there yet.
pub(super) fn widen<'a>(hosts: &mut BTreeSet<String>, more: impl IntoIterator<Item = &'a String>) {
    let have: BTreeSet<&str> = hosts.iter().map(String::as_str).collect();
    let missing = more.into_iter().filter(|entry| !explained(&have, entry));
    let missing: Vec<String> = missing.cloned().collect();
    hosts.extend(missing);
    if hosts.contains(scope::EVERYTHING) {
        hosts.retain(|entry| entry == scope::EVERYTHING);
    } else if hosts.len() > 1 {
        hosts.remove(scope::NOTHING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: SignedDuration = SignedDuration::from_secs(300);

    fn set(entries: &[&str]) -> BTreeSet<String> {
        entries.iter().map(|e| (*e).to_owned()).collect()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn kept(orphans: &Orphans) -> Vec<&str> {
        orphans.kept().map(String::as_str).collect()
    }

    #[test]
    fn what_another_replica_names_stays_until_it_is_known_or_the_grace_ends() {
        let mut orphans = Orphans::default();
        assert_eq!(orphans.look(None, &["a/a"].into(), at(0), GRACE), None);
        orphans.note_wanted(set(&["a/a"]));
        let live = set(&["a/a", "a/b", "*/*"]);
        let end = orphans.look(Some(&live), &["a/a"].into(), at(10), GRACE);
        assert_eq!(end, Some(at(310)));
        assert_eq!(kept(&orphans), ["a/b"], "a wildcard is nobody's");
        orphans.look(Some(&live), &["a/a", "a/b"].into(), at(20), GRACE);
        assert!(kept(&orphans).is_empty());
        let live = set(&["a/a", "a/c"]);
        orphans.look(Some(&live), &["a/a"].into(), at(30), GRACE);
        assert_eq!(kept(&orphans), ["a/c"]);
        orphans.look(Some(&live), &["a/a"].into(), at(330), GRACE);
        // Still live, and not taken up again.
        orphans.look(Some(&live), &["a/a"].into(), at(331), GRACE);
        assert!(kept(&orphans).is_empty());
    }

    #[test]
    fn what_was_wanted_and_is_not_any_more_goes_at_once() {
        let mut orphans = Orphans::default();
        orphans.look(None, &["a/a", "a/b"].into(), at(0), GRACE);
        orphans.note_wanted(set(&["a/a", "a/b"]));
        let live = set(&["a/a", "a/b"]);
        for _ in 0..2 {
            orphans.look(Some(&live), &["a/a"].into(), at(10), GRACE);
            orphans.note_wanted(set(&["a/a"]));
            assert!(kept(&orphans).is_empty());
        }
        // Once it is gone, its return is somebody else's knowledge.
        orphans.look(Some(&set(&["a/a"])), &["a/a"].into(), at(20), GRACE);
        orphans.look(Some(&live), &["a/a"].into(), at(30), GRACE);
        assert_eq!(kept(&orphans), ["a/b"]);
    }

    #[test]
    fn a_first_look_takes_wildcards_too_and_clocks_that_go_back_add_nothing() {
        let mut orphans = Orphans::default();
        let live = set(&["*/slime.a", "ns/*"]);
        orphans.look(Some(&live), &["a/a"].into(), at(1000), GRACE);
        assert_eq!(kept(&orphans), ["*/slime.a", "ns/*"]);
        let end = orphans.look(Some(&live), &["a/a"].into(), at(0), GRACE);
        assert_eq!(end, Some(at(300)));
    }
}
