//! RedisService: how clients are served.

// printcolumn and category are repeated on purpose.
#![allow(clippy::duplicated_attributes)]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Auth;
use super::schema;
use crate::status::ObjectStatus;

/// Settings, routes by key prefix and faults of Redis services.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "redis.aeraki.io",
    version = "v1alpha1",
    kind = "RedisService",
    plural = "redisservices",
    shortname = "rsvc",
    category = "redis-aeraki-io",
    category = "trimtab",
    namespaced,
    status = "ObjectStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Settings, routes by key prefix and faults of Redis services.",
    printcolumn(name = "Hosts", type_ = "string", json_path = ".spec.host[0]"),
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
#[schemars(transform = schema::redis_service)]
pub struct RedisServiceSpec {
    /// Hosts of the services, as full DNS names. The services are in the namespace of this object.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 255)))]
    pub host: Vec<String>,
    /// How commands are handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// Routes by key prefix, the longest prefix wins; empty = everything to the service itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub redis: Vec<Route>,
    /// Faults that are injected into answers, for tests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub faults: Vec<Fault>,
}

/// How commands are handled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of Aeraki's API"
)]
pub struct Settings {
    /// Prefixes match in any case.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub case_insensitive: bool,
    /// How long one command may take; default `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::duration, extend("default" = super::DEFAULT_OP_TIMEOUT))]
    pub op_timeout: Option<String>,
    /// Whether Envoy keeps a counter for each Redis command.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enable_command_stats: bool,
    /// Bytes that are gathered before they are sent upstream; 0 = none, each command at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub max_buffer_size_before_flush: Option<i64>,
    /// How long commands are gathered at most; Envoy's default `3ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::duration_or_zero)]
    pub buffer_flush_timeout: Option<String>,
    /// Connections that each worker opens to servers known by redirection only; Envoy's default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub max_upstream_unknown_connections: Option<i64>,
    /// Keys with the same `{tag}` go to the same server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enable_hashtagging: bool,
    /// MOVED and ASK answers are followed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enable_redirection: bool,
    /// Which servers answer reads.
    #[serde(default, skip_serializing_if = "is_master")]
    pub read_policy: ReadPolicy,
    /// What clients must log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's skip_serializing_if passes a reference
fn is_master(policy: &ReadPolicy) -> bool {
    *policy == ReadPolicy::Master
}

/// Which servers answer reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReadPolicy {
    /// The primary.
    #[default]
    Master,
    /// The primary, a replica while there is none.
    PreferMaster,
    /// A replica.
    Replica,
    /// A replica, the primary while there is none.
    PreferReplica,
    /// Any.
    Any,
}

/// Keys with a prefix go to another service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Route {
    /// Absent, or without a key: every key that no other route matches.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<RouteMatch>,
    /// Where the requests go.
    pub route: RouteDestination,
    /// Get a copy of the commands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub mirror: Vec<Mirror>,
}

/// Which keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteMatch {
    /// Keys that the route is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyMatch>,
}

/// A key prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyMatch {
    /// Keys that begin with this text; empty: every key.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub prefix: String,
    /// The prefix is taken off the key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remove_prefix: bool,
}

/// A service and its port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteDestination {
    /// Full DNS name of the service.
    #[schemars(transform = crate::schema::host)]
    pub host: String,
    /// Absent or 0: the port with the same name, else with the same number, as the one that clients call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub port: Option<i32>,
}

/// A copy of the commands goes to another service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// Where the requests go.
    pub route: RouteDestination,
    /// Share of commands; absent = 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentage: Option<Percent>,
    /// Only writes are copied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclude_read_commands: bool,
}

/// A percentage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Percent {
    /// 0 to 100, with decimals.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub value: f64,
}

/// A fault to inject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    /// What is done to the answer.
    #[serde(default)]
    pub r#type: FaultType,
    /// Share of commands; absent = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentage: Option<Percent>,
    /// How long to wait first; absent = not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::duration_or_zero)]
    pub delay: Option<String>,
    /// Commands that get it; empty = all but `auth` and `ping`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 64)))]
    pub commands: Vec<String>,
}

/// Kinds of [`Fault`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FaultType {
    /// The command waits.
    #[default]
    Delay,
    /// The command fails, after `delay` if one is set.
    Error,
}
