//! Ports of the mesh and what services speak on them, counted: an event costs the ports of its object.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use trimtab_mesh::Exports;
use trimtab_mesh::model::{Service, ServiceEntry};
use trimtab_mesh::table::{Change, Follower};

use crate::config::Fallback;
use crate::fallback::ports::{Speaks, fixed, of_entry, of_service};
use crate::mesh::Name;
use crate::required::Touched;

const SERVICE: &str = "Service";
const SERVICE_ENTRY: &str = "ServiceEntry";

/// An object.
type Object = (&'static str, Name);
/// A host of an object in its namespace.
type Host = (Arc<str>, Arc<str>, Object);

/// A port of a host.
#[derive(Clone, Debug, PartialEq)]
struct Exposed {
    port: u16,
    speaks: Speaks,
    host: Host,
    exports: Exports,
}

/// Numbers of services, by what they speak.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    http: usize,
    auto: usize,
    rest: usize,
}

impl Counts {
    fn change(&mut self, speaks: Speaks, there: bool) {
        let count = match speaks {
            Speaks::Http => &mut self.http,
            Speaks::Auto => &mut self.auto,
            Speaks::Tls | Speaks::Tcp => &mut self.rest,
        };
        *count = if there {
            *count + 1
        } else {
            count.saturating_sub(1)
        };
    }
}

/// One port of the mesh.
#[derive(Debug, Default)]
struct Port {
    /// Of services that everybody sees.
    public: Counts,
    /// Of services that some namespaces see, by namespace.
    few: HashMap<String, Counts>,
    /// Of all services.
    all: Counts,
    hosts: BTreeMap<Host, (Speaks, Exports)>,
}

impl Port {
    fn set(&mut self, exposed: &Exposed, there: bool) {
        let speaks = exposed.speaks;
        self.all.change(speaks, there);
        match exposed.exports.clients(&exposed.host.0) {
            None => self.public.change(speaks, there),
            Some(clients) => {
                for client in clients {
                    let counts = self.few.entry(client.to_owned()).or_default();
                    counts.change(speaks, there);
                }
            }
        }
        if there {
            let told = (speaks, exposed.exports.clone());
            self.hosts.insert(exposed.host.clone(), told);
        } else {
            self.hosts.remove(&exposed.host);
        }
    }

    /// Whether unknown calls of a client are HTTP here, or may be and nothing else. `None`: of any client.
    fn is_http(&self, client: Option<&str>) -> bool {
        let public = self.public;
        let (http, auto, rest) = match client {
            None => (public.http, public.auto, self.all.rest),
            Some(client) => {
                let few = self.few.get(client).copied().unwrap_or_default();
                let auto = public.auto + few.auto;
                (public.http + few.http, auto, public.rest + few.rest)
            }
        };
        http > 0 || (auto > 0 && rest == 0)
    }
}

#[derive(Debug, Default)]
struct State {
    config: Fallback,
    fixed: BTreeSet<u16>,
    of: HashMap<Object, Vec<Exposed>>,
    ports: BTreeMap<u16, Port>,
    /// Were HTTP once; they stay without `cleanupWormholePort` when no service has them any more.
    found: BTreeSet<u16>,
    /// Fences whose scope may be another one.
    scopes: Touched,
    /// Fences whose status may be another one.
    statuses: Touched,
}

/// The ports.
#[derive(Debug)]
pub struct HttpPorts {
    state: Mutex<State>,
    wake: Arc<Notify>,
}

/// A service that listens with TCP on a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TcpService {
    pub(super) port: u16,
    pub(super) namespace: Arc<str>,
    pub(super) host: Arc<str>,
}

impl State {
    /// What the fallback has for a client.
    fn carried(&self, client: Option<&str>) -> BTreeSet<u16> {
        let mut out = self.fixed.clone();
        if self.config.auto_port {
            let known = self.ports.iter().filter(|(_, port)| port.is_http(client));
            out.extend(known.map(|(number, _)| number));
            if !self.config.cleanup_wormhole_port {
                let found = self.found.iter().copied();
                out.extend(found.filter(|number| !self.ports.contains_key(number)));
            }
        }
        out
    }

    fn set(&mut self, exposed: &Exposed, there: bool) {
        let number = exposed.port;
        let port = self.ports.entry(number).or_default();
        let before = port.is_http(None);
        port.set(exposed, there);
        let after = port.is_http(None);
        let gone = port.hosts.is_empty();
        if gone {
            self.ports.remove(&number);
        }
        if after {
            self.found.insert(number);
        }
        if exposed.speaks == Speaks::Http && before && after {
            return;
        }
        let clients = exposed.exports.clients(&exposed.host.0);
        // Of a few namespaces it may be HTTP now for their own fallbacks.
        let differs = before != after || exposed.speaks == Speaks::Tcp || clients.is_some();
        let touched = if differs {
            &mut self.scopes
        } else {
            &mut self.statuses
        };
        match clients {
            Some(clients) if before == after => {
                touched.namespaces.extend(clients.map(str::to_owned));
            }
            _ => touched.all = true,
        }
    }
}

impl HttpPorts {
    /// No ports yet. `wake` is notified when something changes.
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

    /// HTTP ports of a namespace; `None`: those that are HTTP for everybody.
    pub fn of(&self, client: Option<&str>) -> BTreeSet<u16> {
        self.state.lock().carried(client)
    }

    /// Ports that services have and that are not HTTP for a namespace.
    pub(super) fn not_http(&self, client: Option<&str>) -> BTreeSet<u16> {
        let state = self.state.lock();
        let carried = state.carried(client);
        let known = state.ports.keys();
        known.filter(|p| !carried.contains(p)).copied().collect()
    }

    /// Fences whose scope, and those whose status changes touch.
    pub(super) fn drain_changes(&self) -> (Touched, Touched) {
        let mut state = self.state.lock();
        let scopes = std::mem::take(&mut state.scopes);
        (scopes, std::mem::take(&mut state.statuses))
    }

    /// Services that a client sees and that speak TCP on one of these ports.
    pub(super) fn tcp_on(&self, ports: &BTreeSet<u16>, client: &str) -> BTreeSet<TcpService> {
        let state = self.state.lock();
        let mut out = BTreeSet::new();
        for (number, port) in ports.iter().filter_map(|n| Some((n, state.ports.get(n)?))) {
            if port.all.rest == 0 {
                continue;
            }
            for ((namespace, host, _), (speaks, exports)) in &port.hosts {
                if *speaks == Speaks::Tcp && exports.visible(namespace, client) {
                    out.insert(TcpService {
                        port: *number,
                        namespace: namespace.clone(),
                        host: host.clone(),
                    });
                }
            }
        }
        out
    }

    /// The first services with a port that a client sees and that none of `ports` carries, as the status names them. What
    /// is `imported` is called directly.
    pub(super) fn not_on(
        &self,
        ports: &BTreeSet<u16>,
        client: &str,
        most: usize,
        imported: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let state = self.state.lock();
        let mut out: BTreeSet<(Arc<str>, u16, Speaks)> = BTreeSet::new();
        for (number, port) in &state.ports {
            let mut left = most;
            for ((namespace, host, _), (speaks, exports)) in &port.hosts {
                let carried =
                    ports.contains(number) && !matches!(speaks, Speaks::Tls | Speaks::Tcp);
                if left == 0 {
                    break;
                }
                if !carried
                    && exports.visible(namespace, client)
                    && !imported(&format!("{namespace}/{host}"))
                {
                    left -= 1;
                    out.insert((host.clone(), *number, *speaks));
                }
            }
        }
        let all = out.into_iter().take(most);
        all.map(|(host, port, speaks)| format!("{host}:{port} ({})", speaks.why()))
            .collect()
    }

    fn put(&self, name: &Object, exposed: Vec<Exposed>) {
        let mut state = self.state.lock();
        let old = state.of.remove(name).unwrap_or_default();
        if old == exposed {
            if !exposed.is_empty() {
                state.of.insert(name.clone(), exposed);
            }
            return;
        }
        for gone in old.iter().filter(|e| !exposed.contains(e)) {
            state.set(gone, false);
        }
        for come in exposed.iter().filter(|e| !old.contains(e)) {
            state.set(come, true);
        }
        if !exposed.is_empty() {
            state.of.insert(name.clone(), exposed);
        }
        drop(state);
        self.wake.notify_one();
    }
}

impl Follower<Service> for HttpPorts {
    fn changed(&self, change: Change<'_, Service>) {
        let config = self.state.lock().config.clone();
        let object = (SERVICE, change.name.clone());
        let exposed = change.new.map(|service| {
            let ports = of_service(service, &config).into_iter();
            let exposed = ports.map(|(port, speaks)| Exposed {
                port,
                speaks,
                host: (
                    service.id.namespace.clone(),
                    service.host.clone(),
                    object.clone(),
                ),
                exports: service.exports.clone(),
            });
            exposed.collect()
        });
        self.put(&object, exposed.unwrap_or_default());
    }
}

impl Follower<ServiceEntry> for HttpPorts {
    fn changed(&self, change: Change<'_, ServiceEntry>) {
        let config = self.state.lock().config.clone();
        let object = (SERVICE_ENTRY, change.name.clone());
        let mut exposed = Vec::new();
        if let Some(entry) = change.new {
            let ports = of_entry(entry, &config);
            for host in &entry.spec.hosts {
                let host: Arc<str> = host.trim_end_matches('.').to_ascii_lowercase().into();
                exposed.extend(ports.iter().map(|(port, speaks)| Exposed {
                    port: *port,
                    speaks: *speaks,
                    host: (entry.id.namespace.clone(), host.clone(), object.clone()),
                    exports: entry.exports.clone(),
                }));
            }
        }
        self.put(&object, exposed);
    }
}

#[cfg(test)]
mod tests;
