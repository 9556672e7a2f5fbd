//! Which DestinationRule a client has for a service, and its subsets (`push_context.go`, `destination_rule.go`).

use std::collections::BTreeSet;
use std::sync::Arc;

use trimtab_crds::istio::TrafficPolicy;
use trimtab_mesh::model::DestinationRule;

use super::Client;
use super::known::Service;
use crate::scope::Labels;
use crate::scope::services::Services;

/// A subset.
#[derive(Clone, Debug)]
pub(super) struct Subset {
    pub(super) name: String,
    /// Labels of its endpoints.
    pub(super) labels: Labels,
    /// Connections go where the client said, whatever endpoints there are.
    pub(super) passes: bool,
}

/// The subsets that a client has of a service.
pub(super) fn subsets(
    client: &Client<'_>,
    service: &Service,
    services: &dyn Services,
) -> Vec<Subset> {
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
fn local(client: &Client<'_>, rules: &Rules) -> Option<Vec<Subset>> {
    let own = rules
        .iter()
        .filter(|r| *r.id.namespace == *client.namespace);
    let own = own.filter(|r| r.exports.visible(client.namespace, client.namespace));
    let own: Vec<_> = if client.namespace == client.root {
        own.filter(|r| is_private(r)).collect()
    } else {
        own.collect()
    };
    let last = merged(closest(&own)).pop()?;
    Some(last.subsets)
}

/// Rules that a namespace exports; of those with the closest host the client may see some.
fn exported(client: &Client<'_>, rules: &Rules, owner: &str) -> Option<Vec<Subset>> {
    let theirs = rules
        .iter()
        .filter(|r| *r.id.namespace == *owner && !is_private(r));
    let mut all = merged(closest(&theirs.collect::<Vec<_>>()));
    all.retain(|merged| merged.first.exports.visible(owner, client.namespace));
    Some(all.pop()?.subsets)
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

/// Rules that count as one; the first says who sees it.
struct Merged<'a> {
    first: &'a DestinationRule,
    subsets: Vec<Subset>,
}

/// Of several the last counts. A rule goes into each before it that as many namespaces see, or some of those that see it,
/// and stands alone only when it went not into the last one (`mergeDestinationRule`).
fn merged(rules: Vec<&Arc<DestinationRule>>) -> Vec<Merged<'_>> {
    let mut out: Vec<Merged<'_>> = Vec::new();
    for rule in rules {
        let policy = rule.spec.traffic_policy.as_ref();
        let passes = passes(policy);
        let subsets = rule.spec.subsets.iter().map(|subset| Subset {
            name: subset.name.clone(),
            labels: subset.labels.clone(),
            passes: passes || self::passes(subset.traffic_policy.as_ref()),
        });
        let subsets: Vec<Subset> = subsets.collect();
        let mut alone = true;
        for merged in &mut out {
            alone = !goes_into(rule, merged.first);
            if !alone {
                for subset in &subsets {
                    if merged.subsets.iter().all(|s| s.name != subset.name) {
                        merged.subsets.push(subset.clone());
                    }
                }
            }
        }
        if alone {
            let first = &**rule;
            out.push(Merged { first, subsets });
        }
    }
    out
}

fn goes_into(rule: &DestinationRule, first: &DestinationRule) -> bool {
    let (theirs, own) = (first.exports.written(), rule.exports.written());
    let own: BTreeSet<String> = own.into_iter().collect();
    rule.exports == first.exports || !theirs.is_empty() && theirs.iter().all(|n| own.contains(n))
}

fn passes(policy: Option<&TrafficPolicy>) -> bool {
    let balancer = policy.and_then(|p| p.load_balancer.as_ref());
    balancer.is_some_and(|b| b.simple == "PASSTHROUGH")
}
