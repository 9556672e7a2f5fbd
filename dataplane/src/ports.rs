//! What plain ports speak, and what of a DestinationRule is followed.

use k8s_openapi::api::core::v1::ServicePort;
use serde_json::Value;
use trimtab_crds::istio::DestinationRule;

use crate::input::{Balancing, Speaks};

pub(super) fn of_service_port(port: &ServicePort) -> Speaks {
    let by_field = port.app_protocol.as_deref().and_then(named);
    let by_name = || named(port.name.as_deref().unwrap_or_default());
    by_field.or_else(by_name).unwrap_or_default()
}

pub(super) fn of_entry_port(port: &Value) -> Speaks {
    let by_field = port["protocol"].as_str().and_then(named);
    let by_name = || named(port["name"].as_str().unwrap_or_default());
    by_field.or_else(by_name).unwrap_or_default()
}

/// What a name, as of a port or of `appProtocol`, says. TLS is bytes: the proxy does not hold its keys.
fn named(text: &str) -> Option<Speaks> {
    let text = text.to_ascii_lowercase();
    if let Some(kind) = text.strip_prefix("kubernetes.io/") {
        return match kind {
            "h2c" => Some(Speaks::Http2),
            "ws" => Some(Speaks::Http),
            _ => None,
        };
    }
    if text.starts_with("grpc-web") {
        return Some(Speaks::Http);
    }
    match text.split('-').next()? {
        "http" => Some(Speaks::Http),
        "http2" | "grpc" => Some(Speaks::Http2),
        "tcp" | "tls" | "https" | "mongo" | "mysql" | "redis" => Some(Speaks::Tcp),
        _ => None,
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
