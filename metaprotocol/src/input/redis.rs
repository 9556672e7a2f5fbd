//! Redis objects and Dubbo policies as plain types.

use std::fmt;

use serde::{Deserialize, Serialize};
use trimtab_crds::dubbo::DubboAuthorizationPolicySpec;

use super::Destination;
use crate::owner::Owner;
use crate::span::Span;

/// A RedisService for one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisService {
    /// The object.
    pub owner: Owner,
    /// Settings of the filter.
    #[serde(default)]
    pub settings: RedisSettings,
    /// Prefix routes; empty: all to the service itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RedisRoute>,
    /// Faults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<RedisFault>,
}

/// Settings of the Redis filter.
#[allow(clippy::struct_excessive_bools, reason = "as in the user's object")]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RedisSettings {
    /// Prefixes are compared without case.
    pub case_insensitive: bool,
    /// Absent: 60 s.
    pub op_timeout: Option<Span>,
    /// Series per command.
    pub enable_command_stats: bool,
    /// Bytes.
    pub max_buffer_size_before_flush: u32,
    /// Absent: Envoy's default.
    pub buffer_flush_timeout: Option<Span>,
    /// Connections to nodes that a redirection names.
    pub max_upstream_unknown_connections: Option<u32>,
    /// Hash by the part in braces.
    pub enable_hashtagging: bool,
    /// Follow MOVED and ASK.
    pub enable_redirection: bool,
    /// Who is read from.
    pub read_policy: RedisReadPolicy,
    /// What callers must send.
    pub auth: Option<RedisAuth>,
}

/// Who is read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedisReadPolicy {
    /// The master only.
    #[default]
    Master,
    /// The master, else a replica.
    PreferMaster,
    /// Replicas only.
    Replica,
    /// A replica, else the master.
    PreferReplica,
    /// Any.
    Any,
}

/// One prefix route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisRoute {
    /// Prefix of keys; `None`: everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Take the prefix off.
    #[serde(default)]
    pub remove_prefix: bool,
    /// Where to; its port is the one resolved by name or number.
    pub destination: Destination,
    /// Copies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<RedisMirror>,
}

/// A copy of commands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisMirror {
    /// Where to; with its own port.
    pub destination: Destination,
    /// At most 100; absent: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// Only writes.
    #[serde(default)]
    pub exclude_read_commands: bool,
}

/// A fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisFault {
    /// Delay or error.
    #[serde(default, rename = "type")]
    pub kind: RedisFaultKind,
    /// At most 100; absent: no command has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// How long the command waits first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// Empty: all commands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
}

/// Kind of a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedisFaultKind {
    /// Answers late.
    #[default]
    Delay,
    /// Answers with an error.
    Error,
}

/// A RedisDestination.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisDestination {
    /// The object.
    pub owner: Owner,
    /// One proxy address, or a cluster that is discovered.
    #[serde(default)]
    pub mode: RedisMode,
    /// What we send to the servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<RedisAuth>,
    /// `host[:port]` for mode CLUSTER; empty: the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discovery_endpoints: Vec<String>,
    /// TCP settings.
    #[serde(default)]
    pub connection: RedisConnection,
}

/// How servers are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedisMode {
    /// Endpoints of the service; keys are spread by hash.
    #[default]
    Proxy,
    /// A Redis cluster.
    Cluster,
}

/// TCP settings of a RedisDestination.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RedisConnection {
    /// At most so many connections.
    pub max_connections: Option<u32>,
    /// Time to connect.
    pub connect_timeout: Option<Span>,
    /// Keepalive.
    pub tcp_keepalive: Option<TcpKeepalive>,
}

/// TCP keepalive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TcpKeepalive {
    /// Lost probes.
    pub probes: Option<u32>,
    /// Idle time.
    pub time: Option<Span>,
    /// Between probes.
    pub interval: Option<Span>,
}

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum RedisAuth {
    /// A Kubernetes Secret.
    #[serde(rename_all = "camelCase")]
    Secret {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// Field of the password; absent: `password`, then `token`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password_field: Option<String>,
        /// Field of the user name; absent: `username` where the Secret has it, else none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        username_field: Option<String>,
        /// What the Secret holds, where it had to be read. Never written out with the input.
        #[serde(default, skip_serializing)]
        resolved: Option<Credentials>,
    },
    /// In the user's object.
    Plain {
        /// The pair. Never written out with the input.
        #[serde(skip_serializing, default)]
        credentials: Credentials,
    },
}

/// A user name and a password; not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Credentials {
    /// Empty: none.
    pub username: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// A DubboAuthorizationPolicy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DubboPolicy {
    /// The object.
    pub owner: Owner,
    /// What it says.
    pub spec: DubboAuthorizationPolicySpec,
}
