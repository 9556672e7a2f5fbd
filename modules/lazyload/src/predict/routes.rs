//! What routes of a port do with requests (`networking/core/route`).

use trimtab_mesh::model::route::{Destination, HttpRule};

use super::known::Service;
use super::route::Route;
use super::{Action, Client, Lead, cluster};
use crate::scope::services::HostEntry;

/// The services of a port, for look-ups by host.
pub(super) type OnPort<'a> = std::collections::BTreeMap<&'a str, &'a Service>;

/// Routes of a VirtualService on a port. What no request can reach is left out.
pub(super) fn actions(
    client: &Client<'_>,
    route: &Route,
    port: u16,
    on_port: &OnPort<'_>,
) -> Vec<Action> {
    let mut out = Vec::new();
    for rule in &route.http {
        if rule.matches.is_empty() {
            out.push(action(rule, port, on_port));
            break;
        }
        let here = |p: Option<u16>| p.is_none_or(|p| p == port);
        let of_client = rule.matches.iter().filter(|m| {
            here(m.source.port) && m.source.http_applies(client.namespace, client.labels)
        });
        let mut ends = false;
        for of_client in of_client {
            out.push(action(rule, port, on_port));
            ends = of_client.takes_all();
            if ends {
                break;
            }
        }
        if ends {
            break;
        }
    }
    out
}

fn action(rule: &HttpRule, port: u16, on_port: &OnPort<'_>) -> Action {
    let to = |to: &Destination| {
        destination(
            to,
            on_port.get(&*to.host).map(|s| &*s.entry),
            Some(port),
            port,
        )
    };
    if let Some(redirect) = &rule.redirect {
        let host = redirect.as_deref().unwrap_or_default();
        return Action {
            lead: Lead::Redirect(host.to_owned()),
            ..Action::default()
        };
    }
    if rule.responds {
        return Action {
            lead: Lead::Response,
            ..Action::default()
        };
    }
    let clusters = match &*rule.routes {
        [one] => vec![(to(&one.to), 0)],
        several => {
            let called = several.iter().filter(|route| route.weight > 0);
            called.map(|route| (to(&route.to), route.weight)).collect()
        }
    };
    let copies = rule.mirrors.iter().filter(|mirror| mirror.active);
    Action {
        lead: Lead::Clusters(clusters),
        mirrors: copies.map(|mirror| to(&mirror.to)).collect(),
        authority: rule.authority.as_deref().map(ToOwned::to_owned),
    }
}

/// The cluster of a destination. `service`: as far as the proxy has it; `only`: its port, when it has one. An ExternalName
/// gives way to what it stands for, in one step.
pub(super) fn destination(
    to: &Destination,
    service: Option<&HostEntry>,
    only: Option<u16>,
    port: u16,
) -> String {
    if to.host.is_empty() {
        return "UnknownService".to_owned();
    }
    let target = service.and_then(|entry| entry.target.as_deref());
    let host = target.unwrap_or(&to.host);
    let only = only.filter(|_| service.is_some());
    cluster(host, &to.subset, to.port.or(only).unwrap_or(port))
}
