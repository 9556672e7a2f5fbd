//! Envoy's Thrift filter.
//!
//! A call over TMultiplexedProtocol has the method `service:method` on the wire. Envoy compares a method as a whole and a
//! service by what is before the colon, so that a router with both attributes is asked for the two joined.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::stock::{
    self, Discovery, Filter, Side, Sides, clusters, fraction, header_matchers, names,
};
use crate::features::Feature;
use crate::input::{GlobalRateLimit, Route, ValueMatch, inbound_cluster};
use crate::output::{Refusal, Translation};
use crate::span::Span;
use crate::validate::Plan;

const FILTER: Filter = Filter {
    name: "envoy.filters.network.thrift_proxy",
    type_url: "type.googleapis.com/envoy.extensions.filters.network.thrift_proxy.v3.ThriftProxy",
    ecds: true,
    discovery: Some(Discovery {
        field: "trds",
        inline: "routeConfig",
        type_url: names::TRDS,
    }),
};
const ROUTER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.thrift_proxy.router.v3.Router";
const RATE_LIMIT: &str = "type.googleapis.com/envoy.extensions.filters.network.thrift_proxy.filters.ratelimit.v3.RateLimit";
/// How long a proxy waits for the rate limit service when the router does not say.
const DEFAULT_TIMEOUT: &str = "20ms";
/// Envoy's header for the method of a call, in rate limit actions.
const METHOD_HEADER: &str = ":method-name";
/// Fields of the access log.
const LOG: [(&str, &str); 8] = [
    ("start_time", "[%START_TIME%]"),
    ("method", "%DYNAMIC_METADATA(thrift.proxy:method)%"),
    ("reply", "%DYNAMIC_METADATA(thrift.proxy:reply)%"),
    ("cluster", "%DYNAMIC_METADATA(thrift.proxy:cluster)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
];

/// Outputs for one port.
pub(super) fn translate(plan: &Plan<'_>) -> Translation {
    let input = plan.input;
    let mut refusals = Vec::new();
    let limit = usable_limit(plan, &mut refusals);
    let own = input.own_cluster();
    let in_force: Vec<Value> = stock::routes(plan).iter().map(|r| route(plan, r)).collect();
    let outbound = side(plan, &own, None, &in_force);
    // A service without sidecars is limited at gateways.
    let gateway = limit
        .filter(|_| input.workload_selector.is_empty())
        .map(|limit| side(plan, &own, Some(limit), &limited(limit, &in_force)));
    let to_own = route(plan, &stock::own_route(input));
    let fallback = Some(side(plan, &own, None, &[to_own]));
    let inbound = |port: u16| {
        let cluster = inbound_cluster(port);
        let all = json!({"match": {"methodName": ""}, "route": {"cluster": cluster}});
        let routes = match limit {
            Some(limit) => limited(limit, &[all]),
            None => vec![all],
        };
        side(plan, &cluster, limit, &routes)
    };
    let sides = Sides {
        outbound,
        gateway,
        fallback,
        inbound: Some(Box::new(inbound)),
    };
    let mut out = stock::frame(plan, &FILTER, &sides);
    out.refusals.extend(refusals);
    out
}

fn side(
    plan: &Plan<'_>,
    stat_prefix: &str,
    limit: Option<&GlobalRateLimit>,
    routes: &[Value],
) -> Side {
    let mut config = Map::new();
    config.insert("statPrefix".into(), json!(stat_prefix));
    let mut filters: Vec<Value> = limit.into_iter().map(rate_limit).collect();
    filters.push(json!({
        "name": "envoy.filters.thrift.router",
        "typedConfig": {"@type": ROUTER},
    }));
    config.insert("thriftFilters".into(), json!(filters));
    if let Some(log) = stock::access_log(&plan.input.settings, &LOG) {
        config.insert("accessLog".into(), log);
    }
    let mut table = Map::new();
    table.insert("routes".into(), json!(routes));
    // With a check, one cluster that is not there yet would cost the whole listener instead of one route.
    table.insert("validateClusters".into(), json!(false));
    Side {
        config,
        routes: Some(table),
    }
}

fn route(plan: &Plan<'_>, route: &Route) -> Value {
    let mut action = Map::new();
    stock::insert_clusters(&mut action, clusters(plan.input, route));
    if let Some(mirror) = &route.mirror {
        let policy = json!({
            "cluster": plan.input.cluster(&mirror.destination),
            "runtimeFraction": fraction(mirror.percent),
        });
        action.insert("requestMirrorPolicies".into(), json!([policy]));
    }
    json!({"match": matched(&route.matches), "route": action})
}

/// The part of a call that an attribute names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Method,
    Service,
    Header,
}

fn part(name: &str) -> Part {
    match name.to_ascii_lowercase().as_str() {
        "method" => Part::Method,
        "interface" | "service" | "path" => Part::Service,
        _ => Part::Header,
    }
}

fn exact(matches: &BTreeMap<String, ValueMatch>, wanted: Part) -> Option<&str> {
    matches.iter().find_map(|(name, value)| match value {
        ValueMatch::Exact(text) if part(name) == wanted => Some(text.as_str()),
        _ => None,
    })
}

fn matched(matches: &BTreeMap<String, ValueMatch>) -> Value {
    let (method, service) = (exact(matches, Part::Method), exact(matches, Part::Service));
    let mut out = Map::new();
    match (service, method) {
        (Some(service), Some(method)) => {
            out.insert("methodName".into(), json!(format!("{service}:{method}")))
        }
        (Some(service), None) => out.insert("serviceName".into(), json!(service)),
        // An empty name is every method.
        (None, method) => out.insert("methodName".into(), json!(method.unwrap_or_default())),
    };
    let headers = matches
        .iter()
        .filter(|(name, _)| part(name) == Part::Header)
        .map(|(name, value)| (name.as_str(), value));
    let headers = header_matchers(headers);
    if !headers.is_empty() {
        out.insert("headers".into(), json!(headers));
    }
    Value::Object(out)
}

/// The global limit in force; one that the filter cannot hold is refused as a whole, as calls would be counted that the
/// user did not mean.
fn usable_limit<'a>(
    plan: &'a Plan<'_>,
    refusals: &mut Vec<Refusal>,
) -> Option<&'a GlobalRateLimit> {
    let router = plan.router.as_ref()?;
    let limit = router.global_rate_limit.as_ref()?;
    let object = router.owner.to_string();
    let before = refusals.len();
    let mut refuse = |feature, field: String| {
        let refusal = stock::lacking(plan, feature, &object, &field, "there is no limit");
        refusals.push(refusal);
    };
    for (name, value) in limit.matches.iter().flatten() {
        let field = format!("spec.globalRateLimit.match.attributes.{name}");
        match (part(name), value) {
            // Every call has a method.
            (Part::Header, _) | (_, ValueMatch::Exact(_)) | (Part::Method, ValueMatch::Present) => {
            }
            (Part::Method, _) => refuse(Feature::MatchMethodPattern, field),
            (Part::Service, _) => refuse(Feature::MatchInterfacePattern, field),
        }
    }
    for (i, descriptor) in limit.descriptors.iter().enumerate() {
        if part(&descriptor.property) == Part::Service {
            let field = format!("spec.globalRateLimit.descriptors[{i}].property");
            refuse(Feature::GlobalRateLimit, field);
        }
    }
    (refusals.len() == before).then_some(limit)
}

/// The routes with the limit in them: once for the calls that it counts and, where it counts some only, once for the rest.
fn limited(limit: &GlobalRateLimit, routes: &[Value]) -> Vec<Value> {
    let actions: Vec<Value> = limit
        .descriptors
        .iter()
        .map(|d| {
            let header = match part(&d.property) {
                Part::Method => METHOD_HEADER,
                _ => d.property.as_str(),
            };
            json!({"requestHeaders": {"headerName": header, "descriptorKey": d.descriptor_key}})
        })
        .collect();
    let counted = limit.matches.as_ref().filter(|m| !m.is_empty());
    let mut out = Vec::new();
    for plain in routes {
        let mut one = plain.clone();
        one["route"]["rateLimits"] = json!([{"actions": actions}]);
        match counted {
            None => out.push(one),
            Some(matches) => {
                if join(&mut one["match"], &matched(matches)) {
                    out.push(one);
                }
                out.push(plain.clone());
            }
        }
    }
    out
}

/// Makes a match narrower by another; false when no call has both.
fn join(of: &mut Value, with: &Value) -> bool {
    if let Some(Value::Array(more)) = with.get("headers") {
        match of.get_mut("headers").and_then(Value::as_array_mut) {
            Some(list) => list.extend(more.iter().cloned()),
            None => of["headers"] = json!(more),
        }
    }
    let text = |v: &Value, key: &str| v[key].as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    let pair = |v: &Value| (text(v, "serviceName"), text(v, "methodName"));
    let joined = match (pair(of), pair(with)) {
        ((None, None), (service, method)) | ((service, method), (None, None)) => (service, method),
        (a, b) if a == b => a,
        ((Some(service), None), (None, Some(method)))
        | ((None, Some(method)), (Some(service), None)) => match method.split_once(':') {
            Some((of, _)) if of != service => return false,
            Some(_) => (None, Some(method)),
            None => (None, Some(format!("{service}:{method}"))),
        },
        _ => return false,
    };
    let fields = of.as_object_mut();
    if let Some(fields) = fields {
        fields.remove("serviceName");
        fields.remove("methodName");
        match joined {
            (Some(service), _) => fields.insert("serviceName".into(), json!(service)),
            (None, method) => fields.insert("methodName".into(), json!(method.unwrap_or_default())),
        };
    }
    true
}

fn rate_limit(limit: &GlobalRateLimit) -> Value {
    let timeout = limit.timeout.clone().unwrap_or(Span::new(DEFAULT_TIMEOUT));
    // Envoy would send the name of the cluster, and servers refuse an authority with the sign `|`.
    let authority = limit.cluster.rsplit('|').next().unwrap_or_default();
    json!({
        "name": "envoy.filters.thrift.rate_limit",
        "typedConfig": {
            "@type": RATE_LIMIT,
            "domain": limit.domain,
            "timeout": timeout.to_json(),
            "failureModeDeny": limit.deny_on_fail,
            "rateLimitService": {
                "transportApiVersion": "V3",
                "grpcService": {"envoyGrpc": {"clusterName": limit.cluster, "authority": authority}},
            },
        },
    })
}
