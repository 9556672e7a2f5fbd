//! HTTP routes of one listener: a virtual host for each service.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use trimtab_kit::problem::Problem;
use trimtab_metaprotocol::input::{Destination, ValueMatch, WeightedDestination, outbound_cluster};

use crate::input::{Balancing, HttpLimit, HttpMatch, HttpRoute, ServiceInput};
use crate::listeners::{Member, Place};

/// Where the call never reached a server, so that nothing is done twice.
pub(super) const RETRY_ON: &str = "connect-failure,refused-stream,reset-before-request";
const ATTEMPTS: u32 = 2;

/// What routes may refer to.
pub(super) struct Known<'a> {
    /// Names of all clusters.
    pub(super) clusters: BTreeSet<&'a str>,
    /// All services.
    pub(super) services: &'a [&'a ServiceInput],
}

/// The route configuration of a place of HTTP, with the services that are seen. What the names mean goes by all.
pub(super) fn configuration(
    place: &Place<'_>,
    seen: &dyn Fn(&Member<'_>) -> bool,
    known: &Known<'_>,
    limits: &[&HttpLimit],
    problems: &mut Vec<Problem>,
) -> Value {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for (service, _) in &place.members {
        let own: BTreeSet<&str> = domains(service).collect();
        for name in own {
            *names.entry(name).or_default() += 1;
        }
    }
    let hosts: Vec<Value> = place
        .members
        .iter()
        .filter(|member| seen(member))
        .map(|member| {
            let (service, port) = member;
            // Alone on its listener a service takes every call, whatever address the caller wrote.
            let domains: Vec<&str> = if place.members.len() == 1 {
                vec!["*"]
            } else {
                let own = |d: &&str| *d == service.host || names.get(d) == Some(&1);
                let mut seen = BTreeSet::new();
                domains(service)
                    .filter(own)
                    .filter(|d| seen.insert(*d))
                    .collect()
            };
            let mut host = Map::new();
            host.insert(
                "name".into(),
                json!(format!("{}:{}", service.host, port.number)),
            );
            host.insert("domains".into(), json!(domains));
            host.insert("routes".into(), json!(routes(member, known, problems)));
            let limits: Vec<Value> = limits
                .iter()
                .filter(|l| applies(l, member))
                .flat_map(|l| &l.actions)
                .map(|actions| json!({"actions": actions}))
                .collect();
            if !limits.is_empty() {
                host.insert("rate_limits".into(), json!(limits));
            }
            Value::Object(host)
        })
        .collect();
    json!({"name": place.name, "virtual_hosts": hosts, "ignore_port_in_host_matching": true})
}

/// Whether a limit is for this port.
pub(super) fn applies(limit: &HttpLimit, (service, port): &Member<'_>) -> bool {
    limit.host == service.host && limit.port.is_none_or(|p| p == port.number)
}

fn domains(service: &ServiceInput) -> impl Iterator<Item = &str> {
    std::iter::once(service.host.as_str()).chain(service.aliases.iter().map(String::as_str))
}

fn routes(member: &Member<'_>, known: &Known<'_>, problems: &mut Vec<Problem>) -> Vec<Value> {
    let (service, _) = member;
    if service.routes.is_empty() {
        let own = HttpRoute {
            name: "default".to_owned(),
            destinations: vec![WeightedDestination {
                destination: Destination {
                    host: service.host.clone(),
                    ..Destination::default()
                },
                weight: 0,
            }],
            ..HttpRoute::default()
        };
        return vec![one(member, &own, &HttpMatch::default(), known)];
    }
    let mut out = Vec::new();
    for (i, route) in service.routes.iter().enumerate() {
        unknown(member, i, route, known, problems);
        let every = [HttpMatch::default()];
        let matches = if route.matches.is_empty() {
            every.as_slice()
        } else {
            route.matches.as_slice()
        };
        out.extend(matches.iter().map(|m| one(member, route, m, known)));
    }
    out
}

/// Destinations that are not there: calls to them are answered with 503.
fn unknown(
    member: &Member<'_>,
    index: usize,
    route: &HttpRoute,
    known: &Known<'_>,
    problems: &mut Vec<Problem>,
) {
    let (service, _) = member;
    let object = service.route_owner.as_ref().map_or_else(
        || {
            format!(
                "{} {}/{}",
                service.source.as_str(),
                service.namespace,
                service.service
            )
        },
        ToString::to_string,
    );
    let listed = route
        .destinations
        .iter()
        .enumerate()
        .map(|(j, d)| (format!("route[{j}]"), &d.destination));
    let mirrored = route
        .mirror
        .iter()
        .map(|m| ("mirror".to_owned(), &m.destination));
    for (field, to) in listed.chain(mirrored) {
        let name = cluster(member, to);
        if !known.clusters.contains(name.as_str()) {
            problems.push(Problem::new(&object, format!("spec.http[{index}].{field}"), "UnknownDestination", format!(
                "no service has the host \"{}\" with the port and subset of {name}: correct them, or add the Service, the port, or the subset of a DestinationRule", to.host
            )));
        }
    }
}

fn cluster((_, port): &Member<'_>, to: &Destination) -> String {
    outbound_cluster(to.port.unwrap_or(port.number), &to.subset, &to.host)
}

fn one(member: &Member<'_>, route: &HttpRoute, test: &HttpMatch, known: &Known<'_>) -> Value {
    let mut out = Map::new();
    if !route.name.is_empty() {
        out.insert("name".into(), json!(route.name));
    }
    out.insert("match".into(), matched(test));
    let mut action = Map::new();
    insert_clusters(&mut action, member, &route.destinations);
    let timeout = route
        .timeout
        .as_ref()
        .map_or("0s".to_owned(), trimtab_metaprotocol::span::Span::to_json);
    action.insert("timeout".into(), json!(timeout));
    if let Some(policy) = retries(route) {
        action.insert("retry_policy".into(), policy);
    }
    if let Some(mirror) = &route.mirror {
        action.insert(
            "request_mirror_policies".into(),
            json!([{"cluster": cluster(member, &mirror.destination), "runtime_fraction": fraction(mirror.percent)}]),
        );
    }
    let hash: BTreeSet<&str> = route
        .destinations
        .iter()
        .filter_map(|d| hashed(known, d))
        .collect();
    if !hash.is_empty() {
        let list: Vec<Value> = hash
            .iter()
            .map(|h| json!({"header": {"header_name": h}}))
            .collect();
        action.insert("hash_policy".into(), json!(list));
    }
    out.insert("route".into(), Value::Object(action));
    Value::Object(out)
}

fn hashed<'a>(known: &Known<'a>, to: &WeightedDestination) -> Option<&'a str> {
    let service = known
        .services
        .iter()
        .find(|s| s.host == to.destination.host)?;
    match &service.balancing {
        Balancing::Header(name) => Some(name),
        _ => None,
    }
}

/// The weight 0 means that nothing goes there; a single destination gets everything.
fn insert_clusters(
    action: &mut Map<String, Value>,
    member: &Member<'_>,
    to: &[WeightedDestination],
) {
    let used: Vec<&WeightedDestination> = to
        .iter()
        .filter(|d| d.weight > 0 || to.len() == 1)
        .collect();
    match used.as_slice() {
        [] | [_] => {
            let only = used.first().copied().or(to.first());
            let name = only.map_or_else(
                || {
                    cluster(
                        member,
                        &Destination {
                            host: member.0.host.clone(),
                            ..Destination::default()
                        },
                    )
                },
                |d| cluster(member, &d.destination),
            );
            action.insert("cluster".into(), json!(name));
        }
        several => {
            let list: Vec<Value> = several
                .iter()
                .map(|d| json!({"name": cluster(member, &d.destination), "weight": d.weight}))
                .collect();
            action.insert("weighted_clusters".into(), json!({"clusters": list}));
        }
    }
}

fn retries(route: &HttpRoute) -> Option<Value> {
    let Some(wanted) = &route.retries else {
        return Some(json!({"retry_on": RETRY_ON, "num_retries": ATTEMPTS}));
    };
    if wanted.attempts == 0 {
        return None;
    }
    let on = if wanted.retry_on.is_empty() {
        RETRY_ON
    } else {
        &wanted.retry_on
    };
    let mut out = json!({"retry_on": on, "num_retries": wanted.attempts});
    if let Some(timeout) = &wanted.per_try_timeout {
        out["per_try_timeout"] = json!(timeout.to_json());
    }
    Some(out)
}

fn fraction(percent: f64) -> Value {
    let parts = (percent.clamp(0.0, 100.0) * 10_000.0).round();
    // Between 0 and a million after the clamp.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let parts = parts as u32;
    json!({"default_value": {"numerator": parts, "denominator": "MILLION"}})
}

fn matched(call: &HttpMatch) -> Value {
    let mut out = Map::new();
    match &call.path {
        None | Some(ValueMatch::Present) => out.insert("prefix".into(), json!("/")),
        Some(ValueMatch::Exact(text)) => out.insert("path".into(), json!(text)),
        Some(ValueMatch::Prefix(text)) => out.insert("prefix".into(), json!(text)),
        Some(ValueMatch::Regex(text)) => out.insert("safe_regex".into(), json!({"regex": text})),
    };
    let headers: Vec<Value> = call
        .headers
        .iter()
        .map(|(name, value)| match value {
            ValueMatch::Present => json!({"name": name, "present_match": true}),
            ValueMatch::Exact(text) => json!({"name": name, "string_match": {"exact": text}}),
            ValueMatch::Prefix(text) => json!({"name": name, "string_match": {"prefix": text}}),
            ValueMatch::Regex(text) => {
                json!({"name": name, "string_match": {"safe_regex": {"regex": text}}})
            }
        })
        .collect();
    if !headers.is_empty() {
        out.insert("headers".into(), json!(headers));
    }
    Value::Object(out)
}
