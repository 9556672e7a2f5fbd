//! What VirtualServices, and routes of the Gateway API, ask of a scope.

use std::collections::BTreeSet;
use std::sync::Arc;

use trimtab_mesh::names::service_of;

use super::ScopeReads;
use super::services::{Services, VirtualService};
use crate::predict::{Client, Reads as _, unbrought};

/// Whether the routes of a host are for this client. Those of the Gateway API are for the namespace of the Service and their
/// own.
pub(super) fn reaches(route: &VirtualService, host: &str, client: &Client<'_>) -> bool {
    let owner = &*route.id.namespace;
    let of_service = || service_of(host, client.domain).map(|(_, namespace)| namespace);
    let meant = owner == client.namespace || of_service() == Some(owner);
    route.exports.visible(owner, client.namespace) && (meant || !route.kind.is_gateway_api())
}

/// Destinations of a VirtualService and of those that it delegates to.
pub(super) fn destinations(
    route: &VirtualService,
    services: &dyn Services,
    reads: &mut ScopeReads,
) -> BTreeSet<Arc<str>> {
    let mut out: BTreeSet<Arc<str>> = route.destinations.iter().cloned().collect();
    for (namespace, name) in &route.delegates {
        reads.route(namespace, name);
        if let Some(delegate) = services.route(namespace, name)
            && delegate.exports.visible(namespace, &route.id.namespace)
        {
            out.extend(delegate.destinations.iter().cloned());
        }
    }
    out
}

/// Namespace and host of the services that the client's routes lead to and that do not come with the VirtualService.
pub(super) fn entries(
    route: &VirtualService,
    client: &Client<'_>,
    services: &dyn Services,
    reads: &mut ScopeReads,
) -> Vec<(Arc<str>, Arc<str>)> {
    let called = unbrought(client, route, services, reads);
    let entry = |host: Arc<str>| {
        reads.host(&host);
        let found = services.host(&host).into_iter();
        let seen = found.filter(|e| {
            *e.namespace == *client.namespace || e.exports.visible(&e.namespace, client.namespace)
        });
        let taken = seen.min_by_key(|e| e.preference(client.namespace))?;
        Some((taken.namespace.clone(), host))
    };
    called.into_iter().filter_map(entry).collect()
}
