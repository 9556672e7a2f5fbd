//! Clusters of Redis servers.
//!
//! istiod's cluster is kept, with its endpoints, its mutual TLS and its telemetry, and what the filter needs is merged
//! into it. Only a Redis cluster, whose nodes Envoy finds itself, is a cluster of its own beside it: a merge cannot turn
//! one that istiod fills into one that fills itself. Nodes found so carry no facts of the mesh and are called without
//! its mutual TLS.

use serde_json::{Map, Value, json};
use trimtab_crds::istio::{EnvoyFilter, EnvoyFilterSpec};
use trimtab_kit::envoyfilter::PatchContext;
use trimtab_kit::problem::Problem;

use super::auth;
use crate::input::{Destination, RedisConnection, RedisDestination, RedisMode, ServicePortInput};
use crate::output::Translation;
use crate::span::Span;
use crate::translate::objects::{metadata, scopes};
use crate::validate::Plan;

const REDIS_CLUSTER: &str =
    "type.googleapis.com/envoy.extensions.clusters.redis.v3.RedisClusterConfig";
/// As istiod's.
const CONNECT_TIMEOUT: &str = "10s";

/// The cluster that commands for a destination go to.
pub(super) fn name(input: &ServicePortInput, to: &Destination) -> String {
    let found = input.redis_destinations.get(&to.host);
    let cluster = input.cluster(to);
    if found.is_some_and(|d| d.mode == RedisMode::Cluster) {
        discovered_name(&cluster)
    } else {
        cluster
    }
}

fn discovered_name(cluster: &str) -> String {
    format!("trimtab-redis-{cluster}")
}

/// The objects that make the cluster of the port fit, one for each namespace in scope.
pub(super) fn objects(plan: &Plan<'_>) -> Result<Translation, Box<Problem>> {
    let input = plan.input;
    let mut out = Translation::default();
    if input.vips.is_empty() && !input.headless {
        return Ok(out);
    }
    let default = RedisDestination::default();
    let destination = input
        .redis_destinations
        .get(&input.host)
        .unwrap_or(&default);
    let patch = match destination.mode {
        RedisMode::Proxy => merged(input, destination)?,
        RedisMode::Cluster => added(input, destination)?,
    };
    let name = format!("trimtab-cluster-{}-{}", input.host, input.port.number);
    for namespace in scopes(plan) {
        out.envoy_filters.push(EnvoyFilter {
            metadata: metadata(plan, &name, &namespace),
            spec: EnvoyFilterSpec {
                config_patches: vec![patch.clone()],
                ..EnvoyFilterSpec::default()
            },
        });
    }
    Ok(out)
}

fn patch(input: &ServicePortInput, cluster: Option<&str>, operation: &str, value: &Value) -> Value {
    let mut matched = json!({"context": PatchContext::SidecarOutbound.as_str()});
    if let Some(cluster) = cluster {
        matched["cluster"] = json!({"name": cluster});
    }
    if !input.settings.proxy_version.is_empty() {
        matched["proxy"] = json!({"proxyVersion": input.settings.proxy_version});
    }
    json!({
        "applyTo": "CLUSTER",
        "match": matched,
        "patch": {"operation": operation, "value": value},
    })
}

/// Keys are spread by their hash.
fn merged(input: &ServicePortInput, of: &RedisDestination) -> Result<Value, Box<Problem>> {
    let mut value = Map::new();
    value.insert("lb_policy".into(), json!("MAGLEV"));
    // Takes the place of the options of istiod's balancer, which do not fit this one.
    value.insert("maglev_lb_config".into(), json!({}));
    if let Some(timeout) = &of.connection.connect_timeout {
        value.insert("connect_timeout".into(), json!(timeout.to_json()));
    }
    common(&mut value, input, of)?;
    let cluster = input.own_cluster();
    Ok(patch(input, Some(&cluster), "MERGE", &Value::Object(value)))
}

fn added(input: &ServicePortInput, of: &RedisDestination) -> Result<Value, Box<Problem>> {
    let name = discovered_name(&input.own_cluster());
    let own = [input.host.clone()];
    let seeds = if of.discovery_endpoints.is_empty() {
        own.as_slice()
    } else {
        of.discovery_endpoints.as_slice()
    };
    let endpoints: Vec<Value> = seeds
        .iter()
        .filter_map(|seed| endpoint(seed, input.port.number))
        .map(|(address, port)| {
            let socket = json!({"address": address, "port_value": port});
            json!({"endpoint": {"address": {"socket_address": socket}}})
        })
        .collect();
    let timeout = of.connection.connect_timeout.as_ref();
    let timeout = timeout.map_or(CONNECT_TIMEOUT.to_owned(), Span::to_json);
    let most = u32::MAX;
    let connections = of.connection.max_connections.unwrap_or(most);
    let mut value = Map::new();
    value.insert("name".into(), json!(name));
    value.insert("connect_timeout".into(), json!(timeout));
    value.insert("lb_policy".into(), json!("CLUSTER_PROVIDED"));
    value.insert("dns_lookup_family".into(), json!("V4_PREFERRED"));
    value.insert(
        "cluster_type".into(),
        json!({"name": "envoy.clusters.redis", "typed_config": {"@type": REDIS_CLUSTER}}),
    );
    value.insert(
        "load_assignment".into(),
        json!({"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}),
    );
    value.insert(
        "circuit_breakers".into(),
        json!({"thresholds": [{
            "max_connections": connections,
            "max_pending_requests": most,
            "max_requests": most,
            "max_retries": most,
        }]}),
    );
    common(&mut value, input, of)?;
    Ok(patch(input, None, "ADD", &Value::Object(value)))
}

/// Keepalive and what servers are sent to authorize the proxy.
fn common(
    value: &mut Map<String, Value>,
    input: &ServicePortInput,
    of: &RedisDestination,
) -> Result<(), Box<Problem>> {
    if let Some(keepalive) = keepalive(&of.connection) {
        value.insert(
            "upstream_connection_options".into(),
            json!({"tcp_keepalive": keepalive}),
        );
    }
    if let Some(wanted) = &of.auth {
        let field = "spec.trafficPolicy.connectionPool.redis.auth";
        let found = auth::sources(input, wanted, &of.owner, field)?;
        value.insert("typed_extension_protocol_options".into(), found.upstream());
    }
    Ok(())
}

fn keepalive(connection: &RedisConnection) -> Option<Value> {
    let keepalive = connection.tcp_keepalive.as_ref()?;
    let seconds = |span: &Option<Span>| {
        span.as_ref()
            .and_then(|span| span.get().ok())
            .map(|d| d.as_secs().min(u64::from(u32::MAX)))
    };
    let mut out = Map::new();
    if let Some(probes) = keepalive.probes {
        out.insert("keepalive_probes".into(), json!(probes));
    }
    if let Some(time) = seconds(&keepalive.time) {
        out.insert("keepalive_time".into(), json!(time));
    }
    if let Some(interval) = seconds(&keepalive.interval) {
        out.insert("keepalive_interval".into(), json!(interval));
    }
    Some(Value::Object(out))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(super) fn endpoint(text: &str, default_port: u16) -> Option<(&str, u16)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        (
            host,
            after.strip_prefix(':').or(after.is_empty().then_some("")),
        )
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port).filter(|p| !p.is_empty())),
            None => (text, Some("")),
        }
    };
    let port = match port? {
        "" => default_port,
        port => port.parse().ok()?,
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '/';
    (!host.is_empty() && port > 0 && !host.contains(odd)).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn endpoints_have_a_host_and_perhaps_a_port() {
        for (text, expected) in [
            ("redis-0", Some(("redis-0", 6379))),
            ("redis-0:7000", Some(("redis-0", 7000))),
            ("[2001:db8::1]", Some(("2001:db8::1", 6379))),
            ("[2001:db8::1]:7000", Some(("2001:db8::1", 7000))),
            ("", None),
            (":7000", None),
            ("a:", None),
            ("a:0", None),
            ("a:b", None),
            ("a:70000", None),
            ("2001:db8::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("a b", None),
        ] {
            assert_eq!(endpoint(text, 6379), expected, "{text}");
        }
    }
}
