//! State from watches, and which hosts an event touches.
//!
//! An event marks the hosts whose outputs may depend on it and no others: the host itself, hosts whose routes lead to it,
//! and hosts that share a gateway with it. A marked host is resolved on a small mesh of just the objects that it depends
//! on, by the same rules as a whole mesh.

mod closure;
mod configured;
mod follow;
mod rows;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::{Gateway, VirtualService};
use trimtab_crds::metaprotocol::{ApplicationProtocol, MetaRouter};
use trimtab_crds::redis::{RedisDestination, RedisService};
use trimtab_kit::generated::owner_name;
use trimtab_kit::problem::Problem;
pub use trimtab_mesh::Name;
use trimtab_mesh::addressed::HasAddresses;
use trimtab_mesh::model::{
    DestinationRule, EndpointSlice, MeshConfig, Namespace, Service, ServiceEntry, ServicePort,
};
use trimtab_mesh::names::service_of;
use trimtab_mesh::table::{HasKeys, Row, Table};

use crate::config::Secrets;
use crate::input::{Router, ServicePortInput, Settings};
use crate::object::{ObjectKey, ServiceKey};
use crate::resolve::{Mesh, Registry, protocol};
use crate::vip;
pub use rows::Kept;

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
    /// Users' objects that name the host, in force or not.
    pub named: Vec<ObjectKey>,
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
    /// An ApplicationProtocol in a namespace that does not decide for all.
    pub foreign: bool,
}

/// The tables that the module reads.
#[derive(Clone, Debug)]
struct Objects {
    domain: Arc<str>,
    services: Arc<Table<Service>>,
    slices: Arc<Table<EndpointSlice>>,
    entries: Arc<Table<ServiceEntry>>,
    namespaces: Arc<Table<Namespace>>,
    rules: Arc<Table<DestinationRule>>,
    gateways: Arc<Table<Kept<Gateway>>>,
    virtual_services: Arc<Table<Kept<VirtualService>>>,
    routers: Arc<Table<Kept<MetaRouter>>>,
    protocols: Arc<Table<Kept<ApplicationProtocol>>>,
    redis_services: Arc<Table<Kept<RedisService>>>,
    redis_destinations: Arc<Table<Kept<RedisDestination>>>,
    policies: Arc<Table<Kept<DubboAuthorizationPolicy>>>,
}

impl Objects {
    fn of(mesh: &trimtab_mesh::Mesh) -> Self {
        Self {
            domain: mesh.domain().clone(),
            services: mesh.table(),
            slices: mesh.table(),
            entries: mesh.table(),
            namespaces: mesh.table(),
            rules: mesh.table(),
            gateways: mesh.table(),
            virtual_services: mesh.table(),
            routers: mesh.table(),
            protocols: mesh.table(),
            redis_services: mesh.table(),
            redis_destinations: mesh.table(),
            policies: mesh.table(),
        }
    }

    /// The Service with a host.
    fn service(&self, host: &str) -> Option<Arc<Service>> {
        let (name, namespace) = service_of(host, &self.domain)?;
        self.services.get(namespace, name)
    }
}

#[derive(Debug)]
struct State {
    objects: Objects,
    /// Those of the operator's configuration.
    configured: Arc<Settings>,
    /// With what the MeshConfig says where the configuration says nothing.
    settings: Arc<Settings>,
    secrets: Secrets,
    /// Namespaces that want no objects for services of others.
    closed: Arc<BTreeSet<String>>,
    /// Hosts with a layer-7 port at their last resolution, with the namespace.
    known: BTreeMap<String, String>,
    /// What a host's outputs depend on, and the other way round.
    depends: HashMap<String, BTreeSet<String>>,
    dependents: HashMap<String, BTreeSet<String>>,
    dirty: BTreeSet<String>,
    touched: BTreeSet<ObjectKey>,
    addresses: bool,
}

/// The index. Cheap to share.
#[derive(Debug)]
pub struct Index {
    objects: Objects,
    state: Mutex<State>,
    wake: Notify,
}

impl Index {
    /// An empty index over a mesh.
    pub fn new(mesh: &trimtab_mesh::Mesh, settings: Arc<Settings>) -> Arc<Self> {
        let objects = Objects::of(mesh);
        let state = State {
            objects: objects.clone(),
            settings: Arc::new(settings.over(&MeshConfig::default())),
            configured: settings,
            secrets: Secrets::default(),
            closed: Arc::default(),
            known: BTreeMap::new(),
            depends: HashMap::new(),
            dependents: HashMap::new(),
            dirty: BTreeSet::new(),
            touched: BTreeSet::new(),
            addresses: false,
        };
        Arc::new(Self {
            objects,
            state: Mutex::new(state),
            wake: Notify::new(),
        })
    }

    /// Follows a mesh without the kit: for tests.
    pub fn attach(self: &Arc<Self>) {
        let objects = &self.objects;
        objects.services.follow(self);
        objects.slices.follow(self);
        objects.entries.follow(self);
        objects.namespaces.follow(self);
        objects.rules.follow(self);
        objects.gateways.follow(self);
        objects.virtual_services.follow(self);
        objects.routers.follow(self);
        objects.protocols.follow(self);
        objects.redis_services.follow(self);
        objects.redis_destinations.follow(self);
        objects.policies.follow(self);
    }

    /// Waits until something has changed.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Takes what events have changed.
    pub fn drain_changes(&self) -> Changes {
        let mut state = self.state.lock();
        Changes {
            hosts: std::mem::take(&mut state.dirty).into_iter().collect(),
            objects: std::mem::take(&mut state.touched).into_iter().collect(),
            addresses: std::mem::take(&mut state.addresses),
        }
    }

    /// A host with what it depends on. `last_good` is its last router that was accepted as a whole.
    ///
    /// Costs the objects that the host depends on, not those of the mesh.
    pub fn resolve(&self, host: &str, last_good: Option<&Router>) -> ResolvedHost {
        let mut state = self.state.lock();
        let (mesh, depends) = state.closure(host, last_good);
        let named = state.naming(host);
        let mut sources: BTreeSet<String> = named.iter().map(ToString::to_string).collect();
        let entries = self.objects.entries.rows();
        let of_host = entries.of(host);
        sources.extend(of_host.map(|((ns, name), _)| format!("ServiceEntry {ns}/{name}")));
        drop(entries);
        let rules = self.objects.virtual_services.rows();
        let of_host = rules.of(host);
        sources.extend(of_host.map(|((ns, name), _)| format!("VirtualService {ns}/{name}")));
        drop(rules);
        let service = self.objects.service(host);
        sources.extend(service.map(|s| format!("Service {}/{}", s.id.namespace, s.id.name)));
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
            named,
        }
    }

    /// Everything, for checks and the offline commands.
    pub fn mesh(&self) -> Mesh {
        self.state.lock().mesh()
    }

    /// Whether an owner of generated objects may be gone for good: its kind was listed in full, and no object of its name
    /// is unreadable.
    pub fn may_collect(&self, owner: &ServiceKey) -> bool {
        let named = |(namespace, name): &Name| {
            *namespace == owner.namespace && owner_name(name) == owner.name
        };
        match owner.kind.as_str() {
            "Service" => {
                let rows = self.objects.services.rows();
                rows.is_listed() && !rows.unreadable().any(named)
            }
            "ServiceEntry" => {
                let rows = self.objects.entries.rows();
                rows.is_listed() && !rows.unreadable().any(named)
            }
            _ => false,
        }
    }

    /// What address allocation needs.
    pub fn addresses(&self) -> (Vec<vip::Entry>, BTreeSet<IpAddr>) {
        let objects = &self.objects;
        let (services, entries) = (objects.services.rows(), objects.entries.rows());
        if !entries.is_listed() || !services.is_listed() {
            return <_>::default();
        }
        let mesh = Mesh {
            services: services.iter().map(|(_, s)| s.clone()).collect(),
            service_entries: entries.iter().map(|(_, e)| e.clone()).collect(),
            protocols: closure::every(&objects.protocols),
            ..Mesh::default()
        };
        drop((services, entries));
        mesh.addresses()
    }

    /// Version of a ServiceEntry, so that a write does not overtake a change.
    pub fn entry_version(&self, namespace: &str, name: &str) -> Option<String> {
        let entry = self.objects.entries.get(namespace, name)?;
        entry.version.as_deref().map(str::to_owned)
    }

    /// Secrets that Redis objects name.
    pub fn wanted_secrets(&self) -> BTreeSet<Name> {
        let (services, destinations) = (
            self.objects.redis_services.rows(),
            self.objects.redis_destinations.rows(),
        );
        let services = services.iter().filter_map(|(_, o)| {
            let auth = o.spec.settings.as_ref()?.auth.as_ref()?;
            Some((
                o.metadata.namespace.clone()?,
                auth.secret.as_ref()?.name.clone(),
            ))
        });
        let destinations = destinations.iter().filter_map(|(_, o)| {
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
            let services = self.objects.redis_services.rows();
            let hosts = services.iter().flat_map(|(_, o)| o.spec.host.clone());
            let mut hosts: BTreeSet<String> = hosts.collect();
            let destinations = self.objects.redis_destinations.rows();
            hosts.extend(destinations.iter().map(|(_, o)| o.spec.host.clone()));
            drop((services, destinations));
            for host in hosts {
                state.touch(&host);
            }
        });
    }

    /// Number of Services, ServiceEntries and MetaRouters.
    pub fn sizes(&self) -> (usize, usize, usize) {
        let objects = &self.objects;
        (
            objects.services.rows().len(),
            objects.entries.rows().len(),
            objects.routers.rows().len(),
        )
    }

    fn with(&self, f: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        f(&mut state);
        let changed = !state.dirty.is_empty() || !state.touched.is_empty() || state.addresses;
        drop(state);
        if changed {
            self.wake.notify_one();
        }
    }
}

impl State {
    /// Whether anything may come of a host: it has a layer-7 port, had one, or an object of a user names it.
    fn matters(&self, host: &str) -> bool {
        let objects = &self.objects;
        self.known.contains_key(host)
            || names(&objects.routers, host)
            || names(&objects.redis_services, host)
            || names(&objects.redis_destinations, host)
            || self.speaks(host)
    }

    fn speaks(&self, host: &str) -> bool {
        // Which codec a protocol has makes no difference here.
        let registry = Registry::new(&[]);
        let speaks = |p: &ServicePort| {
            let app_protocol = p.app_protocol.as_deref();
            protocol(&p.name, app_protocol, &registry).is_some()
        };
        let service = self.objects.service(host);
        let entries = self.objects.entries.rows();
        let mut ports = entries.of(host).flat_map(|(_, e)| &e.spec.ports);
        service.is_some_and(|s| s.ports.iter().any(speaks))
            || ports.any(|p| protocol(&p.name, None, &registry).is_some())
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

    /// Marks the hosts that have one of some addresses: whose it is may have changed.
    fn touch_addresses(&mut self, addresses: &BTreeSet<IpAddr>) {
        let mut hosts = BTreeSet::new();
        for service in at(&self.objects.services, addresses) {
            hosts.insert(service.host.to_string());
        }
        for slice in at(&self.objects.slices, addresses) {
            hosts.insert(slice.host.to_string());
        }
        for entry in at(&self.objects.entries, addresses) {
            hosts.extend(entry.spec.hosts.iter().cloned());
        }
        for host in hosts {
            self.touch_only(&host);
        }
    }

    /// Marks the hosts with an address in a range.
    fn touch_range(&mut self, range: IpNet) {
        let mut hosts = BTreeSet::new();
        for entry in within(&self.objects.entries, range) {
            hosts.extend(entry.spec.hosts.iter().cloned());
        }
        for slice in within(&self.objects.slices, range) {
            hosts.insert(slice.host.to_string());
        }
        for host in hosts {
            self.touch_only(&host);
        }
    }

    /// Marks the hosts whose routers name a gateway.
    fn touch_gateway(&mut self, gateway: &str) {
        let routers = self.objects.routers.rows();
        let hosts = routers.of(gateway);
        self.dirty
            .extend(hosts.map(|(_, r)| r.spec.host().to_owned()));
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

/// Whether an object names a host.
fn names<R: Row<Index: HasKeys>>(table: &Table<R>, host: &str) -> bool {
    table.rows().index().by_key().has(host)
}

/// Rows of a table with one of some addresses. The table is free when they are there: it must not be read twice at once.
fn at<R: Row<Index: HasAddresses<R>>>(
    table: &Table<R>,
    addresses: &BTreeSet<IpAddr>,
) -> Vec<Arc<R>> {
    let rows = table.rows();
    let found = addresses.iter().flat_map(|a| rows.by_address().at(*a));
    found.cloned().collect()
}

/// Rows of a table with an address in a range.
fn within<R: Row<Index: HasAddresses<R>>>(table: &Table<R>, range: IpNet) -> Vec<Arc<R>> {
    table.rows().by_address().within(range).cloned().collect()
}

#[cfg(test)]
mod tests;
