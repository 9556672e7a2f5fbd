//! Which DestinationRule a client has for a service, and its subsets (`push_context.go`, `destination_rule.go`).

use std::collections::BTreeSet;
use std::sync::Arc;

use trimtab_mesh::model::DestinationRule;

use super::Client;
use super::import::Service;
use crate::scope::services::Services;

/// Names of the subsets.
pub(super) fn subsets(
    client: &Client<'_>,
    service: &Service,
    services: &dyn Services,
) -> BTreeSet<String> {
    let rules = services.rules(service.host());
    let own = || local(client, &rules);
    let of_service = || exported(client, &rules, &service.entry.namespace);
    let of_root = || exported(client, &rules, client.root);
    own()
        .or_else(of_service)
        .or_else(of_root)
        .unwrap_or_default()
}

type Rules = [Arc<DestinationRule>];

/// Rules of the client's own namespace.
fn local(client: &Client<'_>, rules: &Rules) -> Option<BTreeSet<String>> {
    let own = rules
        .iter()
        .filter(|r| *r.id.namespace == *client.namespace);
    let own = own.filter(|r| r.exports.visible(client.namespace, client.namespace));
    let own: Vec<_> = if client.namespace == client.root {
        own.filter(|r| is_private(r)).collect()
    } else {
        own.collect()
    };
    chosen(closest(&own))
}

/// Rules that a namespace exports; of those with the closest host the client may see some.
fn exported(client: &Client<'_>, rules: &Rules, owner: &str) -> Option<BTreeSet<String>> {
    let theirs = rules
        .iter()
        .filter(|r| *r.id.namespace == *owner && !is_private(r));
    let mut closest = closest(&theirs.collect::<Vec<_>>());
    closest.retain(|r| r.exports.visible(owner, client.namespace));
    chosen(closest)
}

/// Whether only its own namespace sees it.
fn is_private(rule: &DestinationRule) -> bool {
    let owner = &*rule.id.namespace;
    let clients = rule.exports.clients(owner);
    clients.is_some_and(|clients| {
        let all: Vec<&str> = clients.collect();
        all == [owner]
    })
}

/// Rules whose host says most, the oldest first. The list is sorted by that already.
fn closest<'a>(rules: &[&'a Arc<DestinationRule>]) -> Vec<&'a Arc<DestinationRule>> {
    let Some(first) = rules.first() else {
        return Vec::new();
    };
    let mut same: Vec<_> = rules
        .iter()
        .filter(|r| r.host == first.host)
        .copied()
        .collect();
    same.sort_by_cached_key(|r| (r.id.created, r.id.name.clone(), r.id.namespace.clone()));
    same
}

/// Rules that the same namespaces see are one; of several of these the last counts.
fn chosen(rules: Vec<&Arc<DestinationRule>>) -> Option<BTreeSet<String>> {
    let mut joined: Vec<(&DestinationRule, BTreeSet<String>)> = Vec::new();
    for rule in rules {
        let subsets = rule.spec.subsets.iter().map(|s| s.name.clone());
        match joined
            .iter_mut()
            .find(|(first, _)| first.exports == rule.exports)
        {
            Some((_, all)) => all.extend(subsets),
            None => joined.push((rule, subsets.collect())),
        }
    }
    joined.pop().map(|(_, subsets)| subsets)
}
