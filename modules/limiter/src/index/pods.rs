//! Pods by label pair: only what decisions need is kept, about 200 bytes a pod.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::core::v1::Pod;
use trimtab_kit::sources::{PodFacts, parse_quantity};

type Name = (String, String);

#[derive(Debug)]
struct Entry {
    labels: BTreeMap<String, String>,
    facts: PodFacts,
}

#[derive(Debug, Default)]
pub(super) struct PodIndex {
    pods: HashMap<Name, Entry>,
    by_pair: HashMap<(String, String, String), HashSet<String>>,
}

impl PodIndex {
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    pub fn names(&self) -> Vec<Name> {
        self.pods.keys().cloned().collect()
    }

    /// Puts a pod in. Returns the label sets whose limiters are touched: none when nothing of interest changed.
    pub fn apply(&mut self, pod: &Pod) -> Vec<BTreeMap<String, String>> {
        let name: Name = (
            pod.metadata.namespace.clone().unwrap_or_default(),
            pod.metadata.name.clone().unwrap_or_default(),
        );
        let entry = Entry {
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            facts: facts(pod, &name),
        };
        if let Some(old) = self.pods.get(&name)
            && old.labels == entry.labels
            && old.facts == entry.facts
        {
            return Vec::new();
        }
        let mut touched: Vec<BTreeMap<String, String>> = self.remove(&name).into_iter().collect();
        for (label, value) in &entry.labels {
            self.by_pair
                .entry((name.0.clone(), label.clone(), value.clone()))
                .or_default()
                .insert(name.1.clone());
        }
        touched.push(entry.labels.clone());
        self.pods.insert(name, entry);
        touched
    }

    /// Takes a pod out and returns its labels.
    pub fn remove(&mut self, name: &Name) -> Option<BTreeMap<String, String>> {
        let old = self.pods.remove(name)?;
        for (label, value) in &old.labels {
            let pair = (name.0.clone(), label.clone(), value.clone());
            if let Some(names) = self.by_pair.get_mut(&pair) {
                names.remove(&name.1);
                if names.is_empty() {
                    self.by_pair.remove(&pair);
                }
            }
        }
        Some(old.labels)
    }

    /// Number of pods with a label; 0 for `*`, where nobody counts.
    pub fn count(&self, namespace: &str, label: &str, value: &str) -> usize {
        let pair = (namespace.to_owned(), label.to_owned(), value.to_owned());
        self.by_pair.get(&pair).map_or(0, HashSet::len)
    }

    /// Pods with all of `labels`, sorted. `*` = all namespaces, which scans.
    pub fn select(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<PodFacts> {
        let fits = |e: &Entry| labels.iter().all(|(k, v)| e.labels.get(k) == Some(v));
        let mut out: Vec<PodFacts> = if namespace == "*" {
            self.pods
                .values()
                .filter(|e| fits(e))
                .map(|e| e.facts.clone())
                .collect()
        } else {
            let candidates = labels
                .iter()
                .map(|(k, v)| {
                    self.by_pair
                        .get(&(namespace.to_owned(), k.clone(), v.clone()))
                })
                .min_by_key(|set| set.map_or(0, HashSet::len))
                .flatten();
            candidates
                .into_iter()
                .flatten()
                .filter_map(|name| self.pods.get(&(namespace.to_owned(), name.clone())))
                .filter(|e| fits(e))
                .map(|e| e.facts.clone())
                .collect()
        };
        out.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        out
    }
}

/// A pod counts as Ready as the endpoint controller counts it: condition Ready is True and it is not being deleted.
fn facts(pod: &Pod, name: &Name) -> PodFacts {
    let status = pod.status.as_ref();
    let condition = status
        .and_then(|s| s.conditions.as_ref())
        .is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    let ready = condition && pod.metadata.deletion_timestamp.is_none();
    let sum = |requests: bool, resource: &str| -> Option<f64> {
        let containers = pod
            .spec
            .as_ref()
            .map(|s| s.containers.as_slice())
            .unwrap_or_default();
        let mut total = None;
        for container in containers {
            let resources = container.resources.as_ref();
            let map = resources.and_then(|r| {
                if requests {
                    r.requests.as_ref()
                } else {
                    r.limits.as_ref()
                }
            });
            if let Some(value) = map
                .and_then(|m| m.get(resource))
                .and_then(|q| parse_quantity(&q.0).ok())
            {
                total = Some(total.unwrap_or(0.0) + value);
            }
        }
        total
    };
    PodFacts {
        cpu_request: sum(true, "cpu"),
        cpu_limit: sum(false, "cpu"),
        memory_request: sum(true, "memory"),
        memory_limit: sum(false, "memory"),
        ..PodFacts::new(&name.0, &name.1, ready)
    }
}
