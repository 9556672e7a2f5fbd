//! Pod templates by caller, and callers by what their templates name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::learn::host::{Target, target};
use crate::mesh::Name;
use crate::object::Caller;

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Template {
    /// Service account.
    pub(super) account: String,
    /// As [`crate::learn::hints::template_names`] gives them.
    pub(super) names: BTreeSet<String>,
}

#[derive(Debug)]
struct Pod {
    uid: String,
    caller: Caller,
    template: Arc<Template>,
}

#[derive(Debug, Default)]
pub(super) struct Templates {
    pods: HashMap<Name, Pod>,
    /// Templates of each caller, several during a roll-out, with the number of their pods.
    of: BTreeMap<Caller, BTreeMap<Arc<Template>, usize>>,
    /// Callers by each label of a name in their templates, and by the addresses there as text.
    naming: HashMap<String, BTreeSet<Caller>>,
    addresses: BTreeMap<IpAddr, usize>,
}

/// What a name is found by.
fn keys(name: &str) -> Vec<String> {
    match target(name) {
        Some(Target::Name(name, _)) => name.split('.').map(str::to_owned).collect(),
        Some(Target::Address(address, _)) => vec![address.to_string()],
        None => Vec::new(),
    }
}

fn address(name: &str) -> Option<IpAddr> {
    match target(name) {
        Some(Target::Address(address, _)) => Some(address),
        _ => None,
    }
}

impl Templates {
    /// Whether a pod is known as it is: its containers' environment never changes.
    pub(super) fn knows(&self, name: &Name, uid: &str, caller: &Caller) -> bool {
        let pod = self.pods.get(name);
        pod.is_some_and(|p| p.uid == uid && p.caller == *caller)
    }

    /// Takes a pod in. Gives the callers whose hints may change.
    pub(super) fn put(
        &mut self,
        name: Name,
        uid: String,
        caller: Caller,
        template: Template,
    ) -> BTreeSet<Caller> {
        let templates = self.of.entry(caller.clone()).or_default();
        let known = templates.get_key_value(&template).map(|(t, _)| t.clone());
        let template = known.clone().unwrap_or_else(|| Arc::new(template));
        *templates.entry(template.clone()).or_default() += 1;
        let mut touched = BTreeSet::new();
        if known.is_none() {
            for text in &template.names {
                for key in keys(text) {
                    let callers = self.naming.entry(key).or_default();
                    callers.insert(caller.clone());
                }
                if let Some(address) = address(text) {
                    *self.addresses.entry(address).or_default() += 1;
                }
            }
            touched.insert(caller.clone());
        }
        let pod = Pod {
            uid,
            caller,
            template,
        };
        if let Some(old) = self.pods.insert(name, pod) {
            touched.extend(self.leave(&old));
        }
        touched
    }

    /// Takes a pod out. Gives its caller if its hints may change.
    pub(super) fn remove(&mut self, name: &Name) -> Option<Caller> {
        let pod = self.pods.remove(name)?;
        self.leave(&pod)
    }

    fn leave(&mut self, pod: &Pod) -> Option<Caller> {
        let templates = self.of.get_mut(&pod.caller)?;
        let count = templates.get_mut(&pod.template)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        templates.remove(&pod.template);
        let left: BTreeSet<String> = templates
            .keys()
            .flat_map(|t| t.names.iter())
            .flat_map(|n| keys(n))
            .collect();
        if templates.is_empty() {
            self.of.remove(&pod.caller);
        }
        for text in &pod.template.names {
            for key in keys(text).into_iter().filter(|key| !left.contains(key)) {
                if let Some(callers) = self.naming.get_mut(&key) {
                    callers.remove(&pod.caller);
                    if callers.is_empty() {
                        self.naming.remove(&key);
                    }
                }
            }
            if let Some(address) = address(text)
                && let Some(count) = self.addresses.get_mut(&address)
            {
                *count -= 1;
                if *count == 0 {
                    self.addresses.remove(&address);
                }
            }
        }
        Some(pod.caller.clone())
    }

    pub(super) fn pods(&self) -> Vec<Name> {
        self.pods.keys().cloned().collect()
    }

    /// All callers.
    pub(super) fn callers(&self) -> BTreeSet<Caller> {
        self.of.keys().cloned().collect()
    }

    /// Templates of a caller.
    pub(super) fn names(&self, caller: &Caller) -> Vec<Arc<Template>> {
        let templates = self.of.get(caller).into_iter().flatten();
        templates.map(|(template, _)| template.clone()).collect()
    }

    /// Service accounts of a caller.
    pub(super) fn accounts(&self, caller: &Caller) -> BTreeSet<String> {
        let templates = self.of.get(caller).into_iter().flatten();
        templates.map(|(t, _)| t.account.clone()).collect()
    }

    /// Callers in a namespace, or those of them with a service account.
    pub(super) fn callers_in(&self, namespace: &str, account: Option<&str>) -> Vec<Caller> {
        let from = Caller::new(namespace, "");
        let here = self.of.range(from..);
        let here = here.take_while(|(caller, _)| *caller.namespace == *namespace);
        let has = |templates: &BTreeMap<Arc<Template>, usize>| {
            account.is_none_or(|a| templates.keys().any(|t| t.account == a))
        };
        let named = here.filter(|(_, templates)| has(templates));
        named.map(|(caller, _)| caller.clone()).collect()
    }

    /// Callers whose templates may name a host or an address.
    pub(super) fn naming(&self, key: &str) -> impl Iterator<Item = &Caller> {
        self.naming.get(key).into_iter().flatten()
    }

    /// Addresses that templates name.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.keys()
    }
}
