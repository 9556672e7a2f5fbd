//! Which hosts a change touches, kind by kind.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use kube::ResourceExt;
use serde_json::Value;
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::{Gateway, VirtualService};
use trimtab_crds::metaprotocol::{ApplicationProtocol, MetaRouter};
use trimtab_crds::redis::{RedisDestination, RedisService};
use trimtab_mesh::Name;
use trimtab_mesh::addressed::Addressed;
use trimtab_mesh::model::{
    DestinationRule, EndpointSlice, MeshConfig, Namespace, Service, ServiceEntry,
};
use trimtab_mesh::table::{Change, Follower, Keyed, Table};

use super::rows::{Kept, Keys, host_of};
use super::{Index, Seen, State};
use crate::object::{Kind, ObjectKey};

fn object_key(kind: Kind, name: Name) -> ObjectKey {
    let (namespace, name) = name;
    ObjectKey {
        kind,
        namespace,
        name,
    }
}

/// The keys of a row before and now.
fn keys<R: Keyed>(change: &Change<'_, R>) -> BTreeSet<String> {
    let rows = change.rows();
    rows.flat_map(|row| row.keys().map(str::to_owned)).collect()
}

/// Addresses of a row before and now.
fn addresses<R: Addressed>(change: &Change<'_, R>) -> BTreeSet<IpAddr> {
    change.rows().flat_map(|row| row.single()).collect()
}

/// What tells whose an address is.
fn claims(service: Option<&Arc<Service>>) -> impl PartialEq + use<> {
    service.map(|s| {
        let ports: Vec<u16> = s.ports.iter().map(|p| p.number).collect();
        let addresses: Vec<IpAddr> = s.single().collect();
        let selects = !s.selector.is_empty();
        (
            s.id.clone(),
            ports,
            addresses,
            s.exports.clone(),
            s.headless,
            selects,
        )
    })
}

impl Follower<Service> for Index {
    fn changed(&self, change: Change<'_, Service>) {
        let matters = |s: &Service| {
            let ports = s.ports.clone();
            let (selector, alias) = (s.selector.clone(), s.external_name.is_some());
            (
                s.id.uid.clone(),
                ports,
                selector,
                alias,
                s.single().collect::<Vec<_>>(),
                s.headless,
                s.exports.clone(),
            )
        };
        if change.old.map(|s| matters(s)) == change.new.map(|s| matters(s)) {
            return;
        }
        self.with(|state| {
            state.addresses = true;
            let hosts: BTreeSet<&str> = change.rows().map(|s| &*s.host).collect();
            for host in hosts {
                state.touch(host);
            }
            if claims(change.old) != claims(change.new) {
                let mut claimed = addresses(&change);
                // A Service without an address has those of its pods.
                for service in change.rows().filter(|s| s.headless) {
                    for (_, slice) in state.objects.slices.rows().of(&service.host) {
                        claimed.extend(slice.addresses());
                    }
                }
                state.touch_addresses(&claimed);
            }
        });
    }
}

impl Follower<EndpointSlice> for Index {
    fn changed(&self, change: Change<'_, EndpointSlice>) {
        let touched = keys(&change);
        self.with(|state| {
            for host in &touched {
                state.touch_only(host);
            }
            state.touch_addresses(&addresses(&change));
        });
    }
}

/// A label may close or open a namespace.
impl Follower<Namespace> for Index {
    fn changed(&self, change: Change<'_, Namespace>) {
        let closed = |row: Option<&Arc<Namespace>>| row.is_some_and(|r| r.is_closed());
        if closed(change.old) == closed(change.new) {
            return;
        }
        let name = change.name.1.clone();
        self.with(|state| {
            let names = Arc::make_mut(&mut state.closed);
            if closed(change.new) {
                names.insert(name);
            } else {
                names.remove(&name);
            }
            state.touch_all(None);
        });
    }
}

impl Follower<ServiceEntry> for Index {
    fn changed(&self, change: Change<'_, ServiceEntry>) {
        let touched = keys(&change);
        self.with(|state| {
            state.addresses = true;
            touch_hosts(state, &touched);
            state.touch_addresses(&addresses(&change));
            for range in change.rows().flat_map(|e| e.ranges()) {
                state.touch_range(range);
            }
        });
    }
}

impl Follower<DestinationRule> for Index {
    fn changed(&self, change: Change<'_, DestinationRule>) {
        let touched = keys(&change);
        self.with(|state| touched.iter().for_each(|host| state.touch(host)));
    }
}

impl Follower<MeshConfig> for Index {
    fn changed(&self, change: Change<'_, MeshConfig>) {
        self.with(|state| {
            let settings = match change.new {
                Some(mesh) => state.configured.over(mesh),
                None => state.configured.over(&MeshConfig::default()),
            };
            if settings != *state.settings {
                state.settings = Arc::new(settings);
                state.touch_all(None);
            }
        });
    }
}

impl Index {
    /// Follows a kind of users' objects: those whose status is written are looked at after every change.
    fn follow<K: Keys>(
        &self,
        change: &Change<'_, Kept<K>>,
        status: Option<Kind>,
        touch: impl Fn(&mut State, &BTreeSet<String>),
    ) {
        let same = match (change.old, change.new) {
            (Some(old), Some(new)) => old.is_same(new),
            _ => false,
        };
        let touched = keys(change);
        self.with(|state| {
            if let Some(kind) = status.filter(|_| change.new.is_some()) {
                state.touched.insert(object_key(kind, change.name.clone()));
            }
            if !same {
                touch(state, &touched);
            }
        });
    }
}

fn touch_hosts(state: &mut State, hosts: &BTreeSet<String>) {
    for host in hosts {
        state.touch(host);
    }
}

/// Marks the hosts that a Redis object names, or that it leads to.
fn touch_named(state: &mut State, keys: &BTreeSet<String>) {
    for key in keys {
        let host = host_of(key);
        state.touch(host);
        if host == key {
            // Also when it has nothing to apply to: its status says so, or did.
            state.dirty.insert(host.to_owned());
        }
    }
}

impl Follower<Kept<Gateway>> for Index {
    fn changed(&self, change: Change<'_, Kept<Gateway>>) {
        self.follow(&change, None, |state, gateways| {
            for gateway in gateways {
                state.touch_gateway(gateway);
            }
        });
    }
}

impl Follower<Kept<VirtualService>> for Index {
    fn changed(&self, change: Change<'_, Kept<VirtualService>>) {
        self.follow(&change, None, touch_hosts);
    }
}

impl Follower<Kept<MetaRouter>> for Index {
    fn changed(&self, change: Change<'_, Kept<MetaRouter>>) {
        self.follow(&change, Some(Kind::MetaRouter), |state, keys| {
            for key in keys {
                if key.contains('/') {
                    state.touch_gateway(key);
                } else {
                    // Also when it has nothing to apply to: its status says so.
                    state.dirty.insert(key.clone());
                }
            }
        });
    }
}

impl Follower<Kept<ApplicationProtocol>> for Index {
    fn changed(&self, change: Change<'_, Kept<ApplicationProtocol>>) {
        let kind = Kind::ApplicationProtocol;
        self.follow(&change, Some(kind), |state, protocols| {
            // Rare, and any port may have the protocol.
            state.touch_all(None);
            let table = state.objects.protocols.clone();
            let rows = table.rows();
            for (name, _) in protocols.iter().flat_map(|p| rows.of(p)) {
                state.touched.insert(object_key(kind, name.clone()));
            }
        });
    }
}

impl Follower<Kept<RedisService>> for Index {
    fn changed(&self, change: Change<'_, Kept<RedisService>>) {
        self.follow(&change, Some(Kind::RedisService), touch_named);
    }
}

impl Follower<Kept<RedisDestination>> for Index {
    fn changed(&self, change: Change<'_, Kept<RedisDestination>>) {
        self.follow(&change, Some(Kind::RedisDestination), touch_named);
    }
}

impl Follower<Kept<DubboAuthorizationPolicy>> for Index {
    fn changed(&self, change: Change<'_, Kept<DubboAuthorizationPolicy>>) {
        let kind = Kind::DubboAuthorizationPolicy;
        self.follow(&change, Some(kind), |state, namespaces| {
            for namespace in namespaces {
                let all = *namespace == state.settings.root_namespace;
                state.touch_all((!all).then_some(namespace.as_str()));
            }
        });
    }
}

impl Index {
    /// A user's object as last seen.
    pub fn seen(&self, key: &ObjectKey) -> Option<Seen> {
        let objects = &self.objects;
        let (namespace, name) = (&key.namespace, &key.name);
        match key.kind {
            Kind::MetaRouter => {
                let object = objects.routers.get(namespace, name)?;
                let names = vec![object.spec.host().to_owned()];
                Some(seen(&*object.object, &object.status, names))
            }
            Kind::RedisService => {
                let object = objects.redis_services.get(namespace, name)?;
                let names = object.spec.host.clone();
                Some(seen(&*object.object, &object.status, names))
            }
            Kind::RedisDestination => {
                let object = objects.redis_destinations.get(namespace, name)?;
                let names = vec![object.spec.host.clone()];
                Some(seen(&*object.object, &object.status, names))
            }
            Kind::DubboAuthorizationPolicy => {
                let object = objects.policies.get(namespace, name)?;
                Some(seen(&*object.object, &object.status, Vec::new()))
            }
            Kind::ApplicationProtocol => {
                let object = objects.protocols.get(namespace, name)?;
                let settings = self.state.lock().settings.clone();
                let protocol = object.spec.protocol.clone();
                let rows = objects.protocols.rows();
                let last = rows.of(&protocol).last();
                let last = last.map(|((_, n), _)| n.clone()).filter(|n| *n != key.name);
                let mut out = seen(&*object.object, &object.status, vec![protocol]);
                out.overridden_by = last;
                out.foreign = !settings.trust().decides(namespace, "");
                Some(out)
            }
        }
    }

    /// All objects of a kind, sorted.
    pub fn objects(&self, kind: Kind) -> Vec<ObjectKey> {
        fn names<K: Keys + std::fmt::Debug>(table: &Table<Kept<K>>) -> Vec<Name> {
            table.rows().iter().map(|(name, _)| name.clone()).collect()
        }
        let objects = &self.objects;
        let names = match kind {
            Kind::MetaRouter => names(&objects.routers),
            Kind::RedisService => names(&objects.redis_services),
            Kind::RedisDestination => names(&objects.redis_destinations),
            Kind::DubboAuthorizationPolicy => names(&objects.policies),
            Kind::ApplicationProtocol => names(&objects.protocols),
        };
        names.into_iter().map(|n| object_key(kind, n)).collect()
    }
}

fn seen<K: ResourceExt>(object: &K, status: &impl serde::Serialize, names: Vec<String>) -> Seen {
    Seen {
        generation: object.meta().generation.unwrap_or_default(),
        status: serde_json::to_value(status).unwrap_or(Value::Null),
        names,
        overridden_by: None,
        foreign: false,
    }
}
