//! Envoy's Redis filter: prefix routes, mirrors, faults and authorization of callers, from a RedisService.
//!
//! Routes are a part of the filter's configuration, and Envoy has no discovery for them. It does not survive a change of
//! the filter over ECDS either, so that everything is in the EnvoyFilter: a change drains the listener. The service's own side keeps the TCP proxy where servers ask for a password or form a cluster: the
//! filter would answer AUTH and CLUSTER itself instead of letting them through.

mod auth;
mod check;
mod cluster;

use serde_json::{Map, Value, json};

use super::stock::{self, Filter, Side, Sides, fraction};
use crate::input::{
    Destination, RedisFault, RedisFaultKind, RedisMode, RedisReadPolicy, RedisRoute, RedisService,
    RedisSettings, ServicePortInput, inbound_cluster,
};
use crate::output::{Refusal, Translation};
use crate::span::Span;
use crate::validate::Plan;

const FILTER: Filter = Filter {
    name: "envoy.filters.network.redis_proxy",
    type_url: "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
    // Envoy 1.40 ends with a segmentation fault when a connection uses the filter that an update replaces.
    ecds: false,
    discovery: None,
};
/// Of a command, when the RedisService does not say.
const OP_TIMEOUT: &str = "60s";
/// The caller's side decides; here it must not be shorter.
const INBOUND_OP_TIMEOUT: &str = "3600s";

/// Outputs for one port.
pub(super) fn translate(plan: &Plan<'_>) -> Translation {
    let mut out = Translation::default();
    let findings = check::check(plan.input);
    let invalid = !findings.invalid.is_empty();
    let blocking = findings
        .invalid
        .into_iter()
        .map(|p| Refusal::mistake(p, true));
    out.refusals.extend(blocking);
    let doubtful = findings
        .doubtful
        .into_iter()
        .map(|p| Refusal::mistake(p, false));
    out.refusals.extend(doubtful);
    out.refusals.extend(stock::routes_not_used(
        plan,
        "write a RedisService for the host",
    ));
    if invalid {
        out.retained = true;
        return out;
    }
    let made = outbound(plan).and_then(|side| Ok((side, cluster::objects(plan)?)));
    match made {
        Ok((outbound, clusters)) => out.extend(framed(plan, outbound, clusters)),
        Err(problem) => {
            out.refusals.push(Refusal::mistake(*problem, true));
            out.retained = true;
        }
    }
    out
}

fn framed(plan: &Plan<'_>, outbound: Side, clusters: Translation) -> Translation {
    let input = plan.input;
    let inbound = |port: u16| {
        let cluster = inbound_cluster(port);
        let routes = json!({"catchAllRoute": {"cluster": cluster}});
        plain(&cluster, &json!({"opTimeout": INBOUND_OP_TIMEOUT}), &routes)
    };
    let destination = input.redis_destinations.get(&input.host);
    let through = destination.is_none_or(|d| d.auth.is_none() && d.mode == RedisMode::Proxy);
    let sides = Sides {
        outbound,
        gateway: None,
        fallback: None,
        inbound: if through {
            Some(Box::new(inbound))
        } else {
            None
        },
    };
    let mut out = stock::frame(plan, &FILTER, &sides);
    if !out.retained && !plan.retained && !plan.unusable {
        out.extend(clusters);
    }
    out
}

fn own_host(input: &ServicePortInput) -> Destination {
    Destination {
        host: input.host.clone(),
        ..Destination::default()
    }
}

fn plain(stat_prefix: &str, settings: &Value, routes: &Value) -> Side {
    let mut config = Map::new();
    config.insert("statPrefix".into(), json!(stat_prefix));
    config.insert("settings".into(), settings.clone());
    config.insert("prefixRoutes".into(), routes.clone());
    Side {
        config,
        ..Side::default()
    }
}

fn outbound(plan: &Plan<'_>) -> Result<Side, Box<trimtab_kit::problem::Problem>> {
    let input = plan.input;
    let own = input.own_cluster();
    let default = RedisService::default();
    let service = input.redis.as_ref().unwrap_or(&default);
    let mut side = plain(&own, &settings(&service.settings), &routes(input, service));
    if !service.faults.is_empty() {
        let faults: Vec<Value> = service.faults.iter().map(fault).collect();
        side.config.insert("faults".into(), json!(faults));
    }
    if let Some(wanted) = &service.settings.auth {
        let found = auth::sources(input, wanted, &service.owner, "spec.settings.auth")?;
        found.insert_downstream(&mut side.config);
    }
    Ok(side)
}

fn settings(of: &RedisSettings) -> Value {
    let op_timeout = of.op_timeout.clone().unwrap_or(Span::new(OP_TIMEOUT));
    let mut out = Map::new();
    out.insert("opTimeout".into(), json!(op_timeout.to_json()));
    for (name, on) in [
        ("enableHashtagging", of.enable_hashtagging),
        ("enableRedirection", of.enable_redirection),
        ("enableCommandStats", of.enable_command_stats),
    ] {
        if on {
            out.insert(name.into(), json!(true));
        }
    }
    if of.max_buffer_size_before_flush > 0 {
        out.insert(
            "maxBufferSizeBeforeFlush".into(),
            json!(of.max_buffer_size_before_flush),
        );
    }
    if let Some(timeout) = &of.buffer_flush_timeout {
        out.insert("bufferFlushTimeout".into(), json!(timeout.to_json()));
    }
    if let Some(most) = of.max_upstream_unknown_connections {
        out.insert("maxUpstreamUnknownConnections".into(), json!(most));
    }
    let policy = match of.read_policy {
        RedisReadPolicy::Master => None,
        RedisReadPolicy::PreferMaster => Some("PREFER_MASTER"),
        RedisReadPolicy::Replica => Some("REPLICA"),
        RedisReadPolicy::PreferReplica => Some("PREFER_REPLICA"),
        RedisReadPolicy::Any => Some("ANY"),
    };
    if let Some(policy) = policy {
        out.insert("readPolicy".into(), json!(policy));
    }
    Value::Object(out)
}

/// `prefixRoutes`. The last route without a prefix is the one for the rest, as in Aeraki.
fn routes(input: &ServicePortInput, service: &RedisService) -> Value {
    let mut out = Map::new();
    let mut prefixes = Vec::new();
    for route in &service.routes {
        let value = one(input, route);
        if prefix(route).is_some() {
            prefixes.push(value);
        } else {
            out.insert("catchAllRoute".into(), value);
        }
    }
    if service.routes.is_empty() {
        let own = cluster::name(input, &own_host(input));
        out.insert("catchAllRoute".into(), json!({"cluster": own}));
    }
    if !prefixes.is_empty() {
        out.insert("routes".into(), json!(prefixes));
    }
    if service.settings.case_insensitive {
        out.insert("caseInsensitive".into(), json!(true));
    }
    Value::Object(out)
}

/// The prefix of a route; `None`: it takes everything else.
fn prefix(route: &RedisRoute) -> Option<&str> {
    route.prefix.as_deref().filter(|p| !p.is_empty())
}

fn one(input: &ServicePortInput, route: &RedisRoute) -> Value {
    let mut out = Map::new();
    out.insert(
        "cluster".into(),
        json!(cluster::name(input, &route.destination)),
    );
    if let Some(prefix) = prefix(route) {
        out.insert("prefix".into(), json!(prefix));
        if route.remove_prefix {
            out.insert("removePrefix".into(), json!(true));
        }
    }
    let mirrors: Vec<Value> = route
        .mirrors
        .iter()
        .map(|m| {
            let mut policy = json!({"cluster": cluster::name(input, &m.destination)});
            if let Some(percent) = m.percent {
                policy["runtimeFraction"] = fraction(percent);
            }
            if m.exclude_read_commands {
                policy["excludeReadCommands"] = json!(true);
            }
            policy
        })
        .collect();
    if !mirrors.is_empty() {
        out.insert("requestMirrorPolicy".into(), json!(mirrors));
    }
    Value::Object(out)
}

fn fault(fault: &RedisFault) -> Value {
    let mut out = Map::new();
    if fault.kind == RedisFaultKind::Error {
        out.insert("faultType".into(), json!("ERROR"));
    }
    out.insert(
        "faultEnabled".into(),
        fraction(fault.percent.unwrap_or(100.0)),
    );
    if let Some(delay) = &fault.delay {
        out.insert("delay".into(), json!(delay.to_json()));
    }
    if !fault.commands.is_empty() {
        let commands: Vec<String> = fault.commands.iter().map(|c| c.to_lowercase()).collect();
        out.insert("commands".into(), json!(commands));
    }
    Value::Object(out)
}
