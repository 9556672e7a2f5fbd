//! What routes lead to and do not bring.

use std::collections::BTreeSet;
use std::sync::Arc;

use trimtab_mesh::model::VirtualService;

use super::import::leads_alike;
use super::merge::{Ports, applies, applies_to_connections, brought, merged};
use super::{Client, Reads};
use crate::scope::services::Services;

/// Hosts to which a client has routes and of which these do not bring what the client has of them without a Sidecar: calls
/// would be answered with 503, or by another service.
pub fn unbrought(
    client: &Client<'_>,
    route: &VirtualService,
    services: &dyn Services,
    reads: &mut dyn Reads,
) -> BTreeSet<Arc<str>> {
    let http = merged(route, services, reads);
    let brought = brought(route, &http, client.namespace);
    let mut out = BTreeSet::new();
    for rule in &http {
        let (applied, ends) = applies(rule, client);
        if applied {
            let reached = rule.called().chain(rule.copied());
            out.extend(reached.map(|to| to.host.clone()));
        }
        if ends {
            break;
        }
    }
    for rule in route.tls.iter().chain(&route.tcp) {
        if applies_to_connections(rule, client) {
            let alone = rule.routes.len() == 1;
            let called = rule.routes.iter().filter(|r| alone || r.weight > 0);
            out.extend(called.map(|r| r.to.host.clone()));
        }
    }
    out.retain(|host| {
        reads.host(host);
        let comes = |ports: &Ports| leads_alike(client, host, ports, services);
        !host.is_empty() && !brought.get(host).is_some_and(comes)
    });
    out
}
