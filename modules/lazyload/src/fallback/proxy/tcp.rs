//! The TCP listener. TLS passes as it is.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::clusters::TCP_DESTINATION;
use super::{ProxyOptions, address, logs, ranges};

const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions.filters.";

pub(super) fn listener(options: &ProxyOptions, at: SocketAddr) -> Value {
    let refused: Vec<Value> = ranges(options)
        .into_iter()
        .map(|range| json!({"destination_ip": range}))
        .collect();
    let mut filters = Vec::new();
    if !refused.is_empty() {
        filters.push(json!({
            "name": "envoy.filters.network.rbac",
            "typed_config": {
                "@type": format!("{EXTENSIONS}network.rbac.v3.RBAC"),
                "stat_prefix": "refused.",
                "rules": {"action": "DENY", "policies": {"refused": {
                    "permissions": [{"or_rules": {"rules": refused}}],
                    "principals": [{"any": true}],
                }}},
            },
        }));
    }
    filters.push(json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": format!("{EXTENSIONS}network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "tcp",
            "cluster": TCP_DESTINATION,
            "idle_timeout": "0s",
            "access_log": logs::tcp(options),
            "access_log_options": {"flush_access_log_on_connected": true},
        },
    }));
    json!({
        "name": "tcp",
        "address": address(at),
        // Some protocols wait for the server to speak first: then there is no TLS to look at.
        "listener_filters_timeout": "0.2s",
        "continue_on_listener_filters_timeout": true,
        "listener_filters": [
            {"name": "envoy.filters.listener.proxy_protocol",
             "typed_config": {"@type": format!("{EXTENSIONS}listener.proxy_protocol.v3.ProxyProtocol")}},
            {"name": "envoy.filters.listener.tls_inspector",
             "typed_config": {"@type": format!("{EXTENSIONS}listener.tls_inspector.v3.TlsInspector")}},
        ],
        "filter_chains": [{"filters": filters}],
    })
}
