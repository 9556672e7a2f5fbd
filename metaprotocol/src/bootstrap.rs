//! What Aeraki's proxies add to their bootstrap: the cluster of the xDS server.

use serde_json::{Value, json};

/// ConfigMap that Aeraki's proxies name in `sidecar.istio.io/bootstrapOverride`. They do not start without it.
pub const CONFIG_MAP: &str = "aeraki-bootstrap-config";
/// Its key.
pub const KEY: &str = "custom_bootstrap.json";

/// The xDS server as Aeraki's proxies see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdsServer {
    /// Cluster that the filters name, `metaprotocol.aerakiXdsCluster`.
    pub cluster: String,
    /// Host name.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Mutual TLS with the proxy's own certificate of the mesh.
    pub tls: bool,
}

/// What is merged into the bootstrap of a sidecar.
pub fn custom_bootstrap(server: &XdsServer) -> Value {
    let XdsServer {
        cluster,
        host,
        port,
        tls,
    } = server;
    let mut upstream = json!({
        "name": cluster,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
        // One stream for each listener: Envoy's default of 1,024 would be reached.
        "circuit_breakers": {"thresholds": [breaker("DEFAULT"), breaker("HIGH")]},
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 300}},
        "load_assignment": {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}},
        ]}]},
    });
    if *tls {
        upstream["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {
                    "validation_context_sds_secret_config": secret("ROOTCA"),
                    "tls_certificate_sds_secret_configs": [secret("default")],
                },
            },
        });
    }
    json!({"static_resources": {"clusters": [upstream]}})
}

fn breaker(priority: &str) -> Value {
    json!({
        "priority": priority, "max_connections": 100_000, "max_pending_requests": 100_000,
        "max_requests": 100_000, "max_retries": 100_000,
    })
}

/// A secret that the agent beside the proxy has.
fn secret(name: &str) -> Value {
    json!({
        "name": name,
        "sds_config": {
            "resource_api_version": "V3",
            "initial_fetch_timeout": "0s",
            "api_config_source": {
                "api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
            },
        },
    })
}

/// The text of the ConfigMap's key.
pub fn text(server: &XdsServer) -> String {
    format!("{:#}", custom_bootstrap(server))
}

/// The ConfigMap of a namespace.
pub fn config_map(namespace: &str, server: &XdsServer) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "namespace": namespace},
        "data": {KEY: text(server)},
    })
}
