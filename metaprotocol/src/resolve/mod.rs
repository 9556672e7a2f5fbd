//! From the objects of a mesh to the inputs of its service ports. Pure.
//!
//! Several MetaRouters may name one host: only those of namespaces that decide on it count. Of these the one in the
//! service's own namespace wins, then the oldest, then the first by name. The others are told so.

mod gateways;
mod hosts;
mod owners;
mod ports;
mod redis;
mod router;
mod virtual_service;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use kube::ResourceExt;
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::{Gateway, VirtualService};
use trimtab_crds::metaprotocol::{ApplicationProtocol, MetaRouter};
use trimtab_crds::redis::{RedisDestination, RedisService};
use trimtab_kit::problem::Problem;
use trimtab_mesh::DEFAULT_DOMAIN;
use trimtab_mesh::addressed::Addressed as _;
use trimtab_mesh::model::{DestinationRule, EndpointSlice, Identity, Service, ServiceEntry};
use trimtab_mesh::owners::Addresses;

use crate::input::{
    Credentials, DubboPolicy, HostFacts, Protocol, Router, ServicePortInput, Settings,
};
use crate::owner::Owner;

use crate::vip;

pub use ports::{Registry, protocol};
pub use router::{hosts as router_hosts, lower as lower_router};
pub(crate) use virtual_service::{destinations as rule_destinations, hosts as rule_hosts};

use hosts::Host;

/// Everything that inputs are made of.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    /// The cluster domain; empty: the default.
    pub domain: Arc<str>,
    /// Services.
    pub services: Vec<Arc<Service>>,
    /// Slices of the services that have a layer-7 port, and of those without an address.
    pub endpoint_slices: Vec<Arc<EndpointSlice>>,
    /// ServiceEntries.
    pub service_entries: Vec<Arc<ServiceEntry>>,
    /// DestinationRules.
    pub destination_rules: Vec<Arc<DestinationRule>>,
    /// Gateways.
    pub gateways: Vec<Arc<Gateway>>,
    /// VirtualServices for sidecars with rules for HTTP.
    pub virtual_services: Vec<Arc<VirtualService>>,
    /// MetaRouters.
    pub routers: Vec<Arc<MetaRouter>>,
    /// ApplicationProtocols.
    pub protocols: Vec<Arc<ApplicationProtocol>>,
    /// RedisServices.
    pub redis_services: Vec<Arc<RedisService>>,
    /// RedisDestinations.
    pub redis_destinations: Vec<Arc<RedisDestination>>,
    /// DubboAuthorizationPolicies.
    pub dubbo_policies: Vec<Arc<DubboAuthorizationPolicy>>,
    /// Secrets that Redis objects name, read by `(namespace, name)` and field.
    pub secrets: BTreeMap<(String, String), BTreeMap<String, String>>,
    /// The last router of each host that was accepted as a whole.
    pub last_good: BTreeMap<String, Router>,
    /// Namespaces whose label says that they want no objects for services of others.
    pub closed_namespaces: Arc<BTreeSet<String>>,
    /// Problems are told of this host only, for the mesh has what it depends on and not all of others; absent: of all.
    pub only: Option<String>,
    /// The operator's settings.
    pub settings: Arc<Settings>,
}

/// What a mesh gives.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// Of each layer-7 port, sorted by host and port.
    pub inputs: Vec<ServicePortInput>,
    /// What is wrong between objects.
    pub problems: Vec<Problem>,
}

impl Mesh {
    /// Whether problems of a host are told.
    fn tells(&self, host: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == host)
    }

    /// The protocols that are known. Where the kind has namespaces, as Aeraki installs it, an object holds for all of
    /// them all the same, so that only those count that decide for all.
    fn registry(&self) -> Registry {
        let decides = |p: &&Arc<ApplicationProtocol>| {
            let namespace = p.namespace().unwrap_or_default();
            self.settings.trust().decides(&namespace, "")
        };
        Registry::new(self.protocols.iter().filter(decides))
    }

    fn domain(&self) -> &str {
        match &*self.domain {
            "" => DEFAULT_DOMAIN,
            domain => domain,
        }
    }

    /// The inputs of all layer-7 ports.
    pub fn resolve(&self) -> Resolved {
        let mut problems = Vec::new();
        let hosts = hosts::all(self, &mut problems);
        let facts = hosts::facts(self, &hosts);
        let routers = self.routers_by_host(&hosts, &mut problems);
        redis::check(self, &hosts, &mut problems);
        let addresses =
            Addresses::new(&self.services, &self.service_entries, &self.endpoint_slices);
        let mut inputs = Vec::new();
        for host in hosts.values() {
            for (index, port) in host.ports.iter().enumerate() {
                let Some(protocol) = &port.protocol else {
                    continue;
                };
                let router = routers.get(host.name.as_str()).map(|r| router::lower(r));
                let router = virtual_service::router(self, host, port, router, &mut problems);
                let mut input = self.input(host, index, protocol, router, (&hosts, &facts));
                self.keep_own(host, &addresses, &mut input, &mut problems);
                input.closed = self.closed_to(host, &input);
                inputs.push(input);
            }
        }
        gateways::bind(self, &mut inputs, &mut problems);
        hosts::check_hashes(self, &inputs, &mut problems);
        Resolved { inputs, problems }
    }

    fn input(
        &self,
        host: &Host,
        index: usize,
        protocol: &Protocol,
        router: Option<Router>,
        (all, facts): (&BTreeMap<String, Host>, &BTreeMap<String, HostFacts>),
    ) -> ServicePortInput {
        let port = &host.ports[index];
        let redis = redis::service(self, host, port, facts);
        let last_good = self.last_good.get(&host.name).cloned().map(Box::new);
        let mut named: BTreeSet<String> = BTreeSet::from([host.name.clone()]);
        for router in router.iter().chain(last_good.as_deref()) {
            named.extend(router::hosts(router));
        }
        named.extend(redis.iter().flat_map(redis::hosts));
        let hosts: BTreeMap<String, HostFacts> = named
            .iter()
            .filter_map(|name| Some((name.clone(), facts.get(name)?.clone())))
            .collect();
        ServicePortInput {
            host: host.name.clone(),
            namespace: host.namespace.clone(),
            service: host.service.clone(),
            source: host.source,
            port: port.port.clone(),
            protocol: self.with_settings(protocol),
            vips: host.vips.iter().copied().collect(),
            headless: host.headless,
            visible_to: host.visible_to(),
            closed: BTreeSet::new(),
            endpoints: if host.headless {
                port.endpoints.iter().copied().collect()
            } else {
                Vec::new()
            },
            workload_selector: host.selector.clone(),
            router,
            last_good,
            redis_destinations: redis::destinations(self, protocol, &hosts, all),
            hosts,
            gateways: Vec::new(),
            redis,
            dubbo_policies: self.policies(host, protocol),
            settings: Arc::clone(&self.settings),
        }
    }

    fn with_settings(&self, protocol: &Protocol) -> Protocol {
        let mut out = protocol.clone();
        if let Protocol::MetaProtocol {
            application_protocol,
            multiplexing,
            ..
        } = &mut out
        {
            *multiplexing = self.settings.multiplexing.contains(application_protocol);
        }
        out
    }

    /// What address allocation needs: all ServiceEntries, of which those with a layer-7 port and a resolution may be given
    /// addresses, and the addresses of Services.
    pub fn addresses(&self) -> (Vec<vip::Entry>, BTreeSet<IpAddr>) {
        let registry = self.registry();
        let services = self.services.iter();
        let taken = services.flat_map(|s| s.single()).collect();
        let entries = self.service_entries.iter().map(|entry| vip::Entry {
            namespace: entry.id.namespace.to_string(),
            name: entry.id.name.to_string(),
            created: entry.id.created,
            addresses: entry.addresses().collect(),
            managed: hosts::is_managed(entry, &registry),
        });
        (entries.collect(), taken)
    }

    /// Policies of the namespace and of the root namespace, for Dubbo only.
    fn policies(&self, host: &Host, protocol: &Protocol) -> Vec<DubboPolicy> {
        let dubbo = match protocol {
            Protocol::Dubbo => true,
            Protocol::MetaProtocol { codec, .. } => codec.as_deref() == Some(ports::DUBBO_CODEC),
            _ => false,
        };
        let root = &self.settings.root_namespace;
        let mut out: Vec<DubboPolicy> = self
            .dubbo_policies
            .iter()
            .filter(|p| {
                let namespace = p.namespace().unwrap_or_default();
                dubbo && (namespace == host.namespace || namespace == *root)
            })
            .map(|p| DubboPolicy {
                owner: Owner::of("DubboAuthorizationPolicy", p.as_ref()),
                spec: p.spec.clone(),
            })
            .collect();
        out.sort_by(|a, b| a.owner.cmp(&b.owner));
        out
    }

    /// The router in force of each host.
    fn routers_by_host<'a>(
        &'a self,
        hosts: &BTreeMap<String, Host>,
        problems: &mut Vec<Problem>,
    ) -> BTreeMap<&'a str, &'a Arc<MetaRouter>> {
        let mut by_host: BTreeMap<&str, Vec<&Arc<MetaRouter>>> = BTreeMap::new();
        for router in &self.routers {
            by_host.entry(router.spec.host()).or_default().push(router);
        }
        let owner = |router: &MetaRouter| Owner::of("MetaRouter", router);
        let field = "spec.hosts[0]";
        let mut out = BTreeMap::new();
        for (name, routers) in by_host {
            let speaks = |h: &&Host| h.ports.iter().any(|p| p.protocol.is_some());
            let Some(host) = hosts.get(name).filter(speaks) else {
                problems.extend(routers.iter().map(|r| Problem::new(owner(r), field, "UnknownHost", format!(
                    "no Service or ServiceEntry has the host \"{name}\" with a port named like tcp-metaprotocol-dubbo: name the port so, or correct the host"
                ))));
                continue;
            };
            let decides = |r: &&Arc<MetaRouter>| self.decides(r.namespace().as_deref(), host);
            let (mut own, foreign): (Vec<_>, Vec<_>) = routers.into_iter().partition(decides);
            let what = "its routes and limits";
            let told = foreign.iter();
            problems.extend(told.map(|r| owners::not_owner(self, owner(r), field, what, host)));
            own.sort_by_key(|r| {
                let elsewhere = r.namespace().as_deref() != Some(&host.namespace);
                (elsewhere, Identity::of(r.as_ref()).age())
            });
            let mut sorted = own.into_iter();
            let Some(first) = sorted.next() else { continue };
            let winner = owner(first);
            problems.extend(sorted.map(|r| Problem::new(owner(r), field, "Conflict", format!(
                "{winner} is in force for \"{name}\": put the rules into one of the two and delete the other"
            ))));
            out.insert(name, first);
        }
        out
    }

    /// A pair of a Secret's fields.
    fn credentials(
        &self,
        namespace: &str,
        name: &str,
        password: Option<&str>,
        username: Option<&str>,
    ) -> Option<Credentials> {
        let fields = self.secrets.get(&(namespace.to_owned(), name.to_owned()))?;
        let field = |name: &str| fields.get(name).map(|v| v.trim().to_owned());
        let password = match password.filter(|p| !p.is_empty()) {
            Some(name) => field(name)?,
            None => field("password").or_else(|| field("token"))?,
        };
        let username = field(username.filter(|u| !u.is_empty()).unwrap_or("username"));
        Some(Credentials {
            username: username.unwrap_or_default(),
            password,
        })
    }
}

#[cfg(test)]
mod tests;
