//! The Sidecar of a fence. Pure, and the same bytes for the same input.

mod inherit;

use std::collections::BTreeSet;

use kube::Resource;
use kube::api::ObjectMeta;
use trimtab_crds::fence::ServiceFence;
use trimtab_crds::istio::{Sidecar, SidecarEgress, SidecarSpec, WorkloadSelector};
use trimtab_kit::generated::{REVISION_LABEL, owned_labels, owner_references};

use crate::fallback::MODULE;
use crate::mesh::ResolvedFence;
use crate::object::FenceKey;
use crate::scope::{EVERYTHING, Labels, NOTHING};

pub use inherit::inherit;

/// Value of the owner's kind on generated Sidecars.
pub const OWNER_KIND: &str = "ServiceFence.microservice.slime.io";

/// Whose Sidecar it is.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The fence.
    pub key: &'a FenceKey,
    /// Its `metadata.uid`; empty: no owner reference (offline).
    pub uid: &'a str,
    /// Its label `istio.io/rev`.
    pub revision: Option<&'a str>,
}

impl<'a> Owner<'a> {
    /// Of a fence.
    pub fn of(fence: &'a ResolvedFence) -> Self {
        Self {
            key: &fence.key,
            uid: &fence.uid,
            revision: fence.labels.get(REVISION_LABEL).map(String::as_str),
        }
    }
}

/// Which hosts a Sidecar names.
#[derive(Clone, Copy, Debug)]
pub enum Hosts<'a> {
    /// These and no others; [`NOTHING`] when empty.
    Only(&'a BTreeSet<String>),
    /// All but these, `namespace/host` each. Only for an Istio whose Sidecar knows exclusions (1.31 or later): the webhook of
    /// an older istiod refuses the object; without the webhook it takes `~namespace` for a name, and imports everything.
    AllBut(&'a BTreeSet<String>),
}

/// The Sidecar.
///
/// `revision`: that of the configuration, when it is not empty; it goes before the fence's own label.
pub fn sidecar(owner: &Owner<'_>, selector: &Labels, hosts: Hosts<'_>, revision: &str) -> Sidecar {
    let key = owner.key;
    let revision = Some(revision).filter(|r| !r.is_empty()).or(owner.revision);
    let labels = owned_labels(Some(MODULE), revision, OWNER_KIND, &key.name);
    Sidecar {
        metadata: ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            labels: Some(labels),
            owner_references: owner_references(
                &ServiceFence::api_version(&()),
                &ServiceFence::kind(&()),
                &key.name,
                owner.uid,
            ),
            ..ObjectMeta::default()
        },
        spec: SidecarSpec {
            workload_selector: Some(WorkloadSelector {
                labels: selector.clone(),
            }),
            egress: vec![SidecarEgress {
                hosts: egress(hosts),
                ..SidecarEgress::default()
            }],
            ..SidecarSpec::default()
        },
    }
}

fn egress(hosts: Hosts<'_>) -> Vec<String> {
    match hosts {
        Hosts::Only(hosts) if hosts.is_empty() => vec![NOTHING.to_owned()],
        Hosts::Only(hosts) => hosts.iter().cloned().collect(),
        Hosts::AllBut(unused) => {
            let excluded = unused.iter().map(|host| format!("~{host}"));
            std::iter::once(EVERYTHING.to_owned())
                .chain(excluded)
                .collect()
        }
    }
}

#[cfg(test)]
mod tests;
