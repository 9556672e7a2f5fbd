//! What plain ports speak, and what of a DestinationRule is followed.

use k8s_openapi::api::core::v1::ServicePort;
use serde_json::Value;
use trimtab_crds::istio::DestinationRule;
use trimtab_mesh::Protocol;

use crate::input::{Balancing, Speaks};

pub(super) fn of_service_port(port: &ServicePort) -> Speaks {
    let name = port.name.as_deref().unwrap_or_default();
    speaks(Protocol::of("TCP", name, port.app_protocol.as_deref()))
}

pub(super) fn of_entry_port(port: &Value) -> Speaks {
    let name = port["name"].as_str().unwrap_or_default();
    speaks(Protocol::of("TCP", name, port["protocol"].as_str()))
}

/// TLS is bytes: the proxy does not hold its keys.
fn speaks(protocol: Option<Protocol>) -> Speaks {
    match protocol {
        Some(Protocol::Http) => Speaks::Http,
        Some(Protocol::Http2) => Speaks::Http2,
        Some(Protocol::Tls | Protocol::Tcp) => Speaks::Tcp,
        Some(Protocol::Auto) | None => Speaks::default(),
    }
}

/// How a policy chooses endpoints; `None`: it does not say, or says what is not done.
pub(super) fn balancing(policy: &Value) -> Option<Balancing> {
    if let Some(name) = policy["consistentHash"]["httpHeaderName"].as_str() {
        return Some(Balancing::Header(name.to_owned()));
    }
    match policy["simple"].as_str()? {
        "ROUND_ROBIN" => Some(Balancing::RoundRobin),
        "RANDOM" => Some(Balancing::Random),
        "LEAST_REQUEST" | "LEAST_CONN" => Some(Balancing::LeastRequest),
        _ => None,
    }
}

/// Fields of a rule that change nothing here.
pub(super) fn not_followed(rule: &DestinationRule) -> Vec<String> {
    let mut out = Vec::new();
    let policy = rule.spec.traffic_policy.as_ref();
    for name in policy
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(k, _)| k)
    {
        if name != "loadBalancer" {
            out.push(format!("spec.trafficPolicy.{name}"));
        }
    }
    let balancer = policy.map(|p| &p["loadBalancer"]).filter(|b| !b.is_null());
    if balancer.is_some_and(|b| balancing(b).is_none()) {
        out.push("spec.trafficPolicy.loadBalancer".to_owned());
    }
    let subsets = rule.spec.subsets.iter().enumerate();
    let own = subsets.filter(|(_, s)| s.traffic_policy.is_some());
    out.extend(own.map(|(i, _)| format!("spec.subsets[{i}].trafficPolicy")));
    out
}
