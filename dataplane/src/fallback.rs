//! The way of calls that a pod's proxy has no route for: through a fallback proxy, which has them all.

use std::net::IpAddr;

use serde_json::{Map, Value, json};
use trimtab_kit::envoyfilter::typed_struct;

use crate::address::{XdsAddress, socket};
use crate::clusters::{CONNECT_TIMEOUT, HTTP_OPTIONS};
use crate::input::{FallbackInput, HttpLimit, PodInput};
use crate::routes::RETRY_ON;

/// Group of the fallback proxies: of the one on the first address, and with `/ADDRESS` behind it of the one there.
pub const FALLBACK_GROUP: &str = "trimtab/fallback";
/// Cluster of the receiver of access logs. Only fallback proxies are served it.
pub const ACCESS_LOG_CLUSTER: &str = "trimtab-access-log";
/// Name of the access logs.
pub const ACCESS_LOG_NAME: &str = "trimtab";
/// Custom tag of entries about a port of one service: its host.
pub const HOST_TAG: &str = "trimtab.host";
/// Custom tag of all entries: the port of the service.
pub const PORT_TAG: &str = "trimtab.port";

const FILTER_CONFIG: &str = "type.googleapis.com/envoy.config.route.v3.FilterConfig";
const OTHER_HOST: &str =
    "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
const ACCESS_LOGS: &str = "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3";
/// Longest time to connect to a fallback proxy, which is near; then another one is tried.
const REACHED_WITHIN: &str = "1s";

/// The fallback proxies as one pod reaches them.
pub(super) struct FallbackPath {
    to: Vec<IpAddr>,
    from: IpAddr,
    offset: u16,
}

/// Name of the cluster for the calls to a port.
pub(super) fn cluster_of(port: u16) -> String {
    format!("trimtab-fallback|{port}")
}

impl FallbackPath {
    /// Fallback proxies with an address of another family than the pod's cannot be reached from it.
    pub(super) fn new(fallback: &FallbackInput, pod: &PodInput, offset: u16) -> Self {
        let to = fallback.addresses.iter().copied();
        Self {
            to: to
                .filter(|a| a.is_ipv4() == pod.address.is_ipv4())
                .collect(),
            from: pod.address,
            offset,
        }
    }

    /// Attempts to begin a call or to connect: each proxy twice, as others may take a turn in between.
    pub(super) fn attempts(&self) -> usize {
        2 * self.to.len().max(1)
    }

    /// A cluster that leads to the fallback proxies' listeners for a port of services. It is no EDS cluster, as those
    /// proxies are known by the addresses that the operator was started with.
    pub(super) fn cluster(&self, name: &str, port: u16) -> Value {
        let most = u32::MAX;
        let options = json!({"use_downstream_protocol_config":
            {"http_protocol_options": {}, "http2_protocol_options": {}}});
        json!({
            "name": name,
            "alt_stat_name": name.replace('.', "_"),
            "type": "STATIC",
            "connect_timeout": REACHED_WITHIN,
            // So that another attempt to connect goes to another proxy.
            "lb_policy": "ROUND_ROBIN",
            "circuit_breakers": {"thresholds": [{
                "max_connections": most,
                "max_pending_requests": most,
                "max_requests": most,
                "max_retries": most,
            }]},
            // Only what the way to a proxy says of it: answers are those of servers behind it.
            "outlier_detection": {
                "split_external_local_origin_errors": true,
                "consecutive_local_origin_failure": 1,
                "enforcing_consecutive_5xx": 0,
                "enforcing_success_rate": 0,
                "enforcing_local_origin_success_rate": 0,
                // Short, as one that is back may be the only one soon.
                "interval": "0.200s",
                "base_ejection_time": "1s",
                "max_ejection_time": "1s",
                "max_ejection_percent": 100,
            },
            // The fallback proxy sees which pod calls.
            "upstream_bind_config": {"source_address": {"address": self.from.to_string(), "port_value": 0}},
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed_struct(HTTP_OPTIONS, &options),
            },
            "load_assignment": self.endpoints(name, port),
        })
    }

    /// The same in the place of a service's own cluster, whose endpoints are a resource: [`Self::endpoints`] under the name of
    /// [`cluster_of`].
    ///
    /// A proxy that starts never becomes ready when a cluster that waits for its endpoints turns into one of a kind that
    /// does not wait (Envoy 1.40), as happens when its pod gets its first Sidecar at that moment.
    pub(super) fn cluster_in_place(&self, name: &str, port: u16) -> Value {
        let mut cluster = self.cluster(name, port);
        if let Some(fields) = cluster.as_object_mut() {
            fields.remove("load_assignment");
        }
        cluster["type"] = json!("EDS");
        cluster["eds_cluster_config"] = json!({
            "eds_config": {"ads": {}, "resource_api_version": "V3"},
            "service_name": cluster_of(port),
        });
        cluster
    }

    /// The fallback proxies' listeners for a port of services.
    pub(super) fn endpoints(&self, name: &str, port: u16) -> Value {
        let number = port.saturating_add(self.offset);
        let endpoint =
            |a: &IpAddr| json!({"endpoint": {"address": socket(&a.to_string(), number)}});
        let endpoints: Vec<Value> = self.to.iter().map(endpoint).collect();
        json!({"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]})
    }

    /// The virtual host for all hosts that no other one takes. Limits are held by the fallback proxy, and not twice.
    pub(super) fn virtual_host(&self, port: u16, limits: &[&HttpLimit]) -> Value {
        let mut retry = json!({"retry_on": RETRY_ON, "num_retries": self.attempts()});
        if self.to.len() > 1 {
            retry["host_selection_retry_max_attempts"] = json!(self.attempts());
            retry["retry_host_predicate"] = json!([{
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": typed_struct(OTHER_HOST, &json!({})),
            }]);
        }
        let mut host = json!({
            "name": "trimtab-fallback",
            "domains": ["*"],
            "routes": [{
                "name": "trimtab-fallback",
                "match": {"prefix": "/"},
                "route": {"cluster": cluster_of(port), "timeout": "0s", "retry_policy": retry},
            }],
        });
        let off: Map<String, Value> = limits
            .iter()
            .map(|l| {
                (
                    l.filter.clone(),
                    json!({"@type": FILTER_CONFIG, "disabled": true}),
                )
            })
            .collect();
        if !off.is_empty() {
            host["typed_per_filter_config"] = Value::Object(off);
        }
        host
    }
}

/// The access log of HTTP or, with a host, of connections to one service.
pub(super) fn access_log(host: Option<&str>, port: u16) -> Value {
    let tag = |name: &str, value: &str| json!({"tag": name, "literal": {"value": value}});
    let mut tags = vec![tag(PORT_TAG, &port.to_string())];
    tags.extend(host.map(|h| tag(HOST_TAG, h)));
    let common = json!({
        "log_name": ACCESS_LOG_NAME,
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": ACCESS_LOG_CLUSTER}},
        "buffer_flush_interval": "0.2s",
        "custom_tags": tags,
    });
    let (name, message) = match host {
        None => ("envoy.access_loggers.http_grpc", "HttpGrpcAccessLogConfig"),
        Some(_) => ("envoy.access_loggers.tcp_grpc", "TcpGrpcAccessLogConfig"),
    };
    json!({
        "name": name,
        "typed_config": typed_struct(
            &format!("{ACCESS_LOGS}.{message}"), &json!({"common_config": common})),
    })
}

/// The cluster of the receiver of access logs.
pub(super) fn access_log_cluster(address: &XdsAddress) -> Value {
    let by_name = address.host.parse::<IpAddr>().is_err();
    let options = json!({"explicit_http_config": {"http2_protocol_options": {}}});
    let mut out = json!({
        "name": ACCESS_LOG_CLUSTER,
        "type": if by_name { "STRICT_DNS" } else { "STATIC" },
        "connect_timeout": CONNECT_TIMEOUT,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed_struct(HTTP_OPTIONS, &options),
        },
        "load_assignment": {"cluster_name": ACCESS_LOG_CLUSTER, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": socket(&address.host, address.port)}},
        ]}]},
    });
    if by_name {
        out["dns_lookup_family"] = json!("V4_PREFERRED");
    }
    out
}
