//! The small mesh that one host is resolved on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::{DestinationRule, Gateway, ServiceEntry};
use trimtab_crds::metaprotocol::MetaRouter;
use trimtab_crds::redis::RedisDestination;

use super::kinds::gateway_key;
use super::table::Table;
use super::{Name, State};
use crate::input::Router;
use crate::object::{Kind, ObjectKey};
use crate::resolve::{Mesh, lower_router, router_hosts};

/// Objects by name, each once.
type Picked<K> = BTreeMap<Name, Arc<K>>;

fn take<K>(table: &Table<K>, key: &str, picked: &mut Picked<K>) {
    let found = table.of(key).map(|(name, o)| (name.clone(), Arc::clone(o)));
    picked.extend(found);
}

fn owned<K: Clone>(picked: Picked<K>) -> Vec<K> {
    picked.into_values().map(Arc::unwrap_or_clone).collect()
}

fn every<K: Clone>(table: &Table<K>) -> Vec<K> {
    table.values().map(|o| (**o).clone()).collect()
}

#[derive(Default)]
struct Parts {
    services: Picked<Service>,
    entries: Picked<ServiceEntry>,
    rules: Picked<DestinationRule>,
    gateways: Picked<Gateway>,
    routers: Picked<MetaRouter>,
    redis_destinations: Picked<RedisDestination>,
}

impl State {
    /// MetaRouters that name a host.
    pub(super) fn router_keys(&self, host: &str) -> Vec<ObjectKey> {
        let routers = self.routers.of(host);
        routers
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
        take(&self.routers, host, &mut parts.routers);
        for router in parts.routers.values() {
            needed.extend(router_hosts(&lower_router(router)));
        }
        let mut redis = Picked::new();
        take(&self.redis_services, host, &mut redis);
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
                &self.redis_destinations,
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
        take(&self.slices, host, &mut slices);
        let mesh = Mesh {
            services: owned(parts.services),
            endpoint_slices: owned(slices),
            service_entries: owned(parts.entries),
            destination_rules: owned(parts.rules),
            gateways: owned(parts.gateways),
            routers: owned(parts.routers),
            protocols: every(&self.protocols),
            redis_services: owned(redis),
            redis_destinations: owned(parts.redis_destinations),
            dubbo_policies: owned(self.policies_for(host)),
            secrets: self.secrets.clone(),
            last_good: last_good
                .map(|r| (host.to_owned(), r.clone()))
                .into_iter()
                .collect(),
            domain: self.domain.clone(),
            settings: Arc::clone(&self.settings),
        };
        needed.remove(host);
        (mesh, needed)
    }

    /// Policies of the namespaces that have the host, and of the root namespace.
    fn policies_for(&self, host: &str) -> Picked<DubboAuthorizationPolicy> {
        let mut out = Picked::new();
        let services = self.services.of(host).map(|((ns, _), _)| ns);
        let entries = self.entries.of(host).map(|((ns, _), _)| ns);
        let root = &self.settings.root_namespace;
        for namespace in services.chain(entries).chain([root]) {
            take(&self.policies, namespace, &mut out);
        }
        out
    }

    /// Everything.
    pub(super) fn mesh(&self) -> Mesh {
        Mesh {
            services: every(&self.services),
            endpoint_slices: every(&self.slices),
            service_entries: every(&self.entries),
            destination_rules: every(&self.rules),
            gateways: every(&self.gateways),
            routers: every(&self.routers),
            protocols: every(&self.protocols),
            redis_services: every(&self.redis_services),
            redis_destinations: every(&self.redis_destinations),
            dubbo_policies: every(&self.policies),
            secrets: self.secrets.clone(),
            last_good: BTreeMap::new(),
            domain: self.domain.clone(),
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
            take(&self.gateways, name, &mut parts.gateways);
            let claims = self.routers.of(name);
            peers.extend(claims.map(|(_, r)| r.spec.host().to_owned()));
        }
        for peer in &peers {
            take(&self.routers, peer, &mut parts.routers);
        }
        peers
    }

    fn add_definers(&self, host: &str, parts: &mut Parts) {
        take(&self.services, host, &mut parts.services);
        take(&self.entries, host, &mut parts.entries);
    }

    fn add_facts(&self, host: &str, parts: &mut Parts) {
        self.add_definers(host, parts);
        take(&self.rules, host, &mut parts.rules);
    }
}
