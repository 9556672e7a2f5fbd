//! Users' objects of the module, found by what others name them by.

use std::sync::Arc;

use kube::{Resource, ResourceExt};
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::{Gateway, VirtualService};
use trimtab_crds::metaprotocol::{ApplicationProtocol, MetaRouter};
use trimtab_crds::redis::{RedisDestination, RedisService};
use trimtab_mesh::table::{ByKey, Keyed, Known, Row};

use crate::resolve::rule_hosts;

/// A gateway as routers name it. Hosts have no slash, so that the two are not mixed up.
pub(super) fn gateway_key(name: &str, namespace: &str) -> String {
    if name.contains('/') {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

/// Before a host that an object leads to; hosts have no slash.
const LED_TO: &str = "to/";

/// The key of the objects that lead to a host.
pub(super) fn led_to(host: &str) -> String {
    format!("{LED_TO}{host}")
}

/// The host of a key.
pub(super) fn host_of(key: &str) -> &str {
    key.strip_prefix(LED_TO).unwrap_or(key)
}

/// What others name an object by.
pub trait Keys: Resource + Send + Sync + 'static {
    /// Hosts, or what the kind documents. `domain` is the cluster's.
    fn keys(&self, domain: &str) -> Vec<String>;

    /// Whether anything may come of it.
    fn matters(&self) -> bool {
        true
    }
}

/// An object with its keys.
#[derive(Debug)]
pub struct Kept<K> {
    pub(super) object: Arc<K>,
    keys: Box<[String]>,
}

impl<K> std::ops::Deref for Kept<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.object
    }
}

/// Each write gives an object another version.
impl<K: Resource> PartialEq for Kept<K> {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.object.meta(), other.object.meta());
        let known = a.resource_version.is_some();
        known && a.resource_version == b.resource_version && a.uid == b.uid
    }
}

impl<K: Resource> Kept<K> {
    /// Whether nothing that outputs depend on has changed. An API server counts `generation` up with every change of a
    /// spec, so that a status write of our own is no event.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let (a, b) = (self.object.meta(), other.object.meta());
        a.generation.is_some()
            && a.generation == b.generation
            && a.uid == b.uid
            && a.labels == b.labels
            && a.annotations == b.annotations
    }
}

impl<K> Keyed for Kept<K> {
    fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }
}

impl<K: Keys + std::fmt::Debug> Row for Kept<K> {
    type Object = K;
    type Index = ByKey;

    fn read(object: &Arc<K>, known: &Known<'_, Self>) -> Option<Self> {
        object.matters().then(|| Self {
            keys: object.keys(known.domain).into(),
            object: object.clone(),
        })
    }
}

impl Keys for Gateway {
    fn keys(&self, _: &str) -> Vec<String> {
        let namespace = self.namespace().unwrap_or_default();
        vec![gateway_key(&self.name_any(), &namespace)]
    }
}

/// By the host, and the gateways.
impl Keys for MetaRouter {
    fn keys(&self, _: &str) -> Vec<String> {
        let namespace = self.namespace().unwrap_or_default();
        let gateways = self.spec.gateways.iter();
        let gateways = gateways.map(|g| gateway_key(g, &namespace));
        gateways.chain([self.spec.host().to_owned()]).collect()
    }
}

/// By the protocol.
impl Keys for ApplicationProtocol {
    fn keys(&self, _: &str) -> Vec<String> {
        vec![self.spec.protocol.clone()]
    }
}

/// By the hosts, and by those that it leads to, see [`led_to`].
impl Keys for RedisService {
    fn keys(&self, _: &str) -> Vec<String> {
        let mut keys = self.spec.host.clone();
        for route in &self.spec.redis {
            keys.extend(route.mirror.iter().map(|m| led_to(&m.route.host)));
            keys.push(led_to(&route.route.host));
        }
        keys
    }
}

impl Keys for RedisDestination {
    fn keys(&self, _: &str) -> Vec<String> {
        vec![self.spec.host.clone()]
    }
}

/// By the namespace.
impl Keys for DubboAuthorizationPolicy {
    fn keys(&self, _: &str) -> Vec<String> {
        vec![self.namespace().unwrap_or_default()]
    }
}

/// By the hosts. Those with HTTP rules for sidecars: layer-7 ports are routed by no others.
impl Keys for VirtualService {
    fn keys(&self, domain: &str) -> Vec<String> {
        rule_hosts(self, domain).collect()
    }

    fn matters(&self) -> bool {
        let gateways = &self.spec.gateways;
        let sidecars = gateways.is_empty() || gateways.iter().any(|g| g == "mesh");
        sidecars && !self.spec.http.is_empty()
    }
}
