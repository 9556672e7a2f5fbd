//! From the objects of a mesh to the input of proxies without Istio.

mod entries;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use std::sync::Arc;

use trimtab_crds::istio::{Sidecar, VirtualService};
use trimtab_kit::problem::Problem;
use trimtab_mesh::DEFAULT_DOMAIN;
use trimtab_mesh::model::{
    DestinationRule, Endpoint, EndpointSlice, Identity, Service, ServiceEntry, Transport, in_order,
};
use trimtab_mesh::names::full_host;
use trimtab_mesh::owners::Addresses;
use trimtab_metaprotocol::input::{ServicePortInput, Source};
use trimtab_metaprotocol::owner::Owner;
use trimtab_metaprotocol::resolve::Mesh;

use crate::input::{
    AppProtocol, EndpointInput, FallbackInput, HttpLimit, HttpRoute, Listen, PortInput,
    ServiceInput, StandaloneInput,
};
use crate::ports::{balancing, not_followed, speaks};
use crate::{served, sidecar, virtual_service};

/// What proxies without Istio need besides the [`Mesh`].
#[derive(Clone, Debug, Default)]
pub struct StandaloneObjects {
    /// The cluster domain; empty: `cluster.local`.
    pub domain: String,
    /// Where proxies listen.
    pub listen: Listen,
    /// Labels of pods by namespace and name, for subsets and Sidecars. An endpoint that names no pod of these has the
    /// labels of its EndpointSlice, so that slices written by hand can tell versions apart.
    pub pod_labels: BTreeMap<(String, String), BTreeMap<String, String>>,
    /// Addresses of pods by namespace and name.
    pub pod_addresses: BTreeMap<(String, String), IpAddr>,
    /// What the proxies of pods see.
    pub sidecars: Vec<Arc<Sidecar>>,
    /// Where calls to hosts go that a pod's proxy does not see; absent: proxies of pods see all, too.
    pub fallback: Option<FallbackInput>,
    /// Routes of HTTP services.
    pub virtual_services: Vec<Arc<VirtualService>>,
    /// What VirtualServices said when they were followed as a whole, by namespace and name: it stays in force while a newer
    /// version has a mistake.
    pub last_good: LastGood,
    /// Limits of HTTP calls.
    pub limits: Vec<HttpLimit>,
}

/// VirtualServices by namespace and name.
pub type LastGood = BTreeMap<(String, String), Arc<VirtualService>>;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Discovered {
    /// The input of [`crate::resources`].
    pub input: StandaloneInput,
    /// What is wrong between objects, and what is not done without Istio.
    pub problems: Vec<Problem>,
    /// The next [`StandaloneObjects::last_good`].
    pub last_good: LastGood,
    /// VirtualServices with a mistake of which no good version is known: what is served may lack what proxies have.
    pub unresolved: BTreeSet<String>,
}

/// Reads all services with their endpoints. Pure.
pub fn discover(mesh: &Mesh, around: &StandaloneObjects) -> Discovered {
    let resolved = mesh.resolve();
    let mut reader = Reader {
        mesh,
        around,
        managed: resolved
            .inputs
            .into_iter()
            .map(|i| ((i.host.clone(), i.port.number), i))
            .collect(),
        problems: resolved.problems,
        last_good: LastGood::new(),
        unresolved: BTreeSet::new(),
    };
    let mut services = BTreeMap::new();
    for service in &mesh.services {
        if let Some(read) = reader.service(service) {
            services.insert(read.host.clone(), read);
        }
    }
    let mut entries: Vec<&ServiceEntry> = mesh.service_entries.iter().map(AsRef::as_ref).collect();
    entries.sort_by_key(|e| e.id.age());
    for entry in entries {
        for read in reader.entry(entry) {
            services.entry(read.host.clone()).or_insert(read);
        }
    }
    reader.own_addresses(&mut services);
    reader.rules(&mut services);
    reader.routes(&mut services);
    let sidecars = sidecar::Reader {
        around,
        services: &services,
        domain: around.domain(),
        root: &mesh.settings.root_namespace,
    };
    let pods = sidecars.pods(&mut reader.problems);
    served::sort(&mut reader.problems);
    Discovered {
        input: StandaloneInput {
            listen: around.listen.clone(),
            services: services.into_values().collect(),
            limits: around.limits.clone(),
            fallback: around.fallback.clone(),
            pods,
        },
        problems: reader.problems,
        last_good: reader.last_good,
        unresolved: reader.unresolved,
    }
}

struct Reader<'a> {
    mesh: &'a Mesh,
    around: &'a StandaloneObjects,
    managed: BTreeMap<(String, u16), ServicePortInput>,
    problems: Vec<Problem>,
    last_good: LastGood,
    unresolved: BTreeSet<String>,
}

impl Reader<'_> {
    fn service(&mut self, service: &Service) -> Option<ServiceInput> {
        if service.external_name.is_some() {
            self.not_done(
                Owner::of_row("Service", &service.id),
                "spec.type",
                "ExternalName is not served: write a ServiceEntry with resolution DNS",
            );
            return None;
        }
        let slices = self.mesh.endpoint_slices.iter();
        let slices = slices.filter(|s| s.host == service.host);
        let slices: Vec<&EndpointSlice> = slices.map(AsRef::as_ref).collect();
        let mut ports = Vec::new();
        for (i, port) in service.ports.iter().enumerate() {
            if port.transport != Transport::Tcp {
                self.not_done(
                    Owner::of_row("Service", &service.id),
                    &format!("spec.ports[{i}].protocol"),
                    "only TCP is served: remove the port, or reach it without a proxy",
                );
                continue;
            }
            ports.push(PortInput {
                number: port.number,
                speaks: self.speaks(&service.host, port.number, speaks(port.protocol())),
                endpoints: self.endpoints(&slices, &port.name),
            });
        }
        let (namespace, name) = (&service.id.namespace, &service.id.name);
        Some(ServiceInput {
            aliases: vec![
                format!("{name}.{namespace}.svc"),
                format!("{name}.{namespace}"),
                name.to_string(),
            ],
            host: service.host.to_string(),
            namespace: namespace.to_string(),
            service: name.to_string(),
            source: Source::Service,
            vips: service.addresses.to_vec(),
            ports,
            ..ServiceInput::default()
        })
    }

    /// What the port speaks: a protocol of MetaRouters, else what its name and `appProtocol` say.
    fn speaks(&self, host: &str, number: u16, plain: AppProtocol) -> AppProtocol {
        let managed = self.managed.get(&(host.to_owned(), number));
        managed.map_or(plain, |input| AppProtocol::Managed(Box::new(input.clone())))
    }

    /// Ready endpoints of the port with this name.
    fn endpoints(&self, slices: &[&EndpointSlice], port_name: &str) -> Vec<EndpointInput> {
        let mut out = BTreeSet::new();
        for slice in slices {
            let Some(port) = slice.port(port_name) else {
                continue;
            };
            for endpoint in slice.endpoints.iter().filter(|e| e.ready) {
                let labels = self.labels(slice, endpoint);
                out.extend(endpoint.addresses.iter().map(|address| EndpointInput {
                    address: address.to_string(),
                    port,
                    labels: labels.clone(),
                    weight: None,
                }));
            }
        }
        out.into_iter().collect()
    }

    fn labels(&self, slice: &EndpointSlice, endpoint: &Endpoint) -> BTreeMap<String, String> {
        let of_pod = endpoint.pod.as_ref().and_then(|pod| {
            let name = (slice.namespace.to_string(), pod.to_string());
            self.around.pod_labels.get(&name)
        });
        of_pod.unwrap_or(&slice.labels).clone()
    }

    /// Takes addresses out that belong to objects of other namespaces, where proxies listen on addresses.
    fn own_addresses(&mut self, services: &mut BTreeMap<String, ServiceInput>) {
        if !matches!(
            self.around.listen,
            Listen::Addresses | Listen::Captured { .. }
        ) {
            return;
        }
        let Mesh {
            services: all,
            service_entries,
            endpoint_slices,
            ..
        } = self.mesh;
        let addresses = Addresses::new(all, service_entries, endpoint_slices);
        for service in services.values_mut() {
            let kind = service.source.as_str();
            let id = (service.namespace.as_str(), service.service.as_str());
            let holder = |vip: IpAddr| {
                let mut ports = service.ports.iter().map(|p| p.number);
                let found = ports.find_map(|p| Some((p, addresses.holder(vip, p, kind, id)?)));
                found.filter(|(_, holder)| *holder.namespace != *service.namespace)
            };
            let (lost, kept): (Vec<IpAddr>, Vec<IpAddr>) =
                service.vips.iter().partition(|vip| holder(**vip).is_some());
            for (vip, (port, holder)) in lost.iter().filter_map(|v| Some((*v, holder(*v)?))) {
                let message = holder.refusal(vip, port, &service.namespace, &service.host);
                let object = format!("{kind} {}/{}", service.namespace, service.service);
                let problem = Problem::new(object, "spec.addresses", "AddressTaken", message);
                self.problems.push(problem);
            }
            service.vips = kept;
        }
    }

    /// Subsets and balancing.
    fn rules(&mut self, services: &mut BTreeMap<String, ServiceInput>) {
        let mut by_host: BTreeMap<&str, Vec<&Arc<DestinationRule>>> = BTreeMap::new();
        for rule in &self.mesh.destination_rules {
            by_host.entry(&rule.host).or_default().push(rule);
        }
        for (host, rules) in by_host {
            let Some(service) = services.get_mut(host) else {
                continue;
            };
            let mut balanced = false;
            for rule in in_order(rules, self.mesh.settings.trust(), &service.namespace) {
                for field in not_followed(&rule.spec) {
                    let text = "this is not followed without Istio: remove it, or serve the host in a mesh";
                    self.not_done(Owner::of_row("DestinationRule", &rule.id), &field, text);
                }
                for subset in &rule.spec.subsets {
                    let known = service.subsets.entry(subset.name.clone());
                    known.or_insert_with(|| subset.labels.clone());
                }
                let policy = rule.spec.traffic_policy.as_ref();
                let how = policy.and_then(|p| p.load_balancer.as_ref());
                if let Some(found) = how.and_then(balancing).filter(|_| !balanced) {
                    service.balancing = found;
                    balanced = true;
                }
            }
        }
    }

    /// Routes of VirtualServices for sidecars; of several for one host one of its own namespace is in force, then the oldest.
    fn routes(&mut self, services: &mut BTreeMap<String, ServiceInput>) {
        let around = self.around;
        let mut objects: Vec<&Arc<VirtualService>> = around.virtual_services.iter().collect();
        objects.sort_by_key(|v| Identity::of(v.as_ref()).age());
        for object in objects {
            let gateways = &object.spec.gateways;
            if !gateways.is_empty() && !gateways.iter().any(|g| g == "mesh") {
                continue;
            }
            let owner = Owner::of("VirtualService", object.as_ref());
            if !object.spec.tcp.is_empty() || !object.spec.tls.is_empty() {
                self.not_done(
                    owner.clone(),
                    "spec.tcp",
                    "rules for TCP and TLS are not followed without Istio: remove tcp and tls",
                );
            }
            let (object, routes) = self.followed(object, &owner, services);
            let full = |host: &String| full_host(host, &owner.namespace, around.domain());
            let hosts: BTreeSet<String> = object.spec.hosts.iter().map(full).collect();
            for host in hosts {
                if let Some(service) = services.get_mut(&host) {
                    self.route(service, &owner, &routes);
                }
            }
        }
    }

    /// Puts the rules of an object in force for a host, unless it does not decide on it or another one goes before it.
    fn route(&mut self, service: &mut ServiceInput, owner: &Owner, routes: &[HttpRoute]) {
        let trust = self.mesh.settings.trust();
        let host = &service.host;
        if !trust.decides(&owner.namespace, &service.namespace) {
            let (kind, of) = (service.source.as_str(), &service.namespace);
            let object = format!("{kind} {of}/{}", service.service);
            let message = trust.refusal(&owner.namespace, (host, &object, of), "its routes");
            let problem = Problem::new(owner, "spec.hosts", "NotOwner", message);
            return self.problems.push(problem);
        }
        let own = |o: &Owner| o.namespace == service.namespace;
        let before = service.route_owner.take();
        let (first, other) = match before {
            None => (owner.clone(), None),
            Some(before) if own(&before) || !own(owner) => (before, Some(owner.clone())),
            Some(before) => (owner.clone(), Some(before)),
        };
        if let Some(other) = other {
            self.problems.push(Problem::new(other, "spec.hosts", "Conflict", format!(
                "{first} is in force for \"{host}\": put the rules into one of the two and delete the other"
            )));
        }
        if first == *owner {
            service.routes = routes.to_vec();
        }
        service.route_owner = Some(first);
    }

    /// What of a VirtualService is followed: the object, or its last good version while it has a mistake, since without
    /// the rule that has it calls would go where nobody sends them.
    fn followed(
        &mut self,
        object: &Arc<VirtualService>,
        owner: &Owner,
        services: &BTreeMap<String, ServiceInput>,
    ) -> (Arc<VirtualService>, Vec<HttpRoute>) {
        let around = self.around;
        let full = |host: &str| full_host(host, &owner.namespace, around.domain());
        let mut problems = Vec::new();
        let routes = virtual_service::routes(object, owner, &full, &mut problems);
        let mut missing = virtual_service::missing(&routes, owner, services);
        let key = (owner.namespace.clone(), owner.name.clone());
        if problems.is_empty() && missing.is_empty() {
            self.last_good.insert(key, object.clone());
            return (object.clone(), routes);
        }
        let last = around.last_good.get(&key).cloned();
        self.last_good.extend(last.clone().map(|last| (key, last)));
        let newer = |last: &Arc<VirtualService>| !same_version(last, object);
        let Some(last) = last.filter(newer) else {
            // What is missing is told of the routes, which are served.
            if !problems.is_empty() {
                self.unresolved.insert(owner.to_string());
            }
            let told = problems.into_iter();
            self.problems
                .extend(told.map(|p| also(p, "the rule is left out")));
            return (object.clone(), routes);
        };
        problems.append(&mut missing);
        let told = problems.into_iter();
        self.problems
            .extend(told.map(|p| also(p, "the last good routes stay in force")));
        let routes = virtual_service::routes(&last, owner, &full, &mut Vec::new());
        (last, routes)
    }

    fn not_done(&mut self, owner: Owner, field: &str, text: &str) {
        self.problems
            .push(Problem::new(owner, field, "NotSupported", text));
    }
}

/// Whether two are the same version of an object; its status does not count.
fn same_version(a: &Arc<VirtualService>, b: &Arc<VirtualService>) -> bool {
    let counted = a.metadata.generation.is_some();
    Arc::ptr_eq(a, b) || (counted && a.metadata.generation == b.metadata.generation)
}

fn also(problem: Problem, consequence: &str) -> Problem {
    Problem {
        message: format!("{}; {consequence}", problem.message),
        ..problem
    }
}

impl StandaloneObjects {
    fn domain(&self) -> &str {
        match self.domain.as_str() {
            "" => DEFAULT_DOMAIN,
            domain => domain,
        }
    }
}
