//! The small mesh that one host is resolved on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::{Gateway, VirtualService};
use trimtab_crds::metaprotocol::MetaRouter;
use trimtab_crds::redis::{RedisDestination, RedisService};
use trimtab_mesh::addressed::Addressed;
use trimtab_mesh::model::{DestinationRule, EndpointSlice, Service, ServiceEntry};
use trimtab_mesh::table::{HasKeys, Row, Table};

use super::rows::{Kept, Keys, gateway_key, led_to};
use super::{Name, State, at};
use crate::input::Router;
use crate::object::{Kind, ObjectKey};
use crate::resolve::{Mesh, lower_router, router_hosts, rule_destinations};

/// Rows by name, each once.
type Picked<R> = BTreeMap<Name, Arc<R>>;

fn take<R: Row<Index: HasKeys>>(table: &Table<R>, key: &str, picked: &mut Picked<R>) {
    let rows = table.rows();
    let found = rows.of(key).map(|(name, row)| (name.clone(), row.clone()));
    picked.extend(found);
}

fn rows<R>(picked: Picked<R>) -> Vec<Arc<R>> {
    picked.into_values().collect()
}

fn objects<K>(picked: Picked<Kept<K>>) -> Vec<Arc<K>> {
    let rows = picked.into_values();
    rows.map(|row| row.object.clone()).collect()
}

fn all<R: Row>(table: &Table<R>) -> Vec<Arc<R>> {
    table.rows().iter().map(|(_, row)| row.clone()).collect()
}

/// All objects of a table.
pub(super) fn every<K: Keys + std::fmt::Debug>(table: &Table<Kept<K>>) -> Vec<Arc<K>> {
    let rows = table.rows();
    rows.iter().map(|(_, row)| row.object.clone()).collect()
}

#[derive(Default)]
struct Parts {
    services: Picked<Service>,
    entries: Picked<ServiceEntry>,
    rules: Picked<DestinationRule>,
    gateways: Picked<Kept<Gateway>>,
    virtual_services: Picked<Kept<VirtualService>>,
    routers: Picked<Kept<MetaRouter>>,
    redis_destinations: Picked<Kept<RedisDestination>>,
    slices: Picked<EndpointSlice>,
}

impl State {
    /// Users' objects that name a host.
    pub(super) fn naming(&self, host: &str) -> Vec<ObjectKey> {
        fn keys<R: Row<Index: HasKeys>>(
            kind: Kind,
            table: &Table<R>,
            host: &str,
        ) -> Vec<ObjectKey> {
            let rows = table.rows();
            let found = rows.of(host).map(|((namespace, name), _)| ObjectKey {
                kind,
                namespace: namespace.clone(),
                name: name.clone(),
            });
            found.collect()
        }
        let objects = &self.objects;
        [
            keys(Kind::MetaRouter, &objects.routers, host),
            keys(Kind::RedisService, &objects.redis_services, host),
            keys(Kind::RedisDestination, &objects.redis_destinations, host),
        ]
        .concat()
    }

    /// Adds all that has an address of the host.
    fn add_claims(&self, host: &str, parts: &mut Parts) {
        let objects = &self.objects;
        let mut addresses = BTreeSet::new();
        for (_, entry) in objects.entries.rows().of(host) {
            addresses.extend(entry.single());
        }
        if let Some(service) = objects.service(host) {
            addresses.extend(&service.addresses);
            let headless = parts.slices.values().filter(|_| service.headless);
            addresses.extend(headless.flat_map(|s| s.addresses()));
        }
        for entry in at(&objects.entries, &addresses) {
            let name = (entry.id.namespace.to_string(), entry.id.name.to_string());
            parts.entries.insert(name, entry);
        }
        let mut services = at(&objects.services, &addresses);
        for slice in at(&objects.slices, &addresses) {
            services.extend(objects.service(&slice.host));
            take(&objects.slices, &slice.host, &mut parts.slices);
        }
        for service in services {
            let name = (
                service.id.namespace.to_string(),
                service.id.name.to_string(),
            );
            parts.services.insert(name, service);
        }
    }

    /// All that the outputs of `host` depend on, and the other hosts among it.
    pub(super) fn closure(
        &self,
        host: &str,
        last_good: Option<&Router>,
    ) -> (Mesh, BTreeSet<String>) {
        let mut parts = Parts::default();
        let mut needed = BTreeSet::from([host.to_owned()]);
        needed.extend(last_good.into_iter().flat_map(router_hosts));
        take(&self.objects.routers, host, &mut parts.routers);
        for router in parts.routers.values() {
            needed.extend(router_hosts(&lower_router(router)));
        }
        take(
            &self.objects.virtual_services,
            host,
            &mut parts.virtual_services,
        );
        for rules in parts.virtual_services.values() {
            needed.extend(rule_destinations(rules, &self.objects.domain));
        }
        let redis = self.redis_of(host, &mut needed);
        needed.extend(self.peers(&mut parts));
        for name in &needed {
            self.add_facts(name, &mut parts);
            take(
                &self.objects.redis_destinations,
                name,
                &mut parts.redis_destinations,
            );
        }
        // A rule whose host is no host of the mesh may have been meant for this one.
        let written: BTreeSet<String> = parts.rules.values().map(|r| r.host.to_string()).collect();
        for name in written {
            self.add_definers(&name, &mut parts);
            needed.insert(name);
        }
        take(&self.objects.slices, host, &mut parts.slices);
        self.add_claims(host, &mut parts);
        let mesh = Mesh {
            domain: self.objects.domain.clone(),
            services: rows(parts.services),
            endpoint_slices: rows(parts.slices),
            service_entries: rows(parts.entries),
            destination_rules: rows(parts.rules),
            gateways: objects(parts.gateways),
            virtual_services: objects(parts.virtual_services),
            routers: objects(parts.routers),
            protocols: every(&self.objects.protocols),
            redis_services: objects(redis),
            redis_destinations: objects(parts.redis_destinations),
            dubbo_policies: objects(self.policies_for(host)),
            secrets: self.secrets.clone(),
            last_good: last_good
                .map(|r| (host.to_owned(), r.clone()))
                .into_iter()
                .collect(),
            closed_namespaces: self.closed.clone(),
            only: Some(host.to_owned()),
            settings: Arc::clone(&self.settings),
        };
        needed.remove(host);
        (mesh, needed)
    }

    /// RedisServices that name a host or lead to it, and the hosts that the first lead to.
    fn redis_of(&self, host: &str, needed: &mut BTreeSet<String>) -> Picked<Kept<RedisService>> {
        let mut redis = Picked::new();
        take(&self.objects.redis_services, host, &mut redis);
        for object in redis.values() {
            for route in &object.spec.redis {
                let mirrors = route.mirror.iter().map(|m| m.route.host.clone());
                needed.extend(mirrors.chain([route.route.host.clone()]));
            }
        }
        take(&self.objects.redis_services, &led_to(host), &mut redis);
        redis
    }

    /// Policies of the namespaces that have the host, and of the root namespace.
    fn policies_for(&self, host: &str) -> Picked<Kept<DubboAuthorizationPolicy>> {
        let mut out = Picked::new();
        let service = self.objects.service(host);
        let service = service.iter().map(|s| &*s.id.namespace);
        let entries = self.objects.entries.rows();
        let entries = entries.of(host).map(|((ns, _), _)| ns.as_str());
        let root = self.settings.root_namespace.as_str();
        for namespace in service.chain(entries).chain([root]) {
            take(&self.objects.policies, namespace, &mut out);
        }
        out
    }

    /// Everything.
    pub(super) fn mesh(&self) -> Mesh {
        Mesh {
            domain: self.objects.domain.clone(),
            services: all(&self.objects.services),
            endpoint_slices: all(&self.objects.slices),
            service_entries: all(&self.objects.entries),
            destination_rules: all(&self.objects.rules),
            gateways: every(&self.objects.gateways),
            virtual_services: every(&self.objects.virtual_services),
            routers: every(&self.objects.routers),
            protocols: every(&self.objects.protocols),
            redis_services: every(&self.objects.redis_services),
            redis_destinations: every(&self.objects.redis_destinations),
            dubbo_policies: every(&self.objects.policies),
            secrets: self.secrets.clone(),
            last_good: BTreeMap::new(),
            closed_namespaces: self.closed.clone(),
            only: None,
            settings: Arc::clone(&self.settings),
        }
    }

    /// Adds the gateways that the routers name, with all that claims a server of one: a port of a gateway leads to one
    /// host. Returns the hosts that do.
    fn peers(&self, parts: &mut Parts) -> BTreeSet<String> {
        let own = parts.routers.values();
        let names: BTreeSet<String> = own
            .flat_map(|router| {
                let namespace = router.namespace().unwrap_or_default();
                let gateways = router.spec.gateways.iter();
                gateways.map(move |g| gateway_key(g, &namespace))
            })
            .collect();
        let mut peers = BTreeSet::new();
        for name in &names {
            take(&self.objects.gateways, name, &mut parts.gateways);
            let routers = self.objects.routers.rows();
            let claims = routers.of(name);
            peers.extend(claims.map(|(_, r)| r.spec.host().to_owned()));
        }
        for peer in &peers {
            take(&self.objects.routers, peer, &mut parts.routers);
        }
        peers
    }

    fn add_definers(&self, host: &str, parts: &mut Parts) {
        if let Some(service) = self.objects.service(host) {
            let id = &service.id;
            let name = (id.namespace.to_string(), id.name.to_string());
            parts.services.insert(name, service);
        }
        take(&self.objects.entries, host, &mut parts.entries);
    }

    fn add_facts(&self, host: &str, parts: &mut Parts) {
        self.add_definers(host, parts);
        take(&self.objects.rules, host, &mut parts.rules);
    }
}

impl super::Index {
    /// `metadata.uid` of an object whose status others write.
    pub fn uid(&self, kind: &str, namespace: &str, name: &str) -> Option<String> {
        let objects = &self.objects;
        let uid = match kind {
            "Service" => objects.services.get(namespace, name)?.id.uid.to_string(),
            "ServiceEntry" => objects.entries.get(namespace, name)?.id.uid.to_string(),
            "VirtualService" => {
                let object = objects.virtual_services.get(namespace, name)?;
                object.metadata.uid.clone()?
            }
            _ => return None,
        };
        Some(uid)
    }
}
