//! The HTTP listener and that of the probes.

use serde_json::{Map, Value, json};

use super::super::routes::{DESTINATION_HEADER, SOURCE_HEADER, SOURCE_NAMESPACE_HEADER};
use super::clusters::{ADMIN, BY_NAME, DESTINATION, dns_cache};
use super::{LIVE, METADATA, ProxyOptions, READY, address, logs, ranges};

const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions.filters.http.";
const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const UPSTREAM_ADDRESS: &str =
    "type.googleapis.com/envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher";
/// The object in which a cluster of type ORIGINAL_DST looks for its destination first.
const DESTINATION_STATE: &str = "envoy.network.transport_socket.original_dst_address";
const RBAC: &str = "envoy.filters.http.rbac";
/// `1.2.3.4:80` or `[::1]:80`.
const ADDRESS: &str = r"([0-9]{1,3}\.){3}[0-9]{1,3}:[0-9]{1,5}|\[[0-9a-fA-F:.]+\]:[0-9]{1,5}";
/// What the fallback writes into `via` of requests that it sends by name (RFC 9110, section 7.6.3).
const VIA: &str = "1.1 trimtab-fallback";
/// Callers' proxies keep connections for less time, so that none is closed under a request.
const IDLE: &str = "7200s";

/// A short host means the caller's namespace, which only the caller's resolver knew.
const COMPLETE_HOST: &str = r#"function envoy_on_request(handle)
  local headers = handle:headers()
  local host = headers:get(":authority")
  local namespace = headers:get("slime-source-ns")
  if host == nil or namespace == nil or not namespace:match("^[a-z0-9][a-z0-9-]*$") then
    return
  end
  local name, port = host:match("^([%w_-]+)(:?%d*)$")
  if name ~= nil and name ~= "localhost" then
    headers:replace(":authority", name .. "." .. namespace .. port)
  end
end
"#;

pub(super) fn listener(options: &ProxyOptions) -> Value {
    let mut manager = manager("http", &routes(options), &http_filters(options));
    manager["access_log"] = json!(logs::http(options));
    manager["access_log_options"] = json!({"access_log_flush_interval": logs::FIRST_LOOK});
    // What the client sent arrives as it was sent, and the server's answer too.
    manager["server_header_transformation"] = json!("PASS_THROUGH");
    manager["generate_request_id"] = json!(false);
    manager["skip_xff_append"] = json!(true);
    manager["upgrade_configs"] = json!([{"upgrade_type": "websocket"}]);
    manager["http_protocol_options"] = json!({"enable_trailers": true});
    manager["http2_protocol_options"] = json!({"allow_connect": true});
    json!({
        "name": "http",
        "address": address(options.http),
        "filter_chains": [{"filters": [network_filter(&manager)]}],
    })
}

/// `/healthz/ready` says no while the proxy drains; the admin interface is reached for metrics only.
pub(super) fn probe_listener(options: &ProxyOptions) -> Value {
    let routes = json!({"name": "probe", "virtual_hosts": [{"name": "probe", "domains": ["*"], "routes": [
        {"match": {"path": LIVE}, "direct_response": {"status": 200}},
        {"match": {"path": "/metrics", "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]},
         "route": {"cluster": ADMIN, "prefix_rewrite": "/stats/prometheus"}},
    ]}]});
    let ready = json!({
        "pass_through_mode": false,
        "headers": [{"name": ":path", "string_match": {"exact": READY}}],
    });
    let filters = [
        filter("health_check", "health_check.v3.HealthCheck", &ready),
        filter("router", "router.v3.Router", &json!({})),
    ];
    json!({
        "name": "probe",
        "address": address(options.probe),
        "filter_chains": [{"filters": [network_filter(&manager("probe", &routes, &filters))]}],
    })
}

fn network_filter(manager: &Value) -> Value {
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager})
}

fn manager(name: &str, routes: &Value, filters: &[Value]) -> Value {
    json!({
        "@type": MANAGER,
        "stat_prefix": name,
        "codec_type": "AUTO",
        "stream_idle_timeout": "0s",
        "common_http_protocol_options": {"idle_timeout": IDLE},
        "route_config": routes,
        "http_filters": filters,
    })
}

fn filter(name: &str, kind: &str, config: &Value) -> Value {
    let mut config = config.clone();
    config["@type"] = json!(format!("{EXTENSIONS}{kind}"));
    json!({"name": format!("envoy.filters.http.{name}"), "typed_config": config})
}

fn routes(options: &ProxyOptions) -> Value {
    let header = |name: &str, condition: Value| {
        let mut header = condition;
        header["name"] = json!(name.to_ascii_lowercase());
        json!({"prefix": "/", "headers": [header]})
    };
    let is_address = json!({"string_match": {"safe_regex": {"regex": ADDRESS}}});
    let passed = json!({"string_match": {"contains": VIA}});
    let mut by_address = route(
        "by-address",
        &header(DESTINATION_HEADER, is_address),
        DESTINATION,
    );
    let mut by_name = route("by-name", &json!({"prefix": "/"}), BY_NAME);
    // A name may lead back here, by an alias or a search domain; then the second pass ends it.
    by_name["request_headers_to_add"] = json!([{
        "header": {"key": "via", "value": VIA},
        "append_action": "APPEND_IF_EXISTS_OR_ADD",
    }]);
    refuse(options, &mut by_address, &mut by_name);
    let answer = |name: &str, condition: Value, status: u16, text: &str| {
        json!({"name": name, "match": condition,
            "direct_response": {"status": status, "body": {"inline_string": text}}})
    };
    let no_address = format!("{DESTINATION_HEADER} is not an address with a port");
    let ours = [DESTINATION_HEADER, SOURCE_NAMESPACE_HEADER, SOURCE_HEADER];
    let ours = ours.map(str::to_ascii_lowercase);
    json!({"name": "http", "virtual_hosts": [{
        "name": "all",
        "domains": ["*"],
        // By the router at the very end: the filters and the choice of the route still see them.
        "request_headers_to_remove": ours,
        "routes": [
            answer("loop", header("via", passed), 508, "the host leads back to the fallback"),
            by_address,
            answer("no-address", header(DESTINATION_HEADER, json!({"present_match": true})), 400, &no_address),
            by_name,
        ],
    }]})
}

/// No time limits, and a connection that the server closed in the same moment is not the client's trouble.
fn route(name: &str, condition: &Value, cluster: &str) -> Value {
    json!({
        "name": name,
        "match": condition,
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "idle_timeout": "0s",
            "retry_policy": {"retry_on": "refused-stream,reset-before-request", "num_retries": 2},
        },
    })
}

/// Each route by what it knows: the address of the header, or the one that DNS gave.
fn refuse(options: &ProxyOptions, by_address: &mut Value, by_name: &mut Value) {
    let ranges = ranges(options);
    if ranges.is_empty() {
        return;
    }
    let of_header = json!({
        "permissions": [{"any": true}],
        "principals": [{"filter_state": {"key": DESTINATION_STATE, "address_match": {"ranges": ranges}}}],
    });
    let of_dns: Vec<Value> = ranges
        .iter()
        .map(|range| {
            json!({"matcher": {
                "name": "envoy.rbac.matchers.upstream_ip_port",
                "typed_config": {"@type": UPSTREAM_ADDRESS, "upstream_ip": range},
            }})
        })
        .collect();
    let of_dns = json!({"permissions": of_dns, "principals": [{"any": true}]});
    for (route, policy) in [(by_address, of_header), (by_name, of_dns)] {
        let mut per_filter = Map::new();
        per_filter.insert(
            RBAC.to_owned(),
            json!({
                "@type": format!("{EXTENSIONS}rbac.v3.RBACPerRoute"),
                "rbac": {"rules": {"action": "DENY", "policies": {"refused": policy}}},
            }),
        );
        route["typed_per_filter_config"] = Value::Object(per_filter);
    }
}

fn http_filters(options: &ProxyOptions) -> Vec<Value> {
    let state = json!({"on_request_headers": [{
        "object_key": DESTINATION_STATE,
        "format_string": {
            "text_format_source": {"inline_string": format!("%REQ({DESTINATION_HEADER})%")},
            "omit_empty_values": true,
        },
        "skip_if_empty": true,
    }]});
    let rule = |header: &str, key: &str| {
        json!({
            "header": header.to_ascii_lowercase(),
            "on_header_present": {"metadata_namespace": METADATA, "key": key, "type": "STRING"},
        })
    };
    let metadata = json!({"request_rules": [
        rule(DESTINATION_HEADER, "destination"),
        rule(SOURCE_HEADER, "source"),
        rule(SOURCE_NAMESPACE_HEADER, "source_namespace"),
    ]});
    let mut filters = vec![
        filter("set_filter_state", "set_filter_state.v3.Config", &state),
        filter(
            "header_to_metadata",
            "header_to_metadata.v3.Config",
            &metadata,
        ),
        filter(
            "lua",
            "lua.v3.Lua",
            &json!({"default_source_code": {"inline_string": COMPLETE_HOST}}),
        ),
        filter(
            "dynamic_forward_proxy",
            "dynamic_forward_proxy.v3.FilterConfig",
            &json!({"dns_cache_config": dns_cache(), "save_upstream_address": true}),
        ),
    ];
    if !ranges(options).is_empty() {
        filters.push(filter("rbac", "rbac.v3.RBAC", &json!({})));
    }
    filters.push(filter(
        "router",
        "router.v3.Router",
        &json!({"suppress_envoy_headers": true}),
    ));
    filters
}
