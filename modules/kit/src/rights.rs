//! API rights: modules declare what they need; the chart's ClusterRole is generated from it.

use std::collections::{BTreeMap, BTreeSet};

use kube::Resource;

/// Verbs on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// API group; empty for the core group.
    pub group: String,
    /// Plural, with `/status` for a status.
    pub resource: String,
    /// The only object that it is about; empty: all.
    pub name: String,
    /// Verbs.
    pub verbs: BTreeSet<&'static str>,
}

impl Right {
    /// Verbs on a kind.
    pub fn on<K: Resource<DynamicType = ()>>(verbs: &[&'static str]) -> Self {
        Self {
            group: K::group(&()).into_owned(),
            resource: K::plural(&()).into_owned(),
            name: String::new(),
            verbs: verbs.iter().copied().collect(),
        }
    }

    /// The same verbs on one object only.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The same verbs on the status of the kind.
    #[must_use]
    pub fn status(mut self) -> Self {
        self.resource.push_str("/status");
        self
    }

    /// One entry for each resource, sorted.
    pub fn merged(rights: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut all: BTreeMap<(String, String, String), BTreeSet<&'static str>> = BTreeMap::new();
        for right in rights {
            let verbs = all
                .entry((right.group, right.resource, right.name))
                .or_default();
            verbs.extend(right.verbs);
        }
        let merged = all.into_iter();
        merged
            .map(|((group, resource, name), verbs)| Self {
                group,
                resource,
                name,
                verbs,
            })
            .collect()
    }
}
