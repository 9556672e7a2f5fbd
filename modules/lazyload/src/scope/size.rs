//! How much configuration a scope is, predicted.
//!
//! ```text
//! bytes = PROXY + Σ services Σ ports (CLUSTER + endpoints · ENDPOINT + [HTTP] · VIRTUAL_HOST + [TCP] · LISTENER)
//!       + Σ VirtualServices (rules · ROUTE)
//! ```
//! A port without a protocol counts as HTTP and as TCP, as istiod treats it. The constants are what istiod 1.31 sends of a
//! plain service with automatic mutual TLS, in encoded protobuf: `make bench-savings` measures them and compares.

use super::services::{Port, Protocol};

/// What each proxy has: its own ports, the listener of all connections, and clusters for what is not known.
pub const PROXY: u64 = 12_600;
/// A cluster with its transport sockets and metadata, and the head of its endpoints, in bytes.
pub const CLUSTER: u64 = 860;
/// An endpoint with its metadata, in bytes.
pub const ENDPOINT: u64 = 85;
/// A virtual host with its domains and the default route, in bytes.
pub const VIRTUAL_HOST: u64 = 480;
/// An outbound listener or filter chain, in bytes.
pub const LISTENER: u64 = 350;
/// A rule of a VirtualService, in bytes.
pub const ROUTE: u64 = 500;
/// Memory that a stock Envoy 1.40 allocates for a service of one port, its series included, in bytes; without certificates.
pub const MEMORY: u64 = 71_000;

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

/// What so many services take of a proxy's memory, in bytes.
pub fn memory(services: i64) -> i64 {
    services.saturating_mul(i64::try_from(MEMORY).unwrap_or(i64::MAX))
}
