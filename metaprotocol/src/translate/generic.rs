//! Envoy's generic filter with the Dubbo codec.

use serde_json::{Map, Value, json};

use super::dubbo::{Attribute, authorize};
use super::stock::{
    self, Clusters, Discovery, Filter, Side, Sides, clusters, names, string_matcher,
};
use crate::input::{Route, inbound_cluster};
use crate::output::Translation;
use crate::validate::Plan;

const FILTER: Filter = Filter {
    name: "envoy.filters.network.generic_proxy",
    type_url: "type.googleapis.com/envoy.extensions.filters.network.generic_proxy.v3.GenericProxy",
    ecds: true,
    discovery: Some(Discovery {
        field: "genericRds",
        inline: "routeConfig",
        type_url: names::GENERIC_RDS,
    }),
};
const CODEC: &str = "type.googleapis.com/envoy.extensions.filters.network.generic_proxy.codecs.dubbo.v3.DubboCodecConfig";
const ROUTER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.generic_proxy.router.v3.Router";
const ACTION: &str =
    "type.googleapis.com/envoy.extensions.filters.network.generic_proxy.action.v3.RouteAction";
const INPUT: &str = "type.googleapis.com/envoy.extensions.filters.network.generic_proxy.matcher.v3.RequestMatchInput";
const MATCHER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.generic_proxy.matcher.v3.RequestMatcher";
/// Fields of the access log.
const LOG: [(&str, &str); 8] = [
    ("start_time", "[%START_TIME%]"),
    ("service", "%HOST%"),
    ("method", "%METHOD%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("duration", "%DURATION%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
];

/// Outputs for one port.
pub(super) fn translate(plan: &Plan<'_>) -> Translation {
    let input = plan.input;
    let own = input.own_cluster();
    let own_route = [stock::own_route(input)];
    let inbound = |port: u16| {
        let cluster = inbound_cluster(port);
        let all = action(&Route::default(), &cluster);
        side(plan, &cluster, &json!({"onNoMatch": all}))
    };
    let sides = Sides {
        outbound: side(plan, &own, &table(plan, &stock::routes(plan))),
        gateway: None,
        fallback: Some(side(plan, &own, &table(plan, &own_route))),
        inbound: Some(Box::new(inbound)),
    };
    let mut out = stock::frame(plan, &FILTER, &sides);
    authorize::apply(plan, &mut out);
    out
}

fn side(plan: &Plan<'_>, stat_prefix: &str, routes: &Value) -> Side {
    let mut config = Map::new();
    config.insert("statPrefix".into(), json!(stat_prefix));
    config.insert(
        "codecConfig".into(),
        json!({"name": "envoy.generic_proxy.codecs.dubbo", "typedConfig": {"@type": CODEC}}),
    );
    config.insert(
        "filters".into(),
        json!([{"name": "envoy.filters.generic.router", "typedConfig": {"@type": ROUTER}}]),
    );
    let settings = &plan.input.settings;
    if let Some(log) = stock::access_log(settings, &LOG) {
        config.insert("accessLog".into(), log);
    }
    if let Some(tracing) = stock::tracing(settings) {
        config.insert("tracing".into(), tracing);
    }
    let mut table = Map::new();
    table.insert("routes".into(), routes.clone());
    Side {
        config,
        routes: Some(table),
    }
}

/// The routes as a matcher. The first route without a match takes the rest; routes after it are never used.
fn table(plan: &Plan<'_>, routes: &[Route]) -> Value {
    let mut out = Map::new();
    let mut matchers = Vec::new();
    for route in routes {
        let cluster = match clusters(plan.input, route) {
            Clusters::One(cluster) => cluster,
            // Weights are refused for this filter, so that this is not reached with them.
            Clusters::Weighted(list) => list.into_iter().next().unwrap_or_default().0,
        };
        let action = action(route, &cluster);
        let Some(matched) = matched(route) else {
            out.insert("onNoMatch".into(), action);
            break;
        };
        matchers.push(json!({"predicate": {"singlePredicate": matched}, "onMatch": action}));
    }
    if !matchers.is_empty() {
        out.insert("matcherList".into(), json!({"matchers": matchers}));
    }
    Value::Object(out)
}

/// Envoy's own time limit is 15 s; a router that asks for none gets none.
fn action(route: &Route, cluster: &str) -> Value {
    let mut action = Map::new();
    action.insert("@type".into(), json!(ACTION));
    action.insert("cluster".into(), json!(cluster));
    if !route.name.is_empty() {
        action.insert("name".into(), json!(route.name));
    }
    let timeout = route
        .timeout
        .as_ref()
        .map_or("0s".to_owned(), crate::span::Span::to_json);
    action.insert("timeout".into(), json!(timeout));
    if let Some(retries) = &route.retries {
        action.insert(
            "retryPolicy".into(),
            json!({"numRetries": retries.attempts}),
        );
    }
    json!({"action": {"name": "route", "typedConfig": action}})
}

/// The test of a route; `None`: every call.
fn matched(route: &Route) -> Option<Value> {
    if route.matches.is_empty() {
        return None;
    }
    let mut matcher = Map::new();
    matcher.insert("@type".into(), json!(MATCHER));
    let mut properties = Vec::new();
    for (name, value) in &route.matches {
        let test = string_matcher(value);
        match Attribute::of(name) {
            Attribute::Interface => drop(matcher.insert("host".into(), test)),
            Attribute::Method => drop(matcher.insert("method".into(), test)),
            // The names that the codec gives them.
            Attribute::Group => properties.push(json!({"name": "group", "stringMatch": test})),
            Attribute::Version => properties.push(json!({"name": "version", "stringMatch": test})),
            Attribute::Argument(_) | Attribute::Attachment => {
                properties.push(json!({"name": name, "stringMatch": test}));
            }
        }
    }
    if !properties.is_empty() {
        matcher.insert("properties".into(), json!(properties));
    }
    Some(json!({
        "input": {"name": "request", "typedConfig": {"@type": INPUT}},
        "customMatch": {"name": "request", "typedConfig": matcher},
    }))
}
