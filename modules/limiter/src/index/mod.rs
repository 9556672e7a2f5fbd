//! Limiters, and which of them a change of the mesh touches.
//!
//! No event costs more than the limiters that it touches: they are found by the rarest label of their selector.

mod follow;
mod key;
mod neighbours;
mod object;
mod outbound;
mod peers;
mod proxies;
mod rivals;
mod rows;
mod targets;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use trimtab_mesh::Mesh;
use trimtab_mesh::model::{
    DestinationRule, Labels, LimitPatches, Namespace, Pod, Service, ServiceEntry, VirtualService,
    selects,
};
use trimtab_mesh::names::full_host;

use crate::input::{TargetFacts, TargetProblem};
pub use key::{Form, LimiterKey};
use neighbours::Place;
pub use object::{LimiterObject, Resolved};
use outbound::Outbound;
use peers::Peers;
pub use proxies::PodProxy;
pub(crate) use proxies::nearest;
pub use rows::{DefaultLimits, FirstForm, V1alpha2};
use targets::Targets;

/// Under what a limiter is found when a pod changes.
#[derive(Debug)]
struct Registration {
    pair: (String, String, String),
    place: Place,
}

#[derive(Debug)]
struct State {
    targets: Targets,
    limiters: HashMap<LimiterKey, LimiterObject>,
    /// (namespace or `*`, label, value) of one pair of a limiter's selector.
    by_pair: HashMap<(String, String, String), HashSet<LimiterKey>>,
    registered: HashMap<LimiterKey, Registration>,
    peers: Peers,
    outbound: Outbound,
    /// Limiters by `spec.host`, qualified: a name with one dot may be meant either way, and then is the same on all sides.
    by_entry_host: HashMap<String, HashSet<LimiterKey>>,
    dirty: HashSet<LimiterKey>,
    gone: Vec<LimiterKey>,
    /// Another replica decides: its decisions are in the statuses.
    follows_leader: bool,
}

/// The index. Cheap to share.
#[derive(Debug)]
pub struct Index {
    state: Mutex<State>,
    wake: Notify,
    root_namespace: String,
}

impl Index {
    /// The cluster domain.
    pub(crate) fn domain(&self) -> Arc<str> {
        self.state.lock().targets.domain.clone()
    }

    /// An empty index over a mesh. Limiters in `root_namespace` with a workloadSelector are for pods of all namespaces, as
    /// Istio applies EnvoyFilters there.
    pub fn new(root_namespace: &str, mesh: &Mesh) -> Arc<Self> {
        let targets = Targets::new(root_namespace, mesh);
        Arc::new(Self {
            state: Mutex::new(State {
                targets,
                limiters: HashMap::new(),
                by_pair: HashMap::new(),
                registered: HashMap::new(),
                peers: Peers::default(),
                outbound: Outbound::default(),
                by_entry_host: HashMap::new(),
                dirty: HashSet::new(),
                gone: Vec::new(),
                follows_leader: false,
            }),
            wake: Notify::new(),
            root_namespace: root_namespace.to_owned(),
        })
    }

    /// Whether EnvoyFilters in the namespace are for pods of all namespaces.
    pub fn is_root(&self, namespace: &str) -> bool {
        namespace == self.root_namespace
    }

    /// Follows a mesh without the kit: for tests and benchmarks.
    pub fn attach(self: &Arc<Self>, mesh: &Mesh) {
        mesh.table::<V1alpha2>().follow(self);
        mesh.table::<FirstForm>().follow(self);
        mesh.table::<Service>().follow(self);
        mesh.table::<Pod>().follow(self);
        mesh.table::<Namespace>().follow(self);
        mesh.table::<DestinationRule>().follow(self);
        mesh.table::<ServiceEntry>().follow(self);
        mesh.table::<VirtualService>().follow(self);
        mesh.table::<LimitPatches>().follow(self);
        mesh.table::<DefaultLimits>().follow(self);
    }

    /// Waits until a limiter is dirty or gone.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Takes the limiters that events have touched, sorted, and those that are gone.
    pub fn drain_changes(&self) -> (Vec<LimiterKey>, Vec<LimiterKey>) {
        let mut state = self.state.lock();
        let mut dirty: Vec<LimiterKey> = state.dirty.drain().collect();
        dirty.sort();
        (dirty, std::mem::take(&mut state.gone))
    }

    /// Whether another replica decides from now on, whose statuses are followed.
    pub fn follow_leader(&self, follows: bool) {
        self.with(|state| state.turn(follows));
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
            defaults: None,
            object,
        };
        let before = state.unregister(key);
        match found {
            Err(problem) => {
                let touched = state.peers.leave(key);
                state.dirty.extend(touched);
                state.touch_place(key, before.as_ref());
                out.target.problem = Some(problem);
            }
            Ok(selector) => {
                let everywhere = key.namespace == self.root_namespace
                    && !out.object.spec.workload_selector.is_empty();
                let scope = if everywhere { "*" } else { &key.namespace };
                let place = Place::new(scope, &selector, &out.object.spec);
                state.register(key, scope, &selector, &place);
                let neighbours = state.neighbours(key, &place);
                if before.as_ref() != Some(&place) {
                    state.touch_place(key, before.as_ref());
                    state.dirty.extend(neighbours.keys().cloned());
                }
                out.target.adaptive_elsewhere = state.adaptive_before(key, neighbours.keys());
                out.target.neighbours = neighbours
                    .into_iter()
                    .map(|(other, delivery)| {
                        (format!("{}/{}", other.namespace, other.name), delivery)
                    })
                    .collect();
                out.target.shared = state.shared(key, &out.object, &selector);
                if out.object.of_service() {
                    out.target.ports = state.targets.ports(key);
                }
                let State {
                    outbound, targets, ..
                } = state;
                out.target.no_virtual_host = outbound.resolve(key, &out.object.spec, targets);
                if out.object.of_service() && out.object.names_port() {
                    let hidden = state.targets.overshadowed(key);
                    out.target.no_virtual_host.extend(hidden);
                }
                state.targets.fill_sets(key, scope, selector, &mut out);
                out.defaults = state.targets.defaults(key, out.target.sets.keys());
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
                    if registration.is_some_and(|r| selects(r.place.selector(), labels)) {
                        self.dirty.insert(key.clone());
                    }
                }
            }
        }
    }

    /// Registers under the pair that the fewest groups of pods have.
    fn register(&mut self, key: &LimiterKey, scope: &str, selector: &Labels, place: &Place) {
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
                place: place.clone(),
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

    /// Takes a limiter out, and gives where it was.
    fn unregister(&mut self, key: &LimiterKey) -> Option<Place> {
        let Registration { pair, place } = self.registered.remove(key)?;
        if let Some(keys) = self.by_pair.get_mut(&pair) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_pair.remove(&pair);
            }
        }
        Some(place)
    }

    /// Touches the neighbours that a limiter had at a place.
    fn touch_place(&mut self, key: &LimiterKey, place: Option<&Place>) {
        if let Some(place) = place {
            let neighbours = self.neighbours(key, place);
            self.dirty.extend(neighbours.into_keys());
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

#[cfg(test)]
mod tests;
