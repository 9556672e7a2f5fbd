//! From a name as a client says it to the full host name.

use trimtab_mesh::names::{covers, service_host, service_of};

use super::services::Services;

/// Domain of Services that clusters share.
const CLUSTER_SET: &str = "clusterset.local";

/// Name and namespace of the Service that a host is of by its name, here or in another cluster.
pub(super) fn owner_of<'h>(host: &'h str, domain: &str) -> Option<(&'h str, &'h str)> {
    service_of(host, domain).or_else(|| service_of(host, CLUSTER_SET))
}

/// What a look-up of a name found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The full host, or the wildcard that covers the name.
    pub host: Option<String>,
    /// Hosts that were asked for on the way: when one of them comes or goes, the answer may be another.
    pub asked: Vec<String>,
}

/// Full host names that a name may stand for in a namespace, best first, each with whether only a headless Service counts.
fn candidates(name: &str, namespace: &str, domain: &str) -> Vec<(String, bool)> {
    let long = name
        .strip_suffix(domain)
        .and_then(|rest| rest.strip_suffix('.'))
        .filter(|rest| rest.ends_with(".svc"));
    let (rest, full) = match long.unwrap_or(name).strip_suffix(".svc") {
        Some(rest) => (rest, true),
        None => (name, false),
    };
    let labels: Vec<&str> = rest.split('.').collect();
    let host = |service: &str, namespace: &str| service_host(service, namespace, domain);
    match labels.as_slice() {
        [service] if !full => vec![(host(service, namespace), false)],
        [a, b] if full => vec![(host(a, b), false)],
        [a, b] => vec![(host(a, b), false), (host(b, namespace), true)],
        [_, service, namespace] => vec![(host(service, namespace), true)],
        _ => Vec::new(),
    }
}

/// The host that `name` (as of [`trimtab_mesh::names::normal`]) means to a client in `namespace`.
///
/// Order: the exact host, a Service by a short name, the Service of a pod's name, a VirtualService's own host, a wildcard.
/// A name of one label is first of all a Service of the client's namespace, as its DNS search path has it.
pub fn find(services: &dyn Services, name: &str, namespace: &str, domain: &str) -> Found {
    let mut asked = vec![name.to_owned()];
    let done = |host: String, asked| Found {
        host: Some(host),
        asked,
    };
    let exact = !services.host(name).is_empty();
    if exact && name.contains('.') {
        return done(name.to_owned(), asked);
    }
    for (host, only_headless) in candidates(name, namespace, domain) {
        if host == name {
            continue;
        }
        let entries = services.host(&host);
        asked.push(host.clone());
        if entries.iter().any(|e| e.headless || !only_headless) {
            return done(host, asked);
        }
    }
    if exact {
        return done(name.to_owned(), asked);
    }
    let routes = services.routes(name);
    if routes.iter().flat_map(|r| &r.hosts).any(|h| **h == *name) {
        return done(name.to_owned(), asked);
    }
    let entries = services.covering(name);
    let visible = entries
        .iter()
        .find(|e| e.exports.visible(&e.namespace, namespace));
    if let Some(entry) = visible.or(entries.first()) {
        return done(entry.host.to_string(), asked);
    }
    let hosts = routes.iter().flat_map(|r| &r.hosts);
    let longest = hosts
        .filter(|h| covers(h, name))
        .max_by_key(|h| (h.len(), std::cmp::Reverse((*h).clone())));
    Found {
        host: longest.map(ToString::to_string),
        asked,
    }
}
