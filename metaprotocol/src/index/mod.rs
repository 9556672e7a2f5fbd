//! State from watches, and which hosts an event touches.
//!
//! An event marks the hosts whose outputs may depend on it and no others: the host itself, hosts whose routes lead to it,
//! and hosts that share a gateway with it. A marked host is resolved on a small mesh of just the objects that it depends
//! on, by the same rules as a whole mesh.

mod closure;
mod feeds;
mod kinds;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::{DestinationRule, Gateway, ServiceEntry};
use trimtab_crds::metaprotocol::{ApplicationProtocol, MetaRouter};
use trimtab_crds::redis::{RedisDestination, RedisService};
use trimtab_kit::generated::owner_name;
use trimtab_kit::problem::Problem;

use crate::config::Secrets;
use crate::input::{Router, ServicePortInput, Settings};
use crate::object::{ObjectKey, ServiceKey};
use crate::resolve::{Mesh, Registry, protocol};
use crate::vip;
use table::Table;

/// Namespace and name.
pub type Name = (String, String);

/// What events have changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Hosts to resolve again, sorted.
    pub hosts: Vec<String>,
    /// Users' objects whose status may have to be written, sorted.
    pub objects: Vec<ObjectKey>,
    /// Whether addresses in the mesh may have changed.
    pub addresses: bool,
}

/// A host with what it depends on.
#[derive(Clone, Debug, Default)]
pub struct ResolvedHost {
    /// Of each layer-7 port, sorted by port; empty: the host is gone, or has none.
    pub inputs: Vec<ServicePortInput>,
    /// What is wrong between objects.
    pub problems: Vec<Problem>,
    /// MetaRouters that name the host, in force or not.
    pub routers: Vec<ObjectKey>,
}

/// A user's object as last seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `metadata.generation`.
    pub generation: i64,
    /// `status` as the API server has it.
    pub status: Value,
    /// Hosts that it names; for an ApplicationProtocol the protocol.
    pub names: Vec<String>,
    /// An ApplicationProtocol of the same protocol that is in force instead.
    pub overridden_by: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    domain: String,
    settings: Arc<Settings>,
    services: Table<Service>,
    slices: Table<EndpointSlice>,
    entries: Table<ServiceEntry>,
    rules: Table<DestinationRule>,
    gateways: Table<Gateway>,
    routers: Table<MetaRouter>,
    protocols: Table<ApplicationProtocol>,
    redis_services: Table<RedisService>,
    redis_destinations: Table<RedisDestination>,
    policies: Table<DubboAuthorizationPolicy>,
    secrets: Secrets,
    /// Hosts with a layer-7 port at their last resolution, with the namespace.
    known: BTreeMap<String, String>,
    /// What a host's outputs depend on, and the other way round.
    depends: HashMap<String, BTreeSet<String>>,
    dependents: HashMap<String, BTreeSet<String>>,
    dirty: BTreeSet<String>,
    objects: BTreeSet<ObjectKey>,
    addresses: bool,
}

/// The index. Cheap to share.
#[derive(Debug)]
pub struct Index {
    state: Mutex<State>,
    wake: Notify,
}

impl Index {
    /// An empty index. `domain` is the cluster's.
    pub fn new(domain: &str, settings: Arc<Settings>) -> Arc<Self> {
        let state = State {
            domain: domain.to_owned(),
            settings,
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            wake: Notify::new(),
        })
    }

    /// Waits until something has changed.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Takes what events have changed.
    pub fn take_changes(&self) -> Changes {
        let mut state = self.state.lock();
        Changes {
            hosts: std::mem::take(&mut state.dirty).into_iter().collect(),
            objects: std::mem::take(&mut state.objects).into_iter().collect(),
            addresses: std::mem::take(&mut state.addresses),
        }
    }

    /// A host with what it depends on. `last_good` is its last router that was accepted as a whole.
    ///
    /// Costs the objects that the host depends on, not those of the mesh.
    pub fn resolve(&self, host: &str, last_good: Option<&Router>) -> ResolvedHost {
        let mut state = self.state.lock();
        let (mesh, depends) = state.closure(host, last_good);
        let routers = state.router_keys(host);
        let mut sources: BTreeSet<String> = routers.iter().map(ToString::to_string).collect();
        let entries = state.entries.of(host);
        sources.extend(entries.map(|((ns, name), _)| format!("ServiceEntry {ns}/{name}")));
        state.depend(host, &depends);
        drop(state);

        let resolved = mesh.resolve();
        let inputs: Vec<ServicePortInput> = resolved
            .inputs
            .into_iter()
            .filter(|i| i.host == host)
            .collect();
        let mut state = self.state.lock();
        match inputs.first() {
            Some(input) => {
                let namespace = input.namespace.clone();
                state.known.insert(host.to_owned(), namespace);
            }
            None => {
                state.known.remove(host);
            }
        }
        let mine = |p: &Problem| sources.contains(&p.object);
        ResolvedHost {
            inputs,
            problems: resolved.problems.into_iter().filter(mine).collect(),
            routers,
        }
    }

    /// Everything, for checks and the offline commands.
    pub fn mesh(&self) -> Mesh {
        self.state.lock().mesh()
    }

    /// Whether an owner of generated objects may be gone for good: its kind was listed in full, and no object of its name
    /// is unreadable.
    pub fn may_collect(&self, owner: &ServiceKey) -> bool {
        let state = self.state.lock();
        let named = |(namespace, name): &Name| {
            *namespace == owner.namespace && owner_name(name) == owner.name
        };
        match owner.kind.as_str() {
            "Service" => state.services.listed && !state.services.unreadable().any(named),
            "ServiceEntry" => state.entries.listed && !state.entries.unreadable().any(named),
            _ => false,
        }
    }

    /// What address allocation needs.
    pub fn addresses(&self) -> (Vec<vip::Entry>, BTreeSet<IpAddr>) {
        let state = self.state.lock();
        if !state.entries.listed || !state.services.listed {
            return <_>::default();
        }
        let mesh = Mesh {
            services: state.services.values().map(|s| (**s).clone()).collect(),
            service_entries: state.entries.values().map(|s| (**s).clone()).collect(),
            protocols: state.protocols.values().map(|s| (**s).clone()).collect(),
            ..Mesh::default()
        };
        drop(state);
        mesh.addresses()
    }

    /// Version of a ServiceEntry, so that a write does not overtake a change.
    pub fn entry_version(&self, namespace: &str, name: &str) -> Option<String> {
        let state = self.state.lock();
        let entry = state
            .entries
            .get(&(namespace.to_owned(), name.to_owned()))?;
        entry.metadata.resource_version.clone()
    }

    /// Has addresses looked at again.
    pub fn touch_addresses(&self) {
        self.with(|state| state.addresses = true);
    }

    /// Secrets that Redis objects name.
    pub fn wanted_secrets(&self) -> BTreeSet<Name> {
        let state = self.state.lock();
        let services = state.redis_services.values().filter_map(|o| {
            let auth = o.spec.settings.as_ref()?.auth.as_ref()?;
            Some((
                o.metadata.namespace.clone()?,
                auth.secret.as_ref()?.name.clone(),
            ))
        });
        let destinations = state.redis_destinations.values().filter_map(|o| {
            let policy = o.spec.traffic_policy.as_ref()?;
            let redis = policy.connection_pool.as_ref()?.redis.as_ref()?;
            let secret = redis.auth.as_ref()?.secret.as_ref()?;
            Some((o.metadata.namespace.clone()?, secret.name.clone()))
        });
        services.chain(destinations).collect()
    }

    /// Takes over what was read of the Secrets that are named. A change touches all Redis hosts: there are few.
    pub fn set_secrets(&self, secrets: Secrets) {
        self.with(|state| {
            if state.secrets == secrets {
                return;
            }
            state.secrets = secrets;
            let services = state.redis_services.values();
            let mut hosts: BTreeSet<String> = services.flat_map(|o| o.spec.host.clone()).collect();
            let destinations = state.redis_destinations.values();
            hosts.extend(destinations.map(|o| o.spec.host.clone()));
            for host in hosts {
                state.touch(&host);
            }
        });
    }

    /// Number of Services, ServiceEntries and MetaRouters.
    pub fn sizes(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        (
            state.services.len(),
            state.entries.len(),
            state.routers.len(),
        )
    }

    fn with(&self, f: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        f(&mut state);
        let changed = !state.dirty.is_empty() || !state.objects.is_empty() || state.addresses;
        drop(state);
        if changed {
            self.wake.notify_one();
        }
    }
}

impl State {
    /// Whether anything may come of a host: it has a layer-7 port, had one, or a router names it.
    fn matters(&self, host: &str) -> bool {
        self.known.contains_key(host) || self.routers.has(host) || self.speaks(host)
    }

    fn speaks(&self, host: &str) -> bool {
        // Which codec a protocol has makes no difference here.
        let registry = Registry::new(&[]);
        let services = self.services.of(host).filter_map(|(_, s)| s.spec.as_ref());
        let mut ports = services.flat_map(|s| s.ports.iter().flatten());
        let of_service = ports.any(|p| {
            let name = p.name.as_deref().unwrap_or_default();
            protocol(name, p.app_protocol.as_deref(), &registry).is_some()
        });
        let mut ports = self.entries.of(host).flat_map(|(_, e)| &e.spec.ports);
        of_service
            || ports.any(|p| {
                let name = p["name"].as_str().unwrap_or_default();
                protocol(name, None, &registry).is_some()
            })
    }

    /// Marks a host and those that depend on it.
    fn touch(&mut self, host: &str) {
        let dependents = self.dependents.get(host).cloned().unwrap_or_default();
        self.dirty.extend(dependents);
        self.touch_only(host);
    }

    fn touch_only(&mut self, host: &str) {
        if self.matters(host) {
            self.dirty.insert(host.to_owned());
        }
    }

    /// Marks the hosts whose routers name a gateway.
    fn touch_gateway(&mut self, gateway: &str) {
        let routers = self.routers.of(gateway);
        let hosts: Vec<String> = routers.map(|(_, r)| r.spec.host().to_owned()).collect();
        self.dirty.extend(hosts);
    }

    fn touch_all(&mut self, namespace: Option<&str>) {
        let known = self.known.iter();
        let hosts: Vec<String> = known
            .filter(|(_, ns)| namespace.is_none_or(|n| n == ns.as_str()))
            .map(|(host, _)| host.clone())
            .collect();
        self.dirty.extend(hosts);
    }

    fn depend(&mut self, host: &str, depends: &BTreeSet<String>) {
        let old = self
            .depends
            .insert(host.to_owned(), depends.clone())
            .unwrap_or_default();
        for gone in old.difference(depends) {
            if let Some(hosts) = self.dependents.get_mut(gone) {
                hosts.remove(host);
                if hosts.is_empty() {
                    self.dependents.remove(gone);
                }
            }
        }
        for new in depends.difference(&old) {
            let hosts = self.dependents.entry(new.clone()).or_default();
            hosts.insert(host.to_owned());
        }
        if depends.is_empty() {
            self.depends.remove(host);
        }
    }
}

#[cfg(test)]
mod tests;
