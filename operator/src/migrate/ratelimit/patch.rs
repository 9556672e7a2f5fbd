//! The patches of an EnvoyFilter that concern local rate limits, and where they apply.

use serde_json::Value;

use super::actions::{self, RateLimit};
use super::bucket::{self, Bucket};
use super::place::{Place, Side};
use crate::migrate::objects::{items, text};

/// Begins the names and is the type of the filter.
const FILTER: &str = "envoy.filters.http.local_ratelimit";
const TYPE: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
/// The filter that asks a rate limit service.
const GLOBAL: &str = "envoy.extensions.filters.http.ratelimit.v3.RateLimit";
const NETWORK: &str = "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit";

/// What an EnvoyFilter has.
#[derive(Debug, Default)]
pub struct Found<'a> {
    /// Buckets of the filter and of routes.
    pub buckets: Vec<Bucket<'a>>,
    /// What makes descriptors.
    pub rate_limits: Vec<RateLimit<'a>>,
    /// Patches that insert the filter.
    pub inserts: usize,
    /// Patches of something else.
    pub others: usize,
    /// What a SmartLimiter cannot say.
    pub refused: Vec<String>,
}

impl Found<'_> {
    /// Whether there is anything of limits.
    pub fn concerns_limits(&self) -> bool {
        self.inserts > 0 || !self.buckets.is_empty() || !self.refused.is_empty()
    }
}

/// Reads an EnvoyFilter.
pub fn read(filter: &Value) -> Found<'_> {
    let mut found = Found::default();
    let patches = items(filter, "/spec/configPatches");
    let limits = patches
        .iter()
        .any(|p| concerns(p, TYPE) || concerns(p, FILTER));
    if limits && !items(filter, "/spec/targetRefs").is_empty() {
        found.refused.push("spec.targetRefs: a SmartLimiter selects pods by labels: write spec.workloadSelector with those of the gateway's pods".to_owned());
    }
    for (i, patch) in patches.iter().enumerate() {
        let at = format!("spec.configPatches[{i}]");
        let refused = match one(patch, limits, &mut found) {
            Ok(()) => continue,
            Err(reason) => format!("{at}: {reason}"),
        };
        found.refused.push(refused);
    }
    found
}

/// Whether a text is somewhere in a patch.
fn concerns(patch: &Value, word: &str) -> bool {
    match patch {
        Value::String(text) => text.contains(word),
        Value::Array(all) => all.iter().any(|v| concerns(v, word)),
        Value::Object(all) => all
            .iter()
            .any(|(k, v)| k.contains(word) || concerns(v, word)),
        _ => false,
    }
}

/// The configuration of the filter at a route or virtual host.
fn per_route(value: &Value) -> Option<&Value> {
    let configs = bucket::field(value, "typed_per_filter_config").as_object();
    let mut configs = configs.into_iter().flatten();
    let found = configs.find(|(name, config)| name.starts_with(FILTER) || concerns(config, TYPE));
    found.map(|(_, config)| config)
}

/// What makes descriptors at a route or virtual host.
fn rate_limits<'a>(apply_to: &str, value: &'a Value) -> &'a Value {
    let of = match apply_to {
        "HTTP_ROUTE" => bucket::field(value, "route"),
        _ => value,
    };
    bucket::field(of, "rate_limits")
}

fn one<'a>(patch: &'a Value, limits: bool, found: &mut Found<'a>) -> Result<(), String> {
    if concerns(patch, NETWORK) {
        return Err("a limit of connections (network filter): a SmartLimiter limits requests; keep the EnvoyFilter".to_owned());
    }
    if concerns(patch, GLOBAL) {
        return Err("a limit by a rate limit service: the strategy global is not available; keep the EnvoyFilter, or write a limit with strategy average".to_owned());
    }
    let value = &patch["patch"]["value"];
    let apply_to = text(patch, "/applyTo");
    let own = match apply_to {
        "HTTP_FILTER" => concerns(value, TYPE) || text(value, "/name").starts_with(FILTER),
        _ => per_route(value).is_some(),
    };
    if !own && (rate_limits(apply_to, value).is_null() || !limits) {
        found.others += 1;
        return Ok(());
    }
    fits(patch)?;
    match apply_to {
        "HTTP_FILTER" => filter(patch, found),
        "HTTP_ROUTE" | "VIRTUAL_HOST" => route(patch, apply_to, found),
        other => Err(format!(
            "applyTo {other}: a SmartLimiter limits inbound ports, virtual hosts and routes: write HTTP_ROUTE or VIRTUAL_HOST"
        )),
    }
}

/// The filter itself, with or without a bucket.
fn filter<'a>(patch: &'a Value, found: &mut Found<'a>) -> Result<(), String> {
    let side = side(patch)?;
    found.inserts += 1;
    let typed = bucket::field(&patch["patch"]["value"], "typed_config");
    if let Some(limit) = bucket::limit(bucket::config(typed))? {
        found.buckets.push(Bucket {
            side,
            place: of_filter(patch, side)?,
            of_filter: true,
            limit,
        });
    }
    Ok(())
}

/// The bucket of a route or virtual host, and what makes descriptors there.
fn route<'a>(patch: &'a Value, apply_to: &str, found: &mut Found<'a>) -> Result<(), String> {
    let value = &patch["patch"]["value"];
    let side = side(patch)?;
    let place = of_route(patch, side, apply_to == "VIRTUAL_HOST")?;
    if let Some(config) = per_route(value)
        && let Some(limit) = bucket::limit(bucket::config(config))?
    {
        found.buckets.push(Bucket {
            side,
            place: place.clone(),
            of_filter: false,
            limit,
        });
    }
    let all = rate_limits(apply_to, value).as_array();
    for rate_limit in all.into_iter().flatten() {
        let read = actions::read(rate_limit, side, place.clone())?;
        found.rate_limits.push(read);
    }
    Ok(())
}

/// Whether operation and match are such that a SmartLimiter can say the same.
fn fits(patch: &Value) -> Result<(), String> {
    let operation = text(patch, "/patch/operation");
    if ![
        "INSERT_BEFORE",
        "INSERT_FIRST",
        "INSERT_AFTER",
        "ADD",
        "MERGE",
    ]
    .contains(&operation)
    {
        return Err(format!(
            "operation {operation}: a SmartLimiter only adds limits"
        ));
    }
    let proxy = &patch["match"]["proxy"];
    if !proxy.is_null() {
        return Err("match.proxy: which proxies have limits is one key for all limiters, limiter.proxyVersion of the configuration".to_owned());
    }
    Ok(())
}

fn side(patch: &Value) -> Result<Side, String> {
    match text(patch, "/match/context") {
        "SIDECAR_INBOUND" => Ok(Side::Inbound),
        "SIDECAR_OUTBOUND" => Ok(Side::Outbound),
        "GATEWAY" => Ok(Side::Gateway),
        other => Err(format!(
            "match.context {other:?}: it acts on inbound and outbound requests and on gateways: write one EnvoyFilter for each that is meant"
        )),
    }
}

/// The place of a bucket in the filter itself.
fn of_filter(patch: &Value, side: Side) -> Result<Place, String> {
    if side != Side::Inbound {
        return Err("a bucket for all requests of a listener: a SmartLimiter names virtual hosts or routes there: put the bucket at a virtual host".to_owned());
    }
    let listener = &patch["match"]["listener"];
    let chain = &listener["filterChain"];
    for key in ["sni", "transportProtocol", "applicationProtocols", "name"] {
        if !chain[key].is_null() {
            return Err(format!(
                "match.listener.filterChain.{key}: a SmartLimiter limits all connections of a port"
            ));
        }
    }
    let port = [&listener["portNumber"], &chain["destinationPort"]];
    let port = port.into_iter().find_map(Value::as_u64);
    match text(listener, "/name") {
        "" | "virtualInbound" => Ok(Place::Inbound(port)),
        other => Err(format!(
            "match.listener.name {other}: a SmartLimiter names a port: write match.listener.portNumber"
        )),
    }
}

/// The place of a route or virtual host.
fn of_route(patch: &Value, side: Side, whole: bool) -> Result<Place, String> {
    let of = &patch["match"]["routeConfiguration"];
    let host = text(of, "/vhost/name");
    let route = text(of, "/vhost/route/name");
    if side == Side::Inbound {
        if !matches!(route, "" | "default") {
            return Err(format!(
                "match.routeConfiguration.vhost.route.name {route}: inbound, Istio has one route a port, default"
            ));
        }
        return inbound_port(of, host).map(Place::Inbound);
    }
    if host.contains('/') || route.contains('/') {
        return Err("match.routeConfiguration: a target of a SmartLimiter is VIRTUAL-HOST/ROUTE, so that neither can have a slash: name the route otherwise in its VirtualService".to_owned());
    }
    match (host, route, whole) {
        ("", "", _) => Err("match.routeConfiguration names no virtual host and no route: name those that are meant".to_owned()),
        (host, _, true) => Ok(Place::Host(host.to_owned())),
        (_, "", false) => Err(format!("each route of {host} has a bucket of its own: name the routes in their VirtualService, and a patch for each; or applyTo VIRTUAL_HOST, where they share one")),
        (host, route, false) => Ok(Place::Route(host.to_owned(), route.to_owned())),
    }
}

/// The port of an inbound route; `None`: all ports.
fn inbound_port(of: &Value, host: &str) -> Result<Option<u64>, String> {
    if host.is_empty() {
        let of_name = text(of, "/name").strip_prefix("inbound|");
        let of_name = of_name.and_then(|n| n.trim_end_matches('|').parse().ok());
        return Ok(of_name.or_else(|| of["portNumber"].as_u64()));
    }
    let port = host.strip_prefix("inbound|http|");
    match port.and_then(|port| port.parse().ok()) {
        Some(port) => Ok(Some(port)),
        None => Err(format!(
            "match.routeConfiguration.vhost.name {host}: inbound virtual hosts are named inbound|http|PORT"
        )),
    }
}
