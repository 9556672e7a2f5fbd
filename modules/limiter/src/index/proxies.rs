//! The pods of a limiter one by one, and names that are near to one that nobody has: what `trimtab describe` asks for.

use std::collections::BTreeSet;

use strsim::osa_distance;
use trimtab_mesh::model::Labels;

use super::targets::Role;
use super::{Index, LimiterKey};
use crate::input::Gap;

/// Names that are listed.
const LISTED: usize = 5;

/// A pod of a limiter.
#[derive(Clone, Debug)]
pub struct PodProxy {
    /// `namespace/name`.
    pub name: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// Why it can hold no limit.
    pub gap: Option<Gap>,
    /// Revision of Istio of its proxy; empty: not known.
    pub revision: String,
}

impl Index {
    /// The pods with these labels, by namespace and name.
    pub(crate) fn proxies(
        &self,
        key: &LimiterKey,
        everywhere: bool,
        selector: &Labels,
        gateway: bool,
        revision: Option<&str>,
    ) -> Vec<PodProxy> {
        let state = self.state.lock();
        let root = key.namespace == self.root_namespace;
        let scope = if root && everywhere {
            "*"
        } else {
            &key.namespace
        };
        let role = Role {
            gateway,
            revision: revision.map(str::to_owned),
        };
        let pods = state.targets.pods(scope, selector);
        let mut out: Vec<PodProxy> = pods
            .iter()
            .map(|pod| PodProxy {
                name: format!("{}/{}", pod.group.workload.namespace, pod.name),
                ready: pod.ready,
                gap: state.targets.gap(pod, &role),
                revision: pod.group.revision.to_string(),
            })
            .collect();
        out.sort_by(|a, b| a.name.cmp(&b.name));
        out
    }

    /// Values that pods of a namespace have for the labels of a selector that selects none of them.
    pub(crate) fn other_labels(&self, namespace: &str, selector: &Labels) -> Vec<String> {
        let state = self.state.lock();
        let rows = state.targets.pods.rows();
        let pods = rows.in_namespace(namespace);
        let mut found = BTreeSet::new();
        for (_, pod) in pods {
            for (label, wanted) in selector {
                let value = pod.group.labels.get(label);
                let value = value.filter(|value| *value != wanted);
                found.extend(value.map(|value| format!("{label}={value}")));
            }
        }
        found.into_iter().take(LISTED).collect()
    }

    /// Services of a namespace with a name like this one. Names are compared when no lock is held.
    pub(crate) fn services_like(&self, namespace: &str, name: &str) -> Vec<String> {
        let services = self.state.lock().targets.services.clone();
        let names: BTreeSet<String> = {
            let rows = services.rows();
            let names = rows.in_namespace(namespace);
            names.map(|((_, n), _)| n.clone()).collect()
        };
        nearest(name, names)
    }

    /// Namespaces with a limiter of this name, and limiters of this namespace with a name like it.
    pub(crate) fn limiters_like(&self, namespace: &str, name: &str) -> Vec<String> {
        let (mut out, here): (Vec<String>, BTreeSet<String>) = {
            let state = self.state.lock();
            let keys = state.limiters.keys();
            let elsewhere = keys.clone().filter(|k| k.name == name);
            let here = keys.filter(|k| k.namespace == namespace);
            (
                elsewhere
                    .map(|k| format!("{}/{}", k.namespace, k.name))
                    .collect(),
                here.map(|k| k.name.clone()).collect(),
            )
        };
        let near = nearest(name, here);
        out.extend(near.iter().map(|near| format!("{namespace}/{near}")));
        out.sort();
        out.dedup();
        out.truncate(LISTED);
        out
    }
}

/// The names that are nearest to a word, at most as many edits away as a third of its letters.
pub(crate) fn nearest(word: &str, names: BTreeSet<String>) -> Vec<String> {
    let most = (word.chars().count() / 3).max(1);
    let length = word.chars().count();
    let close = |name: &String| name.chars().count().abs_diff(length) <= most;
    let far = names.into_iter().filter(close);
    let far = far.map(|name| (osa_distance(word, &name), name));
    let mut near: Vec<(usize, String)> = far.filter(|(n, _)| *n <= most).collect();
    near.sort();
    near.into_iter()
        .map(|(_, name)| name)
        .take(LISTED)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names() {
        let names = ["reviews", "ratings", "review", "r"];
        let names: BTreeSet<String> = names.map(str::to_owned).into();
        let found = nearest("revews", names.clone());
        assert_eq!(found, ["reviews", "review"].map(str::to_owned));
        assert!(nearest("productpage", names).is_empty());
        assert_eq!(nearest("erviews", ["reviews".to_owned()].into()).len(), 1);
    }
}
