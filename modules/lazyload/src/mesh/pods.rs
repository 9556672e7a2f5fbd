//! What stands between pods and the Sidecar of a fence: pods that obey none, and Sidecars for whole namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trimtab_mesh::model::{Namespace, Outside, Pod};
use trimtab_mesh::table::Change;

use super::Name;
use super::inherit::Inherited;
use super::sidecars::Sidecar;
use super::state::State;
use crate::object::FenceKey;
use crate::scope::Labels;

/// Which pods of a fence obey a Sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Number of pods.
    pub pods: usize,
    /// Those that obey none, by the reason.
    pub outside: BTreeMap<Outside, usize>,
}

impl Standing {
    /// Pods that obey no Sidecar.
    pub fn outside(&self) -> usize {
        self.outside.values().sum()
    }

    /// Whether a Sidecar has an effect, or will have for pods that come.
    pub fn any_obeys(&self) -> bool {
        self.pods == 0 || self.outside() < self.pods
    }

    /// Whether the first reason is that the pods are gateways.
    pub fn is_of_gateways(&self) -> bool {
        let first = self.outside.keys().next();
        first.is_some_and(|why| matches!(why, Outside::Gateway | Outside::Waypoint))
    }

    /// The reasons in words, with the number of pods of each.
    pub fn text(&self) -> String {
        let texts = self.outside.iter().map(|(why, count)| {
            let (one, more) = match why {
                Outside::Gateway => ("is a gateway", "are gateways"),
                Outside::Waypoint => (
                    "is a waypoint, the gateway of ambient mode",
                    "are waypoints, the gateways of ambient mode",
                ),
                Outside::HostNetwork => ("is on the host's network", "are on the host's network"),
                Outside::NotInjected => (
                    "has no sidecar (sidecar.istio.io/inject: false)",
                    "have no sidecar (sidecar.istio.io/inject: false)",
                ),
                Outside::Ambient => ("is in ambient mode", "are in ambient mode"),
            };
            format!("{count} {}", if *count == 1 { one } else { more })
        });
        texts.collect::<Vec<_>>().join(", ")
    }
}

impl State {
    fn outside(&self, pod: &Pod) -> Option<Outside> {
        let namespace = self.namespaces.get("", &pod.group.workload.namespace);
        pod.capture.outside(pod.is_ambient(namespace.as_deref()))
    }

    pub(super) fn standing(&self, namespace: &str, selector: &Labels) -> Standing {
        let rows = self.pods.rows();
        let pods = rows.of_groups(rows.index().select(namespace, selector));
        let mut out = Standing {
            pods: pods.len(),
            ..Standing::default()
        };
        for why in pods.iter().filter_map(|pod| self.outside(pod)) {
            *out.outside.entry(why).or_default() += 1;
        }
        out
    }

    /// Each pod that obeys no Sidecar counts. Others do by their group.
    pub(super) fn pod_outside(&mut self, change: &Change<'_, Pod>) {
        let of = |pod: Option<&Arc<Pod>>| pod.map(|pod| (pod.group.clone(), self.outside(pod)));
        let (old, new) = (of(change.old), of(change.new));
        if old == new {
            return;
        }
        let outside =
            |side: &Option<(_, Option<Outside>)>| side.as_ref().is_some_and(|s| s.1.is_some());
        if outside(&old) || outside(&new) {
            for (group, _) in old.iter().chain(&new) {
                let touched = self.by_selector.of_group(group);
                self.changes.fences.extend(touched);
            }
        }
    }

    /// Its label says whether its pods are in ambient mode.
    pub(super) fn data_plane_mode(&mut self, change: &Change<'_, Namespace>) {
        let mode = |row: Option<&Arc<Namespace>>| {
            let mode = row.and_then(|row| row.dataplane_mode());
            mode.map(str::to_owned)
        };
        if mode(change.old) != mode(change.new) {
            let touched = self.fences_in(&change.name.1);
            self.changes.fences.extend(touched);
        }
    }

    /// Istio's root namespace: as the MeshConfig says, else the configuration.
    pub(super) fn root(&self) -> String {
        let rows = self.mesh_config.rows();
        let said = rows.iter().map(|(_, mesh)| &mesh.root_namespace);
        let mut said = said.filter(|root| !root.is_empty());
        said.next().unwrap_or(&self.istio_namespace).clone()
    }

    /// Fences that a Sidecar for the whole of a namespace may be for.
    pub(super) fn fences_below(&self, namespace: &str) -> BTreeSet<FenceKey> {
        if namespace == self.root() {
            self.fences.keys().cloned().collect()
        } else {
            self.fences_in(namespace)
        }
    }

    /// The user's Sidecar for a whole namespace that counts: the oldest.
    pub(super) fn default_sidecar(&self, namespace: &str) -> Option<(&Name, &Arc<Sidecar>)> {
        let from: Name = (namespace.to_owned(), String::new());
        let here = self.sidecars.range(from..);
        let here = here.take_while(|((owner, _), _)| owner == namespace);
        let here = here.filter(|(_, row)| row.selector.is_none());
        here.min_by_key(|(name, row)| (row.created.is_none(), row.created, *name))
    }

    /// The Sidecar that would count without ours.
    pub(super) fn counting_sidecar(&self, namespace: &str) -> Option<&Arc<Sidecar>> {
        let own = self.default_sidecar(namespace);
        let (_, row) = own.or_else(|| self.default_sidecar(&self.root()))?;
        Some(row)
    }

    /// What it says besides which hosts are seen.
    pub(super) fn inherits(&self, namespace: &str) -> Option<Arc<Inherited>> {
        self.counting_sidecar(namespace)?.policy.clone()
    }
}
