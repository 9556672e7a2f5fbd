//! What people and the JSON API see.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trimtab_crds::fence::{Dependency, DependencyState, ScopeSize};
use trimtab_kit::module::Finding;

use super::Engine;
use crate::object::{Caller, FenceKey};
use crate::scope::Scope;

/// A fence as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FenceView {
    /// The fence.
    pub fence: FenceKey,
    /// Mode in force.
    pub mode: String,
    /// Pods that it is for.
    pub selector: BTreeMap<String, String>,
    /// Workloads of these pods, now or once.
    pub callers: BTreeSet<String>,
    /// Conditions, as in the status.
    pub conditions: Vec<ConditionView>,
    /// Entries of the Sidecar, with why each is there. In mode `Exclude` those that it would have in mode `Enforce`.
    pub entries: BTreeMap<String, Vec<String>>,
    /// Entries that the Sidecar leaves out in mode `Exclude`.
    #[serde(default)]
    pub excluded: BTreeSet<String>,
    /// What was learned.
    pub dependencies: Vec<DependencyView>,
    /// Size against the mesh.
    pub size: ScopeSize,
}

/// A condition of a fence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConditionView {
    /// Type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason.
    pub reason: String,
    /// Message.
    pub message: String,
}

impl std::fmt::Display for ConditionView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kind,
            status,
            reason,
            message,
        } = self;
        write!(f, "{kind}: {status} ({reason}): {message}")
    }
}

/// A learned dependency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DependencyView {
    /// Workload.
    pub caller: String,
    /// Host.
    pub host: String,
    /// How it is known.
    pub evidence: Vec<String>,
    /// RFC 3339.
    pub first_seen: String,
    /// RFC 3339.
    pub last_seen: String,
    /// State.
    pub state: DependencyState,
}

/// One edge of the mesh's graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeView {
    /// `namespace/workload`.
    pub caller: String,
    /// Host.
    pub host: String,
    /// How it is known.
    pub evidence: Vec<String>,
    /// Seconds since the last call.
    pub age: i64,
    /// Whether it is in scope.
    pub in_scope: bool,
}

/// The mesh in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshView {
    /// Fences.
    pub fences: usize,
    /// Fences by reason of `Programmed`.
    pub by_reason: BTreeMap<String, usize>,
    /// Fences by the mode in force.
    #[serde(default)]
    pub by_mode: BTreeMap<String, usize>,
    /// Services that are left out in mode `Exclude`, summed over fences.
    #[serde(default)]
    pub excluded: usize,
    /// Workloads with edges.
    pub callers: usize,
    /// Edges.
    pub edges: usize,
    /// Calls that were not kept for want of room.
    pub refused: u64,
    /// Services in the scopes of enforced fences, summed.
    pub services_in_scope: i64,
    /// The same without Sidecars.
    pub services_in_mesh: i64,
    /// Estimated bytes in scope, summed.
    pub bytes_in_scope: i64,
    /// The same without Sidecars.
    pub bytes_in_mesh: i64,
}

/// A call to a name that is no service of the mesh is told apart from one that is imported, and from one to a Service that
/// is away: its entry stays.
pub(super) fn mark_unresolved(dependency: &mut Dependency, scope: &Scope) {
    let host = &dependency.host;
    let entry = || format!("{}/{host}", host.split('.').nth(1).unwrap_or_default());
    if dependency.state == DependencyState::Active
        && scope.unresolved.contains(host)
        && !scope.entries.contains_key(&entry())
    {
        dependency.state = DependencyState::Unresolved;
    }
}

impl Engine {
    /// A fence; `None`: there is none of this name.
    pub fn fence_view(&self, key: &FenceKey) -> Option<FenceView> {
        let inner = self.inner.lock();
        let entry = inner.fences.get(key)?;
        let dependencies = entry.callers.iter().flat_map(|caller| {
            self.edges.to_dependencies(caller).into_iter().map(|mut d| {
                mark_unresolved(&mut d, &entry.scope);
                DependencyView {
                    caller: d.caller,
                    host: d.host,
                    evidence: d.evidence,
                    first_seen: d.first_seen,
                    last_seen: d.last_seen,
                    state: d.state,
                }
            })
        });
        let conditions = entry.wanted.conditions.iter().map(|c| ConditionView {
            kind: c.type_.clone(),
            status: c.status.clone(),
            reason: c.reason.clone(),
            message: c.message.clone(),
        });
        let entries = entry.union.entries.iter().map(|(entry, reasons)| {
            (
                entry.clone(),
                reasons.iter().map(ToString::to_string).collect(),
            )
        });
        Some(FenceView {
            fence: key.clone(),
            mode: entry.mode.as_str().to_owned(),
            selector: entry
                .claim
                .as_ref()
                .map(|c| c.selector.clone())
                .unwrap_or_default(),
            callers: entry.callers.iter().map(ToString::to_string).collect(),
            conditions: conditions.collect(),
            entries: entries.collect(),
            excluded: entry.modes.excluded.clone().unwrap_or_default(),
            dependencies: dependencies.collect(),
            size: entry.union.size.clone(),
        })
    }

    /// Size of a fence's scope against the mesh.
    pub fn scope_size(&self, key: &FenceKey) -> Option<ScopeSize> {
        let inner = self.inner.lock();
        inner.fences.get(key).map(|e| e.union.size.clone())
    }

    /// Names of all fences, sorted.
    pub fn fences(&self) -> Vec<FenceKey> {
        self.inner.lock().fences.keys().cloned().collect()
    }

    /// Fences that a pod belongs to, sorted.
    pub fn fences_of_pod(&self, namespace: &str, pod: &str) -> Vec<FenceKey> {
        use crate::object::Directory;
        let caller = self.index.caller_of_pod(namespace, pod);
        caller
            .map(|c| self.index.fences_of(&c).into_iter().collect())
            .unwrap_or_default()
    }

    /// Views of the fences that a pod belongs to, sorted.
    pub fn pod_views(&self, namespace: &str, pod: &str) -> Vec<FenceView> {
        let fences = self.fences_of_pod(namespace, pod);
        fences.iter().filter_map(|k| self.fence_view(k)).collect()
    }

    /// What is refused or notable of each fence, and the size of its scope, sorted by fence.
    pub fn findings(&self) -> Vec<Finding> {
        let keys = self.fences();
        keys.iter().flat_map(|key| self.findings_of(key)).collect()
    }

    fn findings_of(&self, key: &FenceKey) -> Vec<Finding> {
        // The conditions are worked out with the status.
        let _ = self.status_update(key);
        let Some(view) = self.fence_view(key) else {
            return Vec::new();
        };
        let mut out = Vec::new();
        for condition in &view.conditions {
            let ConditionView {
                kind,
                status,
                reason,
                message,
            } = condition;
            let refused = match (kind.as_str(), status.as_str()) {
                ("Accepted", "False") => true,
                ("Programmed", "False")
                    if ["Gateway", "NoSidecar", "Unsupported"].contains(&reason.as_str()) =>
                {
                    true
                }
                ("Accepted", _) if reason == "Accepted" => continue,
                ("FallbackReady" | "Ready", _) => continue,
                _ => false,
            };
            out.push(Finding {
                refused,
                message: format!("ServiceFence {key}: {kind}: {reason}: {message}"),
            });
        }
        let size = &view.size;
        out.push(Finding {
            refused: false,
            message: format!(
                "ServiceFence {key}: scope: {} of {} services, about {} of {} bytes of configuration",
                size.services, size.mesh_services, size.bytes, size.mesh_bytes
            ),
        });
        out
    }

    /// The edges of all callers, at most `limit`, sorted by caller and host.
    pub fn edge_views(&self, limit: usize) -> Vec<EdgeView> {
        let now = self.clock.now();
        let mut out = Vec::new();
        for caller in self.edges.callers() {
            for edge in self.edges.of(&caller) {
                if out.len() == limit {
                    return out;
                }
                out.push(EdgeView {
                    caller: caller.to_string(),
                    host: edge.host.to_string(),
                    evidence: edge
                        .evidence
                        .iter()
                        .map(|e| e.as_str().to_owned())
                        .collect(),
                    age: now.duration_since(edge.last_seen).as_secs().max(0),
                    in_scope: edge.in_scope(),
                });
            }
        }
        out
    }

    /// The mesh in numbers.
    pub fn mesh_view(&self) -> MeshView {
        let counts = self.edges.counts();
        let inner = self.inner.lock();
        let mut out = MeshView {
            fences: inner.fences.len(),
            callers: counts.callers,
            edges: counts.edges,
            refused: counts.refused,
            ..MeshView::default()
        };
        for entry in inner.fences.values() {
            let programmed = entry
                .wanted
                .conditions
                .iter()
                .find(|c| c.type_ == "Programmed");
            let reason = programmed.map_or("Pending", |c| c.reason.as_str());
            *out.by_reason.entry(reason.to_owned()).or_default() += 1;
            let mode = entry.mode.as_str().to_owned();
            *out.by_mode.entry(mode).or_default() += 1;
            out.excluded += entry.modes.excluded.as_ref().map_or(0, BTreeSet::len);
            if reason == "Programmed" {
                out.services_in_scope += entry.union.size.services;
                out.services_in_mesh += entry.union.size.mesh_services;
                out.bytes_in_scope += entry.union.size.bytes;
                out.bytes_in_mesh += entry.union.size.mesh_bytes;
            }
        }
        out
    }

    /// Forgets calls of a fence's workloads, as Slime's `svfReset` does. False: there is no such fence.
    pub fn forget(&self, key: &FenceKey) -> bool {
        let callers: Vec<Caller> = {
            let inner = self.inner.lock();
            let Some(entry) = inner.fences.get(key) else {
                return false;
            };
            entry.callers.iter().cloned().collect()
        };
        for caller in &callers {
            self.edges.forget(caller, self.clock.now());
        }
        // What they declare stays true.
        self.declare(callers.into_iter().collect());
        self.inner.lock().again.insert(key.clone());
        self.wake.notify_one();
        true
    }
}
