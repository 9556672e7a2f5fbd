//! Routes as proxies take them over the wire: an HTTP RouteConfiguration that carries MetaProtocol's.
//!
//! One virtual host `dummy` for `*`; attributes are header matches, mutations are headers to add, hash policies name
//! headers. Proxies refuse anything else.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, RuntimeFractionalPercent,
};
use envoy_types::pb::envoy::config::route::v3 as http;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, regex_matcher};
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use envoy_types::pb::google::protobuf::UInt32Value;
use http::header_matcher::HeaderMatchSpecifier as Specifier;
use http::route_action::{ClusterSpecifier, HashPolicy, RequestMirrorPolicy, hash_policy};
use prost::Message;
use serde_json::{Map, Value, json};

use super::super::objects::readers;
use super::limits::matchers;
use crate::input::{KeyValue, Route, ServicePortInput, ValueMatch, WeightedDestination};
use crate::output::XdsResource;
use crate::proto;
use crate::validate::Plan;

/// The routes in force.
pub(super) fn resource(plan: &Plan<'_>) -> XdsResource {
    let input = plan.input;
    let own;
    let routes = match &plan.router {
        Some(router) if !router.routes.is_empty() => &router.routes,
        _ => {
            own = vec![default_route(input)];
            &own
        }
    };
    let name = input.route_name();
    let json: Vec<Value> = routes.iter().map(|r| as_json(input, r)).collect();
    let canonical = json!({
        "name": name,
        "virtualHosts": [{"name": "dummy", "domains": ["*"], "routes": json}],
    });
    let message = http::RouteConfiguration {
        name: name.clone(),
        virtual_hosts: vec![http::VirtualHost {
            name: "dummy".to_owned(),
            domains: vec!["*".to_owned()],
            routes: routes.iter().map(|r| as_proto(input, r)).collect(),
            ..http::VirtualHost::default()
        }],
        ..http::RouteConfiguration::default()
    };
    let origin = plan
        .router
        .as_ref()
        .map_or_else(|| input.host.clone(), |r| r.owner.to_string());
    XdsResource {
        type_url: proto::HTTP_ROUTES.to_owned(),
        name,
        canonical: canonical.to_string(),
        body: message.encode_to_vec(),
        origin,
        readers: readers(plan),
    }
}

/// Without routes of a user, everything goes to the service itself.
fn default_route(input: &ServicePortInput) -> Route {
    let mut own = WeightedDestination::default();
    own.destination.host.clone_from(&input.host);
    Route {
        name: "default".to_owned(),
        destinations: vec![own],
        ..Route::default()
    }
}

/// Percent as parts of a million.
fn millionths(percent: f64) -> u32 {
    let parts = (percent.clamp(0.0, 100.0) * 10_000.0).round();
    // Between 0 and a million after the clamp.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let parts = parts as u32;
    parts
}

/// Attributes to hash by, in the order of the destinations, each once.
fn hash_attributes<'a>(input: &'a ServicePortInput, route: &Route) -> Vec<&'a str> {
    let mut out = Vec::new();
    for to in &route.destinations {
        if let Some(name) = input.hash_attribute(&to.destination)
            && !out.contains(&name)
        {
            out.push(name);
        }
    }
    out
}

fn total_weight(route: &Route) -> u32 {
    route
        .destinations
        .iter()
        .fold(0, |sum, d| sum.saturating_add(d.weight))
}

fn as_json(input: &ServicePortInput, route: &Route) -> Value {
    let mut action = Map::new();
    if let [only] = route.destinations.as_slice() {
        action.insert("cluster".into(), json!(input.cluster(&only.destination)));
    } else {
        let clusters: Vec<Value> = route
            .destinations
            .iter()
            .map(|d| json!({"name": input.cluster(&d.destination), "weight": d.weight}))
            .collect();
        let weighted = json!({"clusters": clusters, "totalWeight": total_weight(route)});
        action.insert("weightedClusters".into(), weighted);
    }
    let hash: Vec<Value> = hash_attributes(input, route)
        .into_iter()
        .map(|name| json!({"header": {"headerName": name}}))
        .collect();
    if !hash.is_empty() {
        action.insert("hashPolicy".into(), json!(hash));
    }
    if let Some(mirror) = &route.mirror {
        let share = json!({"numerator": millionths(mirror.percent), "denominator": "MILLION"});
        let policy = json!({
            "cluster": input.cluster(&mirror.destination),
            "runtimeFraction": {"defaultValue": share},
        });
        action.insert("requestMirrorPolicies".into(), json!([policy]));
    }
    let mut matched = json!({"prefix": "/"});
    if !route.matches.is_empty() {
        matched["headers"] = json!(matchers(&route.matches));
    }
    let mut out = Map::new();
    if !route.name.is_empty() {
        out.insert("name".into(), json!(route.name));
    }
    out.insert("match".into(), matched);
    out.insert("route".into(), Value::Object(action));
    for (field, list) in [
        ("requestHeadersToAdd", &route.request_mutation),
        ("responseHeadersToAdd", &route.response_mutation),
    ] {
        let headers: Vec<Value> = list
            .iter()
            .map(|kv| json!({"header": {"key": kv.key, "value": kv.value}}))
            .collect();
        if !headers.is_empty() {
            out.insert(field.into(), json!(headers));
        }
    }
    Value::Object(out)
}

fn as_proto(input: &ServicePortInput, route: &Route) -> http::Route {
    let cluster = match route.destinations.as_slice() {
        [only] => ClusterSpecifier::Cluster(input.cluster(&only.destination)),
        _ => ClusterSpecifier::WeightedClusters(weighted(input, route)),
    };
    let mirror = route.mirror.iter().map(|mirror| RequestMirrorPolicy {
        cluster: input.cluster(&mirror.destination),
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(FractionalPercent {
                numerator: millionths(mirror.percent),
                denominator: DenominatorType::Million.into(),
            }),
            runtime_key: String::new(),
        }),
        ..RequestMirrorPolicy::default()
    });
    let action = http::RouteAction {
        cluster_specifier: Some(cluster),
        hash_policy: hash_attributes(input, route)
            .into_iter()
            .map(hash_policy_of)
            .collect(),
        request_mirror_policies: mirror.collect(),
        ..http::RouteAction::default()
    };
    http::Route {
        name: route.name.clone(),
        r#match: Some(http::RouteMatch {
            path_specifier: Some(http::route_match::PathSpecifier::Prefix("/".to_owned())),
            headers: header_matchers(&route.matches),
            ..http::RouteMatch::default()
        }),
        action: Some(http::route::Action::Route(action)),
        request_headers_to_add: headers(&route.request_mutation),
        response_headers_to_add: headers(&route.response_mutation),
        ..http::Route::default()
    }
}

// Proxies of Aeraki's generation know the total; newer ones add the weights up.
#[allow(deprecated)]
fn weighted(input: &ServicePortInput, route: &Route) -> http::WeightedCluster {
    let number = |value| Some(UInt32Value { value });
    http::WeightedCluster {
        clusters: route
            .destinations
            .iter()
            .map(|d| http::weighted_cluster::ClusterWeight {
                name: input.cluster(&d.destination),
                weight: number(d.weight),
                ..http::weighted_cluster::ClusterWeight::default()
            })
            .collect(),
        total_weight: number(total_weight(route)),
        ..http::WeightedCluster::default()
    }
}

fn hash_policy_of(name: &str) -> HashPolicy {
    HashPolicy {
        policy_specifier: Some(hash_policy::PolicySpecifier::Header(hash_policy::Header {
            header_name: name.to_owned(),
            ..hash_policy::Header::default()
        })),
        ..HashPolicy::default()
    }
}

// The forms that Aeraki's proxies know.
#[allow(deprecated)]
fn header_matchers(matches: &BTreeMap<String, ValueMatch>) -> Vec<http::HeaderMatcher> {
    let specifier = |value: &ValueMatch| match value {
        ValueMatch::Exact(text) => Specifier::ExactMatch(text.clone()),
        ValueMatch::Prefix(text) => Specifier::PrefixMatch(text.clone()),
        ValueMatch::Regex(text) => Specifier::SafeRegexMatch(RegexMatcher {
            engine_type: Some(regex_matcher::EngineType::GoogleRe2(
                regex_matcher::GoogleRe2::default(),
            )),
            regex: text.clone(),
        }),
        ValueMatch::Present => Specifier::PresentMatch(true),
    };
    matches
        .iter()
        .map(|(name, value)| http::HeaderMatcher {
            name: name.clone(),
            header_match_specifier: Some(specifier(value)),
            ..http::HeaderMatcher::default()
        })
        .collect()
}

fn headers(list: &[KeyValue]) -> Vec<HeaderValueOption> {
    list.iter()
        .map(|kv| HeaderValueOption {
            header: Some(HeaderValue {
                key: kv.key.clone(),
                value: kv.value.clone(),
                ..HeaderValue::default()
            }),
            ..HeaderValueOption::default()
        })
        .collect()
}
