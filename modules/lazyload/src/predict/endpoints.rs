//! Endpoints that ServiceEntries name (`serviceregistry/serviceentry`).

use crate::scope::services::{HostEntry, Instance, Registry, Services};

/// Those of a host's port in a namespace, of whichever ServiceEntry. `None`: there are others, which nobody here knows.
pub(super) fn of_port(
    entry: &HostEntry,
    port: u16,
    services: &dyn Services,
) -> Option<Vec<Instance>> {
    let all = services.host(&entry.host);
    let of_port = all.iter().filter(|e| {
        let here = e.registry == Registry::ServiceEntry && e.namespace == entry.namespace;
        here && e.ports.iter().any(|p| p.number == port)
    });
    let mut out = Vec::new();
    for other in of_port {
        if other.selects {
            return None;
        }
        out.extend(other.instances.iter().cloned());
    }
    Some(out)
}
