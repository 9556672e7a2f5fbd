//! Sidecars: whose they are, and whose pods they are for.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::ResourceExt;
use trimtab_crds::istio;
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL};
use trimtab_mesh::table::{Known, Row};

use crate::scope::Labels;

/// A Sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// Whose it is.
    pub owner: SidecarOwner,
    /// `None`: for the whole namespace.
    pub selector: Option<Labels>,
    /// Hosts of all listeners.
    pub hosts: BTreeSet<String>,
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
        let egress = object.spec.egress.iter();
        Some(Self {
            owner: owner(object),
            selector: selector.filter(|l| !l.is_empty()),
            hosts: egress.flat_map(|e| e.hosts.iter().cloned()).collect(),
            version: object.resource_version(),
        })
    }
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
