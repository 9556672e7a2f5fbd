//! Which features a router asks for, and where it says so.

use super::Feature;
use crate::input::{Router, ServicePortInput, ValueMatch};

/// One feature that a router asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredFeature {
    /// What.
    pub feature: Feature,
    /// Path of the field.
    pub field: String,
    /// Index of the route; `None`: of the router.
    pub route: Option<usize>,
}

/// Everything that the router of `input` asks for, in the order of its fields.
pub fn wanted(input: &ServicePortInput, router: &Router) -> Vec<RequiredFeature> {
    let mut out = Vec::new();
    for index in 0..router.routes.len() {
        of_route(input, router, index, &mut out);
    }
    let mut add = |feature, field: &str| {
        out.push(RequiredFeature {
            feature,
            field: field.to_owned(),
            route: None,
        });
    };
    if let Some(limit) = &router.local_rate_limit {
        if limit.bucket.is_some() {
            add(Feature::LocalRateLimit, "spec.localRateLimit.tokenBucket");
        }
        if !limit.conditions.is_empty() {
            add(
                Feature::LocalRateLimitConditions,
                "spec.localRateLimit.conditions",
            );
        }
    }
    if router.global_rate_limit.is_some() {
        add(Feature::GlobalRateLimit, "spec.globalRateLimit");
    }
    if !router.gateways.is_empty() {
        add(Feature::Gateways, "spec.gateways");
    }
    out
}

fn of_route(
    input: &ServicePortInput,
    router: &Router,
    index: usize,
    out: &mut Vec<RequiredFeature>,
) {
    let route = &router.routes[index];
    let mut add = |feature, field: &str| {
        out.push(RequiredFeature {
            feature,
            field: format!("{}.{field}", route.path(index)),
            route: Some(index),
        });
    };
    for (name, value) in &route.matches {
        add(of_attribute(name, value), &route.test_path(name));
    }
    if route.destinations.len() > 1 {
        add(Feature::Weights, "route");
    }
    for (i, d) in route.destinations.iter().enumerate() {
        if !d.destination.subset.is_empty() {
            add(Feature::Subsets, &format!("route[{i}].destination.subset"));
        }
        if input.hash_attribute(&d.destination).is_some() {
            add(Feature::ConsistentHash, &format!("route[{i}].destination"));
        }
    }
    if route.mirror.is_some() {
        add(Feature::Mirror, "mirror");
    }
    if !route.request_mutation.is_empty() {
        add(Feature::RequestMutation, "requestMutation");
    }
    if !route.response_mutation.is_empty() {
        add(Feature::ResponseMutation, "responseMutation");
    }
    if route.timeout.is_some() {
        add(Feature::Timeout, "timeout");
    }
    if route.retries.is_some() {
        add(Feature::Retries, "retries");
    }
}

/// The feature behind an attribute's test.
fn of_attribute(name: &str, value: &ValueMatch) -> Feature {
    let exact = matches!(value, ValueMatch::Exact(_));
    match name.to_ascii_lowercase().as_str() {
        "interface" | "service" | "path" if exact => Feature::MatchInterface,
        "interface" | "service" | "path" => Feature::MatchInterfacePattern,
        // Every call has a method.
        "method" if exact || *value == ValueMatch::Present => Feature::MatchMethod,
        "method" => Feature::MatchMethodPattern,
        "group" | "version" => Feature::MatchGroupVersion,
        other if other.starts_with("argument[") && exact => Feature::MatchArgument,
        other if other.starts_with("argument[") => Feature::MatchArgumentPattern,
        _ => Feature::MatchAttribute,
    }
}
