//! Unknown TCP and TLS connections: the PROXY protocol carries caller and destination to the fallback.

use serde_json::{Value, json};

use super::envoy_filter::Patches;
use super::{FallbackInput, PROXY_METADATA, Place, TCP_PORT};

/// Name of the cluster that is added to each proxy.
pub const TCP_CLUSTER: &str = "trimtab-fallback-tcp";
const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";
const TCP_PROXY_TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const PROXY_PROTOCOL: &str = "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";
const RAW_BUFFER: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
/// Istio's listener of all connections that leave, and its filter chain of those that no other listener takes.
const CATCH_ALL: (&str, &str) = ("virtualOutbound", "virtualOutbound-catchall-tcp");
/// Istio's filter chain for what is no HTTP on an HTTP port.
const NOT_HTTP: &str = "PassthroughFilterChain";
/// As for HTTP: what is served on these addresses belongs to the machine of the caller.
const LINK_LOCAL: [(&str, u32); 3] = [("169.254.0.0", 16), ("fe80::", 10), ("fd00:ec2::254", 128)];

/// The patches, in order.
pub(super) fn patches(input: &FallbackInput, place: &Place, patches: &mut Patches<'_>) {
    patches.push(
        "CLUSTER",
        None,
        "ADD",
        &json!({}),
        &cluster(&input.host(&place.namespace)),
    );
    let own = own_cluster(input.config.fallback.registry_only == Some(true));
    let (listener, chain) = CATCH_ALL;
    patches.push(
        "FILTER_CHAIN",
        None,
        "ADD",
        &json!({"listener": {"name": listener}}),
        &link_local(own),
    );
    // The later patch wins, so that the fallback's own proxies keep what Istio gave them: no loop.
    for (cluster, metadata) in [(TCP_CLUSTER, None), (own, Some(PROXY_METADATA))] {
        let catch_all = filter_match(&json!({"name": listener}), chain);
        patches.push(
            "NETWORK_FILTER",
            metadata,
            "MERGE",
            &catch_all,
            &to(cluster),
        );
        for port in input.all_ports() {
            let not_http = filter_match(&json!({"portNumber": port}), NOT_HTTP);
            patches.push("NETWORK_FILTER", metadata, "MERGE", &not_http, &to(cluster));
        }
    }
}

/// The patches that leave TCP of pods to Istio, by what their own Sidecar says of unknown hosts.
pub(super) fn undo(input: &FallbackInput, registry_only: bool, patches: &mut Patches<'_>) {
    let (listener, chain) = CATCH_ALL;
    let own = to(own_cluster(registry_only));
    let catch_all = filter_match(&json!({"name": listener}), chain);
    patches.push("NETWORK_FILTER", None, "MERGE", &catch_all, &own);
    for port in input.all_ports() {
        let not_http = filter_match(&json!({"portNumber": port}), NOT_HTTP);
        patches.push("NETWORK_FILTER", None, "MERGE", &not_http, &own);
    }
}

/// Where Istio sends what it does not know.
fn own_cluster(registry_only: bool) -> &'static str {
    if registry_only {
        "BlackHoleCluster"
    } else {
        "PassthroughCluster"
    }
}

fn filter_match(listener: &Value, chain: &str) -> Value {
    let mut listener = listener.clone();
    listener["filterChain"] = json!({"name": chain, "filter": {"name": TCP_PROXY}});
    json!({"listener": listener})
}

fn to(cluster: &str) -> Value {
    let mut config = json!({"@type": TCP_PROXY_TYPE, "cluster": cluster});
    if cluster == TCP_CLUSTER {
        config["max_connect_attempts"] = json!(3);
    }
    json!({"name": TCP_PROXY, "typed_config": config})
}

fn link_local(cluster: &str) -> Value {
    let ranges: Vec<Value> = LINK_LOCAL
        .iter()
        .map(|(prefix, length)| json!({"address_prefix": prefix, "prefix_len": length}))
        .collect();
    json!({
        "name": "trimtab-link-local",
        "filter_chain_match": {"prefix_ranges": ranges},
        "filters": [{
            "name": TCP_PROXY,
            "typed_config": {"@type": TCP_PROXY_TYPE, "stat_prefix": cluster, "cluster": cluster},
        }],
    })
}

/// By EDS, so that a connection goes to a pod that is ready and a pod that leaves is known at once. Plain text with a
/// PROXY protocol header: mTLS of the mesh would put the header inside, where Istio's inbound listener does not look.
fn cluster(host: &str) -> Value {
    json!({
        "name": TCP_CLUSTER,
        "type": "EDS",
        "connect_timeout": "5s",
        "eds_cluster_config": {
            "eds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
            "service_name": format!("outbound|{TCP_PORT}||{host}"),
        },
        "circuit_breakers": {"thresholds": [{
            "max_connections": u32::MAX,
            "max_pending_requests": u32::MAX,
            "max_requests": u32::MAX,
            "max_retries": u32::MAX,
        }]},
        "transport_socket": {
            "name": "envoy.transport_sockets.upstream_proxy_protocol",
            "typed_config": {
                "@type": PROXY_PROTOCOL,
                "config": {"version": "V2"},
                "transport_socket": {
                    "name": "envoy.transport_sockets.raw_buffer",
                    "typed_config": {"@type": RAW_BUFFER},
                },
            },
        },
    })
}
