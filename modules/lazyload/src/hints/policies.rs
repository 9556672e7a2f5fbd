//! AuthorizationPolicies by whom they allow, and which Services they are for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::learn::hints::{PolicyHint, Source};
use crate::mesh::{Name, Registry};
use crate::object::Caller;
use crate::scope::{Labels, Services};

#[derive(Debug, Default)]
pub(super) struct Policies {
    of: BTreeMap<Name, Arc<PolicyHint>>,
    by_source: HashMap<Source, BTreeSet<Name>>,
}

impl Policies {
    /// Takes a policy in, or out. Gives the sources whose hints may change.
    pub(super) fn set(&mut self, name: &Name, new: Option<PolicyHint>) -> BTreeSet<Source> {
        let known = self.of.get(name).map(Arc::as_ref);
        if known == new.as_ref() {
            return BTreeSet::new();
        }
        let mut touched = BTreeSet::new();
        if let Some(old) = self.of.remove(name) {
            for source in &old.sources {
                if let Some(names) = self.by_source.get_mut(source) {
                    names.remove(name);
                    if names.is_empty() {
                        self.by_source.remove(source);
                    }
                }
            }
            touched.extend(old.sources.iter().cloned());
        }
        if let Some(new) = new {
            for source in &new.sources {
                let names = self.by_source.entry(source.clone()).or_default();
                names.insert(name.clone());
            }
            touched.extend(new.sources.iter().cloned());
            self.of.insert(name.clone(), Arc::new(new));
        }
        touched
    }

    pub(super) fn names(&self) -> Vec<Name> {
        self.of.keys().cloned().collect()
    }

    /// Policies that allow a caller with these service accounts.
    pub(super) fn of(&self, caller: &Caller, accounts: &BTreeSet<String>) -> Vec<Arc<PolicyHint>> {
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
            .filter_map(|source| self.by_source.get(&source))
            .flatten()
            .collect();
        names
            .into_iter()
            .filter_map(|name| self.of.get(name).cloned())
            .collect()
    }

    /// Whom policies of a namespace allow.
    pub(super) fn sources_in(&self, namespace: &str) -> BTreeSet<Source> {
        let from: Name = (namespace.to_owned(), String::new());
        let here = self.of.range(from..);
        let here = here.take_while(|((owner, _), _)| owner == namespace);
        here.flat_map(|(_, p)| p.sources.iter().cloned()).collect()
    }
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
fn goes_with(policy: &BTreeMap<String, String>, service: &Labels) -> bool {
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
