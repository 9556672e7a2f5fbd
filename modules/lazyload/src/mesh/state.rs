//! What events do to the state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use trimtab_crds::fence::{LAZY_XDS_ANNOTATION, Mode, ServiceFence};
use trimtab_crds::istio::{DestinationRule, ServiceEntry, Sidecar, VirtualService};
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL};

use super::addresses::Addresses;
use super::facts::{self, EntryRow, ServiceRow, SliceRow, name_of};
use super::fences::{FenceRow, Selectors};
use super::marks::Marks;
use super::pods::{Group, Pods};
use super::registry::Registry;
use super::{Changes, Name};
use crate::config::LazyloadConfig;
use crate::object::{Caller, FenceKey};
use crate::scope::Labels;
use crate::scope::services::{HostEntry, Route, Rule};

#[derive(Debug, Default, PartialEq)]
pub(super) struct NamespaceRow {
    pub(super) labels: Labels,
    pub(super) lazy_xds: Option<String>,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct SidecarRow {
    /// `None`: for the whole namespace.
    pub(super) selector: Option<Labels>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) domain: String,
    pub(super) workload_label: String,
    pub(super) mode: Mode,
    pub(super) registry: Registry,
    pub(super) pods: Pods,
    pub(super) addresses: Addresses,
    pub(super) slices: HashMap<Name, SliceRow>,
    /// Addresses of a Service in all of its slices: version 4 and version 6.
    families: HashMap<Arc<str>, [usize; 2]>,
    pub(super) fences: BTreeMap<FenceKey, FenceRow>,
    pub(super) by_selector: Selectors<FenceKey>,
    pub(super) by_stored: HashMap<Caller, BTreeSet<FenceKey>>,
    /// Users' Sidecars.
    pub(super) sidecars: BTreeMap<Name, SidecarRow>,
    pub(super) sidecar_selectors: Selectors<Name>,
    pub(super) namespaces: BTreeMap<String, NamespaceRow>,
    pub(super) marks: Marks,
    pub(super) changes: Changes,
}

impl State {
    pub(super) fn new(config: &LazyloadConfig) -> Self {
        Self {
            domain: config.domain.clone(),
            workload_label: config.workload_label.clone(),
            mode: config.mode,
            ..Self::default()
        }
    }

    pub(super) fn configure(&mut self, config: &LazyloadConfig) {
        self.workload_label.clone_from(&config.workload_label);
        self.mode = config.mode;
        let keys: Vec<FenceKey> = self.fences.keys().cloned().collect();
        for key in &keys {
            self.refresh(key);
        }
        self.changes.fences.extend(keys);
        self.changes.mesh = true;
    }

    // --- services ---

    fn touch_entry(&mut self, entry: &HostEntry) {
        let fences = &mut self.changes.fences;
        self.marks.host(&entry.host, fences);
        self.marks.namespace(&entry.namespace, fences);
        self.marks.labels(&entry.labels, fences);
        self.changes.mesh = true;
    }

    fn set_service(&mut self, name: &Name, new: Option<&ServiceRow>) {
        if self.registry.services.get(name) == new {
            return;
        }
        let old = self.registry.set_service(name, new.cloned());
        let old = old.as_ref();
        for (row, there) in [(old, false), (new, true)] {
            let Some(row) = row else { continue };
            for address in &row.addresses {
                self.addresses.set_virtual(*address, &row.entry.host, there);
            }
        }
        if old.map(|r| &r.entry) != new.map(|r| &r.entry) {
            for row in [old, new].into_iter().flatten() {
                self.touch_entry(&row.entry);
            }
        }
        if old.map(|r| &r.info) != new.map(|r| &r.info) {
            self.changes.services.insert(name.clone());
            self.refresh(&FenceKey {
                namespace: name.0.clone(),
                name: name.1.clone(),
            });
        }
    }

    pub(super) fn put_service(&mut self, object: &Service) {
        let row = facts::service(object, &self.domain);
        self.set_service(&name_of(object), Some(&row));
    }

    pub(super) fn drop_service(&mut self, name: &Name) {
        self.set_service(name, None);
    }

    fn set_entry(&mut self, name: &Name, new: Option<&EntryRow>) {
        if self.registry.entries.get(name) == new {
            return;
        }
        let old = self.registry.set_entry(name, new.cloned());
        let old = old.as_ref();
        for (row, there) in [(old, false), (new, true)] {
            let Some(row) = row else { continue };
            for entry in &row.entries {
                for address in &row.addresses {
                    self.addresses.set_virtual(*address, &entry.host, there);
                }
                for address in &row.behind {
                    self.addresses.set_behind(*address, &entry.host, there);
                }
                for range in &row.ranges {
                    self.addresses.set_range(*range, &entry.host, there);
                }
            }
        }
        for entry in [old, new].into_iter().flatten().flat_map(|r| &r.entries) {
            self.touch_entry(entry);
        }
    }

    pub(super) fn put_entry(&mut self, object: &ServiceEntry) {
        let row = facts::service_entry(object);
        self.set_entry(&name_of(object), Some(&row));
    }

    pub(super) fn drop_entry(&mut self, name: &Name) {
        self.set_entry(name, None);
    }

    fn set_slice(&mut self, name: &Name, new: Option<SliceRow>) {
        if self.slices.get(name) == new.as_ref() {
            return;
        }
        let old = self.slices.remove(name);
        for (row, there) in [(&old, false), (&new, true)] {
            let Some(row) = row.as_ref().filter(|r| !r.host.is_empty()) else {
                continue;
            };
            let counts = self.families.entry(row.host.clone()).or_default();
            for address in &row.addresses {
                self.addresses.set_behind(*address, &row.host, there);
                let count = &mut counts[usize::from(address.is_ipv6())];
                *count = if there {
                    *count + 1
                } else {
                    count.saturating_sub(1)
                };
            }
            let most = counts[0].max(counts[1]);
            if most == 0 {
                self.families.remove(&row.host);
            }
            self.registry.set_endpoints(&row.host, most);
            self.changes.mesh = true;
        }
        if let Some(new) = new {
            self.slices.insert(name.clone(), new);
        }
    }

    pub(super) fn put_slice(&mut self, object: &EndpointSlice) {
        let row = facts::slice(object, &self.domain);
        self.set_slice(&name_of(object), Some(row));
    }

    pub(super) fn drop_slice(&mut self, name: &Name) {
        self.set_slice(name, None);
    }

    // --- rules ---

    fn set_route(&mut self, name: &Name, new: Option<Route>) {
        let known = self.registry.of_route(name);
        if known.as_deref() == new.as_ref() {
            return;
        }
        let fences = &mut self.changes.fences;
        for route in [known.as_deref(), new.as_ref()].into_iter().flatten() {
            for host in &route.hosts {
                self.marks.host(host, fences);
            }
        }
        self.marks.namespace(&name.0, fences);
        self.marks.route(name, fences);
        self.registry.set_route(name, new);
        self.changes.mesh = true;
    }

    pub(super) fn put_route(&mut self, object: &VirtualService) {
        let route = facts::route(object, &self.domain);
        self.set_route(&name_of(object), Some(route));
    }

    pub(super) fn drop_route(&mut self, name: &Name) {
        self.set_route(name, None);
    }

    fn set_rule(&mut self, name: &Name, new: Option<&Rule>) {
        let old = self.registry.set_rule(name, new.cloned());
        if old.as_deref() == new {
            return;
        }
        for rule in [old.as_deref(), new].into_iter().flatten() {
            self.marks.host(&rule.host, &mut self.changes.fences);
        }
    }

    pub(super) fn put_rule(&mut self, object: &DestinationRule) {
        let rule = facts::rule(object, &self.domain);
        self.set_rule(&name_of(object), Some(&rule));
    }

    pub(super) fn drop_rule(&mut self, name: &Name) {
        self.set_rule(name, None);
    }

    // --- pods and namespaces ---

    fn touch_groups(&mut self, groups: &[Arc<Group>]) {
        for group in groups {
            self.changes.fences.extend(self.by_selector.of_group(group));
            self.changes.workloads = true;
        }
    }

    pub(super) fn put_pod(&mut self, object: &Pod) {
        let groups = self.pods.put(object);
        self.touch_groups(&groups);
    }

    pub(super) fn drop_pod(&mut self, name: &Name) {
        let groups = self.pods.remove(name);
        self.touch_groups(&groups);
    }

    pub(super) fn put_namespace(&mut self, object: &Namespace) {
        let row = NamespaceRow {
            labels: object.labels().clone().into_iter().collect(),
            lazy_xds: object.annotations().get(LAZY_XDS_ANNOTATION).cloned(),
        };
        let name = object.name_any();
        if self.namespaces.get(&name) != Some(&row) {
            self.changes.namespaces.insert(name.clone());
            self.namespaces.insert(name, row);
        }
    }

    pub(super) fn drop_namespace(&mut self, name: &Name) {
        if self.namespaces.remove(&name.1).is_some() {
            self.changes.namespaces.insert(name.1.clone());
        }
    }

    // --- Sidecars ---

    fn set_sidecar(&mut self, name: &Name, new: Option<SidecarRow>) {
        if self.sidecars.get(name) == new.as_ref() {
            return;
        }
        let old = self.sidecars.remove(name);
        let own = FenceKey {
            namespace: name.0.clone(),
            name: name.1.clone(),
        };
        let mut touched = BTreeSet::from([own]);
        touched.retain(|key| self.fences.contains_key(key));
        for row in [&old, &new].into_iter().flatten() {
            touched.extend(match &row.selector {
                Some(labels) => self.by_selector.overlapping(&name.0, labels, &self.pods),
                None => self.fences_in(&name.0),
            });
        }
        // A fence that may not write leaves the writing to others.
        for key in touched.clone() {
            let selector = self.fences.get(&key).and_then(|row| row.selector.as_ref());
            let near = selector.map(|s| self.by_selector.overlapping(&name.0, s, &self.pods));
            touched.extend(near.into_iter().flatten());
        }
        self.changes.fences.extend(touched);
        let labels = new.as_ref().and_then(|row| row.selector.as_ref());
        self.sidecar_selectors.set(&name.0, name, labels);
        if let Some(new) = new {
            self.sidecars.insert(name.clone(), new);
        }
    }

    pub(super) fn put_sidecar(&mut self, object: &Sidecar) {
        let selector = object.spec.workload_selector.as_ref();
        let selector = selector.map(|s| s.labels.clone()).filter(|l| !l.is_empty());
        let new = (!is_ours(object)).then_some(SidecarRow { selector });
        self.set_sidecar(&name_of(object), new);
    }

    pub(super) fn drop_sidecar(&mut self, name: &Name) {
        self.set_sidecar(name, None);
    }

    fn fences_in(&self, namespace: &str) -> BTreeSet<FenceKey> {
        let from = FenceKey {
            namespace: namespace.to_owned(),
            name: String::new(),
        };
        let keys = self.fences.range(from..).map(|(key, _)| key);
        keys.take_while(|k| k.namespace == namespace)
            .cloned()
            .collect()
    }

    // --- fences ---

    pub(super) fn put_fence(&mut self, object: &ServiceFence) {
        let (namespace, name) = name_of(object);
        let key = FenceKey { namespace, name };
        self.set_fence(&key, Some(FenceRow::new(object)));
    }

    pub(super) fn drop_fence(&mut self, name: &Name) {
        let (namespace, name) = name.clone();
        self.set_fence(&FenceKey { namespace, name }, None);
    }

    pub(super) fn undecodable_fence(&mut self, key: &FenceKey, error: &str) {
        if let Some(row) = self.fences.get_mut(key) {
            row.undecodable = Some(error.to_owned());
            self.changes.fences.insert(key.clone());
        }
    }

    fn set_fence(&mut self, key: &FenceKey, mut new: Option<FenceRow>) {
        if let Some(row) = &mut new {
            row.selector = self.selector_of(key, row).ok();
        }
        let old = self.fences.remove(key);
        let callers =
            |row: Option<&FenceRow>| row.map(|r| r.stored_callers(key)).unwrap_or_default();
        let (before, after) = (callers(old.as_ref()), callers(new.as_ref()));
        for caller in before.difference(&after) {
            if let Some(keys) = self.by_stored.get_mut(caller) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_stored.remove(caller);
                }
            }
        }
        for caller in after.difference(&before) {
            let keys = self.by_stored.entry(caller.clone()).or_default();
            keys.insert(key.clone());
        }
        let status = |row: &Option<FenceRow>| row.as_ref().map(|r| r.status.clone());
        if status(&old) != status(&new) {
            self.changes.statuses.insert(key.clone());
        }
        let differs = match (&old, &new) {
            (Some(old), Some(new)) => old.differs(new) || old.selector != new.selector,
            (old, new) => old.is_some() || new.is_some(),
        };
        if differs || before != after {
            self.changes.fences.insert(key.clone());
        }
        let selector = |row: &Option<FenceRow>| row.as_ref().and_then(|r| r.selector.clone());
        let (from, to) = (selector(&old), selector(&new));
        if new.is_none() {
            self.marks.forget(key);
        }
        if let Some(new) = new {
            self.fences.insert(key.clone(), new);
        }
        if differs {
            self.reselect(key, from, to);
        }
    }

    /// Moves a fence from one selector to another, and marks those that overlap with it now or did before.
    fn reselect(&mut self, key: &FenceKey, from: Option<Labels>, to: Option<Labels>) {
        self.by_selector.set(&key.namespace, key, to.as_ref());
        for selector in [from, to].iter().flatten() {
            let near = self
                .by_selector
                .overlapping(&key.namespace, selector, &self.pods);
            self.changes.fences.extend(near);
        }
    }

    /// Finds the selector anew.
    fn refresh(&mut self, key: &FenceKey) {
        let Some(row) = self.fences.get(key) else {
            return;
        };
        let new = self.selector_of(key, row).ok();
        let changed = row.selector != new;
        // Also without one: which problem it is may have changed.
        if changed || new.is_none() {
            self.changes.fences.insert(key.clone());
        }
        if changed && let Some(row) = self.fences.get_mut(key) {
            let old = std::mem::replace(&mut row.selector, new.clone());
            self.reselect(key, old, new);
        }
    }
}

/// Whether Trimtab wrote a Sidecar, or Slime did, whose Sidecars are taken over.
fn is_ours(object: &Sidecar) -> bool {
    let labelled = object.labels().get(MANAGED_BY_LABEL);
    labelled.is_some_and(|by| by == MANAGED_BY)
        || object.owner_references().iter().any(|o| {
            o.controller == Some(true)
                && o.kind == "ServiceFence"
                && o.api_version.starts_with("microservice.slime.io/")
        })
}
