//! MetaRouter: routes and limits of a service of any layer-7 protocol.

// printcolumn and category are repeated on purpose.
#![allow(clippy::duplicated_attributes)]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;
use super::{GlobalRateLimit, LocalRateLimit, MetaRoute, MetaRouterStatus};

/// Routes and limits of one service.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metaprotocol.aeraki.io",
    version = "v1alpha1",
    kind = "MetaRouter",
    plural = "metarouters",
    category = "aeraki-io",
    category = "metaprotocol-aeraki-io",
    category = "trimtab",
    namespaced,
    status = "MetaRouterStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Routes and limits of a service of any layer-7 protocol.",
    printcolumn(name = "Hosts", type_ = "string", json_path = ".spec.hosts[0]"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].status"#
    ),
    printcolumn(
        name = "Proxies",
        type_ = "integer",
        json_path = ".status.proxies.acknowledged"
    ),
    printcolumn(
        name = "Refused",
        type_ = "integer",
        json_path = ".status.proxies.refused"
    ),
    printcolumn(
        name = "Data plane",
        type_ = "string",
        priority = 1,
        json_path = ".status.dataPlane"
    ),
    printcolumn(
        name = "Delivery",
        type_ = "string",
        priority = 1,
        json_path = ".status.delivery"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::meta_router)]
pub struct MetaRouterSpec {
    /// Exactly one: the host of the service, as a full DNS name.
    #[schemars(length(min = 1, max = 1), inner(length(min = 1, max = 255)))]
    pub hosts: Vec<String>,
    /// Gateways that the routes hold on: `namespace/name`, or `name` in the namespace of this object. Empty = sidecars only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 317)))]
    pub gateways: Vec<String>,
    /// In order, the first match wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub routes: Vec<MetaRoute>,
    /// Limits counted in each proxy of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_rate_limit: Option<LocalRateLimit>,
    /// Limits counted by a rate limit service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_rate_limit: Option<GlobalRateLimit>,
    /// Namespaces whose proxies get the routes: names, `.` = the one of this object, `*` = all, `~` = none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub export_to: Vec<String>,
}

impl MetaRouterSpec {
    /// The host that the routes are for; empty only when the object went round the schema.
    pub fn host(&self) -> &str {
        self.hosts.first().map_or("", String::as_str)
    }
}
