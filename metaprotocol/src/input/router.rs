//! A MetaRouter as plain types, after the user's object was read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::owner::Owner;
use crate::span::Span;

/// Routes for one host: of a MetaRouter, or the HTTP rules of a VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Router {
    /// The object.
    pub owner: Owner,
    /// In order; the first match wins. Empty: everything goes to the service itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// At the service's own sidecars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_rate_limit: Option<LocalRateLimit>,
    /// At the service's own sidecars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_rate_limit: Option<GlobalRateLimit>,
    /// Namespaces whose proxies get the routes: names, `.` (the router's own), `*` (all), `~` (none). Empty: the default scope.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export_to: Vec<String>,
    /// Gateways as `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<String>,
}

/// One route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// Name, shown in access logs; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Attributes that must all match; empty: everything.
    #[serde(default, rename = "match", skip_serializing_if = "BTreeMap::is_empty")]
    pub matches: BTreeMap<String, ValueMatch>,
    /// At least one.
    #[serde(default, rename = "route")]
    pub destinations: Vec<WeightedDestination>,
    /// A copy of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Attributes to set in requests, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub request_mutation: Vec<KeyValue>,
    /// Attributes to set in responses, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response_mutation: Vec<KeyValue>,
    /// How long a call may take; `0s`: as long as it likes; absent: the proxy's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Calls that are tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Field that it was read from; empty: `spec.routes[INDEX]`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// Fields below [`Self::field`] that nothing can be made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsupported: Vec<String>,
}

impl Route {
    /// Field of the user's object that the route at this index is from.
    pub fn path(&self, index: usize) -> String {
        if self.field.is_empty() {
            format!("spec.routes[{index}]")
        } else {
            self.field.clone()
        }
    }

    /// Field of the test of an attribute, below [`Self::path`].
    pub fn test_path(&self, attribute: &str) -> String {
        if self.field.is_empty() {
            format!("match.attributes.{attribute}")
        } else {
            format!("match.{attribute}")
        }
    }
}

/// Test of one attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ValueMatch {
    /// The whole value; never empty, see [`Self::Present`].
    Exact(String),
    /// The value begins with it.
    Prefix(String),
    /// RE2 over the whole value.
    Regex(String),
    /// The attribute is there. Users write `null`, `{}`, `exact: ""` or `regex: "*"`.
    Present,
}

/// Where to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Destination {
    /// Fully qualified.
    pub host: String,
    /// Subset of the host's DestinationRule; empty: all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subset: String,
    /// Absent: the port of the service that is routed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A destination with its share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WeightedDestination {
    /// Where to.
    pub destination: Destination,
    /// Share; not used when there is one destination.
    #[serde(default)]
    pub weight: u32,
}

/// A copy of requests, whose answers are dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mirror {
    /// Where to.
    pub destination: Destination,
    /// Above 0, at most 100.
    pub percent: f64,
}

/// An attribute to set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyValue {
    /// Name.
    pub key: String,
    /// Value.
    pub value: String,
}

/// Calls that are tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retries {
    /// How often, from 1 to 10.
    pub attempts: u32,
}

/// A bucket per proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenBucket {
    /// Size, at least 1.
    pub max_tokens: u32,
    /// Tokens each interval, at least 1.
    pub tokens_per_fill: u32,
    /// Interval, at least 50 ms.
    pub fill_interval: Span,
}

/// A limit at each proxy. The bucket of the first condition that matches decides, else the plain bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalRateLimit {
    /// Of requests that no condition matches; absent: they are not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<TokenBucket>,
    /// In order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<LimitCondition>,
}

/// A bucket of some requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitCondition {
    /// Attributes that must all match.
    #[serde(default, rename = "match")]
    pub matches: BTreeMap<String, ValueMatch>,
    /// Their bucket.
    pub bucket: TokenBucket,
}

/// A limit that a rate limit service holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GlobalRateLimit {
    /// Attributes that must all match; `None`: all requests.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<BTreeMap<String, ValueMatch>>,
    /// Domain of the service's rules.
    pub domain: String,
    /// How long a proxy waits for the service; absent: 20 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Refuse requests when the service does not answer.
    #[serde(default)]
    pub deny_on_fail: bool,
    /// Envoy cluster of the service, e.g. `outbound|8081||limits.shop.svc.cluster.local`.
    pub cluster: String,
    /// At least one.
    #[serde(default)]
    pub descriptors: Vec<LimitDescriptor>,
}

/// One entry of a descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitDescriptor {
    /// Attribute whose value is sent.
    pub property: String,
    /// Key that it is sent as.
    pub descriptor_key: String,
}
