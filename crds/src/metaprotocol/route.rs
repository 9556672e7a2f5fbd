//! Routes of a MetaRouter.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Match;
use super::schema;

/// One rule: requests that match go to `route`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::meta_route)]
pub struct MetaRoute {
    /// Shown in access logs and status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// Absent: every request; such a rule belongs last.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<Match>,
    /// Destinations; the weights of several sum to 100.
    #[schemars(length(min = 1, max = 16))]
    pub route: Vec<RouteDestination>,
    /// Gets a copy of the requests; its answers are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Destination>,
    /// Share of requests that is mirrored; absent or 0 = 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_percentage: Option<Percent>,
    /// Metadata to set on requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub request_mutation: Vec<KeyValue>,
    /// Metadata to set on responses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub response_mutation: Vec<KeyValue>,
    /// Added by Trimtab: how long a request may take, e.g. `500ms`; `0s` = as long as it likes; absent = the proxy's
    /// default. A condition says so where the proxy cannot do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::duration_or_zero)]
    pub timeout: Option<String>,
    /// Added by Trimtab: retries after a failed connection. A condition says so where the proxy cannot do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
}

/// A destination with its share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteDestination {
    /// Where the requests go.
    pub destination: Destination,
    /// Share of requests in percent, 0 to 100; of no meaning with one destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub weight: Option<i32>,
}

/// A host, a subset of it, and a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Destination {
    /// Full DNS name of the service.
    #[schemars(transform = crate::schema::host)]
    pub host: String,
    /// Subset of the host's DestinationRule; absent or empty = the whole service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::label)]
    pub subset: Option<String>,
    /// Absent: the port of the service that is routed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortSelector>,
}

/// A port of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortSelector {
    /// Number, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub number: i32,
}

/// A percentage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Percent {
    /// 0 to 100, with decimals.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub value: f64,
}

/// A key and the value that it is set to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyValue {
    /// Name of the attribute; not empty.
    #[schemars(length(min = 1, max = 256))]
    pub key: String,
    /// Value of the attribute; not empty.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
}

/// Retries of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retries {
    /// How many times at most, 0 to 10; 0 = none.
    #[schemars(range(min = 0, max = 10))]
    pub attempts: i32,
}

impl MetaRoute {
    /// Share of requests that is mirrored, in percent; `None` without a mirror.
    pub fn mirror_share(&self) -> Option<f64> {
        self.mirror.as_ref()?;
        let share = self.mirror_percentage.map_or(0.0, |p| p.value);
        Some(if share > 0.0 { share } else { 100.0 })
    }
}
