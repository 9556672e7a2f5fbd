//! Which names a change touches.

use std::collections::BTreeSet;
use std::sync::Arc;

use trimtab_mesh::model::{Namespace, Outside, Pod, PodGroup, Service, selects};
use trimtab_mesh::table::{Change, Follower};

use super::decide::{WORKLOAD_IDENTITY, label_key};
use super::{AutoFences, State};
use crate::config::LazyloadConfig;
use crate::mesh::Fence;
use crate::object::FenceKey;

impl State {
    /// All that may have a fence in a namespace.
    fn of_namespace(&self, namespace: &str) -> Vec<FenceKey> {
        let pods = self.pods.keys().filter(|k| k.namespace == namespace);
        let mut out: Vec<FenceKey> = pods.cloned().collect();
        let rows = self.services.rows();
        out.extend(
            rows.in_namespace(namespace)
                .map(|(name, _)| FenceKey::of(name)),
        );
        out
    }

    /// Services whose pods may obey a Sidecar now, or no more: of pods that obey none, and of the first and the last of others.
    fn serving(&self, change: &Change<'_, Pod>) -> Vec<FenceKey> {
        let outside = |pod: &Pod| {
            let row = self.namespaces.get("", &pod.group.workload.namespace);
            pod.capture.outside(pod.is_ambient(row.as_deref()))
        };
        let part = |pod: Option<&Arc<Pod>>| pod.map(|pod| (pod.group.clone(), outside(pod)));
        let (old, new) = (part(change.old), part(change.new));
        if old == new {
            return Vec::new();
        }
        let pods = self.rows.rows();
        let matters = |(group, why): &&(Arc<PodGroup>, Option<Outside>)| {
            why.is_some() || pods.index().count(group) < 2
        };
        let groups: BTreeSet<Arc<PodGroup>> = old
            .iter()
            .chain(&new)
            .filter(matters)
            .map(|(group, _)| group.clone())
            .collect();
        drop(pods);
        let rows = self.services.rows();
        let here = groups.iter().flat_map(|group| {
            let services = rows.in_namespace(&group.workload.namespace);
            services.filter(move |(_, service)| {
                !service.selector.is_empty() && selects(&service.selector, &group.labels)
            })
        });
        here.map(|(name, _)| FenceKey::of(name)).collect()
    }

    fn put_pod(&mut self, pod: &Pod, (key, value): (FenceKey, String)) -> Option<FenceKey> {
        let known = self.pods.contains_key(&key);
        let pods = self.pods.entry(key.clone()).or_default();
        pods.0 = value;
        pods.1.insert(pod.name.clone());
        (!known).then_some(key)
    }

    fn drop_pod(&mut self, pod: &Pod, key: FenceKey) -> Option<FenceKey> {
        let (_, pods) = self.pods.get_mut(&key)?;
        pods.remove(&pod.name);
        if !pods.is_empty() {
            return None;
        }
        self.pods.remove(&key);
        Some(key)
    }
}

/// The fence that a pod's label asks for, with the label's value.
fn asked(pod: &Pod, config: &LazyloadConfig) -> Option<(FenceKey, String)> {
    let (label, alias) = label_key(config)?;
    let value = pod.group.labels.get(label).filter(|v| !v.is_empty())?;
    let key = FenceKey {
        namespace: pod.group.workload.namespace.to_string(),
        name: format!("{alias}-{}{WORKLOAD_IDENTITY}", value.to_lowercase()),
    };
    Some((key, value.clone()))
}

impl Follower<Service> for AutoFences {
    fn changed(&self, change: Change<'_, Service>) {
        self.mark([FenceKey::of(change.name)]);
    }
}

impl Follower<Namespace> for AutoFences {
    fn changed(&self, change: Change<'_, Namespace>) {
        let touched = self.state.lock().of_namespace(&change.name.1);
        self.mark(touched);
    }
}

impl Follower<Fence> for AutoFences {
    fn changed(&self, change: Change<'_, Fence>) {
        let matters = |f: Option<&Arc<Fence>>| f.map(|f| (f.uid.clone(), f.labels.clone()));
        if matters(change.old) != matters(change.new) {
            self.mark([FenceKey::of(change.name)]);
        }
    }
}

impl Follower<Pod> for AutoFences {
    fn changed(&self, change: Change<'_, Pod>) {
        let config = self.config.lock().clone();
        let of = |pod: Option<&Arc<Pod>>| Some((pod?.clone(), asked(pod?, &config)?));
        let (old, new) = (of(change.old), of(change.new));
        let mut state = self.state.lock();
        let mut touched = Vec::new();
        if let Some((pod, (key, _))) = old
            && new.as_ref().is_none_or(|(_, (now, _))| *now != key)
        {
            touched.extend(state.drop_pod(&pod, key));
        }
        if let Some((pod, asked)) = new {
            touched.extend(state.put_pod(&pod, asked));
        }
        touched.extend(state.serving(&change));
        drop(state);
        self.mark(touched);
    }
}
