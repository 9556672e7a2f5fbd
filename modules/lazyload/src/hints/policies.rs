//! AuthorizationPolicies by whom they allow, and which Services they are for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use trimtab_crds::istio::AuthorizationPolicy;
use trimtab_mesh::table::{Change, Index, Known, Row, Rows};

use crate::learn::hints::{PolicyHint, Source, policy_hint};
use crate::mesh::{Name, Registry};
use crate::object::Caller;
use crate::scope::{Labels, Services};

impl Row for PolicyHint {
    type Object = AuthorizationPolicy;
    type Index = Policies;

    fn read(object: &Arc<AuthorizationPolicy>, _: &Known<'_, Self>) -> Option<Self> {
        policy_hint(&serde_json::to_value(object.as_ref()).ok()?)
    }
}

/// Policies by whom they allow.
#[derive(Debug, Default)]
pub struct Policies(HashMap<Source, BTreeSet<Name>>);

impl Index<PolicyHint> for Policies {
    fn change(&mut self, change: &Change<'_, PolicyHint>) {
        for source in change.old.iter().flat_map(|p| &p.sources) {
            if let Some(names) = self.0.get_mut(source) {
                names.remove(change.name);
                if names.is_empty() {
                    self.0.remove(source);
                }
            }
        }
        for source in change.new.iter().flat_map(|p| &p.sources) {
            let names = self.0.entry(source.clone()).or_default();
            names.insert(change.name.clone());
        }
    }
}

/// Policies that allow a caller with these service accounts.
pub(super) fn allowing(
    policies: &Rows<PolicyHint>,
    caller: &Caller,
    accounts: &BTreeSet<String>,
) -> Vec<Arc<PolicyHint>> {
    let namespace = caller.namespace.to_string();
    // Without pods nobody calls.
    if accounts.is_empty() {
        return Vec::new();
    }
    let own = accounts.iter().map(|name| Source::ServiceAccount {
        namespace: namespace.clone(),
        name: name.clone(),
    });
    let sources = own.chain([Source::Namespace(namespace.clone())]);
    let names: BTreeSet<&Name> = sources
        .filter_map(|source| policies.index().0.get(&source))
        .flatten()
        .collect();
    let rows = names.into_iter().filter_map(|name| policies.get(name));
    rows.cloned().collect()
}

/// The hosts that a policy is for: the Services that it names, else those whose selector goes with its own. The pods are
/// not looked at. A policy for a whole namespace, or for the mesh, says who may come in and not who calls whom: none.
pub(super) fn hosts(policy: &PolicyHint, mesh: &Registry) -> BTreeSet<Arc<str>> {
    let namespace = policy.namespace.as_str();
    let entries = mesh.in_namespace(namespace).into_iter();
    let meant = entries.filter(|entry| {
        let Some(service) = mesh.service(namespace, &entry.name) else {
            return false;
        };
        if policy.services.is_empty() {
            goes_with(&policy.selector, &service.selector)
        } else {
            policy.services.contains(&*entry.name)
        }
    });
    meant.map(|entry| entry.host.clone()).collect()
}

/// Whether two selectors may be for the same pods: they have a label in common, and none with two values.
pub(crate) fn goes_with(policy: &BTreeMap<String, String>, service: &Labels) -> bool {
    let mut common = policy
        .iter()
        .filter_map(|(k, v)| Some((v, service.get(k)?)));
    let mut any = false;
    let alike = common.all(|(a, b)| {
        any = true;
        a == b
    });
    alike && any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_go_together_by_their_common_labels() {
        let labels = |text: &str| -> Labels {
            let pairs = text.split(',').filter_map(|p| p.split_once('='));
            pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
        };
        for (policy, service, expected) in [
            ("app=a", "app=a", true),
            ("app=a,v=1", "app=a", true),
            ("app=a", "app=a,v=1", true),
            ("app=a,v=2", "app=a,v=1", false),
            ("app=a", "app=b", false),
            ("app=a", "name=a", false),
            ("", "app=a", false),
            ("app=a", "", false),
        ] {
            let found = goes_with(&labels(policy), &labels(service));
            assert_eq!(found, expected, "{policy} {service}");
        }
    }
}
