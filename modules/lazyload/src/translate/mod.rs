//! The Sidecar of a fence. Pure, and the same bytes for the same input.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::ObjectMeta;
use trimtab_crds::fence::ServiceFence;
use trimtab_crds::istio::{Sidecar, SidecarEgress, SidecarSpec, WorkloadSelector};
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL, OWNER_KIND_LABEL, OWNER_NAME_LABEL};
use trimtab_kit::apply::MODULE_LABEL;
use xxhash_rust::xxh3::xxh3_64;

use crate::fallback::MODULE;
use crate::object::FenceKey;
use crate::scope::{EVERYTHING, Labels, NOTHING};

/// Label with the revision of Istio that an object is for.
pub const REVISION_LABEL: &str = "istio.io/rev";
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

/// Which hosts a Sidecar names.
#[derive(Clone, Copy, Debug)]
pub enum Hosts<'a> {
    /// These and no others; [`NOTHING`] when empty.
    Only(&'a BTreeSet<String>),
    /// All but these, `namespace/host` each. Only for an Istio whose Sidecar knows exclusions (after 1.31): an older
    /// istiod refuses the object, or takes `~namespace` for a name.
    AllBut(&'a BTreeSet<String>),
}

/// The Sidecar.
///
/// `revision`: that of the configuration, when it is not empty; it goes before the fence's own label.
pub fn sidecar(owner: &Owner<'_>, selector: &Labels, hosts: Hosts<'_>, revision: &str) -> Sidecar {
    let key = owner.key;
    let mut labels = BTreeMap::from([
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
        (MODULE_LABEL.to_owned(), MODULE.to_owned()),
        (OWNER_KIND_LABEL.to_owned(), OWNER_KIND.to_owned()),
        (OWNER_NAME_LABEL.to_owned(), label_value(&key.name)),
    ]);
    let revision = Some(revision).filter(|r| !r.is_empty()).or(owner.revision);
    if let Some(revision) = revision {
        labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    }
    let reference = (!owner.uid.is_empty()).then(|| OwnerReference {
        api_version: ServiceFence::api_version(&()).into_owned(),
        kind: ServiceFence::kind(&()).into_owned(),
        name: key.name.clone(),
        uid: owner.uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    });
    Sidecar {
        metadata: ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            labels: Some(labels),
            owner_references: reference.map(|r| vec![r]),
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

/// A name as a label value: names are up to 253 characters, values 63. A long one ends in its hash.
pub(crate) fn label_value(name: &str) -> String {
    if name.len() <= 63 {
        return name.to_owned();
    }
    let head: String = name.chars().take(46).collect();
    format!("{head}-{:016x}", xxh3_64(name.as_bytes()))
}

#[cfg(test)]
mod tests;
