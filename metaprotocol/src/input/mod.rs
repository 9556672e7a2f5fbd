//! The resolved input: one plain struct with all that the outputs of one service port depend on.
//!
//! It is the `in.yaml` of golden cases, the admin dump and what a bug report attaches.

mod redis;
mod router;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use redis::{
    Credentials, DubboPolicy, RedisAuth, RedisConnection, RedisDestination, RedisFault,
    RedisFaultKind, RedisMirror, RedisMode, RedisReadPolicy, RedisRoute, RedisService,
    RedisSettings, TcpKeepalive,
};
pub use router::{
    Destination, GlobalRateLimit, KeyValue, LimitCondition, LimitDescriptor, LocalRateLimit,
    Mirror, Retries, Route, Router, TokenBucket, ValueMatch, WeightedDestination,
};
pub use settings::{
    AccessLog, Capabilities, DataPlane, Delivery, LogEncoding, Ports, ProxySelector, Scope,
    Settings, StockFilter, Tracing, closed_namespaces,
};

/// Everything about one port of one host at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePortInput {
    /// Fully qualified host of the service, e.g. `reviews.shop.svc.cluster.local`.
    pub host: String,
    /// Namespace of the Service or ServiceEntry.
    pub namespace: String,
    /// Name of the Service or ServiceEntry.
    pub service: String,
    /// Which of the two it is.
    #[serde(default)]
    pub source: Source,
    /// The port.
    pub port: Port,
    /// What it speaks.
    pub protocol: Protocol,
    /// All addresses that a caller may use: of all clusters, IPv4 and IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<IpAddr>,
    /// A Service without a cluster address: callers use the addresses of [`Self::endpoints`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub headless: bool,
    /// Ready endpoints; filled for headless services only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Labels of the pods behind the service, for the inbound side; empty: there is none in this cluster.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workload_selector: BTreeMap<String, String>,
    /// Namespaces that see the host (its own `exportTo`), sorted; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible_to: Option<BTreeSet<String>>,
    /// Those of the namespaces named here that take no objects for services of others.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub closed: BTreeSet<String>,
    /// The MetaRouter in force for this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<Router>,
    /// The last MetaRouter of this host that was accepted as a whole: what stays in force while [`Self::router`] has a mistake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<Box<Router>>,
    /// Facts about the hosts that the router's destinations name, this service's own host included.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<String, HostFacts>,
    /// Servers of gateways that bind this port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<GatewayBinding>,
    /// The RedisService of this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisService>,
    /// RedisDestinations by host: of this host and of those that its RedisService routes to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub redis_destinations: BTreeMap<String, RedisDestination>,
    /// DubboAuthorizationPolicies of the namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dubbo_policies: Vec<DubboPolicy>,
    /// The operator's settings.
    #[serde(default)]
    pub settings: Arc<Settings>,
}

/// Where a service comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A Kubernetes Service.
    #[default]
    Service,
    /// An Istio ServiceEntry.
    ServiceEntry,
}

impl Source {
    /// The kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::ServiceEntry => "ServiceEntry",
        }
    }
}

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// Number that callers use.
    pub number: u16,
    /// Numbers on the pods, sorted; several where a named target port differs between pods. Empty: the same as `number`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<u16>,
    /// Name, e.g. `tcp-metaprotocol-dubbo`.
    pub name: String,
}

impl Port {
    /// Numbers on the pods.
    pub fn on_pods(&self) -> Vec<u16> {
        if self.targets.is_empty() {
            return vec![self.number];
        }
        let mut out = self.targets.clone();
        out.sort_unstable();
        out.dedup();
        out
    }
}

/// What a port speaks, from its name or `appProtocol`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum Protocol {
    /// `tcp-metaprotocol-NAME`.
    MetaProtocol {
        /// The name: token 3 of the port's name.
        #[serde(rename = "applicationProtocol")]
        application_protocol: String,
        /// Codec of the ApplicationProtocol of that name; `None`: nobody has registered it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        codec: Option<String>,
        /// Several requests in flight on one upstream connection; the codec must allow it.
        #[serde(default)]
        multiplexing: bool,
    },
    /// `tcp-dubbo`: Envoy's own Dubbo filters.
    Dubbo,
    /// `tcp-thrift`: Envoy's own Thrift filter.
    Thrift,
    /// `tcp-redis`.
    Redis,
    /// `tcp-zookeeper`.
    Zookeeper,
    /// `tcp-kafka`.
    Kafka,
}

/// One ready endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// Address of the pod.
    pub address: IpAddr,
    /// Port on the pod.
    pub port: u16,
}

/// What is known of a host that routes lead to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostFacts {
    /// Ports by number, with their names.
    #[serde(default)]
    pub ports: BTreeMap<u16, String>,
    /// Attribute that the DestinationRule hashes by (`trafficPolicy.loadBalancer.consistentHash.httpHeaderName`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_attribute: Option<String>,
    /// Subsets of the DestinationRule.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub subsets: BTreeMap<String, SubsetFacts>,
    /// Hosts of DestinationRules, as written, that were probably meant for this host: Istio takes a name with a dot as it is.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub misread: BTreeSet<String>,
}

/// A subset of a DestinationRule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubsetFacts {
    /// Labels on top of the service's selector.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The subset's own attribute to hash by; it does not inherit the host's, as in Aeraki.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_attribute: Option<String>,
}

/// One server of a Gateway that the MetaRouter names, with a port of this protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayBinding {
    /// Namespace of the Gateway.
    pub namespace: String,
    /// Name of the Gateway.
    pub name: String,
    /// `spec.selector`: labels of the gateway's pods.
    pub selector: BTreeMap<String, String>,
    /// Port of the server, which callers from outside use. It leads to this service port.
    pub port: u16,
    /// Another host that holds this server already: a TCP port of a gateway has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_by: Option<String>,
}

impl ServicePortInput {
    /// Whether Trimtab touches this port, see [`Ports`].
    pub fn managed(&self) -> bool {
        let named = self.router.is_some()
            || self.redis.is_some()
            || self.redis_destinations.contains_key(&self.host)
            || (self.protocol == Protocol::Dubbo && !self.dubbo_policies.is_empty());
        match self.settings.ports {
            Ports::All => true,
            Ports::Referenced => named || matches!(self.protocol, Protocol::MetaProtocol { .. }),
        }
    }

    /// The service as `Kind namespace/name`, for messages.
    pub fn object(&self) -> String {
        format!(
            "{} {}/{}",
            self.source.as_str(),
            self.namespace,
            self.service
        )
    }

    /// Name of the route configuration of this port: `<host>_<port>`, as Aeraki's proxies ask for it.
    pub fn route_name(&self) -> String {
        format!("{}_{}", self.host, self.port.number)
    }

    /// Istio's cluster of this port without subset.
    pub fn own_cluster(&self) -> String {
        outbound_cluster(self.port.number, "", &self.host)
    }

    /// Istio's cluster of a destination; without a port, the port of this service.
    pub fn cluster(&self, to: &Destination) -> String {
        outbound_cluster(to.port.unwrap_or(self.port.number), &to.subset, &to.host)
    }

    /// Attribute to hash by for a destination.
    pub fn hash_attribute(&self, to: &Destination) -> Option<&str> {
        let facts = self.hosts.get(&to.host)?;
        if to.subset.is_empty() {
            facts.hash_attribute.as_deref()
        } else {
            facts.subsets.get(&to.subset)?.hash_attribute.as_deref()
        }
    }
}

/// Istio's name of an outbound cluster.
pub fn outbound_cluster(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// Istio's name of an inbound cluster; `port` is the port on the pod.
pub fn inbound_cluster(port: u16) -> String {
    format!("inbound|{port}||")
}
