//! What istiod still gives with exclusions: `*/*` without the services that are named, and with those that the routes
//! which stay lead to. Pure.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use trimtab_crds::fence::ScopeSize;

use crate::scope::services::{Services, VirtualService};
use crate::scope::size;

/// Size with these exclusions. `mesh` has that of the mesh, `routes` are all VirtualServices of sidecars.
pub fn size(
    client: &str,
    services: &dyn Services,
    routes: &[Arc<VirtualService>],
    excluded: &BTreeSet<String>,
    mesh: &ScopeSize,
) -> ScopeSize {
    let mut out = ScopeSize {
        services: mesh.mesh_services,
        bytes: mesh.mesh_bytes,
        ..mesh.clone()
    };
    if excluded.is_empty() {
        return out;
    }
    let mut back: HashSet<Arc<str>> = HashSet::new();
    let seen = |r: &&Arc<VirtualService>| r.exports.visible(&r.id.namespace, client);
    for route in routes.iter().filter(seen) {
        if is_gone(route, excluded) {
            out.bytes -= signed(size::of_rules(route.rules));
        } else {
            back.extend(leads_to(route, services));
        }
    }
    for (namespace, host) in excluded.iter().filter_map(|e| e.split_once('/')) {
        for entry in services.host(host) {
            let there = *entry.namespace == *namespace && !back.contains(&entry.host);
            if there && entry.exports.visible(&entry.namespace, client) {
                out.services -= 1;
                out.bytes -= signed(entry.bytes(services.endpoints(&entry)));
            }
        }
    }
    out.services = out.services.max(0);
    out.bytes = out.bytes.max(0);
    out
}

/// Destinations of a VirtualService and of those that it delegates to.
pub(super) fn leads_to(route: &VirtualService, services: &dyn Services) -> Vec<Arc<str>> {
    let delegates = route.delegates.iter();
    let delegates = delegates.filter_map(|(namespace, name)| services.route(namespace, name));
    let led = delegates.flat_map(|d| d.destinations.to_vec());
    route.destinations.iter().cloned().chain(led).collect()
}

/// An exclusion takes the VirtualServices of its namespace by that host; one with another host stays.
fn is_gone(route: &VirtualService, excluded: &BTreeSet<String>) -> bool {
    let out = |host: &Arc<str>| excluded.contains(&format!("{}/{host}", route.id.namespace));
    !route.hosts.is_empty() && route.hosts.iter().all(out)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
