//! What istiod imports for the entries of a scope, and how much that is.

use trimtab_crds::fence::ScopeSize;

use super::services::{Resolution, RouteKind, Services};
use super::{EVERYTHING, Imports, Scope, ScopeInput, size};
use crate::predict::{self, Client, Egress, Imported, Release};

/// The client of a fence: any of its pods.
pub(super) fn client<'a>(input: &'a ScopeInput<'_>) -> Client<'a> {
    Client {
        namespace: &input.fence.namespace,
        labels: None,
        domain: &input.settings.domain,
        root: "",
        release: Release::default(),
    }
}

/// Fills in `imports` and `size` from `entries`, and notes what was looked up.
pub(super) fn fill(scope: &mut Scope, input: &ScopeInput<'_>, services: &dyn Services) {
    let client = client(input);
    // The size of everything is known without a walk through the mesh.
    if !scope.entries.contains_key(EVERYTHING) {
        let egress = Egress::new(scope.entries.keys().map(String::as_str), client.namespace);
        let imported = predict::import(&client, Some(&egress), services, &mut scope.consulted);
        scope.imports = imports(&imported, services);
    }
    let mesh = services.totals(client.namespace);
    let mesh = ScopeSize {
        mesh_services: i64::try_from(mesh.services).unwrap_or(i64::MAX),
        mesh_bytes: i64::try_from(mesh.bytes).unwrap_or(i64::MAX),
        ..ScopeSize::default()
    };
    scope.size = scope.imports.size(&scope.entries, &mesh);
}

/// Services with a cluster, as far as the proxy has their ports, and routes.
fn imports(imported: &Imported, services: &dyn Services) -> Imports {
    let known = imported.known.iter();
    let known = known.filter(|s| s.entry.resolution != Resolution::Alias);
    Imports {
        services: known
            .map(|service| {
                let entry = &service.entry;
                let bytes = size::of_service(&service.ports, services.endpoints(entry));
                (format!("{}/{}", entry.namespace, entry.host), bytes)
            })
            .collect(),
        routes: imported
            .routes
            .iter()
            .map(|route| {
                let object = &route.object;
                let name = format!("{}/{}", object.id.namespace, object.id.name);
                let name = match object.kind {
                    RouteKind::VirtualService => name,
                    kind => format!("{name} ({})", kind.as_str()),
                };
                (
                    name,
                    size::of_rules(route.http.len() + object.tls.len() + object.tcp.len()),
                )
            })
            .collect(),
    }
}
