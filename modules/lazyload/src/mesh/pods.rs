//! Pods, by address and by workload.
//!
//! Pods of one workload with the same labels are one group, and only groups that come or go are events for fences: a
//! roll-out or an autoscaler that replaces a thousand pods costs a thousand look-ups and computes nothing again.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::Name;
use super::facts::name_of;
use crate::object::Caller;
use crate::scope::Labels;

/// Pods that are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Group {
    pub(super) caller: Caller,
    pub(super) labels: Labels,
}

#[derive(Debug)]
struct Row {
    group: Arc<Group>,
    /// Addresses at which it calls and is called; none when it is on the host's network or has ended.
    addresses: Box<[IpAddr]>,
}

type Pair = (Arc<str>, String, String);

#[derive(Debug, Default)]
pub(super) struct Pods {
    rows: HashMap<Name, Row>,
    groups: HashMap<Arc<Group>, usize>,
    by_pair: HashMap<Pair, BTreeSet<Arc<Group>>>,
    by_caller: HashMap<Caller, BTreeSet<Arc<Group>>>,
    /// The last pod is the one that has the address now: an old one's end may be seen late.
    by_address: HashMap<IpAddr, Vec<(Name, Arc<Group>)>>,
}

fn pairs(group: &Group) -> impl Iterator<Item = Pair> {
    let namespace = &group.caller.namespace;
    let labels = group.labels.iter();
    labels.map(|(k, v)| (namespace.clone(), k.clone(), v.clone()))
}

impl Pods {
    /// Takes a pod in. Gives the groups that have come or gone.
    pub(super) fn put(&mut self, pod: &Pod) -> Vec<Arc<Group>> {
        let name = name_of(pod);
        let group = Group {
            caller: Caller {
                namespace: name.0.as_str().into(),
                workload: workload_of(pod).into(),
            },
            labels: pod.labels().clone().into_iter().collect(),
        };
        let addresses = addresses_of(pod);
        let old = self.rows.get(&name);
        if old.is_some_and(|o| *o.group == group && *o.addresses == *addresses) {
            return Vec::new();
        }
        let (group, appeared) = self.join(group);
        let mut changed = self.remove(&name);
        if appeared {
            changed.push(group.clone());
        }
        for address in &addresses {
            let pods = self.by_address.entry(*address).or_default();
            pods.push((name.clone(), group.clone()));
        }
        let addresses = addresses.into();
        self.rows.insert(name, Row { group, addresses });
        changed
    }

    /// Takes a pod out. Gives the group that has gone with it, if any.
    pub(super) fn remove(&mut self, name: &Name) -> Vec<Arc<Group>> {
        let Some(row) = self.rows.remove(name) else {
            return Vec::new();
        };
        for address in &row.addresses {
            if let Some(pods) = self.by_address.get_mut(address) {
                pods.retain(|(pod, _)| pod != name);
                if pods.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
        if self.leave(&row.group) {
            vec![row.group]
        } else {
            Vec::new()
        }
    }

    fn join(&mut self, group: Group) -> (Arc<Group>, bool) {
        if let Some((known, _)) = self.groups.get_key_value(&group) {
            let known = known.clone();
            if let Some(count) = self.groups.get_mut(&known) {
                *count += 1;
            }
            return (known, false);
        }
        let group = Arc::new(group);
        self.groups.insert(group.clone(), 1);
        for pair in pairs(&group) {
            self.by_pair.entry(pair).or_default().insert(group.clone());
        }
        let of_caller = self.by_caller.entry(group.caller.clone()).or_default();
        of_caller.insert(group.clone());
        (group, true)
    }

    fn leave(&mut self, group: &Arc<Group>) -> bool {
        match self.groups.get_mut(group) {
            Some(count) if *count > 1 => {
                *count -= 1;
                return false;
            }
            _ => {}
        }
        self.groups.remove(group);
        for pair in pairs(group) {
            if let Some(set) = self.by_pair.get_mut(&pair) {
                set.remove(group);
                if set.is_empty() {
                    self.by_pair.remove(&pair);
                }
            }
        }
        if let Some(set) = self.by_caller.get_mut(&group.caller) {
            set.remove(group);
            if set.is_empty() {
                self.by_caller.remove(&group.caller);
            }
        }
        true
    }

    pub(super) fn names(&self) -> Vec<Name> {
        self.rows.keys().cloned().collect()
    }

    /// Groups with all of these labels.
    pub(super) fn select<'a>(
        &'a self,
        namespace: &str,
        selector: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<Group>> {
        let namespace: Arc<str> = namespace.into();
        let sets = selector.iter().map(|(k, v)| {
            let pair = (namespace.clone(), k.clone(), v.clone());
            self.by_pair.get(&pair)
        });
        let smallest = sets
            .min_by_key(|set| set.map_or(0, BTreeSet::len))
            .flatten();
        let fits = |g: &&Arc<Group>| selector.iter().all(|(k, v)| g.labels.get(k) == Some(v));
        smallest.into_iter().flatten().filter(fits)
    }

    /// Number of pods in a group.
    pub(super) fn count(&self, group: &Arc<Group>) -> usize {
        self.groups.get(group).copied().unwrap_or_default()
    }

    pub(super) fn of_caller(&self, caller: &Caller) -> impl Iterator<Item = &Arc<Group>> {
        self.by_caller.get(caller).into_iter().flatten()
    }

    pub(super) fn caller_at(&self, address: IpAddr) -> Option<Caller> {
        let (_, group) = self.by_address.get(&address.to_canonical())?.last()?;
        Some(group.caller.clone())
    }

    pub(super) fn caller_of(&self, name: &Name) -> Option<Caller> {
        Some(self.rows.get(name)?.group.caller.clone())
    }

    /// Namespaces and values of a label. Scans all pairs.
    pub(super) fn values(&self, key: &str) -> BTreeSet<(String, String)> {
        let pairs = self.by_pair.keys().filter(|(_, k, _)| k == key);
        pairs
            .map(|(ns, _, v)| (ns.to_string(), v.clone()))
            .collect()
    }
}

fn addresses_of(pod: &Pod) -> Vec<IpAddr> {
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    let on_host = spec.and_then(|s| s.host_network).unwrap_or_default();
    let phase = status.and_then(|s| s.phase.as_deref());
    if on_host || matches!(phase, Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let first = status.and_then(|s| s.pod_ip.as_deref());
    let all = status.and_then(|s| s.pod_ips.as_ref());
    let all = all.into_iter().flatten().map(|ip| ip.ip.as_str());
    let parsed = first
        .into_iter()
        .chain(all)
        .filter_map(|ip| ip.parse().ok());
    let distinct: BTreeSet<IpAddr> = parsed.map(|ip: IpAddr| ip.to_canonical()).collect();
    distinct.into_iter().collect()
}

/// The workload's name as Istio's injector computes it (`GetWorkloadMetaFromPod`).
pub(super) fn workload_of(pod: &Pod) -> String {
    let owners = pod.metadata.owner_references.iter().flatten();
    let Some(owner) = owners.into_iter().find(|o| o.controller == Some(true)) else {
        return pod.name_any();
    };
    let name = owner.name.as_str();
    let workload = match owner.kind.as_str() {
        "ReplicaSet" => {
            let hash = pod.labels().get("pod-template-hash");
            hash.and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'))
        }
        "Job" => name.rsplit_once('-').and_then(|(cron, time)| {
            let digits = (8..=10).contains(&time.len()) && time.bytes().all(|b| b.is_ascii_digit());
            digits.then_some(cron)
        }),
        "ReplicationController" if pod.labels().contains_key("deploymentconfig") => {
            name.rsplit_once('-').map(|(config, _)| config)
        }
        _ => None,
    };
    workload
        .filter(|w| !w.is_empty())
        .unwrap_or(name)
        .to_owned()
}
