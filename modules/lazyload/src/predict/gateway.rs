//! Routes with their rules: those of the Gateway API that istiod joins (`config/kube/gateway`), and delegates.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use trimtab_mesh::model::VirtualService;
use trimtab_mesh::model::route::{HttpRule, Part, Test};

use super::Reads;
use super::merge::merged;
use super::route::{Route, age};
use crate::scope::services::{RouteKind, Services};

/// The port that a route of the Gateway API names for its Service.
pub(super) fn port_of(object: &VirtualService) -> Option<u16> {
    object.http.first()?.matches.first()?.source.port
}

/// Routes with their rules. Those of the Gateway API of one namespace, host and port are one,
/// of whichever kind.
pub(super) fn joined(
    routes: Vec<Arc<VirtualService>>,
    services: &dyn Services,
    reads: &mut dyn Reads,
) -> Vec<Route> {
    let mut out = Vec::new();
    let mut of_services: BTreeMap<_, Vec<Arc<VirtualService>>> = BTreeMap::new();
    for object in routes {
        if object.kind == RouteKind::VirtualService {
            let http = merged(&object, services, reads);
            out.push(Route { object, http });
            continue;
        }
        let port = port_of(&object);
        let key = (
            object.id.namespace.clone(),
            object.hosts.first().cloned(),
            port,
        );
        of_services.entry(key).or_default().push(object);
    }
    for mut objects in of_services.into_values() {
        objects.sort_by_cached_key(|o| age(o.id.created, &o.id.name, &o.id.namespace));
        let mut http: Vec<HttpRule> = objects
            .iter()
            .flat_map(|o| o.http.iter().cloned())
            .collect();
        http.sort_by_key(precedence);
        if let Some(object) = objects.into_iter().next() {
            out.push(Route { object, http });
        }
    }
    out
}

/// Order of the rules of the Gateway API: the closest path, then a method, more headers, more parameters.
fn precedence(rule: &HttpRule) -> impl Ord + use<> {
    let Some(first) = rule.matches.first() else {
        return (true, Reverse(0), Reverse(0), false, Reverse(0), Reverse(0));
    };
    let (kind, length) = match first.request.get(&Part::Uri) {
        Some(Test::Exact(text)) => (4, text.len()),
        Some(Test::Prefix(text)) => (3, text.len()),
        Some(Test::Regex(text)) => (2, text.len()),
        Some(Test::Present) | None => (0, 0),
    };
    let count = |of: fn(&Part) -> bool| first.request.keys().filter(|part| of(part)).count();
    let headers = count(|part| matches!(part, Part::Header(_)));
    let parameters = count(|part| matches!(part, Part::Query(_)));
    let any_method = !first.request.contains_key(&Part::Method);
    (
        false,
        Reverse(kind),
        Reverse(length),
        any_method,
        Reverse(headers),
        Reverse(parameters),
    )
}
