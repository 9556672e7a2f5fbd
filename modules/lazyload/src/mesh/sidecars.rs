//! Sidecars: whose they are, and whose pods they are for.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use trimtab_crds::istio;
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL};
use trimtab_mesh::table::{Known, Row};

use super::inherit::Inherited;
use crate::scope::Labels;

/// A Sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// Whose it is.
    pub owner: SidecarOwner,
    /// `None`: for the whole namespace.
    pub selector: Option<Labels>,
    /// Hosts of the listener of all ports that no other listener names.
    pub hosts: BTreeSet<String>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// What else a user's Sidecar for the whole namespace says.
    pub policy: Option<Arc<Inherited>>,
    /// `metadata.resourceVersion`.
    pub version: Option<String>,
}

/// Whose a Sidecar is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SidecarOwner {
    /// Of the fence of this name: ours, or Slime's, whose Sidecars are taken over.
    Fence(String),
    /// Ours, without an owner.
    Loose,
    /// A user's.
    User,
}

impl Row for Sidecar {
    type Object = istio::Sidecar;
    type Index = ();

    fn read(object: &Arc<istio::Sidecar>, _: &Known<'_, Self>) -> Option<Self> {
        let selector = object.spec.workload_selector.as_ref();
        let selector = selector.map(|s| s.labels.clone());
        let selector = selector.filter(|l| !l.is_empty());
        let owner = owner(object);
        let whole = owner == SidecarOwner::User && selector.is_none();
        let name = || {
            let namespace = object.namespace().unwrap_or_default();
            format!("{namespace}/{}", object.name_any())
        };
        let policy = whole.then(|| Inherited::read(name(), &object.spec));
        Some(Self {
            owner,
            selector,
            hosts: hosts_of(object),
            created: object.creation_timestamp().map(|t| t.0),
            policy: policy.flatten().map(Arc::new),
            version: object.resource_version(),
        })
    }
}

/// Hosts of the listener of all ports that no other listener names.
pub fn hosts_of(object: &istio::Sidecar) -> BTreeSet<String> {
    let egress = object.spec.egress.iter().filter(|e| e.port.is_none());
    egress.flat_map(|e| e.hosts.iter().cloned()).collect()
}

fn owner(object: &istio::Sidecar) -> SidecarOwner {
    let mut references = object.owner_references().iter();
    let fence = references.find(|o| {
        o.controller == Some(true)
            && o.kind == "ServiceFence"
            && o.api_version.starts_with("microservice.slime.io/")
    });
    let managed = object.labels().get(MANAGED_BY_LABEL);
    match fence {
        Some(fence) => SidecarOwner::Fence(fence.name.clone()),
        None if managed.is_some_and(|by| by == MANAGED_BY) => SidecarOwner::Loose,
        None => SidecarOwner::User,
    }
}
