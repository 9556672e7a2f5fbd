//! What events do to the state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use trimtab_crds::fence::Mode;
use trimtab_mesh::Mesh;
use trimtab_mesh::model::{
    DestinationRule, EndpointSlice, GrpcRoute, HttpRoute, MeshConfig, Namespace, Pod, PodGroup,
    RouteKind, Service, ServiceEntry, VirtualService,
};
use trimtab_mesh::table::{Change, Table};

use super::addresses::Addresses;
use super::fences::{Fence, FenceRow, Selectors};
use super::hosts;
use super::marks::Marks;
use super::registry::Registry;
use super::sidecars::{Sidecar, SidecarOwner};
use super::{Changes, Name};
use crate::config::LazyloadConfig;
use crate::fallback::NAME;
use crate::object::{Caller, FenceKey};
use crate::scope::Labels;
use crate::scope::services::{HostEntry, Services};

#[derive(Debug)]
pub(super) struct State {
    pub(super) domain: Arc<str>,
    pub(super) workload_label: String,
    pub(super) mode: Mode,
    pub(super) registry: Registry,
    pub(super) pods: Arc<Table<Pod>>,
    pub(super) namespaces: Arc<Table<Namespace>>,
    pub(super) mesh_config: Arc<Table<MeshConfig>>,
    pub(super) istio_namespace: String,
    pub(super) addresses: Addresses,
    /// Addresses of a Service in all of its slices: version 4 and version 6.
    families: HashMap<Arc<str>, [usize; 2]>,
    pub(super) fences: BTreeMap<FenceKey, FenceRow>,
    pub(super) by_selector: Selectors<FenceKey>,
    pub(super) by_stored: HashMap<Caller, BTreeSet<FenceKey>>,
    /// Users' Sidecars.
    pub(super) sidecars: BTreeMap<Name, Arc<Sidecar>>,
    pub(super) sidecar_selectors: Selectors<Name>,
    pub(super) marks: Marks,
    pub(super) changes: Changes,
}

impl State {
    pub(super) fn new(config: &LazyloadConfig, mesh: &Mesh) -> Self {
        let mut registry = Registry::new(mesh);
        registry.set_aliases(&config.domain_aliases);
        Self {
            domain: mesh.domain().clone(),
            workload_label: config.workload_label.clone(),
            mode: config.mode,
            registry,
            pods: mesh.table(),
            namespaces: mesh.table(),
            mesh_config: mesh.table(),
            istio_namespace: config.istio_namespace.clone(),
            addresses: Addresses::default(),
            families: HashMap::new(),
            fences: BTreeMap::new(),
            by_selector: Selectors::default(),
            by_stored: HashMap::new(),
            sidecars: BTreeMap::new(),
            sidecar_selectors: Selectors::default(),
            marks: Marks::default(),
            changes: Changes::default(),
        }
    }

    pub(super) fn configure(&mut self, config: &LazyloadConfig) {
        self.workload_label.clone_from(&config.workload_label);
        self.mode = config.mode;
        self.registry.set_aliases(&config.domain_aliases);
        self.istio_namespace.clone_from(&config.istio_namespace);
        let keys: Vec<FenceKey> = self.fences.keys().cloned().collect();
        for key in &keys {
            self.refresh(key);
        }
        self.changes.fences.extend(keys);
    }

    // --- services ---

    fn touch_entry(&mut self, entry: &HostEntry) {
        let fences = &mut self.changes.fences;
        self.marks.host(&entry.host, fences);
        self.marks.namespace(&entry.namespace, fences);
        self.marks.labels(&entry.labels, fences);
        for listener in entry.listeners() {
            self.marks.listener(listener, fences);
        }
    }

    /// What remarks on names depend on: turns of the rules of `domainAliases`, and whether a namespace is there.
    fn known_of(&self, namespace: &str) -> (u64, bool) {
        let registry = &self.registry;
        (registry.aliases.turns, registry.has_namespace(namespace))
    }

    /// A rule that matches its first host, or none any more, is a remark less or more of all fences.
    fn known_turned(&mut self, namespace: &str, before: (u64, bool)) {
        let (turns, there) = self.known_of(namespace);
        if turns != before.0 {
            self.changes.fences.extend(self.fences.keys().cloned());
        }
        if there != before.1 {
            self.marks.space(namespace, &mut self.changes.fences);
        }
    }

    /// Only whether it is there matters.
    pub(super) fn namespace(&mut self, change: &Change<'_, Namespace>) {
        if change.old.is_some() != change.new.is_some() {
            self.marks.space(&change.name.1, &mut self.changes.fences);
        }
        self.data_plane_mode(change);
    }

    pub(super) fn service(&mut self, change: &Change<'_, Service>) {
        for (row, there) in [(change.old, false), (change.new, true)] {
            let Some(row) = row else { continue };
            for address in &row.addresses {
                self.addresses.set_virtual(*address, &row.host, there);
            }
        }
        let old = change.old.map(|s| hosts::of_service(s));
        let new = change.new.map(|s| Arc::new(hosts::of_service(s)));
        if old.as_ref() != new.as_deref() {
            let before = self.known_of(&change.name.0);
            self.registry.set_service(change.name, new.clone());
            self.known_turned(&change.name.0, before);
            for entry in old.as_ref().into_iter().chain(new.as_deref()) {
                self.touch_entry(entry);
            }
        }
        let selector = |s: Option<&Arc<Service>>| s.map(|s| s.selector.clone());
        if selector(change.old) != selector(change.new) {
            self.refresh(&FenceKey::of(change.name));
        }
    }

    pub(super) fn entry(&mut self, change: &Change<'_, ServiceEntry>) {
        let new = change.new.map(|e| hosts::of_entry(e)).unwrap_or_default();
        let before = self.known_of(&change.name.0);
        let old = self.registry.set_entry(change.name, new.clone());
        self.known_turned(&change.name.0, before);
        let rows = [(change.old, &old, false), (change.new, &new, true)];
        for (row, entries, there) in rows {
            let Some(row) = row else { continue };
            for entry in entries {
                // An address with a prefix is a range, also of one address.
                let single = row.spec.addresses.iter().filter_map(|a| a.parse().ok());
                for address in single {
                    self.addresses.set_virtual(address, &entry.host, there);
                }
                for address in hosts::behind(row) {
                    self.addresses.set_behind(address, &entry.host, there);
                }
                for range in hosts::ranges(row) {
                    self.addresses.set_range(range, &entry.host, there);
                }
            }
        }
        if old != new {
            for entry in old.iter().chain(&new) {
                self.touch_entry(entry);
            }
        }
    }

    pub(super) fn slice(&mut self, change: &Change<'_, EndpointSlice>) {
        let hosts: BTreeSet<&Arc<str>> = change.rows().map(|row| &row.host).collect();
        let had = hosts
            .into_iter()
            .map(|h| (h.clone(), self.registry.has_endpoints(h)));
        let had: Vec<(Arc<str>, bool)> = had.collect();
        self.count(change);
        for (host, had) in had {
            if self.registry.has_endpoints(&host) != had {
                self.touch_headless(&host);
                self.changes.fallback |= host.split('.').next() == Some(NAME);
            }
        }
    }

    fn count(&mut self, change: &Change<'_, EndpointSlice>) {
        for (row, there) in [(change.old, false), (change.new, true)] {
            let Some(row) = row.filter(|r| !r.host.is_empty()) else {
                continue;
            };
            let counts = self.families.entry(row.host.clone()).or_default();
            let addresses: BTreeSet<IpAddr> = row.addresses().collect();
            for address in addresses {
                self.addresses.set_behind(address, &row.host, there);
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
        }
    }

    /// The listeners of a headless Service are those of its pods: with the first they come, with the last they go.
    fn touch_headless(&mut self, host: &str) {
        for entry in self.registry.host(host).iter().filter(|e| e.headless) {
            for listener in entry.listeners() {
                self.marks.listener(listener, &mut self.changes.fences);
            }
        }
    }

    // --- rules ---

    pub(super) fn route(&mut self, change: &Change<'_, VirtualService>) {
        self.marks.route(change.name, &mut self.changes.fences);
        let rows = |row: Option<&Arc<VirtualService>>| Vec::from_iter(row.cloned());
        let (old, new) = (rows(change.old), rows(change.new));
        self.routes(change.name, RouteKind::VirtualService, &old, new);
    }

    pub(super) fn http_route(&mut self, change: &Change<'_, HttpRoute>) {
        let rows = |row: Option<&Arc<HttpRoute>>| row.map(|r| r.services.to_vec());
        let (old, new) = (rows(change.old), rows(change.new));
        let old = old.unwrap_or_default();
        self.routes(
            change.name,
            RouteKind::HttpRoute,
            &old,
            new.unwrap_or_default(),
        );
    }

    pub(super) fn grpc_route(&mut self, change: &Change<'_, GrpcRoute>) {
        let rows = |row: Option<&Arc<GrpcRoute>>| row.map(|r| r.services.to_vec());
        let (old, new) = (rows(change.old), rows(change.new));
        let old = old.unwrap_or_default();
        self.routes(
            change.name,
            RouteKind::GrpcRoute,
            &old,
            new.unwrap_or_default(),
        );
    }

    fn routes(
        &mut self,
        name: &Name,
        kind: RouteKind,
        old: &[Arc<VirtualService>],
        new: Vec<Arc<VirtualService>>,
    ) {
        let fences = &mut self.changes.fences;
        for host in old.iter().chain(&new).flat_map(|route| &route.hosts) {
            self.marks.host(host, fences);
        }
        self.marks.namespace(&name.0, fences);
        let before = self.known_of(&name.0);
        self.registry.set_routes(name, kind, new);
        self.known_turned(&name.0, before);
    }

    pub(super) fn rule(&mut self, change: &Change<'_, DestinationRule>) {
        self.registry.set_rule(change.old, change.new);
        let seen =
            |r: Option<&Arc<DestinationRule>>| r.map(|r| (r.host.clone(), r.exports.clone()));
        if seen(change.old) == seen(change.new) {
            return;
        }
        for rule in change.rows() {
            self.marks.host(&rule.host, &mut self.changes.fences);
        }
    }

    // --- pods ---

    /// Pods that come and go in a group that stays are no event for fences: a roll-out or an autoscaler that replaces a
    /// thousand pods computes nothing again.
    pub(super) fn pod(&mut self, change: &Change<'_, Pod>) {
        let group = |pod: Option<&Arc<Pod>>| pod.map(|p| p.group.clone());
        self.pod_outside(change);
        let (old, new) = (group(change.old), group(change.new));
        if old == new {
            return;
        }
        let pods = self.pods.rows();
        let touched = |group: &Arc<PodGroup>, count| pods.index().count(group) == count;
        let gone = old.filter(|group| touched(group, 0));
        let appeared = new.filter(|group| touched(group, 1));
        for group in gone.iter().chain(&appeared) {
            self.changes.fences.extend(self.by_selector.of_group(group));
        }
    }

    // --- Sidecars ---

    pub(super) fn overlapping(&self, namespace: &str, selector: &Labels) -> BTreeSet<FenceKey> {
        let pods = self.pods.rows();
        let selectors = &self.by_selector;
        selectors.overlapping(namespace, selector, pods.index())
    }

    pub(super) fn sidecar(&mut self, change: &Change<'_, Sidecar>) {
        let users = |s: Option<&Arc<Sidecar>>| s.filter(|s| s.owner == SidecarOwner::User).cloned();
        let (old, new) = (users(change.old), users(change.new));
        let part = |s: &Option<Arc<Sidecar>>| {
            let part = |s: &Arc<Sidecar>| (s.selector.clone(), s.policy.clone(), s.created);
            s.as_ref().map(part)
        };
        if part(&old) == part(&new) {
            return;
        }
        let name = change.name;
        let mut touched = BTreeSet::from([FenceKey::of(name)]);
        touched.retain(|key| self.fences.contains_key(key));
        for row in [&old, &new].into_iter().flatten() {
            touched.extend(match &row.selector {
                Some(labels) => self.overlapping(&name.0, labels),
                None => self.fences_below(&name.0),
            });
        }
        // A fence that may not write leaves the writing to others.
        for key in touched.clone() {
            let selector = self.fences.get(&key).and_then(|row| row.selector.as_ref());
            let near = selector.map(|s| self.overlapping(&name.0, s));
            touched.extend(near.into_iter().flatten());
        }
        self.changes.fences.extend(touched);
        let labels = new.as_ref().and_then(|row| row.selector.as_ref());
        self.sidecar_selectors.set(&name.0, name, labels);
        self.sidecars.remove(name);
        if let Some(new) = new {
            self.sidecars.insert(name.clone(), new);
        }
    }

    pub(super) fn fences_in(&self, namespace: &str) -> BTreeSet<FenceKey> {
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

    pub(super) fn fence(&mut self, change: &Change<'_, Fence>) {
        let new = change.new.cloned().map(FenceRow::new);
        self.set_fence(&FenceKey::of(change.name), new);
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
            let near = self.overlapping(&key.namespace, selector);
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
