//! What is needed, and by whom.

use std::collections::BTreeSet;
use std::sync::Arc;

use trimtab_mesh::model::{Labels, selects};

use crate::scope::{Reason, Required};

/// What pods need, and what the user should know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Hosts.
    pub hosts: BTreeSet<Required>,
    /// Remarks, sorted.
    pub remarks: BTreeSet<String>,
    /// Hosts that only the proxies' DNS may know, when it cannot be told whether they are asked, or when it was turned off:
    /// `namespace/host`.
    pub unnamed: BTreeSet<String>,
}

/// Fences that a change touches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// All of them.
    pub all: bool,
    /// Those of these namespaces.
    pub namespaces: BTreeSet<String>,
}

/// Pods that are alike: their labels, and whether their proxies answer DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pods {
    pub(super) labels: Labels,
    pub(super) dns: Option<bool>,
}

/// Whether an object is for some of the pods; no labels: for all.
pub(super) fn is_for(selector: &Labels, pods: &BTreeSet<Pods>) -> bool {
    pods.iter().any(|pods| selects(selector, &pods.labels))
}

impl Needs {
    /// Proxies ask these hosts themselves.
    pub(super) fn ask(&mut self, hosts: &BTreeSet<Arc<str>>, reason: &Reason) {
        let hosts = hosts.iter().map(|host| Required {
            host: host.to_string(),
            namespace: None,
            reason: reason.clone(),
            called: false,
        });
        self.hosts.extend(hosts);
    }
}
