//! What istiod imports for a list of entries (`SidecarScope` of istiod's push context).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trimtab_crds::fence::ScopeSize;

use trimtab_mesh::names::covers;

use super::services::{HostEntry, Services, VirtualService};
use super::{EVERYTHING, Imports, Scope, size};

/// Fills in `imports` and `size` from `entries`, and notes what was looked up.
pub(super) fn predict(scope: &mut Scope, client: &str, services: &dyn Services) {
    let mut hosts: BTreeMap<Arc<str>, Arc<HostEntry>> = BTreeMap::new();
    let mut routes: BTreeMap<(Arc<str>, Arc<str>), Arc<VirtualService>> = BTreeMap::new();
    let entries: Vec<String> = scope.entries.keys().cloned().collect();
    for entry in &entries {
        let Some((namespace, host)) = entry.split_once('/').filter(|_| entry != EVERYTHING) else {
            continue;
        };
        let (found, ruled) = if host == "*" {
            scope.consulted.namespaces.insert(namespace.to_owned());
            (
                services.in_namespace(namespace),
                services.routes_in(namespace),
            )
        } else if host.starts_with('*') {
            (services.under(host), services.routes_under(host))
        } else {
            (services.host(host), services.routes(host))
        };
        if host != "*" {
            scope.consulted.hosts.insert(host.to_owned());
        }
        let here = |owner: &str| namespace == "*" || owner == namespace;
        // An ExternalName is a name of another service.
        let real = found.into_iter().filter(|e| e.target.is_none());
        for found in real.filter(|e| here(&e.namespace)) {
            if found.exports.visible(&found.namespace, client) {
                prefer(&mut hosts, found, client);
            }
        }
        for route in ruled.into_iter().filter(|r| here(&r.id.namespace)) {
            // An entry imports the VirtualServices that have a host in common with it.
            let matches = |h: &Arc<str>| **h == *host || covers(host, h) || covers(h, host);
            let named = route.hosts.iter().any(matches);
            if named && route.exports.visible(&route.id.namespace, client) {
                routes.insert((route.id.namespace.clone(), route.id.name.clone()), route);
            }
        }
    }
    for route in routes.values() {
        for host in destinations(route, services, scope) {
            scope.consulted.hosts.insert(host.to_string());
            if !hosts.contains_key(&host)
                && let Some(entry) = destination(&host, client, services)
            {
                hosts.insert(host, entry);
            }
        }
    }
    scope.imports = Imports {
        services: hosts
            .values()
            .map(|e| {
                let bytes = e.bytes(services.endpoints(e));
                (format!("{}/{}", e.namespace, e.host), bytes)
            })
            .collect(),
        routes: routes
            .values()
            .map(|r| {
                (
                    format!("{}/{}", r.id.namespace, r.id.name),
                    size::of_rules(r.rules),
                )
            })
            .collect(),
    };
    let mesh = services.totals(client);
    let mesh = ScopeSize {
        mesh_services: i64::try_from(mesh.services).unwrap_or(i64::MAX),
        mesh_bytes: i64::try_from(mesh.bytes).unwrap_or(i64::MAX),
        ..ScopeSize::default()
    };
    scope.size = scope.imports.size(&scope.entries, &mesh);
}

/// One entry for each host.
fn prefer(hosts: &mut BTreeMap<Arc<str>, Arc<HostEntry>>, entry: Arc<HostEntry>, client: &str) {
    let better = hosts
        .get(&entry.host)
        .is_none_or(|old| entry.preference(client) < old.preference(client));
    if better {
        hosts.insert(entry.host.clone(), entry);
    }
}

/// The entry that istiod takes for a destination: of the client's namespace, else of the first that is visible.
fn destination(host: &str, client: &str, services: &dyn Services) -> Option<Arc<HostEntry>> {
    let mut entries = services.host(host);
    entries.retain(|e| e.target.is_none());
    let own = entries.iter().find(|e| &*e.namespace == client);
    let visible = |e: &&Arc<HostEntry>| e.exports.visible(&e.namespace, client);
    own.or_else(|| entries.iter().find(visible)).cloned()
}

/// Destinations of a VirtualService and of those that it delegates to.
pub(super) fn destinations(
    route: &VirtualService,
    services: &dyn Services,
    scope: &mut Scope,
) -> BTreeSet<Arc<str>> {
    let mut out: BTreeSet<Arc<str>> = route.destinations.iter().cloned().collect();
    for (namespace, name) in &route.delegates {
        let key = (namespace.to_string(), name.to_string());
        scope.consulted.routes.insert(key);
        if let Some(delegate) = services.route(namespace, name)
            && delegate.exports.visible(namespace, &route.id.namespace)
        {
            out.extend(delegate.destinations.iter().cloned());
        }
    }
    out
}
