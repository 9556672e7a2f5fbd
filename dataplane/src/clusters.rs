//! Clusters and their endpoints. Names are Istio's, so that routes made for a mesh lead here too.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};
use trimtab_kit::envoyfilter::typed_struct;
use trimtab_metaprotocol::input::outbound_cluster;

use crate::address::socket;
use crate::input::{AppProtocol, Balancing, EndpointInput, PortInput, ServiceInput};

/// Where connections go that were redirected to the proxy and are for no service of ours.
pub(super) const PASSTHROUGH: &str = "passthrough";
pub(super) const HTTP_OPTIONS: &str =
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// As istiod's.
pub(super) const CONNECT_TIMEOUT: &str = "10s";

/// A cluster, and its endpoints where they are a resource of their own.
pub(super) struct Made {
    pub(super) name: String,
    pub(super) cluster: Value,
    pub(super) endpoints: Option<Value>,
}

/// The clusters of a port: of the whole service, and of each subset.
pub(super) fn of_port(service: &ServiceInput, port: &PortInput) -> Vec<Made> {
    let all = BTreeMap::new();
    let whole = [("", &all)].into_iter();
    let subsets = service
        .subsets
        .iter()
        .map(|(name, labels)| (name.as_str(), labels));
    whole
        .chain(subsets)
        .map(|(subset, labels)| {
            let has = |e: &&EndpointInput| labels.iter().all(|(k, v)| e.labels.get(k) == Some(v));
            let endpoints: Vec<&EndpointInput> = port.endpoints.iter().filter(has).collect();
            one(service, port, subset, endpoints)
        })
        .collect()
}

fn one(
    service: &ServiceInput,
    port: &PortInput,
    subset: &str,
    mut endpoints: Vec<&EndpointInput>,
) -> Made {
    endpoints.sort_unstable();
    endpoints.dedup();
    let name = outbound_cluster(port.number, subset, &service.host);
    let assignment = assignment(&name, &endpoints);
    let mut cluster = common(&name, port, &service.balancing);
    // Of all endpoints of the port, so that subsets are no other kind of cluster than the whole.
    let endpoints = if is_by_name(port) {
        cluster.insert("type".into(), json!("STRICT_DNS"));
        cluster.insert("dns_lookup_family".into(), json!("V4_PREFERRED"));
        cluster.insert("load_assignment".into(), assignment);
        None
    } else {
        cluster.insert("type".into(), json!("EDS"));
        let source = json!({"ads": {}, "resource_api_version": "V3"});
        cluster.insert("eds_cluster_config".into(), json!({"eds_config": source}));
        Some(assignment)
    };
    Made {
        name,
        cluster: Value::Object(cluster),
        endpoints,
    }
}

/// Whether proxies ask DNS for the endpoints; else they are resources.
pub(super) fn is_by_name(port: &PortInput) -> bool {
    let mut endpoints = port.endpoints.iter();
    endpoints.any(|e| e.address.parse::<IpAddr>().is_err())
}

fn common(name: &str, port: &PortInput, balancing: &Balancing) -> Map<String, Value> {
    let most = u32::MAX;
    let mut out = Map::new();
    out.insert("name".into(), json!(name));
    // Envoy would take what is before the first dot for the name of the cluster.
    out.insert("alt_stat_name".into(), json!(name.replace('.', "_")));
    out.insert("connect_timeout".into(), json!(CONNECT_TIMEOUT));
    let policy = match balancing {
        Balancing::LeastRequest => "LEAST_REQUEST",
        Balancing::RoundRobin => "ROUND_ROBIN",
        Balancing::Random => "RANDOM",
        Balancing::Header(_) => "RING_HASH",
    };
    out.insert("lb_policy".into(), json!(policy));
    out.insert(
        "circuit_breakers".into(),
        json!({"thresholds": [{
            "max_connections": most,
            "max_pending_requests": most,
            "max_requests": most,
            "max_retries": most,
        }]}),
    );
    if port.speaks == AppProtocol::Http2 {
        let options = json!({"explicit_http_config": {"http2_protocol_options": {}}});
        out.insert(
            "typed_extension_protocol_options".into(),
            json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed_struct(HTTP_OPTIONS, &options)}),
        );
    }
    out
}

fn assignment(name: &str, endpoints: &[&EndpointInput]) -> Value {
    // Envoy refuses weights with a sum of more than 32 bits; smaller ones in the same relation say the same.
    let mut weights = endpoints.iter().filter_map(|e| e.weight);
    let fits = weights.try_fold(0_u32, u32::checked_add).is_some();
    let divisor = if fits {
        1
    } else {
        u32::try_from(endpoints.len()).unwrap_or(u32::MAX)
    };
    let one = |e: &&EndpointInput| {
        let mut out = json!({"endpoint": {"address": socket(&e.address, e.port)}});
        if let Some(weight) = e.weight.filter(|w| *w > 0) {
            out["load_balancing_weight"] = json!((weight / divisor).max(1));
        }
        out
    };
    let list: Vec<Value> = endpoints.iter().map(one).collect();
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": list}]})
}

/// The cluster that leads where a redirected connection was meant to go.
pub(super) fn passthrough() -> Value {
    json!({
        "name": PASSTHROUGH,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": CONNECT_TIMEOUT,
    })
}

/// Applies the patches that the translation of a protocol has for clusters: those of `made` are changed, and new ones
/// are returned.
pub(super) fn patched(made: &mut [Made], patches: &[Value]) -> Vec<(String, Value)> {
    let mut added = Vec::new();
    for patch in patches {
        let mut value = patch["patch"]["value"].clone();
        opaque(&mut value["typed_extension_protocol_options"]);
        let Some(fields) = value.as_object_mut() else {
            continue;
        };
        fields.retain(|_, v| !v.is_null());
        if patch["patch"]["operation"] == "ADD" {
            if let Some(config) = fields
                .get_mut("cluster_type")
                .and_then(|t| t.get_mut("typed_config"))
            {
                wrap(config);
            }
            let name = fields
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            added.push((name.to_owned(), value));
            continue;
        }
        let name = &patch["match"]["cluster"]["name"];
        for one in made.iter_mut().filter(|m| name == &m.name) {
            if let Some(cluster) = one.cluster.as_object_mut() {
                cluster.extend(fields.clone());
            }
        }
    }
    added
}

fn opaque(options: &mut Value) {
    for option in options
        .as_object_mut()
        .into_iter()
        .flat_map(Map::values_mut)
    {
        wrap(option);
    }
}

/// A typed configuration in the form that needs no description of its type.
fn wrap(config: &mut Value) {
    let Some(fields) = config.as_object_mut() else {
        return;
    };
    if let Some(Value::String(url)) = fields.remove("@type") {
        *config = typed_struct(&url, &Value::Object(fields.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_t9_weights_have_a_sum_that_envoy_takes() {
        let weighted = |weights: &[u32]| -> Vec<u64> {
            let endpoints: Vec<EndpointInput> = weights
                .iter()
                .map(|weight| EndpointInput {
                    address: "10.0.0.1".to_owned(),
                    port: 1,
                    weight: Some(*weight),
                    ..EndpointInput::default()
                })
                .collect();
            let made = assignment("c", &endpoints.iter().collect::<Vec<_>>());
            let list = made["endpoints"][0]["lb_endpoints"].as_array().unwrap();
            list.iter()
                .map(|e| e["load_balancing_weight"].as_u64().unwrap())
                .collect()
        };
        assert_eq!(weighted(&[1, 99]), [1, 99]);
        let large = weighted(&[u32::MAX, u32::MAX, 3]);
        assert_eq!(large, [1_431_655_765, 1_431_655_765, 1]);
        assert!(u32::try_from(large.iter().sum::<u64>()).is_ok());
    }
}
