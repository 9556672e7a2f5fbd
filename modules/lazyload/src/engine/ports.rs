//! HTTP ports of the mesh, counted: an event costs the ports of its object.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::Notify;
use trimtab_crds::istio::ServiceEntry;
use trimtab_kit::watch::Feed;

use crate::config::Fallback;
use crate::fallback::ports::discover;

type Name = (&'static str, String, String);

#[derive(Debug, Default)]
struct State {
    /// Without `wormholePort`: what one object adds.
    config: Fallback,
    fixed: BTreeSet<u16>,
    of: HashMap<Name, BTreeSet<u16>>,
    counts: BTreeMap<u16, usize>,
    /// Found once; stays without `cleanupWormholePort`.
    found: BTreeSet<u16>,
}

/// The ports.
#[derive(Debug)]
pub struct HttpPorts {
    state: Mutex<State>,
    wake: Arc<Notify>,
}

impl HttpPorts {
    /// No ports yet. `wake` is notified when the set changes.
    pub fn new(config: &Fallback, wake: Arc<Notify>) -> Arc<Self> {
        let ports = Self {
            state: Mutex::default(),
            wake,
        };
        ports.reconfigure(config);
        Arc::new(ports)
    }

    /// Takes a changed configuration over. Which names count as HTTP is decided when an object is seen: `supportH2` holds
    /// for objects that are seen after it.
    pub fn reconfigure(&self, config: &Fallback) {
        let mut state = self.state.lock();
        state.fixed = discover(
            [],
            [],
            &Fallback {
                auto_port: false,
                ..config.clone()
            },
            &BTreeSet::new(),
        );
        state.config = Fallback {
            wormhole_port: Vec::new(),
            ..config.clone()
        };
    }

    /// The ports now.
    pub fn all(&self) -> BTreeSet<u16> {
        let state = self.state.lock();
        let mut out = state.fixed.clone();
        if state.config.auto_port {
            out.extend(state.counts.keys());
            if !state.config.cleanup_wormhole_port {
                out.extend(&state.found);
            }
        }
        out
    }

    fn put(&self, name: Name, ports: BTreeSet<u16>) {
        let mut state = self.state.lock();
        let before = state.counts.len();
        let old = state.of.remove(&name).unwrap_or_default();
        let mut changed = false;
        for port in ports.difference(&old) {
            *state.counts.entry(*port).or_default() += 1;
        }
        for port in old.difference(&ports) {
            if let Some(count) = state.counts.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    state.counts.remove(port);
                    changed = true;
                }
            }
        }
        changed |= state.counts.len() != before;
        state.found.extend(&ports);
        if !ports.is_empty() {
            state.of.insert(name, ports);
        }
        drop(state);
        if changed {
            self.wake.notify_one();
        }
    }

    fn keep_only(&self, kind: &'static str, listed: &BTreeSet<(String, String)>) {
        let mut gone: Vec<Name> = self.state.lock().of.keys().cloned().collect();
        gone.retain(|(k, namespace, name)| {
            *k == kind && !listed.contains(&(namespace.clone(), name.clone()))
        });
        for name in gone {
            self.put(name, BTreeSet::new());
        }
    }
}

fn name_of<K: Resource<DynamicType = ()>>(kind: &'static str, object: &K) -> Name {
    (
        kind,
        object.namespace().unwrap_or_default(),
        object.name_any(),
    )
}

fn listed<K: Resource<DynamicType = ()>>(
    objects: &[Arc<K>],
    unreadable: &[(String, String)],
) -> BTreeSet<(String, String)> {
    let names = objects
        .iter()
        .map(|o| (o.namespace().unwrap_or_default(), o.name_any()));
    names.chain(unreadable.iter().cloned()).collect()
}

const SERVICE: &str = "Service";
const SERVICE_ENTRY: &str = "ServiceEntry";

impl Feed<Service> for HttpPorts {
    fn apply(&self, service: Arc<Service>) {
        let config = self.state.lock().config.clone();
        let ports = discover([service.as_ref()], [], &config, &BTreeSet::new());
        self.put(name_of(SERVICE, service.as_ref()), ports);
    }

    fn delete(&self, service: Arc<Service>) {
        self.put(name_of(SERVICE, service.as_ref()), BTreeSet::new());
    }

    fn reset(&self, services: Vec<Arc<Service>>, unreadable: &[(String, String)]) {
        self.keep_only(SERVICE, &listed(&services, unreadable));
        for service in services {
            self.apply(service);
        }
    }
}

impl Feed<ServiceEntry> for HttpPorts {
    fn apply(&self, entry: Arc<ServiceEntry>) {
        let config = self.state.lock().config.clone();
        let ports = discover([], [entry.as_ref()], &config, &BTreeSet::new());
        self.put(name_of(SERVICE_ENTRY, entry.as_ref()), ports);
    }

    fn delete(&self, entry: Arc<ServiceEntry>) {
        self.put(name_of(SERVICE_ENTRY, entry.as_ref()), BTreeSet::new());
    }

    fn reset(&self, entries: Vec<Arc<ServiceEntry>>, unreadable: &[(String, String)]) {
        self.keep_only(SERVICE_ENTRY, &listed(&entries, unreadable));
        for entry in entries {
            self.apply(entry);
        }
    }
}
