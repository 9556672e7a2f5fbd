//! Pod templates by caller, and callers by what their templates name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use kube::ResourceExt;
use trimtab_mesh::table::{Change, Index, Known, Row};

use crate::learn::hints::template_names;
use crate::learn::host::{Target, target};
use crate::object::Caller;

/// What the containers of a pod name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Template {
    /// Service account.
    pub(super) account: String,
    /// As [`template_names`] gives them.
    pub(super) names: BTreeSet<String>,
}

/// What is kept of a pod: its template, once for all pods of a workload with the same.
#[derive(Debug, PartialEq, Eq)]
pub struct PodTemplate {
    uid: String,
    pub(super) caller: Caller,
    pub(super) template: Arc<Template>,
}

impl Row for PodTemplate {
    type Object = v1::Pod;
    type Index = Templates;

    fn read(object: &Arc<v1::Pod>, known: &Known<'_, Self>) -> Option<Self> {
        let spec = object.spec.as_ref()?;
        let uid = object.uid().unwrap_or_default();
        let caller = Caller::of(object);
        // The containers' environment never changes.
        let same = known.old.filter(|o| o.uid == uid && o.caller == caller);
        let template = if let Some(old) = same {
            old.template.clone()
        } else {
            let account = spec.service_account_name.clone();
            let template = Template {
                account: account.unwrap_or_else(|| "default".to_owned()),
                names: template_names(spec),
            };
            known.index.shared(&caller, template)
        };
        Some(Self {
            uid,
            caller,
            template,
        })
    }
}

/// Templates by caller, and callers by what their templates name.
#[derive(Debug, Default)]
pub struct Templates {
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

impl Index<PodTemplate> for Templates {
    fn change(&mut self, change: &Change<'_, PodTemplate>) {
        if let Some(new) = change.new {
            self.join(new);
        }
        if let Some(old) = change.old {
            self.leave(old);
        }
    }
}

impl Templates {
    fn shared(&self, caller: &Caller, template: Template) -> Arc<Template> {
        let known = self.of.get(caller).and_then(|t| t.get_key_value(&template));
        known.map_or_else(|| Arc::new(template), |(known, _)| known.clone())
    }

    /// Number of a caller's pods with a template.
    pub(super) fn count(&self, pod: &PodTemplate) -> usize {
        let templates = self.of.get(&pod.caller);
        let count = templates.and_then(|t| t.get(&pod.template));
        count.copied().unwrap_or_default()
    }

    fn join(&mut self, pod: &PodTemplate) {
        let templates = self.of.entry(pod.caller.clone()).or_default();
        let count = templates.entry(pod.template.clone()).or_default();
        *count += 1;
        if *count > 1 {
            return;
        }
        for text in &pod.template.names {
            for key in keys(text) {
                let callers = self.naming.entry(key).or_default();
                callers.insert(pod.caller.clone());
            }
            if let Some(address) = address(text) {
                *self.addresses.entry(address).or_default() += 1;
            }
        }
    }

    fn leave(&mut self, pod: &PodTemplate) {
        let Some(templates) = self.of.get_mut(&pod.caller) else {
            return;
        };
        match templates.get_mut(&pod.template) {
            Some(count) if *count > 1 => {
                *count -= 1;
                return;
            }
            _ => {}
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
    pub(super) fn naming<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a Caller> + use<'a> {
        self.naming.get(key).into_iter().flatten()
    }

    /// Addresses that templates name.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.keys()
    }
}
