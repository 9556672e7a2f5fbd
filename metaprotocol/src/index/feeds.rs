//! Watch events into the index, kind by kind.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use serde_json::Value;
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::{DestinationRule, Gateway, ServiceEntry};
use trimtab_crds::metaprotocol::{ApplicationProtocol, MetaRouter};
use trimtab_crds::redis::{RedisDestination, RedisService};
use trimtab_kit::watch::Feed;

use super::table::{Kept, Table, name_of};
use super::{Index, Name, Seen, State};
use crate::object::{Kind, ObjectKey};

/// What an event of a kind leads to.
trait Fed: Kept {
    fn table(state: &mut State) -> &mut Table<Self>;
    fn touched(state: &mut State, keys: BTreeSet<String>);
    /// The kind, when it has a status that we write.
    const STATUS: Option<Kind> = None;
}

fn object_key(kind: Kind, name: Name) -> ObjectKey {
    let (namespace, name) = name;
    ObjectKey {
        kind,
        namespace,
        name,
    }
}

impl State {
    fn put<K: Fed>(&mut self, object: &K) {
        let domain = self.domain.clone();
        let keys = K::table(self).put(object, &domain);
        if let Some(kind) = K::STATUS {
            self.objects.insert(object_key(kind, name_of(object)));
        }
        K::touched(self, keys);
    }

    fn drop<K: Fed>(&mut self, name: &Name) {
        let domain = self.domain.clone();
        let keys = K::table(self).remove(name, &domain);
        K::touched(self, keys);
    }

    fn replace<K: Fed>(&mut self, objects: &[Arc<K>], unreadable: &[Name]) {
        let domain = self.domain.clone();
        let (keys, _) = K::table(self).reset(objects, unreadable, &domain);
        if let Some(kind) = K::STATUS {
            let names = objects.iter().map(|o| name_of(o.as_ref()));
            self.objects.extend(names.map(|n| object_key(kind, n)));
        }
        K::touched(self, keys);
    }
}

macro_rules! feed {
    ($kind:ty, $table:ident, $status:expr, $touched:expr) => {
        impl Fed for $kind {
            const STATUS: Option<Kind> = $status;

            fn table(state: &mut State) -> &mut Table<Self> {
                &mut state.$table
            }

            fn touched(state: &mut State, keys: BTreeSet<String>) {
                let touched: fn(&mut State, BTreeSet<String>) = $touched;
                touched(state, keys);
            }
        }

        impl Feed<$kind> for Index {
            fn apply(&self, object: Arc<$kind>) {
                self.with(|state| state.put(object.as_ref()));
            }

            fn delete(&self, object: Arc<$kind>) {
                let name = name_of(object.as_ref());
                self.with(|state| state.drop::<$kind>(&name));
            }

            fn reset(&self, objects: Vec<Arc<$kind>>, unreadable: &[Name]) {
                self.with(|state| state.replace(&objects, unreadable));
            }

            fn undecodable(&self, namespace: &str, name: &str, _error: &str) {
                let name = (namespace.to_owned(), name.to_owned());
                self.with(|state| state.$table.mark_unreadable(name));
            }
        }
    };
}

fn hosts(state: &mut State, keys: BTreeSet<String>) {
    for host in keys {
        state.touch(&host);
    }
}

feed!(Service, services, None, |state, keys| {
    state.addresses |= !keys.is_empty();
    hosts(state, keys);
});
feed!(EndpointSlice, slices, None, |state, keys| {
    for host in keys {
        state.touch_only(&host);
    }
});
feed!(ServiceEntry, entries, None, |state, keys| {
    state.addresses |= !keys.is_empty();
    hosts(state, keys);
});
feed!(DestinationRule, rules, None, hosts);
feed!(Gateway, gateways, None, |state, keys| {
    for gateway in keys {
        state.touch_gateway(&gateway);
    }
});
feed!(
    MetaRouter,
    routers,
    Some(Kind::MetaRouter),
    |state, keys| {
        for key in keys {
            if key.contains('/') {
                state.touch_gateway(&key);
            } else {
                // Also when it has nothing to apply to: its status says so.
                state.dirty.insert(key);
            }
        }
    }
);
feed!(
    ApplicationProtocol,
    protocols,
    Some(Kind::ApplicationProtocol),
    |state, keys| {
        if keys.is_empty() {
            return;
        }
        // Rare, and any port may have the protocol.
        state.touch_all(None);
        let objects: Vec<Name> = keys
            .iter()
            .flat_map(|k| state.protocols.of(k).map(|(n, _)| n.clone()))
            .collect();
        let kind = Kind::ApplicationProtocol;
        state
            .objects
            .extend(objects.into_iter().map(|n| object_key(kind, n)));
    }
);
feed!(
    RedisService,
    redis_services,
    Some(Kind::RedisService),
    hosts
);
feed!(
    RedisDestination,
    redis_destinations,
    Some(Kind::RedisDestination),
    hosts
);
feed!(
    DubboAuthorizationPolicy,
    policies,
    Some(Kind::DubboAuthorizationPolicy),
    |state, keys| {
        for namespace in keys {
            let all = namespace == state.settings.root_namespace;
            state.touch_all((!all).then_some(namespace.as_str()));
        }
    }
);

impl Index {
    /// A user's object as last seen.
    pub fn seen(&self, key: &ObjectKey) -> Option<Seen> {
        let state = self.state.lock();
        let name = (key.namespace.clone(), key.name.clone());
        match key.kind {
            Kind::MetaRouter => {
                let object = state.routers.get(&name)?;
                let names = vec![object.spec.host().to_owned()];
                Some(seen(object.as_ref(), &object.status, names))
            }
            Kind::RedisService => {
                let object = state.redis_services.get(&name)?;
                let names = object.spec.host.clone();
                Some(seen(object.as_ref(), &object.status, names))
            }
            Kind::RedisDestination => {
                let object = state.redis_destinations.get(&name)?;
                let names = vec![object.spec.host.clone()];
                Some(seen(object.as_ref(), &object.status, names))
            }
            Kind::DubboAuthorizationPolicy => {
                let object = state.policies.get(&name)?;
                Some(seen(object.as_ref(), &object.status, Vec::new()))
            }
            Kind::ApplicationProtocol => {
                let object = state.protocols.get(&name)?;
                let protocol = object.spec.protocol.clone();
                let last = state.protocols.of(&protocol).last();
                let last = last.map(|((_, n), _)| n.clone()).filter(|n| *n != key.name);
                let mut out = seen(object.as_ref(), &object.status, vec![protocol]);
                out.overridden_by = last;
                Some(out)
            }
        }
    }

    /// All objects of a kind, sorted.
    pub fn objects(&self, kind: Kind) -> Vec<ObjectKey> {
        let state = self.state.lock();
        let names: Vec<Name> = match kind {
            Kind::MetaRouter => state.routers.names().cloned().collect(),
            Kind::RedisService => state.redis_services.names().cloned().collect(),
            Kind::RedisDestination => state.redis_destinations.names().cloned().collect(),
            Kind::DubboAuthorizationPolicy => state.policies.names().cloned().collect(),
            Kind::ApplicationProtocol => state.protocols.names().cloned().collect(),
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
    }
}
