//! Limiters, and which of them a change of the mesh touches.
//!
//! No event costs more than the limiters that it touches: they are found by the rarest label of their selector.

mod follow;
mod peers;
mod rows;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use trimtab_crds::limiter::{BASE_SET, DescriptorStatus, LimiterSpec, LimiterStatus};
use trimtab_kit::sources::PodFacts;
use trimtab_mesh::model::{DestinationRule, Labels, Pod, Service, ServiceEntry, in_order, selects};
use trimtab_mesh::names::full_host;
use trimtab_mesh::table::Table;
use trimtab_mesh::{Mesh, Name};

use crate::error::Owner;
use crate::input::{ServicePort, SetFacts, TargetFacts, TargetProblem};
use peers::Peers;
pub use rows::{FirstForm, V1alpha2};

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

impl LimiterKey {
    /// Of a namespace and name.
    fn new((namespace, name): &Name, form: Form) -> Self {
        Self {
            namespace: namespace.clone(),
            name: name.clone(),
            form,
        }
    }
}

/// A limiter as last seen.
#[derive(Clone, Debug, PartialEq)]
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

/// Under what a limiter is found when a pod changes.
#[derive(Debug)]
struct Registration {
    pair: (String, String, String),
    selector: Labels,
}

/// What limiters point at.
#[derive(Debug)]
struct Targets {
    /// The cluster domain.
    domain: Arc<str>,
    services: Arc<Table<Service>>,
    pods: Arc<Table<Pod>>,
    rules: Arc<Table<DestinationRule>>,
    entries: Arc<Table<ServiceEntry>>,
}

#[derive(Debug)]
struct State {
    targets: Targets,
    limiters: HashMap<LimiterKey, LimiterObject>,
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
    /// An empty index over a mesh. Limiters in `root_namespace` with a workloadSelector are for pods of all namespaces, as
    /// Istio applies EnvoyFilters there.
    pub fn new(root_namespace: &str, mesh: &Mesh) -> Arc<Self> {
        let targets = Targets {
            domain: mesh.domain().clone(),
            services: mesh.table(),
            pods: mesh.table(),
            rules: mesh.table(),
            entries: mesh.table(),
        };
        Arc::new(Self {
            state: Mutex::new(State {
                targets,
                limiters: HashMap::new(),
                by_pair: HashMap::new(),
                registered: HashMap::new(),
                peers: Peers::default(),
                by_entry_host: HashMap::new(),
                dirty: HashSet::new(),
                gone: Vec::new(),
            }),
            wake: Notify::new(),
            root_namespace: root_namespace.to_owned(),
        })
    }

    /// Follows a mesh without the kit: for tests and benchmarks.
    pub fn attach(self: &Arc<Self>, mesh: &Mesh) {
        mesh.table::<V1alpha2>().follow(self);
        mesh.table::<FirstForm>().follow(self);
        mesh.table::<Service>().follow(self);
        mesh.table::<Pod>().follow(self);
        mesh.table::<DestinationRule>().follow(self);
        mesh.table::<ServiceEntry>().follow(self);
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
        let targets = &state.targets;
        let (services, pods) = (targets.services.rows(), targets.pods.rows());
        (state.limiters.len(), services.len(), pods.len())
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
                    out.target.ports = state.targets.ports(key);
                }
                state.targets.fill_sets(key, scope, selector, &mut out);
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

    fn touch_pairs(&mut self, namespace: &str, labels: &Labels) {
        for (label, value) in labels {
            for scope in [namespace, "*"] {
                let pair = (scope.to_owned(), label.clone(), value.clone());
                for key in self.by_pair.get(&pair).into_iter().flatten() {
                    let registration = self.registered.get(key);
                    if registration.is_some_and(|r| selects(&r.selector, labels)) {
                        self.dirty.insert(key.clone());
                    }
                }
            }
        }
    }

    /// Registers under the pair that the fewest groups of pods have.
    fn register(&mut self, key: &LimiterKey, scope: &str, selector: &Labels) {
        let pods = self.targets.pods.rows();
        let rarest = selector
            .iter()
            .min_by_key(|(label, value)| pods.index().having(scope, label, value));
        drop(pods);
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
    fn shared(&mut self, key: &LimiterKey, object: &LimiterObject, selector: &Labels) -> bool {
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
            let full = full_host(host, &key.namespace, &self.targets.domain);
            let keys = self.by_entry_host.entry(full).or_default();
            keys.insert(key.clone());
        }
        self.targets.selector(key, spec)
    }
}

impl Targets {
    /// Labels of the pods of a limiter without a selector of its own.
    fn selector(&self, key: &LimiterKey, spec: &LimiterSpec) -> Result<Labels, TargetProblem> {
        if let Some(host) = &spec.host {
            let entry = self.entry(&key.namespace, host);
            let entry = entry.ok_or(TargetProblem::ServiceEntryNotFound)?;
            let selector = selector_of(&entry);
            if selector.is_empty() {
                return Err(TargetProblem::ServiceEntryWithoutSelector);
            }
            return Ok(selector);
        }
        let service = self.services.get(&key.namespace, &key.name);
        let service = service.ok_or(TargetProblem::ServiceNotFound)?;
        if service.selector.is_empty() {
            return Err(TargetProblem::ServiceWithoutSelector);
        }
        Ok(service.selector.clone())
    }

    /// The first ServiceEntry of a namespace with a host.
    fn entry(&self, namespace: &str, host: &str) -> Option<Arc<ServiceEntry>> {
        let rows = self.entries.rows();
        let mut found = rows.of(host).filter(|((ns, _), _)| ns == namespace);
        found.next().map(|(_, entry)| entry.clone())
    }

    /// Ports of the limiter's Service, sorted.
    fn ports(&self, key: &LimiterKey) -> Vec<ServicePort> {
        let service = self.services.get(&key.namespace, &key.name);
        service.map(|s| ports(&s)).unwrap_or_default()
    }

    fn fill_sets(&self, key: &LimiterKey, scope: &str, selector: Labels, out: &mut Resolved) {
        let mut sets = vec![(BASE_SET.to_owned(), Labels::new())];
        let spec = &out.object.spec;
        if !spec.gateway && spec.workload_selector.is_empty() {
            let host = spec.host.as_ref().unwrap_or(&key.name);
            let host = full_host(host, &key.namespace, &self.domain);
            out.target.misread = self.misread(&host);
            sets.extend(self.subsets(&host, &key.namespace));
        }
        for (set, labels) in sets {
            let mut of_set = selector.clone();
            of_set.extend(labels.clone());
            let pods = self.pods(scope, &of_set);
            let mut ready =
                i64::try_from(pods.iter().filter(|p| p.ready).count()).unwrap_or(i64::MAX);
            if pods.is_empty()
                && set == BASE_SET
                && let Some(host) = &spec.host
            {
                let entry = self.entry(&key.namespace, host);
                ready = entry.map_or(0, |e| static_endpoints(&e));
            }
            let facts = SetFacts {
                labels,
                pods: ready,
            };
            out.target.sets.insert(set.clone(), facts);
            out.pods.insert(set, pods.into());
        }
        out.target.selector = selector;
    }

    /// Pods with all of `labels`, by namespace and name. `*`: of all namespaces.
    fn pods(&self, scope: &str, labels: &Labels) -> Vec<PodFacts> {
        let rows = self.pods.rows();
        let groups = rows.index();
        let pods = if scope == "*" {
            rows.of_groups(groups.select_everywhere(labels))
        } else {
            rows.of_groups(groups.select(scope, labels))
        };
        pods.iter().map(|pod| PodFacts::of(pod)).collect()
    }

    /// Hosts of DestinationRules, as Istio reads them, that were probably meant for `host`, each with it: Istio takes a
    /// name with a dot as it is.
    fn misread(&self, host: &str) -> BTreeMap<String, String> {
        let rows = self.rules.rows();
        let others = rows.of(host).filter(|(_, rule)| *rule.host != *host);
        others
            .map(|(_, rule)| (rule.host.to_string(), host.to_owned()))
            .collect()
    }

    /// Subsets of the host.
    fn subsets(&self, host: &str, namespace: &str) -> Vec<(String, Labels)> {
        let rows = self.rules.rows();
        let rules = rows.of(host).map(|(_, rule)| rule);
        let rules = in_order(rules.filter(|r| *r.host == *host), namespace);
        let mut out: Vec<(String, Labels)> = Vec::new();
        for subset in rules.iter().flat_map(|rule| &rule.spec.subsets) {
            if !out.iter().any(|(name, _)| *name == subset.name) {
                out.push((subset.name.clone(), subset.labels.clone()));
            }
        }
        out
    }
}

/// Ports of a Service, sorted.
fn ports(service: &Service) -> Vec<ServicePort> {
    let sorted: BTreeSet<ServicePort> = service.ports.iter().map(ServicePort::of).collect();
    sorted.into_iter().collect()
}

/// Labels of a ServiceEntry's pods; without a selector its own label `app`, as Slime has it (`seLabelSelectorKeys`).
fn selector_of(entry: &ServiceEntry) -> Labels {
    let selector = entry.selector();
    if !selector.is_empty() {
        return selector;
    }
    let app = entry.labels.get("app");
    app.map(|v| ("app".to_owned(), v.clone()))
        .into_iter()
        .collect()
}

/// Endpoints that a ServiceEntry has written, as Slime counts them: each once a port.
fn static_endpoints(entry: &ServiceEntry) -> i64 {
    let spec = &entry.spec;
    let count = spec.endpoints.len() * spec.ports.len().max(1);
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
