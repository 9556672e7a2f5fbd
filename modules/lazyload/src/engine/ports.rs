//! HTTP ports of the mesh, counted: an event costs the ports of its object.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use trimtab_mesh::model::{Service, ServiceEntry};
use trimtab_mesh::table::{Change, Follower};

use crate::config::Fallback;
use crate::fallback::ports::{fixed, of_entry, of_service};
use crate::mesh::Name;

const SERVICE: &str = "Service";
const SERVICE_ENTRY: &str = "ServiceEntry";

#[derive(Debug, Default)]
struct State {
    config: Fallback,
    fixed: BTreeSet<u16>,
    of: HashMap<(&'static str, Name), BTreeSet<u16>>,
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
        state.fixed = fixed(config);
        state.config = config.clone();
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

    fn put(&self, name: (&'static str, Name), ports: BTreeSet<u16>) {
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
}

impl Follower<Service> for HttpPorts {
    fn changed(&self, change: Change<'_, Service>) {
        let config = self.state.lock().config.clone();
        let ports = change.new.map(|service| of_service(service, &config));
        self.put((SERVICE, change.name.clone()), ports.unwrap_or_default());
    }
}

impl Follower<ServiceEntry> for HttpPorts {
    fn changed(&self, change: Change<'_, ServiceEntry>) {
        let config = self.state.lock().config.clone();
        let ports = change.new.map(|entry| of_entry(entry, &config));
        self.put(
            (SERVICE_ENTRY, change.name.clone()),
            ports.unwrap_or_default(),
        );
    }
}
