//! The resolved input of a proxy without Istio: services, what is behind them, and what is done with calls.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use trimtab_metaprotocol::input::{
    Mirror, ServicePortInput, Source, ValueMatch, WeightedDestination,
};
use trimtab_metaprotocol::owner::Owner;
use trimtab_metaprotocol::span::Span;

use crate::address::XdsAddress;

/// Everything that the resources are made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StandaloneInput {
    /// Where proxies listen.
    #[serde(default)]
    pub listen: Listen,
    /// The services, by host. Of two with one host the first counts.
    #[serde(default)]
    pub services: Vec<ServiceInput>,
    /// Limits of HTTP calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<HttpLimit>,
    /// The fallback proxies; absent: nobody asks one for help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackInput>,
    /// Pods whose proxies see a part of the services, which needs fallback proxies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodInput>,
}

/// The fallback proxies: they see all services, and carry the calls that other proxies have no route for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FallbackInput {
    /// Where they listen: one proxy on each address, at the ports where other proxies listen.
    pub addresses: Vec<IpAddr>,
    /// Receiver of their access logs, `HOST:PORT`; absent: none are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<XdsAddress>,
}

/// A pod whose proxy sees a part of the services. It listens on the pod's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodInput {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Address of the pod, which must be one of the proxy's machine.
    pub address: IpAddr,
    /// Hosts of the services that it sees.
    #[serde(default)]
    pub hosts: BTreeSet<String>,
}

impl PodInput {
    /// The group of its proxy.
    pub(super) fn group(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Where proxies listen for the calls to a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Listen {
    /// On one address, at the port of the service. HTTP services with the same port share a listener and are told apart
    /// by `Host`; of other services with the same port the first by host gets it, and the others are reported.
    #[serde(rename_all = "camelCase")]
    Address {
        /// The address.
        address: IpAddr,
        /// Added to the ports of services, as an ordinary user may not open those below 1024.
        #[serde(default)]
        port_offset: u16,
    },
    /// On the addresses of the service itself, at its port. They must be addresses of the machine, as `127.1.0.1` is.
    Addresses,
    /// One port that connections are redirected to by the firewall. The service is told by the address that was called;
    /// calls to no service of ours go where they were meant to go.
    Captured {
        /// The port, on all addresses.
        port: u16,
    },
}

impl Default for Listen {
    /// On `127.0.0.1`, without an offset.
    fn default() -> Self {
        Self::Address {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port_offset: 0,
        }
    }
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceInput {
    /// Fully qualified, e.g. `reviews.shop.svc.cluster.local`.
    pub host: String,
    /// Shorter names in the order of preference; one that another service has too is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub service: String,
    /// Its kind.
    #[serde(default)]
    pub source: Source,
    /// Addresses that callers use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<IpAddr>,
    /// Ports.
    #[serde(default)]
    pub ports: Vec<PortInput>,
    /// Labels of each subset.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub subsets: BTreeMap<String, BTreeMap<String, String>>,
    /// How an endpoint is chosen.
    #[serde(default)]
    pub balancing: Balancing,
    /// Routes of HTTP ports, in order; the first match wins, and a call that none matches is answered with 404. Empty:
    /// everything goes to the service itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<HttpRoute>,
    /// The object that the routes are from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_owner: Option<Owner>,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Balancing {
    /// The one with fewer calls of two that are drawn, as in Istio.
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// By lot.
    Random,
    /// By the hash of this HTTP header.
    Header(String),
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortInput {
    /// Number that callers use.
    pub number: u16,
    /// What it speaks.
    #[serde(default)]
    pub speaks: AppProtocol,
    /// Ready endpoints. When one has a name in the place of its address, Envoy resolves all of them.
    #[serde(default)]
    pub endpoints: Vec<EndpointInput>,
}

/// What a port speaks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AppProtocol {
    /// HTTP/1.1 to the endpoints; callers may use HTTP/2 too.
    Http,
    /// HTTP/2 or gRPC to the endpoints.
    Http2,
    /// Bytes.
    #[default]
    Tcp,
    /// A protocol of MetaRouters.
    Managed(Box<ServicePortInput>),
}

impl AppProtocol {
    pub(super) fn is_http(&self) -> bool {
        matches!(self, Self::Http | Self::Http2)
    }
}

/// One ready endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointInput {
    /// Address, or a name that Envoy resolves.
    pub address: String,
    /// Port.
    pub port: u16,
    /// Labels, by which subsets take it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Share of calls among the endpoints; absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// One HTTP route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRoute {
    /// Name, in access logs; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// One of them must match; empty: every call.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<HttpMatch>,
    /// At least one; without a port, the port that was called.
    #[serde(rename = "route")]
    pub destinations: Vec<WeightedDestination>,
    /// A copy of calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// How long a call may take; absent: as long as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Calls that are tried again; absent: twice, where the call never reached a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<HttpRetries>,
}

/// Tests of one HTTP call, which must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatch {
    /// The path; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<ValueMatch>,
    /// Headers; `:method` is the method.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, ValueMatch>,
}

/// HTTP calls that are tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRetries {
    /// How often; 0: never.
    pub attempts: u32,
    /// How long each may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<Span>,
    /// Envoy's conditions, e.g. `5xx,reset`; empty: where the call never reached a server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub retry_on: String,
}

/// A limit of the HTTP calls to a host, whose buckets are an extension config of the xDS server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpLimit {
    /// Host of the service.
    pub host: String,
    /// Port of the service; absent: all HTTP ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Name of the extension config, which is a `LocalRateLimit` of HTTP.
    pub filter: String,
    /// Rate limit actions, as the `actions` of Envoy's `RateLimit`: the descriptors of a call. Empty: the bucket for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Vec<Value>>,
}
