//! State from watches: limiters, Services, pods, DestinationRules, ServiceEntries; and which limiters an event touches.
//!
//! No event costs more than the limiters that it touches: pods are found by label pairs, limiters by the rarest pair of
//! their selector. A relist is one pass.

mod feeds;
mod peers;
mod pods;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use trimtab_crds::istio::Subset;
use trimtab_crds::limiter::{BASE_SET, DescriptorStatus, LimiterSpec, LimiterStatus};
use trimtab_kit::sources::PodFacts;
use trimtab_mesh::names::full_host;

use crate::input::{ServicePort, SetFacts, TargetFacts, TargetProblem};
use crate::owner::Owner;
use peers::Peers;
use pods::PodIndex;

/// Which of the two published forms an object has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// `microservice.slime.io/v1alpha2`.
    V1alpha2,
    /// `microservice.netease.com/v1alpha1`.
    First,
}

impl Form {
    /// The API version.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1alpha2 => "microservice.slime.io/v1alpha2",
            Self::First => "microservice.netease.com/v1alpha1",
        }
    }
}

/// Names a limiter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimiterKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Form.
    pub form: Form,
}

/// A limiter as last seen.
#[derive(Clone, Debug)]
pub struct LimiterObject {
    /// Identity.
    pub owner: Owner,
    /// What it says.
    pub spec: Arc<LimiterSpec>,
    /// Status at the time it was first seen: decisions to start from.
    pub status: Arc<LimiterStatus>,
    /// Why the newest version cannot be read; the spec is then an older one, or empty.
    pub undecodable: Option<String>,
}

/// A limiter with what it points at.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The object.
    pub object: LimiterObject,
    /// What it points at.
    pub target: TargetFacts,
    /// Pods by set, sorted by name.
    pub pods: BTreeMap<String, Arc<[PodFacts]>>,
    /// Name of the service for metric queries.
    pub service: String,
}

impl LimiterObject {
    /// Decisions of an earlier run.
    pub fn previous(&self) -> Vec<DescriptorStatus> {
        self.status.descriptors.clone()
    }

    /// Whether its pods are those of the Service of its name.
    fn of_service(&self) -> bool {
        let spec = &self.spec;
        spec.workload_selector.is_empty() && !spec.gateway && spec.host.is_none()
    }
}

type Name = (String, String);

#[derive(Debug, PartialEq, Eq)]
struct ServiceFacts {
    selector: BTreeMap<String, String>,
    ports: Box<[ServicePort]>,
}

#[derive(Debug)]
pub(crate) struct DestinationRuleFacts {
    host: String,
    subsets: Vec<Subset>,
}

#[derive(Debug)]
pub(crate) struct ServiceEntryFacts {
    hosts: Vec<String>,
    selector: BTreeMap<String, String>,
    endpoints: i64,
}

/// Under what a limiter is found when a pod changes.
#[derive(Debug)]
struct Registration {
    pair: (String, String, String),
    selector: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct State {
    limiters: HashMap<LimiterKey, LimiterObject>,
    services: HashMap<Name, ServiceFacts>,
    pods: PodIndex,
    rules: HashMap<Name, DestinationRuleFacts>,
    rules_by_host: HashMap<String, HashSet<Name>>,
    /// Hosts of DestinationRules as written, by the host that was probably meant: Istio takes a name with a dot as it is.
    misread: HashMap<String, BTreeSet<String>>,
    /// The cluster domain.
    domain: String,
    entries: HashMap<Name, ServiceEntryFacts>,
    entries_by_host: HashMap<Name, HashSet<Name>>,
    /// (namespace or `*`, label, value) of one pair of a limiter's selector.
    by_pair: HashMap<(String, String, String), HashSet<LimiterKey>>,
    registered: HashMap<LimiterKey, Registration>,
    peers: Peers,
    /// Limiters by `spec.host`, qualified: a name with one dot may be meant either way, and then is the same on all sides.
    by_entry_host: HashMap<String, HashSet<LimiterKey>>,
    dirty: HashSet<LimiterKey>,
    gone: Vec<LimiterKey>,
}

/// The index. Cheap to share.
#[derive(Debug)]
pub struct Index {
    state: Mutex<State>,
    wake: Notify,
    root_namespace: String,
}

impl Index {
    /// An empty index. Limiters in `root_namespace` with a workloadSelector are for pods of all namespaces, as Istio applies
    /// EnvoyFilters there.
    pub fn new(root_namespace: &str, domain: &str) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                domain: domain.to_owned(),
                ..State::default()
            }),
            wake: Notify::new(),
            root_namespace: root_namespace.to_owned(),
        })
    }

    /// Waits until a limiter is dirty or gone.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Takes the limiters that events have touched, sorted, and those that are gone.
    pub fn take_changes(&self) -> (Vec<LimiterKey>, Vec<LimiterKey>) {
        let mut state = self.state.lock();
        let mut dirty: Vec<LimiterKey> = state.dirty.drain().collect();
        dirty.sort();
        (dirty, std::mem::take(&mut state.gone))
    }

    /// Marks the limiters of a name: a generated object has changed.
    pub fn touch(&self, namespace: &str, name: &str) {
        self.with(|state| state.touch_name(namespace, name));
    }

    /// Whether a limiter of the name exists, in either form.
    pub fn exists(&self, namespace: &str, name: &str) -> bool {
        let state = self.state.lock();
        both(namespace, name)
            .iter()
            .any(|k| state.limiters.contains_key(k))
    }

    /// Number of limiters, Services and pods.
    pub fn sizes(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        (state.limiters.len(), state.services.len(), state.pods.len())
    }

    /// A limiter with what it points at; registers what it depends on. `None` when it is gone.
    pub fn resolve(&self, key: &LimiterKey) -> Option<Resolved> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let object = state.limiters.get(key)?.clone();
        let found = state.selector(key, &object);
        let mut out = Resolved {
            target: TargetFacts::default(),
            pods: BTreeMap::new(),
            service: key.name.clone(),
            object,
        };
        state.unregister(key);
        match found {
            Err(problem) => {
                let touched = state.peers.leave(key);
                state.dirty.extend(touched);
                out.target.problem = Some(problem);
            }
            Ok(selector) => {
                let everywhere = key.namespace == self.root_namespace
                    && !out.object.spec.workload_selector.is_empty();
                let scope = if everywhere {
                    "*"
                } else {
                    key.namespace.as_str()
                };
                state.register(key, scope, &selector);
                out.target.shared = state.shared(key, &out.object, &selector);
                if out.object.of_service() {
                    out.target.ports = state.ports(key);
                }
                state.fill_sets(key, scope, selector, &mut out);
            }
        }
        if !state.dirty.is_empty() {
            self.wake.notify_one();
        }
        Some(out)
    }

    fn with(&self, f: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        f(&mut state);
        let changed = !state.dirty.is_empty() || !state.gone.is_empty();
        drop(state);
        if changed {
            self.wake.notify_one();
        }
    }
}

fn both(namespace: &str, name: &str) -> [LimiterKey; 2] {
    [Form::V1alpha2, Form::First].map(|form| LimiterKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        form,
    })
}

impl State {
    fn touch_name(&mut self, namespace: &str, name: &str) {
        for key in both(namespace, name) {
            if self.limiters.contains_key(&key) {
                self.dirty.insert(key);
            }
        }
    }

    fn touch_host(&mut self, host: &str) {
        let mut parts = host.splitn(3, '.');
        if let (Some(name), Some(namespace)) = (parts.next(), parts.next()) {
            let (name, namespace) = (name.to_owned(), namespace.to_owned());
            self.touch_name(&namespace, &name);
        }
        let keys = self.by_entry_host.get(host).cloned().unwrap_or_default();
        self.dirty.extend(keys);
    }

    fn touch_pairs(&mut self, namespace: &str, labels: &BTreeMap<String, String>) {
        for (label, value) in labels {
            for scope in [namespace, "*"] {
                let pair = (scope.to_owned(), label.clone(), value.clone());
                for key in self.by_pair.get(&pair).into_iter().flatten() {
                    let selector = self.registered.get(key).map(|r| &r.selector);
                    let selects = |s: &BTreeMap<String, String>| {
                        s.iter().all(|(k, v)| labels.get(k) == Some(v))
                    };
                    if selector.is_some_and(selects) {
                        self.dirty.insert(key.clone());
                    }
                }
            }
        }
    }

    /// Registers under the pair that the fewest pods have.
    fn register(&mut self, key: &LimiterKey, scope: &str, selector: &BTreeMap<String, String>) {
        let rarest = selector
            .iter()
            .min_by_key(|(label, value)| self.pods.count(scope, label, value));
        if let Some((label, value)) = rarest {
            let pair = (scope.to_owned(), label.clone(), value.clone());
            let keys = self.by_pair.entry(pair.clone()).or_default();
            keys.insert(key.clone());
            let registration = Registration {
                pair,
                selector: selector.clone(),
            };
            self.registered.insert(key.clone(), registration);
        }
    }

    /// Whether another Service's limiter, before this one by name, has the same pods.
    fn shared(
        &mut self,
        key: &LimiterKey,
        object: &LimiterObject,
        selector: &BTreeMap<String, String>,
    ) -> bool {
        let (shared, touched) = if object.of_service() {
            self.peers.join(key, selector)
        } else {
            (false, self.peers.leave(key))
        };
        self.dirty.extend(touched);
        shared
    }

    fn unregister(&mut self, key: &LimiterKey) {
        if let Some(Registration { pair, .. }) = self.registered.remove(key)
            && let Some(keys) = self.by_pair.get_mut(&pair)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_pair.remove(&pair);
            }
        }
    }

    /// Labels of the limiter's pods.
    fn selector(
        &mut self,
        key: &LimiterKey,
        object: &LimiterObject,
    ) -> Result<BTreeMap<String, String>, TargetProblem> {
        if key.form == Form::First {
            let other = LimiterKey {
                form: Form::V1alpha2,
                ..key.clone()
            };
            if self.limiters.contains_key(&other) {
                return Err(TargetProblem::Shadowed {
                    by: Form::V1alpha2.api_version().to_owned(),
                });
            }
        }
        let spec = &object.spec;
        if !spec.workload_selector.is_empty() {
            return Ok(spec.workload_selector.clone());
        }
        if spec.gateway {
            return Err(TargetProblem::SelectorMissing);
        }
        if let Some(host) = &spec.host {
            let host_key = (key.namespace.clone(), host.clone());
            self.by_entry_host
                .entry(full_host(host, &key.namespace, &self.domain))
                .or_default()
                .insert(key.clone());
            let entry = self
                .entries_by_host
                .get(&host_key)
                .and_then(|names| names.iter().min())
                .and_then(|name| self.entries.get(name))
                .ok_or(TargetProblem::ServiceEntryNotFound)?;
            if entry.selector.is_empty() {
                return Err(TargetProblem::ServiceEntryWithoutSelector);
            }
            return Ok(entry.selector.clone());
        }
        let service = self
            .services
            .get(&(key.namespace.clone(), key.name.clone()))
            .ok_or(TargetProblem::ServiceNotFound)?;
        if service.selector.is_empty() {
            return Err(TargetProblem::ServiceWithoutSelector);
        }
        Ok(service.selector.clone())
    }

    /// Ports of the limiter's Service.
    fn ports(&self, key: &LimiterKey) -> Vec<ServicePort> {
        self.services
            .get(&(key.namespace.clone(), key.name.clone()))
            .map(|service| service.ports.to_vec())
            .unwrap_or_default()
    }

    fn fill_sets(
        &self,
        key: &LimiterKey,
        scope: &str,
        selector: BTreeMap<String, String>,
        out: &mut Resolved,
    ) {
        let mut sets = vec![(BASE_SET.to_owned(), BTreeMap::new())];
        let spec = &out.object.spec;
        if !spec.gateway && spec.workload_selector.is_empty() {
            let host = spec.host.as_ref().unwrap_or(&key.name);
            let host = full_host(host, &key.namespace, &self.domain);
            let misread = self.misread.get(&host).into_iter().flatten();
            out.target.misread = misread.map(|h| (h.clone(), host.clone())).collect();
            sets.extend(self.subsets(&host, &key.namespace));
        }
        for (set, labels) in sets {
            let mut wanted = selector.clone();
            wanted.extend(labels.clone());
            let pods = self.pods.select(scope, &wanted);
            let mut ready =
                i64::try_from(pods.iter().filter(|p| p.ready).count()).unwrap_or(i64::MAX);
            if ready == 0
                && pods.is_empty()
                && set == BASE_SET
                && let Some(host) = &spec.host
            {
                ready = self.static_endpoints(&key.namespace, host);
            }
            out.target.sets.insert(
                set.clone(),
                SetFacts {
                    labels,
                    pods: ready,
                },
            );
            out.pods.insert(set, pods.into());
        }
        out.target.selector = selector;
    }

    fn static_endpoints(&self, namespace: &str, host: &str) -> i64 {
        self.entries_by_host
            .get(&(namespace.to_owned(), host.to_owned()))
            .and_then(|names| names.iter().min())
            .and_then(|name| self.entries.get(name))
            .map_or(0, |e| e.endpoints)
    }

    /// Subsets of the host, from the limiter's namespace before others, then by name.
    fn subsets(&self, host: &str, namespace: &str) -> Vec<(String, BTreeMap<String, String>)> {
        let mut names: Vec<&Name> = self.rules_by_host.get(host).into_iter().flatten().collect();
        names.sort_by_key(|n| (n.0 != namespace, (*n).clone()));
        let mut out: Vec<(String, BTreeMap<String, String>)> = Vec::new();
        for subset in names
            .iter()
            .filter_map(|n| self.rules.get(*n))
            .flat_map(|r| &r.subsets)
        {
            if !out.iter().any(|(name, _)| *name == subset.name) {
                out.push((subset.name.clone(), subset.labels.clone()));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
