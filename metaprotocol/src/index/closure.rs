//! The small mesh that one host is resolved on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::Gateway;
use trimtab_crds::metaprotocol::MetaRouter;
use trimtab_crds::redis::RedisDestination;
use trimtab_mesh::model::{DestinationRule, Service, ServiceEntry};
use trimtab_mesh::table::{ByKey, Row, Table};

use super::rows::{Kept, Keys, gateway_key};
use super::{Name, State};
use crate::input::Router;
use crate::object::{Kind, ObjectKey};
use crate::resolve::{Mesh, lower_router, router_hosts};

/// Rows by name, each once.
type Picked<R> = BTreeMap<Name, Arc<R>>;

fn take<R: Row<Index = ByKey>>(table: &Table<R>, key: &str, picked: &mut Picked<R>) {
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
    routers: Picked<Kept<MetaRouter>>,
    redis_destinations: Picked<Kept<RedisDestination>>,
}

impl State {
    /// MetaRouters that name a host.
    pub(super) fn router_keys(&self, host: &str) -> Vec<ObjectKey> {
        let routers = self.objects.routers.rows();
        routers
            .of(host)
            .map(|((namespace, name), _)| ObjectKey {
                kind: Kind::MetaRouter,
                namespace: namespace.clone(),
                name: name.clone(),
            })
            .collect()
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
        let mut redis = Picked::new();
        take(&self.objects.redis_services, host, &mut redis);
        for object in redis.values() {
            for route in &object.spec.redis {
                let mirrors = route.mirror.iter().map(|m| m.route.host.clone());
                needed.extend(mirrors.chain([route.route.host.clone()]));
            }
        }
        needed.extend(self.peers(&mut parts));
        for name in &needed {
            self.add_facts(name, &mut parts);
            take(
                &self.objects.redis_destinations,
                name,
                &mut parts.redis_destinations,
            );
        }
        // A short host of a rule is a full one where an object has it.
        let written: BTreeSet<String> = parts.rules.values().map(|r| r.spec.host.clone()).collect();
        for name in written {
            self.add_definers(&name, &mut parts);
            needed.insert(name);
        }
        let mut slices = Picked::new();
        take(&self.objects.slices, host, &mut slices);
        let mesh = Mesh {
            services: rows(parts.services),
            endpoint_slices: rows(slices),
            service_entries: rows(parts.entries),
            destination_rules: rows(parts.rules),
            gateways: objects(parts.gateways),
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
            settings: Arc::clone(&self.settings),
        };
        needed.remove(host);
        (mesh, needed)
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
            services: all(&self.objects.services),
            endpoint_slices: all(&self.objects.slices),
            service_entries: all(&self.objects.entries),
            destination_rules: all(&self.objects.rules),
            gateways: every(&self.objects.gateways),
            routers: every(&self.objects.routers),
            protocols: every(&self.objects.protocols),
            redis_services: every(&self.objects.redis_services),
            redis_destinations: every(&self.objects.redis_destinations),
            dubbo_policies: every(&self.objects.policies),
            secrets: self.secrets.clone(),
            last_good: BTreeMap::new(),
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
