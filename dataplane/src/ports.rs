//! What plain ports speak, and what of a DestinationRule is followed.

use trimtab_crds::istio::{DestinationRuleSpec, LoadBalancer};
use trimtab_kit::envoy::header;
use trimtab_mesh::Protocol;

use crate::input::{AppProtocol, Balancing};

/// TLS is bytes: the proxy does not hold its keys.
pub(super) fn speaks(protocol: Option<Protocol>) -> AppProtocol {
    match protocol {
        Some(Protocol::Http) => AppProtocol::Http,
        Some(Protocol::Http2) => AppProtocol::Http2,
        Some(Protocol::Tls | Protocol::Tcp) => AppProtocol::Tcp,
        Some(Protocol::Auto) | None => AppProtocol::default(),
    }
}

/// How a policy chooses endpoints; `None`: it does not say, or says what is not done.
pub(super) fn balancing(policy: &LoadBalancer) -> Option<Balancing> {
    let hash = policy.consistent_hash.as_ref();
    if let Some(name) = hash
        .map(|h| &h.http_header_name)
        .filter(|n| header::matched(n).is_ok())
    {
        return Some(Balancing::Header(name.clone()));
    }
    match policy.simple.as_str() {
        "ROUND_ROBIN" => Some(Balancing::RoundRobin),
        "RANDOM" => Some(Balancing::Random),
        "LEAST_REQUEST" | "LEAST_CONN" => Some(Balancing::LeastRequest),
        _ => None,
    }
}

/// Fields of a rule that change nothing here.
pub(super) fn not_followed(rule: &DestinationRuleSpec) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(policy) = &rule.traffic_policy {
        let others = policy.others.keys();
        out.extend(others.map(|name| format!("spec.trafficPolicy.{name}")));
        if policy
            .load_balancer
            .as_ref()
            .is_some_and(|b| balancing(b).is_none())
        {
            out.push("spec.trafficPolicy.loadBalancer".to_owned());
        }
    }
    let subsets = rule.subsets.iter().enumerate();
    let own = subsets.filter(|(_, s)| s.traffic_policy.is_some());
    out.extend(own.map(|(i, _)| format!("spec.subsets[{i}].trafficPolicy")));
    out
}
