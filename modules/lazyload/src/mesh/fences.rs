//! ServiceFences and users' Sidecars, by the pods that they select.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use trimtab_crds::fence::{FenceStatus, ServiceFence, ServiceFenceSpec};
use trimtab_mesh::model::{PodGroup, PodGroups};
use trimtab_mesh::table::{Known, Row};

use crate::object::{Caller, FenceKey};
use crate::scope::{Labels, contains};

/// A fence as the API server has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Fence {
    /// What the user wrote.
    pub spec: Arc<ServiceFenceSpec>,
    /// Labels.
    pub labels: Labels,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Status.
    pub status: Arc<FenceStatus>,
    /// Bytes of all but the status, as they are stored.
    pub rest: usize,
}

/// Names, times, references and what else an object has.
const METADATA: usize = 4096;

/// The keys of the spec stand in the managed fields too.
fn rest_of(fence: &ServiceFence) -> usize {
    let spec = serde_json::to_vec(&fence.spec).map_or(0, |text| text.len());
    let pairs = fence.annotations().iter().chain(fence.labels());
    let pairs = pairs.map(|(key, value)| 2 * key.len() + value.len());
    2 * spec + pairs.sum::<usize>() + METADATA
}

/// A fence with what is known of it.
#[derive(Clone, Debug)]
pub(super) struct FenceRow {
    pub(super) fence: Arc<Fence>,
    pub(super) undecodable: Option<String>,
    /// Labels of its pods; `None`: they cannot be known.
    pub(super) selector: Option<Labels>,
}

impl std::ops::Deref for FenceRow {
    type Target = Fence;

    fn deref(&self) -> &Fence {
        &self.fence
    }
}

impl Row for Fence {
    type Object = ServiceFence;
    type Index = ();

    fn read(object: &Arc<ServiceFence>, _: &Known<'_, Self>) -> Option<Self> {
        Some(Self {
            spec: Arc::new(object.spec.clone()),
            labels: object.labels().clone().into_iter().collect(),
            uid: object.uid().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            created: object.creation_timestamp().map(|t| t.0),
            status: Arc::new(object.status.clone().unwrap_or_default()),
            rest: rest_of(object),
        })
    }
}

impl FenceRow {
    pub(super) fn new(fence: Arc<Fence>) -> Self {
        Self {
            fence,
            undecodable: None,
            selector: None,
        }
    }

    /// Whether a scope or a Sidecar may differ.
    pub(super) fn differs(&self, other: &Self) -> bool {
        self.spec != other.spec
            || self.labels != other.labels
            || self.uid != other.uid
            || self.generation != other.generation
            || self.created != other.created
            || self.undecodable != other.undecodable
    }

    /// Workloads that the stored status names.
    pub(super) fn stored_callers(&self, key: &FenceKey) -> BTreeSet<Caller> {
        let callers = self.status.dependencies.iter().map(|d| d.caller.as_str());
        let callers = callers.filter(|c| !c.is_empty());
        callers.map(|c| Caller::new(&key.namespace, c)).collect()
    }
}

/// Objects of a namespace by the labels of their selectors.
#[derive(Debug)]
pub(super) struct Selectors<K> {
    selectors: BTreeMap<K, Labels>,
    by_pair: HashMap<(String, String, String), BTreeSet<K>>,
}

impl<K> Default for Selectors<K> {
    fn default() -> Self {
        Self {
            selectors: BTreeMap::new(),
            by_pair: HashMap::new(),
        }
    }
}

impl<K: Ord + Clone> Selectors<K> {
    pub(super) fn set(&mut self, namespace: &str, key: &K, selector: Option<&Labels>) {
        let pair = |k: &String, v: &String| (namespace.to_owned(), k.clone(), v.clone());
        for (k, v) in self.selectors.remove(key).iter().flatten() {
            if let Some(keys) = self.by_pair.get_mut(&pair(k, v)) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_pair.remove(&pair(k, v));
                }
            }
        }
        if let Some(selector) = selector {
            for (k, v) in selector {
                let keys = self.by_pair.entry(pair(k, v)).or_default();
                keys.insert(key.clone());
            }
            self.selectors.insert(key.clone(), selector.clone());
        }
    }

    /// Objects that share a label with `labels`, each with its selector.
    fn near<'a>(
        &'a self,
        namespace: &str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = (&'a K, &'a Labels)> {
        let namespace = namespace.to_owned();
        let pairs = labels
            .iter()
            .map(move |(k, v)| (namespace.clone(), k.clone(), v.clone()));
        let keys = pairs.filter_map(|pair| self.by_pair.get(&pair)).flatten();
        keys.filter_map(|key| self.selectors.get_key_value(key))
    }

    /// Objects that select these pods.
    pub(super) fn of_group(&self, group: &PodGroup) -> BTreeSet<K> {
        let near = self.near(&group.workload.namespace, &group.labels);
        let selecting = near.filter(|(_, s)| contains(s, &group.labels));
        selecting.map(|(key, _)| key.clone()).collect()
    }

    /// Objects that may select a pod that `selector` selects: one selector holds the other, or a pod has both.
    pub(super) fn overlapping(
        &self,
        namespace: &str,
        selector: &Labels,
        pods: &PodGroups,
    ) -> BTreeSet<K> {
        let near = self.near(namespace, selector);
        let nested = near.filter(|(_, s)| contains(s, selector) || contains(selector, s));
        let mut out: BTreeSet<K> = nested.map(|(key, _)| key.clone()).collect();
        for group in pods.select(namespace, selector) {
            out.extend(self.of_group(group));
        }
        out
    }
}
