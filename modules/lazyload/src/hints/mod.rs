//! What every workload declares to call, from its pod templates and the AuthorizationPolicies that name it.
//!
//! An event marks the callers whose hints it may change: a Service those that name it, a policy those that it allows. Of a
//! pod only the names in its containers and its service account are kept, once for all pods with the same.

mod feeds;
mod policies;
mod templates;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::learn::Rules;
use crate::learn::hints::template_hosts;
use crate::mesh::Index;
use crate::object::{Caller, Evidence};
use policies::Policies;
use templates::Templates;

/// Hosts with how they are declared.
pub type Declared = BTreeMap<Arc<str>, BTreeSet<Evidence>>;

#[derive(Debug, Default)]
struct State {
    templates: Templates,
    policies: Policies,
    dirty: BTreeSet<Caller>,
}

/// The hints of all callers.
#[derive(Debug)]
pub struct Hints {
    index: Arc<Index>,
    state: Mutex<State>,
    wake: Arc<Notify>,
}

impl Hints {
    /// No hints yet. Names are looked up in `index`, which must get each event first; `wake` is notified when there is
    /// something to declare anew.
    pub fn new(index: Arc<Index>, wake: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            index,
            state: Mutex::default(),
            wake,
        })
    }

    /// Callers whose hints may have changed, sorted.
    pub fn take_changes(&self) -> BTreeSet<Caller> {
        std::mem::take(&mut self.state.lock().dirty)
    }

    /// What a caller declares now.
    pub fn of(&self, caller: &Caller, rules: &Rules) -> Declared {
        let (names, policies) = {
            let state = self.state.lock();
            let names = state.templates.names(caller);
            let accounts = state.templates.accounts(caller);
            (names, state.policies.of(caller, &accounts))
        };
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

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        let before = state.dirty.len();
        change(&mut state);
        let more = state.dirty.len() > before;
        drop(state);
        if more {
            self.wake.notify_one();
        }
    }
}
