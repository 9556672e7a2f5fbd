//! Access logs to Trimtab.

use serde_json::{Value, json};

use super::clusters::ACCESS_LOG;
use super::{HTTP_LOG, ProxyOptions, TCP_LOG};

const GRPC: &str = "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.";
/// When a request that is still open is logged.
pub(super) const FIRST_LOOK: &str = "0.5s";
/// Later looks at the same request are not logged.
const LAST_LOOK_MS: u32 = 1400;

/// Entries of requests: the end of each, and the first looks at those that last.
pub(super) fn http(options: &ProxyOptions) -> Vec<Value> {
    if options.access_log.is_empty() {
        return Vec::new();
    }
    let is = |kind: &str| json!({"log_type_filter": {"types": [kind]}});
    let young = json!({"duration_filter": {"comparison": {
        "op": "LE",
        "value": {"default_value": LAST_LOOK_MS, "runtime_key": "trimtab.fallback.last_look"},
    }}});
    let first_looks = json!({"and_filter": {"filters": [is("DownstreamPeriodic"), young]}});
    vec![json!({
        "name": "envoy.access_loggers.http_grpc",
        "filter": {"or_filter": {"filters": [is("DownstreamEnd"), first_looks]}},
        "typed_config": {
            "@type": format!("{GRPC}HttpGrpcAccessLogConfig"),
            "common_config": common(options, HTTP_LOG),
        },
    })]
}

/// Entries of connections.
pub(super) fn tcp(options: &ProxyOptions) -> Vec<Value> {
    if options.access_log.is_empty() {
        return Vec::new();
    }
    let mut common = common(options, TCP_LOG);
    // The entry's own TLS fields are those of TLS that ends here.
    common["custom_tags"] = json!([{"tag": "sni", "value": "%REQUESTED_SERVER_NAME%"}]);
    vec![json!({
        "name": "envoy.access_loggers.tcp_grpc",
        "typed_config": {"@type": format!("{GRPC}TcpGrpcAccessLogConfig"), "common_config": common},
    })]
}

fn common(options: &ProxyOptions, name: &str) -> Value {
    // Envoy knows seconds only.
    let flush = options.access_log_flush.as_secs_f64();
    json!({
        "log_name": name,
        "transport_api_version": "V3",
        "buffer_flush_interval": format!("{flush}s"),
        "grpc_service": {"envoy_grpc": {"cluster_name": ACCESS_LOG}},
    })
}
