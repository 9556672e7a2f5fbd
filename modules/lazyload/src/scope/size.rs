//! How much configuration a scope is, estimated.
//!
//! ```text
//! bytes = Σ services Σ ports (CLUSTER + endpoints · ENDPOINT + [HTTP] · VIRTUAL_HOST + [TCP] · LISTENER)
//!       + Σ VirtualServices (rules · ROUTE)
//! ```
//! A port without a protocol counts as HTTP and as TCP, as istiod treats it. The constants are rounded sizes of what istiod
//! sends for a plain service with mutual TLS, in encoded protobuf. They are for comparing scopes, not for sizing memory.

use super::services::{Port, Protocol};

/// A cluster with its transport sockets and metadata, in bytes.
pub const CLUSTER: u64 = 2000;
/// An endpoint with its metadata, in bytes.
pub const ENDPOINT: u64 = 300;
/// A virtual host with its domains and the default route, in bytes.
pub const VIRTUAL_HOST: u64 = 900;
/// An outbound listener or filter chain, in bytes.
pub const LISTENER: u64 = 1500;
/// A rule of a VirtualService, in bytes.
pub const ROUTE: u64 = 500;

/// A service.
pub fn of_service(ports: &[Port], endpoints: usize) -> u64 {
    let endpoints = u64::try_from(endpoints).unwrap_or(u64::MAX);
    let per_port = |port: &Port| {
        let surface = match port.protocol {
            Protocol::Http | Protocol::Http2 => VIRTUAL_HOST,
            Protocol::Tls | Protocol::Tcp => LISTENER,
            Protocol::Auto => VIRTUAL_HOST + LISTENER,
        };
        CLUSTER + surface + endpoints.saturating_mul(ENDPOINT)
    };
    ports.iter().map(per_port).sum()
}

/// The rules of a VirtualService.
pub fn of_rules(rules: usize) -> u64 {
    u64::try_from(rules)
        .unwrap_or(u64::MAX)
        .saturating_mul(ROUTE)
}
