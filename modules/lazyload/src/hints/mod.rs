//! What every workload declares to call, from its pod templates and the AuthorizationPolicies that name it.
//!
//! An event marks the callers whose hints it may change: a Service those that name it, a policy those that it allows. Of a
//! pod only the names in its containers and its service account are kept, once for all pods with the same.

mod follow;
mod policies;
mod templates;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use trimtab_mesh::Mesh;
use trimtab_mesh::table::Table;

use crate::learn::Rules;
use crate::learn::hints::{PolicyHint, template_hosts};
use crate::mesh::Index;
use crate::object::{Caller, Evidence};
pub(crate) use policies::goes_with;
pub use templates::PodTemplate;

/// Hosts with how they are declared.
pub type Declared = BTreeMap<Arc<str>, BTreeSet<Evidence>>;

/// The hints of all callers.
#[derive(Debug)]
pub struct Hints {
    index: Arc<Index>,
    templates: Arc<Table<PodTemplate>>,
    policies: Arc<Table<PolicyHint>>,
    dirty: Mutex<BTreeSet<Caller>>,
    wake: Arc<Notify>,
}

impl Hints {
    /// No hints yet. Names are looked up in `index`, which must get each event first; `wake` is notified when there is
    /// something to declare anew.
    pub fn new(index: Arc<Index>, mesh: &Mesh, wake: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            index,
            templates: mesh.table(),
            policies: mesh.table(),
            dirty: Mutex::default(),
            wake,
        })
    }

    /// Callers whose hints may have changed, sorted.
    pub fn drain_changes(&self) -> BTreeSet<Caller> {
        std::mem::take(&mut *self.dirty.lock())
    }

    /// What a caller declares now.
    pub fn of(&self, caller: &Caller, rules: &Rules) -> Declared {
        let (names, accounts) = {
            let rows = self.templates.rows();
            let templates = rows.index();
            (templates.names(caller), templates.accounts(caller))
        };
        let policies = policies::allowing(&self.policies.rows(), caller, &accounts);
        let mut out = Declared::new();
        let mut declare = |hosts: BTreeSet<Arc<str>>, evidence| {
            for host in hosts {
                out.entry(host).or_default().insert(evidence);
            }
        };
        for names in &names {
            let hosts = template_hosts(&names.names, &caller.namespace, &*self.index, rules);
            declare(hosts, Evidence::Template);
        }
        if !policies.is_empty() {
            let mesh = self.index.services();
            for policy in &policies {
                let mut hosts = policies::hosts(policy, &mesh);
                hosts.retain(|host| !rules.is_fallback(host));
                declare(hosts, Evidence::Policy);
            }
        }
        out
    }

    fn mark(&self, callers: impl IntoIterator<Item = Caller>) {
        let mut dirty = self.dirty.lock();
        let before = dirty.len();
        dirty.extend(callers);
        let more = dirty.len() > before;
        drop(dirty);
        if more {
            self.wake.notify_one();
        }
    }
}
