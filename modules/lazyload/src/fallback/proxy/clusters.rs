//! Where the fallback connects to.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::address;

pub(super) const DESTINATION: &str = "destination";
pub(super) const TCP_DESTINATION: &str = "tcp-destination";
pub(super) const BY_NAME: &str = "by-name";
pub(super) const ADMIN: &str = "admin";
pub(super) const ACCESS_LOG: &str = "trimtab-access-log";

/// Where Trimtab takes access logs unless the address says otherwise.
const ACCESS_LOG_PORT: u16 = 8082;

const HTTP_OPTIONS: &str =
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const HTTP_OPTIONS_NAME: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const DYNAMIC: &str =
    "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig";

/// HTTP to the address that the application called, in the protocol that it spoke.
pub(super) fn destination() -> Value {
    with_http(original_destination(DESTINATION))
}

/// TCP to the address of the PROXY protocol header.
pub(super) fn tcp_destination() -> Value {
    original_destination(TCP_DESTINATION)
}

/// HTTP to the host, found by DNS.
pub(super) fn by_name() -> Value {
    let cluster = json!({
        "name": BY_NAME,
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "circuit_breakers": no_bounds(),
        "cluster_type": {
            "name": "envoy.clusters.dynamic_forward_proxy",
            "typed_config": {"@type": DYNAMIC, "dns_cache_config": dns_cache()},
        },
    });
    let mut cluster = with_http(cluster);
    // Envoy asks for it, although nothing here speaks TLS.
    cluster["typed_extension_protocol_options"][HTTP_OPTIONS_NAME]["upstream_http_protocol_options"] =
        json!({"auto_sni": true, "auto_san_validation": true});
    cluster
}

/// One cache for the filter and the cluster, as Envoy asks for.
pub(super) fn dns_cache() -> Value {
    json!({"name": "hosts", "dns_lookup_family": "ALL"})
}

pub(super) fn admin(at: SocketAddr) -> Value {
    fixed(ADMIN, "STATIC", &address(at))
}

/// Trimtab's server; by DNS unless it is an address.
pub(super) fn access_log(at: &str) -> Value {
    let mut cluster = if let Ok(at) = at.parse::<SocketAddr>() {
        fixed(ACCESS_LOG, "STATIC", &address(at))
    } else {
        let (host, port) = at.rsplit_once(':').unwrap_or((at, ""));
        let port: u16 = port.parse().unwrap_or(ACCESS_LOG_PORT);
        let at = json!({"socket_address": {"address": host, "port_value": port}});
        fixed(ACCESS_LOG, "STRICT_DNS", &at)
    };
    cluster["typed_extension_protocol_options"] =
        http_options(&json!({"explicit_http_config": {"http2_protocol_options": {
            "connection_keepalive": {"interval": "30s", "timeout": "5s"},
        }}}));
    cluster
}

fn original_destination(name: &str) -> Value {
    json!({
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "circuit_breakers": no_bounds(),
    })
}

fn fixed(name: &str, kind: &str, at: &Value) -> Value {
    json!({
        "name": name,
        "type": kind,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": at}}]},
        ]},
    })
}

/// The client's protocol is kept, connections are kept for further calls.
fn with_http(mut cluster: Value) -> Value {
    cluster["typed_extension_protocol_options"] = http_options(&json!({
        "use_downstream_protocol_config": {
            "http_protocol_options": {"enable_trailers": true},
            "http2_protocol_options": {"allow_connect": true},
        },
        "common_http_protocol_options": {"idle_timeout": "60s"},
    }));
    cluster
}

fn http_options(options: &Value) -> Value {
    let mut options = options.clone();
    options["@type"] = json!(HTTP_OPTIONS);
    json!({HTTP_OPTIONS_NAME: options})
}

/// Envoy's default of 1024 would refuse calls of a mesh in its first minute.
fn no_bounds() -> Value {
    json!({"thresholds": [{
        "max_connections": u32::MAX,
        "max_pending_requests": u32::MAX,
        "max_requests": u32::MAX,
        "max_retries": 1024,
    }]})
}
