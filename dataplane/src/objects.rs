//! The objects that plain Envoys are configured by, as they are served.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, ResourceExt};
use tokio::sync::Notify;
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::{EnvoyFilter, Gateway, Sidecar, VirtualService};
use trimtab_crds::metaprotocol::{ApplicationProtocol, MetaRouter};
use trimtab_crds::redis::{RedisDestination, RedisService};
use trimtab_crds::{OWNER_KIND_LABEL, OWNER_NAME_LABEL};
use trimtab_kit::module::Setup;
use trimtab_kit::watch::Watched;
use trimtab_mesh::Name;
use trimtab_mesh::model::{DestinationRule, EndpointSlice, Pod, Service, ServiceEntry};
use trimtab_mesh::table::{Change, Follower, Row, Table, Whole};
use trimtab_metaprotocol::input::Settings;
use trimtab_metaprotocol::resolve::Mesh;
use trimtab_metaprotocol::secrets::secret;

use crate::input::AppProtocol;
use crate::isolate::Contributors;
use crate::kept::{Kept, same_generation};
use crate::{HttpLimit, StandaloneInput, limits};

/// How the owner label of a limiter's objects begins; its API group follows.
const LIMITER: &str = "SmartLimiter.";

/// Wakes the data plane at any change.
#[derive(Default)]
pub(super) struct Wake {
    notify: Notify,
    changed: AtomicBool,
}

impl Wake {
    /// Waits for a change.
    pub(super) async fn woken(&self) {
        self.notify.notified().await;
    }

    /// Whether there was a change since the last call.
    pub(super) fn take(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }
}

impl<R> Follower<R> for Wake {
    fn changed(&self, _: Change<'_, R>) {
        self.changed.store(true, Ordering::Release);
        self.notify.notify_one();
    }
}

/// Declares the watch of a kind.
fn followed<R: Row<Object: Watched>>(setup: &mut Setup<'_>, wake: &Arc<Wake>) -> Arc<Table<R>> {
    setup.follow::<R>(wake);
    setup.context().mesh.table()
}

fn all<K: Resource + Send + Sync + 'static>(table: &Table<Whole<K>>) -> Vec<Arc<K>> {
    table.rows().iter().map(|(_, row)| row.0.clone()).collect()
}

fn label<'a>(filter: &'a EnvoyFilter, name: &str) -> &'a str {
    filter.labels().get(name).map_or("", String::as_str)
}

/// All objects. Those that resources are made of are kept with their changes.
pub(super) struct Objects {
    services: Kept<Service>,
    slices: Kept<EndpointSlice>,
    entries: Kept<ServiceEntry>,
    rules: Kept<DestinationRule>,
    virtual_services: Kept<Whole<VirtualService>>,
    /// Of SmartLimiters, which are blamed for them.
    filters: Kept<Whole<EnvoyFilter>>,
    routers: Kept<Whole<MetaRouter>>,
    protocols: Kept<Whole<ApplicationProtocol>>,
    redis_services: Kept<Whole<RedisService>>,
    redis_destinations: Kept<Whole<RedisDestination>>,
    pods: Arc<Table<Pod>>,
    sidecars: Arc<Table<Whole<Sidecar>>>,
    gateways: Arc<Table<Whole<Gateway>>>,
    policies: Arc<Table<Whole<DubboAuthorizationPolicy>>>,
    /// Only when the configuration lets Trimtab read Secrets.
    secrets: Option<Arc<Table<Whole<Secret>>>>,
    /// Number of changes so far.
    changes: u64,
}

/// What is served, of the objects that there are.
pub(super) struct Chosen {
    pub(super) mesh: Mesh,
    pub(super) virtual_services: Vec<Arc<VirtualService>>,
    /// Limits of SmartLimiters.
    pub(super) limits: Vec<HttpLimit>,
    /// What of them is not done.
    pub(super) notes: BTreeSet<String>,
    /// Objects with the revisions that are served.
    served: Contributors,
    /// Objects by the hosts that they are for.
    by_host: BTreeMap<String, BTreeSet<String>>,
}

impl Objects {
    pub(super) fn declare(setup: &mut Setup<'_>, read_secrets: bool, wake: &Arc<Wake>) -> Self {
        setup.follow_generated::<Whole<EnvoyFilter>>(wake);
        let filters = setup.context().mesh.table::<Whole<EnvoyFilter>>();
        let of_limiter = |(namespace, _): &Name, filter: &Whole<EnvoyFilter>| {
            let kind = label(filter, OWNER_KIND_LABEL);
            format!("{kind} {namespace}/{}", label(filter, OWNER_NAME_LABEL))
        };
        let same_entry = |a: &ServiceEntry, b: &ServiceEntry| {
            (&a.spec, &a.labels, &a.exports, &a.id) == (&b.spec, &b.labels, &b.exports, &b.id)
        };
        Self {
            services: Kept::new("Service", followed(setup, wake), PartialEq::eq),
            slices: Kept::new("EndpointSlice", followed(setup, wake), PartialEq::eq),
            entries: Kept::new("ServiceEntry", followed(setup, wake), same_entry),
            rules: Kept::new("DestinationRule", followed(setup, wake), PartialEq::eq),
            virtual_services: Kept::new("VirtualService", followed(setup, wake), same_generation),
            filters: Kept::titled(filters, same_generation, of_limiter),
            routers: Kept::new("MetaRouter", followed(setup, wake), same_generation),
            protocols: Kept::new(
                "ApplicationProtocol",
                followed(setup, wake),
                same_generation,
            ),
            redis_services: Kept::new("RedisService", followed(setup, wake), same_generation),
            redis_destinations: Kept::new(
                "RedisDestination",
                followed(setup, wake),
                same_generation,
            ),
            pods: followed(setup, wake),
            sidecars: followed(setup, wake),
            gateways: followed(setup, wake),
            policies: followed(setup, wake),
            secrets: read_secrets.then(|| followed(setup, wake)),
            changes: 0,
        }
    }

    /// Takes changes over. Returns all objects with the numbers of their last changes.
    pub(super) fn refresh(&mut self, is_good: &dyn Fn(&str) -> bool) -> Contributors {
        let mut out = Contributors::new();
        let changes = &mut self.changes;
        self.services.refresh(changes, is_good, &mut out);
        self.slices.refresh(changes, is_good, &mut out);
        self.entries.refresh(changes, is_good, &mut out);
        self.rules.refresh(changes, is_good, &mut out);
        self.protocols.refresh(changes, is_good, &mut out);
        self.redis_destinations.refresh(changes, is_good, &mut out);
        self.redis_services.refresh(changes, is_good, &mut out);
        self.routers.refresh(changes, is_good, &mut out);
        self.filters.refresh(changes, is_good, &mut out);
        self.virtual_services.refresh(changes, is_good, &mut out);
        out
    }

    /// What is served while some objects are held back.
    pub(super) fn choose(
        &self,
        settings: &Arc<Settings>,
        domain: &str,
        held: &dyn Fn(&str) -> bool,
    ) -> Chosen {
        let mut served = Contributors::new();
        let virtual_services = self.virtual_services.objects(held, &mut served);
        let secrets = self.secrets.iter().flat_map(|s| all(s));
        let mesh = Mesh {
            domain: domain.into(),
            virtual_services: virtual_services.clone(),
            services: self.services.rows(held, &mut served),
            endpoint_slices: self.slices.rows(held, &mut served),
            service_entries: self.entries.rows(held, &mut served),
            destination_rules: self.rules.rows(held, &mut served),
            gateways: all(&self.gateways),
            routers: self.routers.objects(held, &mut served),
            protocols: self.protocols.objects(held, &mut served),
            redis_services: self.redis_services.objects(held, &mut served),
            redis_destinations: self.redis_destinations.objects(held, &mut served),
            dubbo_policies: all(&self.policies),
            secrets: secrets.map(|s| secret(s.as_ref().clone())).collect(),
            last_good: BTreeMap::new(),
            // Objects are for proxies of all namespaces.
            closed_namespaces: Arc::default(),
            only: None,
            settings: settings.clone(),
        };
        let filters = self.filters.objects(held, &mut served);
        let mut out = Chosen {
            mesh,
            virtual_services,
            limits: Vec::new(),
            notes: BTreeSet::new(),
            served,
            by_host: BTreeMap::new(),
        };
        for filter in filters {
            out.limit(&filter);
        }
        for (title, slice) in self.slices.chosen(held) {
            out.add(&slice.host, title.to_owned());
        }
        out.index();
        out
    }

    /// Objects that exist and cannot be decoded.
    pub(super) fn undecodable(&self) -> BTreeSet<Name> {
        let services = self.services.undecodable().chain(self.slices.undecodable());
        let services = services.chain(self.entries.undecodable());
        let routes = self.rules.undecodable();
        let routes = routes.chain(self.virtual_services.undecodable());
        let routes = routes.chain(self.filters.undecodable());
        let others = self.routers.undecodable();
        let others = others.chain(self.protocols.undecodable());
        let others = others.chain(self.redis_services.undecodable());
        let others = others.chain(self.redis_destinations.undecodable());
        services.chain(routes).chain(others).collect()
    }

    pub(super) fn sidecars(&self) -> Vec<Arc<Sidecar>> {
        all(&self.sidecars)
    }

    pub(super) fn pod_labels(&self) -> BTreeMap<Name, BTreeMap<String, String>> {
        let pods = self.pods.rows();
        pods.iter()
            .map(|(name, pod)| (name.clone(), pod.group.labels.clone()))
            .collect()
    }

    /// Addresses of the pods that have one of their own and have not ended.
    pub(super) fn pod_addresses(&self) -> BTreeMap<Name, IpAddr> {
        let pods = self.pods.rows();
        pods.iter()
            .filter_map(|(name, pod)| Some((name.clone(), *pod.addresses.first()?)))
            .collect()
    }
}

impl Chosen {
    /// The limits of a SmartLimiter.
    fn limit(&mut self, filter: &EnvoyFilter) {
        let kind = label(filter, OWNER_KIND_LABEL);
        if !kind.starts_with(LIMITER) {
            return;
        }
        let owner = label(filter, OWNER_NAME_LABEL);
        let namespace = filter.namespace().unwrap_or_default();
        let mut services = self.mesh.services.iter();
        let service = services.find(|s| *s.id.namespace == *namespace && *s.id.name == *owner);
        let Some(service) = service else {
            self.notes.insert(format!(
                "SmartLimiter {namespace}/{owner}: metadata.name: plain proxies limit calls to a Service of the limiter's name, and there is none: name the limiter as its Service"
            ));
            return;
        };
        let host = service.host.to_string();
        let (found, problems) = limits(&host, filter);
        self.limits.extend(found);
        let problems = problems.iter();
        self.notes
            .extend(problems.map(|p| format!("SmartLimiter {namespace}/{owner}: {p}")));
        self.add(&host, format!("{kind} {namespace}/{owner}"));
    }

    fn add(&mut self, host: &str, object: String) {
        self.by_host
            .entry(host.to_owned())
            .or_default()
            .insert(object);
    }

    /// Finds the hosts of what is told apart by them.
    fn index(&mut self) {
        let mut found: Vec<(String, String)> = Vec::new();
        for service in &self.mesh.services {
            let title = format!("Service {}/{}", service.id.namespace, service.id.name);
            found.push((service.host.to_string(), title));
        }
        for entry in &self.mesh.service_entries {
            let title = format!("ServiceEntry {}/{}", entry.id.namespace, entry.id.name);
            let hosts = entry.spec.hosts.iter();
            found.extend(hosts.map(|host| (host.clone(), title.clone())));
        }
        for rule in &self.mesh.destination_rules {
            let title = format!("DestinationRule {}/{}", rule.id.namespace, rule.id.name);
            found.push((rule.host.to_string(), title));
        }
        for (host, title) in found {
            self.add(&host, title);
        }
    }

    /// Finds the hosts of what is told apart by what was discovered.
    pub(super) fn index_input(&mut self, input: &StandaloneInput) {
        for service in &input.services {
            if let Some(owner) = &service.route_owner {
                self.add(&service.host, owner.to_string());
            }
            for port in &service.ports {
                let AppProtocol::Managed(managed) = &port.speaks else {
                    continue;
                };
                let router = managed.router.iter().map(|r| &r.owner);
                let redis = managed.redis.iter().map(|r| &r.owner);
                let to = managed.redis_destinations.values().map(|d| &d.owner);
                for owner in router.chain(redis).chain(to) {
                    self.add(&service.host, owner.to_string());
                }
            }
        }
    }

    /// Hosts that objects are for.
    pub(super) fn hosts_of(&self, objects: &BTreeSet<String>) -> BTreeSet<&str> {
        let all = self.by_host.iter();
        let of = all.filter(|(_, here)| !here.is_disjoint(objects));
        of.map(|(host, _)| host.as_str()).collect()
    }

    /// Objects that a resource of a type is made of.
    pub(super) fn contributors(&self, type_url: &str, hosts: &BTreeSet<String>) -> Contributors {
        let objects = hosts.iter().filter_map(|host| self.by_host.get(host));
        let of_type = objects.flatten().filter(|o| has_part(o, type_url));
        of_type
            .filter_map(|object| Some((object.clone(), *self.served.get(object)?)))
            .collect()
    }
}

/// Whether objects of a kind have a part in resources of a type.
fn has_part(object: &str, type_url: &str) -> bool {
    let kind = object.split(' ').next().unwrap_or_default();
    match kind {
        "EndpointSlice" => type_url == trimtab_xds::EDS,
        "VirtualService" => type_url == trimtab_xds::RDS,
        "DestinationRule" => type_url != trimtab_xds::LDS,
        _ if kind.starts_with(LIMITER) => [trimtab_xds::LDS, trimtab_xds::RDS].contains(&type_url),
        _ => true,
    }
}
