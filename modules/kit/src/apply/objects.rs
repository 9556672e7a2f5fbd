//! What is known of the live objects of an applier.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL};

use super::Key;

/// Changes that are repaired at once.
const QUICK_REPAIRS: u32 = 5;
/// Own writes of an object whose events are awaited; older ones have been overtaken.
const ECHOES: usize = 16;
/// Longest pause between repairs, and the calm after which changes are counted anew.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) hash: u64,
    pub(super) uid: String,
    pub(super) owner: Option<Key>,
}

#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) live: HashMap<Key, Live>,
    /// By owner: what we generated for it.
    by_owner: HashMap<Key, Vec<Key>>,
    /// Desired hash and what the API server made of it: a mutating webhook must not cause an endless loop.
    pub(super) rewritten: HashMap<Key, (u64, u64)>,
    /// Hashes of own writes whose events have not come yet, oldest first: with several writes in a row, the event of one comes
    /// when the next is done already.
    echoes: HashMap<Key, VecDeque<u64>>,
    /// Changes by others, newest run of them.
    contests: HashMap<Key, Contest>,
}

/// How often an object was changed by somebody else lately.
#[derive(Clone, Copy, Debug)]
struct Contest {
    changes: u32,
    /// On the monotonic clock.
    last: Duration,
}

impl Objects {
    /// Remembers an object as it is now.
    pub(super) fn put(&mut self, key: Key, live: Live) {
        let owner = live.owner.clone();
        let old = self.live.insert(key.clone(), live);
        if old.as_ref().map(|o| &o.owner) == Some(&owner) {
            return;
        }
        self.unlink(&key, old.and_then(|o| o.owner));
        if let Some(owner) = owner {
            self.by_owner.entry(owner).or_default().push(key);
        }
    }

    /// Puts a complete list in the place of what is known, but for what could not be read. Returns the owners of what is gone.
    pub(super) fn replace(&mut self, listed: HashMap<Key, Live>, unreadable: &[Key]) -> Vec<Key> {
        let known = self.live.keys();
        let gone: Vec<Key> = known
            .filter(|key| !listed.contains_key(*key) && !unreadable.contains(key))
            .cloned()
            .collect();
        for (key, live) in listed {
            self.put(key, live);
        }
        gone.iter().filter_map(|key| self.forget(key)).collect()
    }

    /// Forgets an object; returns whose it was.
    pub(super) fn forget(&mut self, key: &Key) -> Option<Key> {
        let owner = self.live.remove(key).and_then(|l| l.owner);
        self.rewritten.remove(key);
        self.contests.remove(key);
        self.echoes.remove(key);
        self.unlink(key, owner.clone());
        owner
    }

    pub(super) fn of_owner(&self, owner: &Key) -> Vec<Key> {
        self.by_owner.get(owner).cloned().unwrap_or_default()
    }

    /// A write of ours that is about to begin, or what the API server made of it: its event is no change by somebody else.
    pub(super) fn written(&mut self, key: &Key, hash: u64) {
        let echoes = self.echoes.entry(key.clone()).or_default();
        if echoes.back() != Some(&hash) {
            echoes.push_back(hash);
        }
        if echoes.len() > ECHOES {
            echoes.pop_front();
        }
    }

    /// Whether an event is that of an own write, and then whether it is that of the last one: an older one says nothing of how the
    /// object is now.
    pub(super) fn echo(&mut self, key: &Key, hash: u64) -> Option<bool> {
        let echoes = self.echoes.get_mut(key)?;
        let place = echoes.iter().position(|e| *e == hash)?;
        echoes.drain(..=place);
        let last = echoes.is_empty();
        if last {
            self.echoes.remove(key);
        }
        Some(last)
    }

    /// Counts a change by somebody else at `now` of the monotonic clock. Returns the number of changes and the pause before a repair, when there is one.
    pub(super) fn contested(&mut self, key: &Key, now: Duration) -> Option<(u32, Duration)> {
        let contest = self.contests.entry(key.clone()).or_insert(Contest {
            changes: 0,
            last: now,
        });
        if now.saturating_sub(contest.last) > LONGEST_PAUSE {
            contest.changes = 0;
        }
        contest.changes += 1;
        contest.last = now;
        let more = contest.changes.checked_sub(QUICK_REPAIRS)?;
        let pause = Duration::from_secs(1 << more.min(6)).min(LONGEST_PAUSE);
        (more > 0).then_some((contest.changes, pause))
    }

    fn unlink(&mut self, key: &Key, owner: Option<Key>) {
        let Some(owner) = owner else { return };
        if let Some(keys) = self.by_owner.get_mut(&owner) {
            keys.retain(|k| k != key);
            if keys.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
    }
}

/// Whether a live object of the name of `object` was made by `manager`. One that has lost our labels was: we are its field
/// manager, or it has the owner of ours, as what a predecessor made for it has.
pub(super) fn is_ours<K: Resource>(live: &K, object: &K, manager: &str) -> bool {
    let owners = |o: &K| -> Vec<(String, String)> {
        let of = o.owner_references().iter();
        of.map(|o| (o.uid.clone(), o.kind.clone())).collect()
    };
    let wanted = owners(object);
    let mut managers = live
        .managed_fields()
        .iter()
        .filter_map(|m| m.manager.as_deref());
    live.labels().get(MANAGED_BY_LABEL).map(String::as_str) == Some(MANAGED_BY)
        || managers.any(|m| m == manager)
        || owners(live).iter().any(|owner| wanted.contains(owner))
}

/// `body` in the place of everything but the metadata of `live`, whose labels and owners of ours it renews.
pub(super) fn replacement<K>(live: &K, body: &serde_json::Value) -> Result<K, serde_json::Error>
where
    K: Resource + Serialize + DeserializeOwned,
{
    let mut whole = body.clone();
    let mut metadata = serde_json::to_value(live)?["metadata"].take();
    for field in ["labels", "ownerReferences"] {
        if let Some(wanted) = body["metadata"].get(field) {
            match (metadata.get_mut(field), wanted) {
                (Some(serde_json::Value::Object(have)), serde_json::Value::Object(wanted)) => {
                    have.extend(wanted.clone());
                }
                _ => metadata[field] = wanted.clone(),
            }
        }
    }
    whole["metadata"] = metadata;
    serde_json::from_value(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_own_writes_are_told_from_changes_by_others() {
        let mut objects = Objects::default();
        let key = ("shop".to_owned(), "a".to_owned());
        assert_eq!(objects.echo(&key, 1), None);
        for hash in [1, 2, 2, 3] {
            objects.written(&key, hash);
        }
        assert_eq!(objects.echo(&key, 1), Some(false), "2 and 3 are written");
        assert_eq!(objects.echo(&key, 9), None, "somebody else");
        assert_eq!(objects.echo(&key, 3), Some(true), "of 2 nothing was heard");
        assert_eq!(objects.echo(&key, 3), None, "once");
        for hash in 0..100 {
            objects.written(&key, hash);
        }
        assert_eq!(objects.echo(&key, 0), None, "too old");
        assert_eq!(objects.echo(&key, 99), Some(true));
    }

    #[test]
    fn fault_o40_repairs_slow_down_and_recover_by_the_given_clock() {
        let mut objects = Objects::default();
        let key = ("shop".to_owned(), "a".to_owned());
        let second = Duration::from_secs;
        for _ in 0..QUICK_REPAIRS {
            assert_eq!(objects.contested(&key, second(0)), None);
        }
        assert_eq!(objects.contested(&key, second(1)), Some((6, second(2))));
        assert_eq!(objects.contested(&key, second(61)), Some((7, second(4))));
        assert_eq!(objects.contested(&key, second(122)), None, "calm since");
    }
}
