//! Rules of a VirtualService with those that it delegates to, and what they lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trimtab_mesh::model::VirtualService;
use trimtab_mesh::model::route::{Destination, HttpMatch, HttpRule, Part, Source, TcpRule, Test};

use super::{Client, Reads};
use crate::scope::services::Services;

/// Ports of a host that routes name; `None`: a route names none, so that all count.
pub(super) type Ports = BTreeSet<Option<u16>>;

/// The rules for HTTP, each delegate's in the place of the rule that names it. What istiod does not find or may not see is
/// left out.
pub fn merged(
    route: &VirtualService,
    services: &dyn Services,
    reads: &mut dyn Reads,
) -> Vec<HttpRule> {
    let mut out = Vec::with_capacity(route.http.len());
    for rule in &route.http {
        let Some((namespace, name)) = &rule.delegate else {
            out.push(rule.clone());
            continue;
        };
        reads.route(namespace, name);
        let found = services
            .route(namespace, name)
            .filter(|d| d.hosts.is_empty());
        let found = found.filter(|d| d.exports.visible(namespace, &route.id.namespace));
        let rules = found.iter().flat_map(|delegate| &delegate.http);
        out.extend(rules.filter_map(|of_delegate| joined(rule, of_delegate)));
    }
    out
}

/// A delegate's rule under the rule that names the delegate; `None`: no request can meet both.
fn joined(root: &HttpRule, rule: &HttpRule) -> Option<HttpRule> {
    let single = |rule: &HttpRule| {
        rule.mirrors
            .iter()
            .filter(|m| m.single)
            .cloned()
            .collect::<Vec<_>>()
    };
    let several = |rule: &HttpRule| {
        rule.mirrors
            .iter()
            .filter(|m| !m.single)
            .cloned()
            .collect::<Vec<_>>()
    };
    let own_or = |own: Vec<_>, inherited: Vec<_>| if own.is_empty() { inherited } else { own };
    let mut mirrors = own_or(single(rule), single(root));
    mirrors.extend(own_or(several(rule), several(root)));
    Some(HttpRule {
        matches: joined_matches(&root.matches, &rule.matches)?,
        delegate: None,
        responds: rule.responds || root.responds,
        authority: rule.authority.clone().or_else(|| root.authority.clone()),
        mirrors: mirrors.into(),
        ..rule.clone()
    })
}

fn joined_matches(root: &[HttpMatch], rule: &[HttpMatch]) -> Option<Box<[HttpMatch]>> {
    if root.is_empty() || rule.is_empty() {
        let all = if root.is_empty() { rule } else { root };
        return Some(all.into());
    }
    let mut out = Vec::new();
    for of_rule in rule {
        let before = out.len();
        let wider = root.iter().filter(|of_root| !conflict(of_root, of_rule));
        out.extend(wider.map(|of_root| joined_match(of_root, of_rule)));
        if out.len() == before {
            return None;
        }
    }
    Some(out.into())
}

fn joined_match(root: &HttpMatch, rule: &HttpMatch) -> HttpMatch {
    let mut request = root.request.clone();
    request.extend(rule.request.clone());
    let mut labels = root.source.labels.clone();
    labels.extend(rule.source.labels.clone());
    let gateways = &rule.source.gateways;
    HttpMatch {
        request,
        ignores_case: rule.ignores_case,
        source: Source {
            labels,
            namespace: rule
                .source
                .namespace
                .clone()
                .or_else(|| root.source.namespace.clone()),
            gateways: if gateways.is_empty() {
                &root.source.gateways
            } else {
                gateways
            }
            .clone(),
            port: rule.source.port.or(root.source.port),
        },
    }
}

/// Whether the delegate's match is none under the root's.
fn conflict(root: &HttpMatch, rule: &HttpMatch) -> bool {
    let apart = |(part, test): (&Part, &Test)| {
        root.request
            .get(part)
            .is_some_and(|of_root| differ(of_root, test))
    };
    let (above, below) = (&root.source, &rule.source);
    let other_port = matches!((above.port, below.port), (Some(a), Some(b)) if a != b);
    let other_caller = above.namespace.is_some() && above.namespace != below.namespace;
    let other_labels = below
        .labels
        .iter()
        .any(|(k, v)| above.labels.get(k).is_some_and(|w| v != w));
    let more_gateways = !above.gateways.is_empty()
        && (above.gateways.len() < below.gateways.len()
            || below.gateways.iter().any(|g| !above.gateways.contains(g)));
    rule.request.iter().any(apart)
        || root.ignores_case != rule.ignores_case
        || other_port
        || other_caller
        || other_labels
        || more_gateways
}

/// Whether istiod takes the second test for none under the first.
fn differ(root: &Test, rule: &Test) -> bool {
    match (root, rule) {
        (Test::Exact(root), Test::Exact(rule)) => root != rule,
        (Test::Prefix(root), Test::Prefix(rule) | Test::Exact(rule)) => !rule.starts_with(&**root),
        _ => true,
    }
}

/// Rules whose destinations istiod imports for a client in a namespace: it leaves out those with matches for other
/// namespaces and none for this one, even where another match is for all.
fn brings(rule: &HttpRule, namespace: &str) -> bool {
    let named = || {
        rule.matches
            .iter()
            .filter_map(|m| m.source.namespace.as_deref())
    };
    named().next().is_none() || named().any(|n| n == namespace)
}

fn note(out: &mut BTreeMap<Arc<str>, Ports>, to: &Destination) {
    out.entry(to.host.clone()).or_default().insert(to.port);
}

/// Hosts that a route leads to and that come with it, with the ports that count.
pub(super) fn brought(
    route: &VirtualService,
    http: &[HttpRule],
    namespace: &str,
) -> BTreeMap<Arc<str>, Ports> {
    let mut out = BTreeMap::new();
    for rule in http.iter().filter(|rule| brings(rule, namespace)) {
        rule.destinations().for_each(|to| note(&mut out, to));
    }
    for rule in route.tcp.iter().chain(&route.tls) {
        rule.routes.iter().for_each(|to| note(&mut out, &to.to));
    }
    out
}

/// Whether a proxy of the client may have routes of the rule, and whether they leave nothing for the next one.
pub fn applies(rule: &HttpRule, client: &Client<'_>) -> (bool, bool) {
    if rule.matches.is_empty() {
        return (true, true);
    }
    let of_client = |m: &&HttpMatch| m.source.http_applies(client.namespace, client.labels);
    let mut applied = rule.matches.iter().filter(of_client).peekable();
    let some = applied.peek().is_some();
    let certain = client.labels.is_some();
    let ends = |m: &HttpMatch| {
        m.takes_all() && m.source.port.is_none() && (certain || m.source.labels.is_empty())
    };
    (some, applied.any(ends))
}

/// Whether a proxy of the client may have chains of the rule.
pub fn applies_to_connections(rule: &TcpRule, client: &Client<'_>) -> bool {
    let mut sources = rule.matches.iter().map(|m| &m.source);
    let applied =
        |s: &Source| s.tcp_applies(client.namespace, client.labels, s.port.unwrap_or_default());
    rule.matches.is_empty() || sources.any(applied)
}
