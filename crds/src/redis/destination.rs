//! RedisDestination: how Redis servers are reached.

// printcolumn and category are repeated on purpose.
#![allow(clippy::duplicated_attributes)]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Auth;
use super::schema;
use crate::status::ObjectStatus;

/// Connections to the servers of a Redis service.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "redis.aeraki.io",
    version = "v1alpha1",
    kind = "RedisDestination",
    plural = "redisdestinations",
    shortname = "rd",
    category = "redis-aeraki-io",
    category = "trimtab",
    namespaced,
    status = "ObjectStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "How the servers of a Redis service are reached.",
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.host"),
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.trafficPolicy.connectionPool.redis.mode"
    ),
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
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::redis_destination)]
pub struct RedisDestinationSpec {
    /// Host of the service, as a full DNS name.
    #[schemars(transform = crate::schema::host)]
    pub host: String,
    /// How connections to the servers are made and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_policy: Option<TrafficPolicy>,
}

/// Connections to the servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// Bounds of the pool of connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPool>,
}

/// Pool of connections to each server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionPool {
    /// As in Istio's DestinationRule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpSettings>,
    /// What is Redis' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisPool>,
}

/// TCP settings, as in Istio's DestinationRule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpSettings {
    /// Connections to a server at most; absent or 0 = no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_connections: Option<i32>,
    /// How long a connection may take; default `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::duration)]
    pub connect_timeout: Option<String>,
    /// Keepalive; absent = the operating system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_keepalive: Option<TcpKeepalive>,
}

/// TCP keepalive; what is absent is the operating system's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TcpKeepalive {
    /// Probes without an answer before the connection is dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub probes: Option<i64>,
    /// Silence before the first probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::duration)]
    pub time: Option<String>,
    /// Time between two keep-alive probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::duration)]
    pub interval: Option<String>,
}

/// What is Redis' own of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::redis_pool)]
pub struct RedisPool {
    /// Single servers or a Redis cluster.
    #[serde(default)]
    pub mode: Mode,
    /// What to log in with at the servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// With mode `CLUSTER`: servers to ask first, `host` or `host:port`; empty = the host itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 261)))]
    pub discovery_endpoints: Vec<String>,
}

/// Single servers or a Redis cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    /// Keys are spread over the servers by the proxy.
    #[default]
    Proxy,
    /// Keys are where the Redis cluster has them.
    Cluster,
}
