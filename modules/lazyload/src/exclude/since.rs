//! Since when each service is known: a service that is new, or that is another one than before, was not watched yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use trimtab_mesh::model::{GrpcRoute, HttpRoute, Service, ServiceEntry, VirtualService};
use trimtab_mesh::names::covers;
use trimtab_mesh::table::{Change, Follower};

use crate::mesh::{Name, hosts};
use crate::scope::services::{Exports, HostEntry, Protocol};

/// Namespace and host.
type Place = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct State {
    services: HashMap<Place, u64>,
    /// Hosts of VirtualServices that lead elsewhere since then; wildcards too.
    routes: BTreeMap<Arc<str>, u64>,
    /// How many of both are known since a window.
    count: BTreeMap<u64, usize>,
    /// TCP listeners that take connections to any address, by the ServiceEntry.
    catching: HashMap<Place, Catching>,
    /// Hosts whose rules delegate, by namespace and name of the VirtualService that they delegate to.
    roots: HashMap<Place, BTreeSet<Arc<str>>>,
    /// Whether anybody asks for changes.
    watched: bool,
    moved: Moved,
}

/// What is another one since the last time, or gone.
#[derive(Debug, Default)]
pub struct Moved {
    /// Hosts; of VirtualServices also wildcards.
    hosts: BTreeSet<Arc<str>>,
    /// Listeners that take connections to any address.
    catching: bool,
}

impl Moved {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && !self.catching
    }

    /// Whether it matters to a host.
    pub fn has(&self, host: &str) -> bool {
        let mut wild = self.hosts.iter().filter(|h| h.starts_with('*'));
        self.catching || self.hosts.contains(host) || wild.any(|h| covers(h, host))
    }
}

/// TCP ports of a ServiceEntry on which its proxy listener takes connections to other addresses than its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catching {
    /// Namespace of the ServiceEntry.
    pub namespace: Arc<str>,
    /// Who sees it.
    pub exports: Exports,
    /// Its hosts.
    pub hosts: Vec<Arc<str>>,
    /// The ports.
    pub ports: BTreeSet<u16>,
}

/// What is known since when.
#[derive(Debug)]
pub struct KnownSince {
    state: Mutex<State>,
    /// How many windows are over.
    windows: Arc<AtomicU64>,
    wake: Arc<Notify>,
}

impl State {
    fn note(&mut self, host: &Arc<str>) {
        if self.watched {
            self.moved.hosts.insert(host.clone());
        }
    }

    fn uncount(&mut self, window: u64) {
        if let Some(count) = self.count.get_mut(&window) {
            *count -= 1;
            if *count == 0 {
                self.count.remove(&window);
            }
        }
    }

    fn put(&mut self, place: Place, window: u64) {
        self.note(&place.1);
        let old = self.services.insert(place, window);
        *self.count.entry(window).or_default() += 1;
        if let Some(old) = old {
            self.uncount(old);
        }
    }

    fn forget(&mut self, place: &Place) {
        self.note(&place.1);
        if let Some(old) = self.services.remove(place) {
            self.uncount(old);
        }
    }

    fn reroute(&mut self, host: &Arc<str>, window: u64) {
        self.note(host);
        let old = self.routes.insert(host.clone(), window);
        *self.count.entry(window).or_default() += 1;
        if let Some(old) = old {
            self.uncount(old);
        }
    }
}

impl KnownSince {
    /// Nothing is known yet. `windows` counts those that are over; `wake` is notified when a service is another one.
    pub fn new(windows: Arc<AtomicU64>, wake: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            windows,
            wake,
        })
    }

    /// The window that is under way: what comes now is known since then.
    pub fn window(&self) -> u64 {
        self.windows.load(Ordering::Relaxed) + 1
    }

    /// The window since which a service is known, and leads where it leads. `None`: it is not known.
    pub fn of(&self, entry: &HostEntry) -> Option<u64> {
        let state = self.state.lock();
        let place = (entry.namespace.clone(), entry.host.clone());
        let own = state.services.get(&place).copied()?;
        let exact = state.routes.get(&entry.host).copied();
        let wild = state.routes.range::<str, _>((Included("*"), Excluded("+")));
        let wild = wild.filter(|(host, _)| covers(host, &entry.host));
        let routes = wild.map(|(_, window)| *window).chain(exact);
        Some(routes.fold(own, u64::max))
    }

    /// Whether anything is known since a window after `from`, up to `to`.
    pub fn any(&self, from: Option<u64>, to: u64) -> bool {
        let first = from.map_or(0, |from| from + 1);
        first <= to && self.state.lock().count.range(first..=to).next().is_some()
    }

    /// From now on changes are told.
    pub fn watch(&self) {
        self.state.lock().watched = true;
    }

    /// What has changed since the last time.
    pub fn drain_changes(&self) -> Moved {
        std::mem::take(&mut self.state.lock().moved)
    }

    /// Listeners that take connections to any address.
    pub fn catching(&self) -> Vec<Catching> {
        self.state.lock().catching.values().cloned().collect()
    }

    fn change(&self, old: &[Arc<HostEntry>], new: &[Arc<HostEntry>]) {
        let same = |a: &HostEntry, b: &HostEntry| {
            let of = |e: &HostEntry| {
                let key = (e.namespace.clone(), e.host.clone(), e.created);
                (
                    key,
                    e.exports.clone(),
                    e.ports.clone(),
                    e.target.clone(),
                    e.headless,
                )
            };
            of(a) == of(b)
        };
        let window = self.window();
        let mut state = self.state.lock();
        for entry in old {
            if !new.iter().any(|n| n.host == entry.host) {
                state.forget(&(entry.namespace.clone(), entry.host.clone()));
            }
        }
        for entry in new {
            if !old.iter().any(|o| same(o, entry)) {
                state.put((entry.namespace.clone(), entry.host.clone()), window);
            }
        }
        self.told(state);
    }

    fn told(&self, state: parking_lot::MutexGuard<'_, State>) {
        let moved = !state.moved.is_empty();
        drop(state);
        if moved {
            self.wake.notify_one();
        }
    }
}

impl Follower<Service> for KnownSince {
    fn changed(&self, change: Change<'_, Service>) {
        let entries = |service: Option<&Arc<Service>>| -> Vec<Arc<HostEntry>> {
            let entry = service.map(|s| Arc::new(hosts::of_service(s)));
            entry.into_iter().collect()
        };
        self.change(&entries(change.old), &entries(change.new));
    }
}

impl Follower<ServiceEntry> for KnownSince {
    fn changed(&self, change: Change<'_, ServiceEntry>) {
        let entries = |entry: Option<&Arc<ServiceEntry>>| {
            entry.map(|e| hosts::of_entry(e)).unwrap_or_default()
        };
        let new = entries(change.new);
        let place = (change.name.0.as_str().into(), change.name.1.as_str().into());
        let catching = change.new.and_then(|row| catching(row, &new));
        {
            let mut state = self.state.lock();
            let old = match catching.clone() {
                Some(catching) => state.catching.insert(place, catching),
                None => state.catching.remove(&place),
            };
            state.moved.catching |= state.watched && old != catching;
        }
        self.change(&entries(change.old), &new);
    }
}

/// A ServiceEntry without addresses listens on all of them, one with a range on the range.
fn catching(entry: &ServiceEntry, hosts: &[Arc<HostEntry>]) -> Option<Catching> {
    let addresses = &entry.spec.addresses;
    if !addresses.is_empty() && !addresses.iter().any(|a| a.contains('/')) {
        return None;
    }
    let first = hosts.first()?;
    // TLS is told apart by its server name, and without resolution calls go on to their own address.
    if entry.spec.resolution.as_deref().is_none_or(|r| r == "NONE") {
        return None;
    }
    let raw = |protocol: Protocol| matches!(protocol, Protocol::Tcp | Protocol::Auto);
    let ports = first.ports.iter().filter(|p| raw(p.protocol));
    let ports: BTreeSet<u16> = ports.map(|p| p.number).collect();
    (!ports.is_empty()).then(|| Catching {
        namespace: first.namespace.clone(),
        exports: first.exports.clone(),
        hosts: hosts.iter().map(|h| h.host.clone()).collect(),
        ports,
    })
}

impl KnownSince {
    /// Calls to hosts of routes are counted elsewhere from now on. Weights and matches make no difference.
    fn rerouted(&self, name: &Name, old: &[Arc<VirtualService>], new: &[Arc<VirtualService>]) {
        let leads = |rows: &[Arc<VirtualService>]| -> Vec<_> {
            let of = |r: &Arc<VirtualService>| {
                (
                    (r.hosts.clone(), r.mesh, r.exports.clone()),
                    (r.destinations.clone(), r.delegates.clone()),
                )
            };
            rows.iter().map(of).collect()
        };
        if leads(old) == leads(new) {
            return;
        }
        let window = self.window();
        let mut state = self.state.lock();
        let rows = old.iter().map(|row| (row, false));
        for (row, there) in rows.chain(new.iter().map(|row| (row, true))) {
            for host in &row.hosts {
                state.reroute(host, window);
                for delegate in &row.delegates {
                    let hosts = state.roots.entry(delegate.clone()).or_default();
                    if there {
                        hosts.insert(host.clone());
                    } else {
                        hosts.remove(host);
                    }
                }
            }
        }
        let all = old.iter().chain(new);
        if all.into_iter().any(|row| !row.kind.is_gateway_api()) {
            let place = (name.0.as_str().into(), name.1.as_str().into());
            for host in state.roots.get(&place).cloned().unwrap_or_default() {
                state.reroute(&host, window);
            }
        }
        self.told(state);
    }
}

impl Follower<VirtualService> for KnownSince {
    fn changed(&self, change: Change<'_, VirtualService>) {
        let rows = |row: Option<&Arc<VirtualService>>| Vec::from_iter(row.cloned());
        self.rerouted(change.name, &rows(change.old), &rows(change.new));
    }
}

impl Follower<HttpRoute> for KnownSince {
    fn changed(&self, change: Change<'_, HttpRoute>) {
        let rows =
            |row: Option<&Arc<HttpRoute>>| row.map_or_else(Vec::new, |r| r.services.to_vec());
        self.rerouted(change.name, &rows(change.old), &rows(change.new));
    }
}

impl Follower<GrpcRoute> for KnownSince {
    fn changed(&self, change: Change<'_, GrpcRoute>) {
        let rows =
            |row: Option<&Arc<GrpcRoute>>| row.map_or_else(Vec::new, |r| r.services.to_vec());
        self.rerouted(change.name, &rows(change.old), &rows(change.new));
    }
}
