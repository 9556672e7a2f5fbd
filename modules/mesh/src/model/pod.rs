//! Pods: found by labels, by workload and by address.
//!
//! Pods of one workload with the same labels are one group, and labels are kept once a group: a mesh has many pods and few
//! groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use super::capture::{Capture, DATAPLANE_MODE};
use super::{Labels, Namespace, selects};
use crate::quantity::parse_quantity;
use crate::table::{Change, Index, Known, Row, Rows};

/// Annotation with what the injector has done, as JSON.
const INJECTED: &str = "sidecar.istio.io/status";
/// Annotation with the revision of the injector.
const REVISION: &str = "istio.io/rev";

/// A workload as Istio's telemetry names it (`source_workload_namespace`, `source_workload`).
///
/// It is the controller that a user wrote: the Deployment of a ReplicaSet's pods, the CronJob of a Job's, else the direct
/// owner; a bare pod is its own workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Workload {
    /// Namespace of the pods.
    pub namespace: Arc<str>,
    /// Name of the workload.
    pub workload: Arc<str>,
}

impl Workload {
    /// A workload.
    pub fn new(namespace: &str, workload: &str) -> Self {
        Self {
            namespace: namespace.into(),
            workload: workload.into(),
        }
    }

    /// Of a pod.
    pub fn of(pod: &v1::Pod) -> Self {
        Self::new(&pod.namespace().unwrap_or_default(), &workload(pod))
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.workload)
    }
}

/// Pods that are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodGroup {
    /// Their workload.
    pub workload: Workload,
    /// Their labels.
    pub labels: Labels,
    /// Their service account.
    pub account: Box<str>,
    /// The revision of Istio that has injected their proxy; empty: not known.
    pub revision: Box<str>,
}

/// Sums over the containers of a pod; `None`: no container says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Resources {
    /// CPU requests, in cores.
    pub cpu_request: Option<f64>,
    /// CPU limits, in cores.
    pub cpu_limit: Option<f64>,
    /// Memory requests, in bytes.
    pub memory_request: Option<f64>,
    /// Memory limits, in bytes.
    pub memory_limit: Option<f64>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Name.
    pub name: Arc<str>,
    /// Namespace, workload and labels.
    pub group: Arc<PodGroup>,
    /// Addresses at which it calls and is called, the main one first; none when it is on the host's network or has ended.
    pub addresses: Box<[IpAddr]>,
    /// Ready as the endpoint controller counts it: condition Ready is True and it is not being deleted.
    pub ready: bool,
    /// What its containers ask for.
    pub resources: Resources,
    /// What stands between it and its callers.
    pub capture: Capture,
}

impl Pod {
    /// Whether two rows are of one pod.
    fn is(&self, other: &Self) -> bool {
        let namespace = |pod: &Self| pod.group.workload.namespace.clone();
        self.name == other.name && namespace(self) == namespace(other)
    }
}

impl Pod {
    /// Whether the node's proxy carries its traffic: it does, or the pod asks for it, or else its namespace.
    pub fn is_ambient(&self, namespace: Option<&Namespace>) -> bool {
        let own = self.group.labels.get(DATAPLANE_MODE).map(String::as_str);
        let asked = own.or_else(|| namespace?.dataplane_mode());
        self.capture.ambient || asked == Some("ambient")
    }
}

impl Row for Pod {
    type Object = v1::Pod;
    type Index = PodGroups;

    fn read(object: &Arc<v1::Pod>, known: &Known<'_, Self>) -> Option<Self> {
        let account = object.spec.as_ref();
        let account = account.and_then(|spec| spec.service_account_name.as_deref());
        let group = PodGroup {
            workload: Workload::of(object),
            labels: object.labels().clone().into_iter().collect(),
            // The API server writes this name where there is none; offline nobody does.
            account: account
                .filter(|a| !a.is_empty())
                .unwrap_or("default")
                .into(),
            revision: revision(object),
        };
        let status = object.status.as_ref();
        let conditions = status.and_then(|s| s.conditions.as_ref());
        let ready = |c: &v1::PodCondition| c.type_ == "Ready" && c.status == "True";
        Some(Self {
            name: object.name_any().into(),
            group: known.index.known(&group).unwrap_or_else(|| Arc::new(group)),
            addresses: addresses(object),
            ready: conditions.is_some_and(|c| c.iter().any(ready))
                && object.metadata.deletion_timestamp.is_none(),
            resources: resources(object),
            capture: Capture::of(object),
        })
    }
}

/// What the injector has noted of itself. The label of the name is not it: it may be a tag.
fn revision(pod: &v1::Pod) -> Box<str> {
    let annotation = |name: &str| pod.annotations().get(name).map(String::as_str);
    let status: Option<Injected> = annotation(INJECTED).and_then(|s| serde_json::from_str(s).ok());
    let own = status.and_then(|status| status.revision);
    own.as_deref()
        .or_else(|| annotation(REVISION))
        .unwrap_or_default()
        .into()
}

/// What the injector writes into [`INJECTED`].
#[derive(Deserialize)]
struct Injected {
    revision: Option<String>,
}

fn addresses(pod: &v1::Pod) -> Box<[IpAddr]> {
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    let on_host = spec.and_then(|s| s.host_network).unwrap_or_default();
    let phase = status.and_then(|s| s.phase.as_deref());
    if on_host || matches!(phase, Some("Succeeded" | "Failed")) {
        return Box::default();
    }
    let first = status.and_then(|s| s.pod_ip.as_deref());
    let all = status.and_then(|s| s.pod_ips.as_ref());
    let all = all.into_iter().flatten().map(|ip| ip.ip.as_str());
    let parsed = first
        .into_iter()
        .chain(all)
        .filter_map(|ip| ip.parse().ok());
    let mut out: Vec<IpAddr> = Vec::new();
    for address in parsed.map(|ip: IpAddr| ip.to_canonical()) {
        if !out.contains(&address) {
            out.push(address);
        }
    }
    out.into()
}

/// Name of the container of Istio's proxy.
pub const PROXY: &str = "istio-proxy";

fn resources(pod: &v1::Pod) -> Resources {
    let spec = pod.spec.as_ref();
    let containers = spec.map(|s| s.containers.as_slice()).unwrap_or_default();
    let only = containers.len() == 1;
    // What the proxy asks for is none of the application's; the pods of a gateway have nothing else.
    let counted = containers.iter().filter(|c| only || c.name != PROXY);
    let all = || counted.clone().filter_map(|c| c.resources.as_ref());
    let sum = |of: fn(&v1::ResourceRequirements) -> Option<&Quantities>, name: &str| {
        let quantities = all().filter_map(|r| of(r)?.get(name));
        let values = quantities.filter_map(|q| parse_quantity(&q.0).ok());
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    };
    Resources {
        cpu_request: sum(|r| r.requests.as_ref(), "cpu"),
        cpu_limit: sum(|r| r.limits.as_ref(), "cpu"),
        memory_request: sum(|r| r.requests.as_ref(), "memory"),
        memory_limit: sum(|r| r.limits.as_ref(), "memory"),
    }
}

type Quantities = BTreeMap<String, Quantity>;

/// The workload's name as Istio's injector computes it (`GetWorkloadMetaFromPod`).
fn workload(pod: &v1::Pod) -> String {
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

type Pair = (Arc<str>, String, String);

/// Pods by what they have in common.
#[derive(Debug, Default)]
pub struct PodGroups {
    /// Names of the pods of each group.
    groups: HashMap<Arc<PodGroup>, BTreeSet<Arc<str>>>,
    by_pair: HashMap<Pair, BTreeSet<Arc<PodGroup>>>,
    by_workload: HashMap<Workload, BTreeSet<Arc<PodGroup>>>,
    /// The last pod is the one that has the address now: an old one's end may be seen late.
    by_address: HashMap<IpAddr, Vec<Arc<Pod>>>,
}

fn pairs(group: &PodGroup) -> impl Iterator<Item = Pair> {
    let namespace = &group.workload.namespace;
    let labels = group.labels.iter();
    labels.map(|(k, v)| (namespace.clone(), k.clone(), v.clone()))
}

impl Index<Pod> for PodGroups {
    fn change(&mut self, change: &Change<'_, Pod>) {
        if let Some(new) = change.new {
            self.join(new);
        }
        if let Some(old) = change.old {
            self.leave(old, change.new);
        }
    }
}

impl PodGroups {
    fn join(&mut self, pod: &Arc<Pod>) {
        let group = &pod.group;
        let names = self.groups.entry(group.clone()).or_default();
        let first = names.is_empty();
        names.insert(pod.name.clone());
        if first {
            for pair in pairs(group) {
                self.by_pair.entry(pair).or_default().insert(group.clone());
            }
            let of_workload = self.by_workload.entry(group.workload.clone());
            of_workload.or_default().insert(group.clone());
        }
        for address in &pod.addresses {
            let pods = self.by_address.entry(*address).or_default();
            pods.retain(|other| !other.is(pod));
            pods.push(pod.clone());
        }
    }

    /// Takes a row out that is gone, or that `now` stands in place of.
    fn leave(&mut self, pod: &Pod, now: Option<&Arc<Pod>>) {
        for address in &pod.addresses {
            if now.is_some_and(|now| now.addresses.contains(address)) {
                continue;
            }
            if let Some(pods) = self.by_address.get_mut(address) {
                pods.retain(|other| !other.is(pod));
                if pods.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
        if now.is_some_and(|now| now.group == pod.group) {
            return;
        }
        let Some(names) = self.groups.get_mut(&pod.group) else {
            return;
        };
        names.remove(&pod.name);
        if names.is_empty() {
            self.forget(&pod.group);
        }
    }

    fn forget(&mut self, group: &Arc<PodGroup>) {
        self.groups.remove(group);
        for pair in pairs(group) {
            if let Some(set) = self.by_pair.get_mut(&pair) {
                set.remove(group);
                if set.is_empty() {
                    self.by_pair.remove(&pair);
                }
            }
        }
        if let Some(set) = self.by_workload.get_mut(&group.workload) {
            set.remove(group);
            if set.is_empty() {
                self.by_workload.remove(&group.workload);
            }
        }
    }

    fn known(&self, group: &PodGroup) -> Option<Arc<PodGroup>> {
        let (known, _) = self.groups.get_key_value(group)?;
        Some(known.clone())
    }

    /// Groups in a namespace with all of these labels; none for no labels.
    pub fn select<'a>(
        &'a self,
        namespace: &str,
        selector: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<PodGroup>> {
        let namespace: Arc<str> = namespace.into();
        let sets = selector.iter().map(|(k, v)| {
            let pair = (namespace.clone(), k.clone(), v.clone());
            self.by_pair.get(&pair)
        });
        let smallest = sets
            .min_by_key(|set| set.map_or(0, BTreeSet::len))
            .flatten();
        let groups = smallest.into_iter().flatten();
        groups.filter(|g| selects(selector, &g.labels))
    }

    /// Groups of all namespaces with all of these labels. Scans all groups.
    pub fn select_everywhere(&self, selector: &Labels) -> impl Iterator<Item = &Arc<PodGroup>> {
        let groups = self.groups.keys();
        groups.filter(|g| selects(selector, &g.labels))
    }

    /// Number of groups in a namespace with a label.
    pub fn having(&self, namespace: &str, label: &str, value: &str) -> usize {
        let pair = (namespace.into(), label.to_owned(), value.to_owned());
        self.by_pair.get(&pair).map_or(0, BTreeSet::len)
    }

    /// Number of pods in a group.
    pub fn count(&self, group: &PodGroup) -> usize {
        self.groups.get(group).map_or(0, BTreeSet::len)
    }

    /// Groups of a workload.
    pub fn of_workload(&self, workload: &Workload) -> impl Iterator<Item = &Arc<PodGroup>> {
        self.by_workload.get(workload).into_iter().flatten()
    }

    /// Whose pod has an address now.
    pub fn workload_at(&self, address: IpAddr) -> Option<Workload> {
        let pod = self.by_address.get(&address.to_canonical())?.last()?;
        Some(pod.group.workload.clone())
    }

    /// Namespaces and values of a label. Scans all pairs.
    pub fn label_values(&self, key: &str) -> BTreeSet<(String, String)> {
        let pairs = self.by_pair.keys().filter(|(_, k, _)| k == key);
        pairs
            .map(|(ns, _, v)| (ns.to_string(), v.clone()))
            .collect()
    }
}

impl Rows<Pod> {
    /// Pods of groups, by namespace and name.
    pub fn of_groups<'a>(
        &self,
        groups: impl IntoIterator<Item = &'a Arc<PodGroup>>,
    ) -> Vec<Arc<Pod>> {
        let mut names = BTreeSet::new();
        for group in groups {
            let pods = self.index().groups.get(group).into_iter().flatten();
            names.extend(pods.map(|pod| (group.workload.namespace.clone(), pod.clone())));
        }
        let rows = names
            .into_iter()
            .filter_map(|(namespace, name)| self.get(&(namespace.to_string(), name.to_string())));
        rows.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(containers: &[(&str, &str)]) -> Option<f64> {
        let container = |(name, cpu): &(&str, &str)| v1::Container {
            name: (*name).to_owned(),
            resources: Some(v1::ResourceRequirements {
                requests: Some([("cpu".to_owned(), Quantity((*cpu).to_owned()))].into()),
                ..<_>::default()
            }),
            ..<_>::default()
        };
        let spec = v1::PodSpec {
            containers: containers.iter().map(container).collect(),
            ..<_>::default()
        };
        let pod = v1::Pod {
            spec: Some(spec),
            ..<_>::default()
        };
        resources(&pod).cpu_request
    }

    #[test]
    fn fault_l3_what_the_proxy_asks_for_is_left_out() {
        let meshed = [("app", "1"), ("istio-proxy", "100m"), ("cache", "500m")];
        assert_eq!(requests(&meshed), Some(1.5));
        assert_eq!(requests(&[("istio-proxy", "100m")]), Some(0.1), "a gateway");
    }
}
