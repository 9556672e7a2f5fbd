//! Limiters of Services that select the same pods: their filters must not have one name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::key::LimiterKey;

/// Namespace and selector.
type Group = (String, BTreeMap<String, String>);

#[derive(Debug, Default)]
pub(super) struct Peers {
    groups: HashMap<Group, BTreeSet<LimiterKey>>,
    of: HashMap<LimiterKey, Group>,
}

impl Peers {
    /// Puts a limiter into the group of its selector. Returns whether another one of the group comes before it, and those
    /// for which that may have changed.
    pub fn join(
        &mut self,
        key: &LimiterKey,
        selector: &BTreeMap<String, String>,
    ) -> (bool, Vec<LimiterKey>) {
        let group = (key.namespace.clone(), selector.clone());
        let mut touched = Vec::new();
        if self.of.get(key) != Some(&group) {
            touched = self.leave(key);
            self.of.insert(key.clone(), group.clone());
            touched.extend(self.groups.get(&group).into_iter().flatten().cloned());
        }
        let members = self.groups.entry(group).or_default();
        members.insert(key.clone());
        (members.first() != Some(key), touched)
    }

    /// Takes a limiter out. Returns those who stay in its group.
    pub fn leave(&mut self, key: &LimiterKey) -> Vec<LimiterKey> {
        let Some(group) = self.of.remove(key) else {
            return Vec::new();
        };
        let Some(members) = self.groups.get_mut(&group) else {
            return Vec::new();
        };
        members.remove(key);
        let rest: Vec<LimiterKey> = members.iter().cloned().collect();
        if rest.is_empty() {
            self.groups.remove(&group);
        }
        rest
    }
}
