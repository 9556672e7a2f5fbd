//! First calls that policies of the target refuse: the fallback makes them, with its own identity.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use trimtab_mesh::DEFAULT_DOMAIN;
use trimtab_mesh::model::{MeshConfig, Service};
use trimtab_mesh::table::{Change, Follower, Rows};

use super::{Engine, WorkItem};
use crate::access::{Peer, Policy, refusing};
use crate::config::GlobalSidecarMode;
use crate::fallback;
use crate::mesh::Registry;
use crate::object::FenceKey;
use crate::scope::{Imports, Services};

/// Hosts that are named in one status; the message shows fewer, and that there are more.
const MOST_HOSTS: usize = 20;

impl Engine {
    fn peer(&self, namespace: &str, account: &str) -> Peer {
        let mesh = self.mesh_config.read();
        let domain = mesh.as_ref().map(|mesh| mesh.trust_domain.as_str());
        Peer {
            domain: domain
                .filter(|domain| !domain.is_empty())
                .unwrap_or(DEFAULT_DOMAIN)
                .into(),
            namespace: namespace.to_owned(),
            account: account.to_owned(),
        }
    }

    /// Hosts out of scope whose policies let one of these accounts in and not the fallback, by their entry, with the policies.
    pub(super) fn refused_first_calls(
        &self,
        key: &FenceKey,
        accounts: &BTreeSet<String>,
        imports: &Imports,
    ) -> BTreeMap<String, String> {
        let config = self.config();
        let place = match config.fallback.global_sidecar_mode {
            GlobalSidecarMode::Cluster => config.fallback_namespace(),
            GlobalSidecarMode::Namespace => &key.namespace,
        };
        let callers = accounts.iter();
        let callers = callers.map(|account| self.peer(&key.namespace, account));
        let mesh = self.index.services();
        let look = Look {
            mesh: &mesh,
            policies: &self.policies.rows(),
            root: &config.istio_namespace,
            callers: callers.collect(),
            fallback: self.peer(place, fallback::NAME),
            client: &key.namespace,
            imports,
        };
        let mut out = BTreeMap::new();
        for namespace in look.namespaces() {
            look.refused(&namespace, &mut out);
        }
        out
    }

    /// Looks again which first calls are refused, when policies or what they are for have changed. Scopes stay.
    pub(super) fn look_at_policies(&self) {
        if !self.policies_moved.swap(false, Ordering::Relaxed) {
            return;
        }
        let keys = self.fences();
        for key in keys {
            let (accounts, imports) = {
                let inner = self.inner.lock();
                let Some(entry) = inner.fences.get(&key) else {
                    continue;
                };
                (entry.accounts.clone(), entry.scope.imports.clone())
            };
            let now = self.refused_first_calls(&key, &accounts, &imports);
            let mut inner = self.inner.lock();
            if let Some(entry) = inner.fences.get_mut(&key)
                && entry.first_calls != now
            {
                entry.first_calls = now;
                drop(inner);
                self.queue.push(WorkItem::Fence(key));
            }
        }
    }

    fn policies_have_moved(&self) {
        self.policies_moved.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }
}

/// What is looked at for one fence.
struct Look<'a> {
    mesh: &'a Registry,
    policies: &'a Rows<Policy>,
    root: &'a str,
    callers: Vec<Peer>,
    fallback: Peer,
    client: &'a str,
    imports: &'a Imports,
}

impl Look<'_> {
    /// Namespaces with a policy that stops the fallback; all, if the root namespace has one.
    fn namespaces(&self) -> BTreeSet<Arc<str>> {
        if self.callers.is_empty() {
            return BTreeSet::new();
        }
        let stopping = self.policies.iter().map(|(_, policy)| policy);
        let stopping = stopping.filter(|policy| policy.stops(&self.fallback));
        let mut out: BTreeSet<Arc<str>> = stopping.map(|p| p.id.namespace.clone()).collect();
        if out.contains(self.root) {
            out.extend(self.mesh.all().map(|entry| entry.namespace.clone()));
        }
        out
    }

    fn refused(&self, namespace: &Arc<str>, out: &mut BTreeMap<String, String>) {
        let mut near: Vec<&Arc<Policy>> = Vec::new();
        for place in BTreeSet::from([&**namespace, self.root]) {
            near.extend(self.policies.in_namespace(place).map(|(_, policy)| policy));
        }
        for entry in self.mesh.in_namespace(namespace) {
            if out.len() >= MOST_HOSTS {
                return;
            }
            let imported = format!("{namespace}/{}", entry.host);
            let seen = entry.exports.visible(namespace, self.client);
            if !seen
                || self.imports.services.contains_key(&imported)
                || *entry.name == *fallback::NAME
            {
                continue;
            }
            let Some(service) = self.mesh.service(namespace, &entry.name) else {
                continue;
            };
            let here = near.iter().copied();
            let here: Vec<_> = here.filter(|p| p.is_for(&service, self.root)).collect();
            let refusing = self
                .callers
                .iter()
                .flat_map(|caller| refusing(&here, caller, &self.fallback));
            let names: BTreeSet<String> = refusing
                .map(|policy| format!("{}/{}", policy.id.namespace, policy.id.name))
                .collect();
            if !names.is_empty() {
                let names: Vec<String> = names.into_iter().collect();
                let text = format!("{} by AuthorizationPolicy {}", entry.host, names.join(", "));
                out.insert(imported, text);
            }
        }
    }
}

impl Follower<Policy> for Engine {
    fn changed(&self, _: Change<'_, Policy>) {
        self.policies_have_moved();
    }
}

impl Follower<Service> for Engine {
    fn changed(&self, change: Change<'_, Service>) {
        let part = |service: &Arc<Service>| (service.selector.clone(), service.exports.clone());
        if change.old.map(part) == change.new.map(part) {
            return;
        }
        let root = self.config().istio_namespace.clone();
        let policies = self.policies.rows();
        let has = |namespace: &str| policies.in_namespace(namespace).next().is_some();
        if has(&change.name.0) || has(&root) {
            self.policies_have_moved();
        }
    }
}

impl Follower<MeshConfig> for Engine {
    fn changed(&self, change: Change<'_, MeshConfig>) {
        *self.mesh_config.write() = change.new.cloned();
        let [old, new] = [change.old, change.new];
        let domain = |mesh: &Arc<MeshConfig>| mesh.trust_domain.clone();
        if old.map(domain) != new.map(domain) {
            self.policies_have_moved();
        }
        let only = |mesh: Option<&Arc<MeshConfig>>| mesh.is_some_and(|mesh| mesh.registry_only());
        if only(old) != only(new) {
            self.queue.push(WorkItem::FallbackRouting);
        }
    }
}
