//! Routes over the wire to Aeraki's proxies: the HTTP RouteConfiguration that carries them.

use envoy_types::pb::envoy::config::route::v3 as http;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use prost::Message;
use serde_json::{Value, json};
use trimtab_lab::envoy;
use trimtab_metaprotocol::proto;

use crate::golden::{canonical, load, names};

/// Protobuf as JSON, written apart from the code under test.
#[allow(deprecated, reason = "the forms that Aeraki's proxies know")]
fn as_json(routes: &http::RouteConfiguration) -> Value {
    use http::header_matcher::HeaderMatchSpecifier as Test;
    let header = |h: &http::HeaderMatcher| match h.header_match_specifier.as_ref().unwrap() {
        Test::ExactMatch(t) => json!({"name": h.name, "exactMatch": t}),
        Test::PrefixMatch(t) => json!({"name": h.name, "prefixMatch": t}),
        Test::PresentMatch(p) => json!({"name": h.name, "presentMatch": p}),
        Test::SafeRegexMatch(r) => {
            assert!(r.engine_type.is_some());
            json!({"name": h.name, "safeRegexMatch": {"googleRe2": {}, "regex": r.regex}})
        }
        other => panic!("{other:?}"),
    };
    let added =
        |list: &[envoy_types::pb::envoy::config::core::v3::HeaderValueOption]| -> Vec<Value> {
            list.iter()
                .map(|h| h.header.as_ref().unwrap())
                .map(|h| json!({"header": {"key": h.key, "value": h.value}}))
                .collect()
        };
    let mut list = Vec::new();
    for route in &routes.virtual_hosts[0].routes {
        let matched = route.r#match.as_ref().unwrap();
        let mut out = json!({"match": {"prefix": "/"}, "route": action(route)});
        if !matched.headers.is_empty() {
            out["match"]["headers"] = matched.headers.iter().map(header).collect();
        }
        if !route.name.is_empty() {
            out["name"] = json!(route.name);
        }
        for (field, headers) in [
            ("requestHeadersToAdd", added(&route.request_headers_to_add)),
            (
                "responseHeadersToAdd",
                added(&route.response_headers_to_add),
            ),
        ] {
            if !headers.is_empty() {
                out[field] = json!(headers);
            }
        }
        list.push(out);
    }
    let host = &routes.virtual_hosts[0];
    json!({"name": routes.name, "virtualHosts": [{"name": host.name, "domains": host.domains, "routes": list}]})
}

#[allow(deprecated, reason = "the total weight is for Aeraki's proxies")]
fn action(route: &http::Route) -> Value {
    use http::route_action::{ClusterSpecifier, hash_policy::PolicySpecifier};
    let Some(http::route::Action::Route(action)) = &route.action else {
        panic!("proxies refuse a route without a route action");
    };
    let mut out = match action.cluster_specifier.as_ref().unwrap() {
        ClusterSpecifier::Cluster(name) => json!({"cluster": name}),
        ClusterSpecifier::WeightedClusters(w) => {
            let one = |c: &http::weighted_cluster::ClusterWeight| json!({"name": c.name, "weight": c.weight.as_ref().unwrap().value});
            let clusters: Vec<Value> = w.clusters.iter().map(one).collect();
            json!({"weightedClusters": {"clusters": clusters, "totalWeight": w.total_weight.as_ref().unwrap().value}})
        }
        other => panic!("{other:?}"),
    };
    let hash = action
        .hash_policy
        .iter()
        .map(|p| match &p.policy_specifier {
            Some(PolicySpecifier::Header(h)) => json!({"header": {"headerName": h.header_name}}),
            other => panic!("{other:?}"),
        });
    let hash: Vec<Value> = hash.collect();
    if !hash.is_empty() {
        out["hashPolicy"] = json!(hash);
    }
    if let Some(mirror) = action.request_mirror_policies.first() {
        let share = mirror
            .runtime_fraction
            .as_ref()
            .unwrap()
            .default_value
            .as_ref()
            .unwrap();
        assert_eq!(share.denominator, DenominatorType::Million as i32);
        out["requestMirrorPolicies"] = json!([{
            "cluster": mirror.cluster,
            "runtimeFraction": {"defaultValue": {"numerator": share.numerator, "denominator": "MILLION"}},
        }]);
    }
    out
}

#[test]
fn routes_over_the_wire_are_what_proxies_check_for_and_what_the_version_is_made_of() {
    let mut seen = 0;
    for name in names() {
        let out = load(&name);
        for resource in out
            .resources
            .iter()
            .filter(|r| r.type_url == proto::HTTP_ROUTES)
        {
            let routes = http::RouteConfiguration::decode(resource.body.as_slice()).unwrap();
            assert_eq!(routes.name, resource.name, "{name}");
            assert_eq!(routes.virtual_hosts.len(), 1, "{name}");
            assert_eq!(routes.virtual_hosts[0].name, "dummy", "{name}");
            assert!(!routes.virtual_hosts[0].routes.is_empty(), "{name}");
            assert_eq!(as_json(&routes), canonical(&resource.canonical), "{name}");
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen} resources");
}

#[test]
fn a_real_envoy_accepts_the_carrier_of_every_case() {
    let mut managers = Vec::new();
    for name in names() {
        for resource in load(&name)
            .resources
            .iter()
            .filter(|r| r.type_url == proto::HTTP_ROUTES)
        {
            let mut routes = canonical(&resource.canonical);
            // Over the wire clusters are not checked either.
            routes["validateClusters"] = json!(false);
            managers.push(json!({
                "name": name,
                "address": {"socketAddress": {"address": "127.0.0.1", "portValue": 0}},
                "filterChains": [{"filters": [{
                    "name": "http",
                    "typedConfig": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "statPrefix": name,
                        "routeConfig": routes,
                        "httpFilters": [{"name": "envoy.filters.http.router", "typedConfig": {
                            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
                    },
                }]}],
            }));
        }
    }
    assert!(managers.len() > 30);
    if let Err(reason) = envoy::validate(&json!({"staticResources": {"listeners": managers}})) {
        panic!("Envoy refuses the routes: {reason}");
    }
}
