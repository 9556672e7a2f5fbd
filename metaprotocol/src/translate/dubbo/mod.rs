//! Envoy's Dubbo filter.
//!
//! Every route of the router is a route configuration of its own, with the interface, group and version that it asks
//! for: Envoy takes the first configuration in the list that has a route for the call, as the router's order says.

pub(super) mod authorize;

use serde_json::{Map, Value, json};

use super::stock::{
    self, Discovery, Filter, Side, Sides, clusters, header_matchers, insert_clusters, names,
    string_matcher,
};
use crate::input::{Route, ValueMatch, inbound_cluster};
use crate::output::Translation;
use crate::validate::Plan;

const FILTER: Filter = Filter {
    name: "envoy.filters.network.dubbo_proxy",
    type_url: "type.googleapis.com/envoy.extensions.filters.network.dubbo_proxy.v3.DubboProxy",
    ecds: true,
    discovery: Some(Discovery {
        field: "drds",
        inline: "multipleRouteConfig",
        type_url: names::DRDS,
    }),
};
const ROUTER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.dubbo_proxy.router.v3.Router";

/// Outputs for one port.
pub(super) fn translate(plan: &Plan<'_>) -> Translation {
    let input = plan.input;
    let own = input.own_cluster();
    let in_force: Vec<Value> = stock::routes(plan).iter().map(|r| route(plan, r)).collect();
    let fallback = [route(plan, &stock::own_route(input))];
    let inbound = |port: u16| {
        let cluster = inbound_cluster(port);
        side(&cluster, &[everything(&json!({"cluster": cluster}))])
    };
    let sides = Sides {
        outbound: side(&own, &in_force),
        gateway: None,
        fallback: Some(side(&own, &fallback)),
        inbound: Some(Box::new(inbound)),
    };
    let mut out = stock::frame(plan, &FILTER, &sides);
    authorize::apply(plan, &mut out);
    out
}

fn side(stat_prefix: &str, routes: &[Value]) -> Side {
    let mut config = Map::new();
    config.insert("statPrefix".into(), json!(stat_prefix));
    config.insert(
        "dubboFilters".into(),
        json!([{"name": "envoy.filters.dubbo.router", "config": {"@type": ROUTER}}]),
    );
    let mut table = Map::new();
    table.insert("routeConfig".into(), json!(routes));
    Side {
        config,
        routes: Some(table),
    }
}

/// A route configuration for every call.
fn everything(action: &Value) -> Value {
    let method = json!({"name": string_matcher(&ValueMatch::Present)});
    json!({
        "interface": "*",
        "routes": [{"match": {"method": method}, "route": action}],
    })
}

/// One route configuration, with one route.
fn route(plan: &Plan<'_>, route: &Route) -> Value {
    let mut action = Map::new();
    insert_clusters(&mut action, clusters(plan.input, route));
    let mut out = everything(&Value::Object(action));
    let mut headers: Vec<(&str, &ValueMatch)> = Vec::new();
    for (name, value) in &route.matches {
        match (Attribute::of(name), value) {
            (Attribute::Interface, ValueMatch::Exact(text)) => out["interface"] = json!(text),
            (Attribute::Interface, ValueMatch::Prefix(text)) => {
                out["interface"] = json!(format!("{text}*"));
            }
            // Every call has one.
            (Attribute::Interface, ValueMatch::Present) => {}
            // Envoy knows no patterns of interfaces; callers send it as an attachment too.
            (Attribute::Interface, ValueMatch::Regex(_)) => headers.push(("interface", value)),
            (Attribute::Group, ValueMatch::Exact(text)) => out["group"] = json!(text),
            (Attribute::Version, ValueMatch::Exact(text)) => out["version"] = json!(text),
            (Attribute::Method, value) => {
                out["routes"][0]["match"]["method"]["name"] = string_matcher(value);
            }
            (Attribute::Argument(index), ValueMatch::Exact(text)) => {
                let argument = json!({"exactMatch": text});
                out["routes"][0]["match"]["method"]["paramsMatch"][index.to_string()] = argument;
            }
            (_, value) => headers.push((name, value)),
        }
    }
    if !headers.is_empty() {
        out["routes"][0]["match"]["headers"] = json!(header_matchers(headers));
    }
    out
}

/// What an attribute means for a Dubbo call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Attribute {
    Interface,
    Group,
    Version,
    Method,
    /// `argument[N]`.
    Argument(u32),
    Attachment,
}

impl Attribute {
    pub(super) fn of(name: &str) -> Self {
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "interface" | "service" | "path" => Self::Interface,
            "group" => Self::Group,
            "version" => Self::Version,
            "method" => Self::Method,
            other => other
                .strip_prefix("argument[")
                .and_then(|rest| rest.strip_suffix(']')?.parse().ok())
                .map_or(Self::Attachment, Self::Argument),
        }
    }
}
