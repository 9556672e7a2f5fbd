//! HTTP rules of VirtualServices as routes of `tcp-dubbo` and `tcp-thrift` ports, as Aeraki reads them.
//!
//! A host that also has a port of HTTP keeps its rules for that one, unless a match names the layer-7 port.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;
use trimtab_crds::istio::{self, HttpMatchRequest, HttpRule, StringMatch, VirtualService};
use trimtab_kit::problem::Problem;
use trimtab_mesh::model::Identity;
use trimtab_mesh::names::full_host;

use super::Mesh;
use super::hosts::{Host, HostPort};
use super::owners::not_owner;
use super::router::unsigned;
use crate::input::{
    Destination, Mirror, Protocol, Retries, Route, Router, ValueMatch, WeightedDestination,
};
use crate::owner::Owner;
use crate::span::Span;

/// What routes a port: the MetaRouter of its host, else the rules in force, as a router. Tells the others of the host why
/// they are not.
pub(super) fn router(
    mesh: &Mesh,
    host: &Host,
    port: &HostPort,
    router: Option<Router>,
    problems: &mut Vec<Problem>,
) -> Option<Router> {
    if !matches!(port.protocol, Some(Protocol::Dubbo | Protocol::Thrift)) {
        return router;
    }
    let (mut own, mut told) = (Vec::new(), Vec::new());
    for object in &mesh.virtual_services {
        if !is_for(mesh, object, host) {
            continue;
        }
        let Some(rules) = lower(mesh, object, host, port) else {
            continue;
        };
        if mesh.decides(object.namespace().as_deref(), host) {
            let elsewhere = rules.owner.namespace != host.namespace;
            own.push((elsewhere, Identity::of(object.as_ref()).age(), rules));
        } else {
            let what = "its routes";
            told.push(not_owner(mesh, rules.owner, "spec.hosts", what, host));
        }
    }
    own.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let mut sorted = own.into_iter().map(|(.., rules)| rules);
    let first = router.or_else(|| sorted.next());
    if let Some(first) = &first {
        told.extend(sorted.map(|other| Problem::new(other.owner, "spec.hosts", "Conflict", format!(
            "{} is in force for \"{}\": put the rules into one of the two and delete the other",
            first.owner, host.name
        ))));
    }
    for problem in told {
        // Another port of the host may have said so.
        if mesh.tells(&host.name) && !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    first
}

/// Whether an object is for sidecars and names the host.
fn is_for(mesh: &Mesh, object: &VirtualService, host: &Host) -> bool {
    let spec = &object.spec;
    let sidecars = spec.gateways.is_empty() || spec.gateways.iter().any(|g| g == "mesh");
    let mut hosts = hosts(object, mesh.domain());
    sidecars && hosts.any(|h| h == host.name)
}

/// Full hosts of an object.
pub(crate) fn hosts<'a>(
    object: &'a VirtualService,
    domain: &'a str,
) -> impl Iterator<Item = String> + 'a {
    let namespace = object.namespace().unwrap_or_default();
    let hosts = object.spec.hosts.iter();
    hosts.map(move |host| full_host(host, &namespace, domain))
}

/// Full hosts that the HTTP rules lead to.
pub(crate) fn destinations<'a>(
    object: &'a VirtualService,
    domain: &'a str,
) -> impl Iterator<Item = String> + 'a {
    let namespace = object.namespace().unwrap_or_default();
    let all = object.spec.destinations();
    all.map(move |to| full_host(&to.host, &namespace, domain))
}

/// The rules for a port; `None`: there are none.
fn lower(
    mesh: &Mesh,
    object: &Arc<VirtualService>,
    host: &Host,
    port: &HostPort,
) -> Option<Router> {
    let namespace = object.namespace().unwrap_or_default();
    let full = |name: &str| full_host(name, &namespace, mesh.domain());
    let mut routes = Vec::new();
    for (i, rule) in object.spec.http.iter().enumerate() {
        let field = format!("spec.http[{i}]");
        if rule.matches.is_empty() {
            if !host.http {
                routes.push(route(rule, None, field, &full));
            }
            continue;
        }
        for (m, test) in rule.matches.iter().enumerate() {
            let written = test.others.get("port").and_then(serde_json::Value::as_u64);
            let here = written.map_or(!host.http, |p| p == u64::from(port.port.number));
            if here {
                let tests = Some((m, test));
                routes.push(route(rule, tests, field.clone(), &full));
            }
        }
    }
    let written = &object.spec.export_to;
    let export_to = if written.is_empty() {
        &mesh.settings.virtual_service_export_to
    } else {
        written
    };
    (!routes.is_empty()).then(|| Router {
        owner: Owner::of("VirtualService", object.as_ref()),
        routes,
        export_to: export_to.clone(),
        ..Router::default()
    })
}

fn route(
    rule: &HttpRule,
    test: Option<(usize, &HttpMatchRequest)>,
    field: String,
    full: &dyn Fn(&str) -> String,
) -> Route {
    let mut unsupported = unknown(rule);
    let mut matches = BTreeMap::new();
    if let Some((i, test)) = test {
        let at = format!("match[{i}]");
        if test.uri.is_some() {
            unsupported.push(format!("{at}.uri"));
        }
        let others = test.others.keys().filter(|k| *k != "port");
        unsupported.extend(others.map(|k| format!("{at}.{k}")));
        let method = test.method.iter().map(|m| ("method", m));
        let headers = test.headers.iter().map(|(k, v)| (k.as_str(), v));
        for (name, value) in method.chain(headers) {
            match value_match(value) {
                Some(value) => {
                    matches.insert(name.to_owned(), value);
                }
                None => unsupported.push(format!("{at}.{name}")),
            }
        }
    }
    let to = |to: &istio::Destination| Destination {
        host: full(&to.host),
        subset: to.subset.clone(),
        // A port that is out of range is 0, which validation refuses.
        port: to.port.as_ref().map(|_| to.port().unwrap_or(0)),
    };
    let destinations = rule.route.iter().map(|d| WeightedDestination {
        destination: to(&d.destination),
        weight: unsigned(d.weight.unwrap_or_default().into()),
    });
    let single = rule.mirrors.first();
    let mirror = rule.mirror.as_ref().or(single.map(|m| &m.destination));
    let share = rule.mirror_percentage.or(single.and_then(|m| m.percentage));
    let share = share.map(|p| p.value).or(rule.mirror_percent);
    let retries = rule.retries.as_ref().map(|r| unsigned(r.attempts.into()));
    Route {
        name: rule.name.clone(),
        matches,
        destinations: destinations.collect(),
        mirror: mirror.map(|m| Mirror {
            destination: to(m),
            percent: share.unwrap_or(100.0),
        }),
        timeout: rule.timeout.as_deref().map(Span::new),
        retries: retries
            .filter(|attempts| *attempts > 0)
            .map(|attempts| Retries { attempts }),
        field,
        unsupported,
        ..Route::default()
    }
}

/// Fields of a rule that nothing is made of here.
fn unknown(rule: &HttpRule) -> Vec<String> {
    let mut out: Vec<String> = rule.others.keys().cloned().collect();
    if rule.delegate.is_some() {
        out.push("delegate".to_owned());
    }
    if rule.mirrors.len() > 1 {
        out.push("mirrors".to_owned());
    }
    let parts = rule.route.iter().enumerate();
    out.extend(parts.flat_map(|(i, d)| d.others.keys().map(move |k| format!("route[{i}].{k}"))));
    out
}

fn value_match(test: &StringMatch) -> Option<ValueMatch> {
    let given = |t: &Option<String>| t.clone().filter(|t| !t.is_empty());
    if let Some(exact) = given(&test.exact) {
        return Some(ValueMatch::Exact(exact));
    }
    if let Some(prefix) = given(&test.prefix) {
        return Some(ValueMatch::Prefix(prefix));
    }
    match given(&test.regex) {
        Some(any) if any == "*" || any == ".*" => Some(ValueMatch::Present),
        Some(regex) => Some(ValueMatch::Regex(regex)),
        None => test.others.is_empty().then_some(ValueMatch::Present),
    }
}
