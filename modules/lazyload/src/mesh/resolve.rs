//! A fence with what it depends on.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use thiserror::Error;
use trimtab_crds::fence::{FenceStatus, Mode, ServiceFenceSpec};

use super::Name;
use super::fences::FenceRow;
use super::inherit::Inherited;
use super::pods::Standing;
use super::state::State;
use crate::object::{Caller, FenceKey};
use crate::scope::{Claim, Labels};

/// Why a fence cannot be put into force as it is written. The message names the fix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Problem {
    /// `fromService` without the Service.
    #[error(
        "workloadSelector.fromService: there is no Service {namespace}/{name}: make it, or write workloadSelector.labels"
    )]
    MissingService {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// `fromService` with a Service that selects nothing.
    #[error(
        "workloadSelector.fromService: Service {namespace}/{name} has no selector: write workloadSelector.labels"
    )]
    NoSelector {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// The object cannot be read; what was known before is in force.
    #[error("the ServiceFence cannot be read, its last readable form stays in force: {0}")]
    Undecodable(String),
}

/// A fence with what it depends on, its scope excepted.
#[derive(Clone, Debug)]
pub struct ResolvedFence {
    /// The fence.
    pub key: FenceKey,
    /// What the user wrote.
    pub spec: Arc<ServiceFenceSpec>,
    /// Labels.
    pub labels: Labels,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Status as the API server has it.
    pub status: Arc<FenceStatus>,
    /// Bytes of all but the status.
    pub rest: usize,
    /// The mode asked for: of the spec, else of the configuration; `Observe` when it is not enabled.
    pub mode: Mode,
    /// Labels of its pods; `None` when they cannot be known, see `problems`: no Sidecar can be written.
    pub selector: Option<Labels>,
    /// Number of its pods; one that comes or goes without a new workload is no event.
    pub pods: usize,
    /// Its workloads, and those that only the stored status names: a workload without pods keeps what it learned.
    pub callers: BTreeSet<Caller>,
    /// Service accounts of its pods.
    pub accounts: BTreeSet<String>,
    /// Other fences that may select the same pods, sorted.
    pub overlaps: Vec<Claim>,
    /// Users' Sidecars that select the same pods or have the fence's name, sorted: none of ours may be written then.
    pub user_sidecars: Vec<String>,
    /// The user's Sidecar for the whole namespace; one of ours goes before it.
    pub default_sidecar: Option<String>,
    /// What one of ours takes over from it, or from the one of Istio's root namespace.
    pub inherits: Option<Arc<Inherited>>,
    /// Which of its pods obey no Sidecar.
    pub standing: Standing,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl ResolvedFence {
    /// For [`crate::scope::role`]; `None` without a selector. It writes unless its mode is `Observe`, or a user's Sidecar is there.
    pub fn claim(&self) -> Option<Claim> {
        Some(Claim {
            key: self.key.clone(),
            created: self.created,
            selector: self.selector.clone()?,
            writes: self.mode != Mode::Observe
                && self.user_sidecars.is_empty()
                && self.standing.any_obeys(),
        })
    }
}

impl State {
    fn mode_of(&self, spec: &ServiceFenceSpec) -> Mode {
        if spec.enable {
            spec.mode.unwrap_or(self.mode)
        } else {
            Mode::Observe
        }
    }

    pub(super) fn selector_of(&self, key: &FenceKey, row: &FenceRow) -> Result<Labels, Problem> {
        let written = row.spec.workload_selector.as_ref();
        if let Some(labels) = written.map(|w| &w.labels).filter(|l| !l.is_empty()) {
            return Ok(labels.clone());
        }
        if !written.is_some_and(|w| w.from_service) {
            let pair = (self.workload_label.clone(), key.name.clone());
            return Ok(Labels::from([pair]));
        }
        let (namespace, name) = (key.namespace.clone(), key.name.clone());
        match self.registry.service(&namespace, &name) {
            None => Err(Problem::MissingService { namespace, name }),
            Some(info) if info.selector.is_empty() => Err(Problem::NoSelector { namespace, name }),
            Some(info) => Ok(info.selector.clone()),
        }
    }

    pub(super) fn fences_of(&self, caller: &Caller) -> Vec<FenceKey> {
        let pods = self.pods.rows();
        let groups = pods.index().of_workload(caller);
        let mut out: BTreeSet<FenceKey> =
            groups.flat_map(|g| self.by_selector.of_group(g)).collect();
        out.extend(self.by_stored.get(caller).into_iter().flatten().cloned());
        out.into_iter().collect()
    }

    fn claims(&self, key: &FenceKey, selector: &Labels) -> Vec<Claim> {
        let near = self.overlapping(&key.namespace, selector);
        let others = near.into_iter().filter(|other| other != key);
        others
            .filter_map(|key| {
                let row = self.fences.get(&key)?;
                let selector = row.selector.clone()?;
                Some(Claim {
                    created: row.created,
                    writes: self.mode_of(&row.spec) != Mode::Observe
                        && self.users_sidecars(&key, &selector).is_empty()
                        && self.standing(&key.namespace, &selector).any_obeys(),
                    selector,
                    key,
                })
            })
            .collect()
    }

    /// Users' Sidecars that forbid one of ours: on the same pods, or of the same name.
    fn users_sidecars(&self, key: &FenceKey, selector: &Labels) -> Vec<String> {
        let pods = self.pods.rows();
        let sidecars = &self.sidecar_selectors;
        let near = sidecars.overlapping(&key.namespace, selector, pods.index());
        let mut out: BTreeSet<String> = near.into_iter().map(|(_, name)| name).collect();
        let own: Name = (key.namespace.clone(), key.name.clone());
        if self.sidecars.contains_key(&own) {
            out.insert(own.1);
        }
        out.into_iter().collect()
    }

    pub(super) fn resolve(&self, key: &FenceKey) -> Option<ResolvedFence> {
        let row = self.fences.get(key)?;
        let mut problems: Vec<Problem> = self.selector_of(key, row).err().into_iter().collect();
        problems.extend(row.undecodable.clone().map(Problem::Undecodable));
        let mut callers = row.stored_callers(key);
        let mut accounts = BTreeSet::new();
        let mut pods = 0;
        let mut overlaps = Vec::new();
        let mut user_sidecars = Vec::new();
        let mut standing = Standing::default();
        if let Some(selector) = &row.selector {
            let rows = self.pods.rows();
            let groups = rows.index();
            for group in groups.select(&key.namespace, selector) {
                pods += groups.count(group);
                callers.insert(group.workload.clone());
                accounts.insert(group.account.to_string());
            }
            drop(rows);
            overlaps = self.claims(key, selector);
            user_sidecars = self.users_sidecars(key, selector);
            standing = self.standing(&key.namespace, selector);
        }
        let default_sidecar = self.default_sidecar(&key.namespace);
        Some(ResolvedFence {
            key: key.clone(),
            spec: row.spec.clone(),
            labels: row.labels.clone(),
            uid: row.uid.clone(),
            generation: row.generation,
            created: row.created,
            status: row.status.clone(),
            rest: row.rest,
            mode: self.mode_of(&row.spec),
            selector: row.selector.clone(),
            pods,
            callers,
            accounts,
            overlaps,
            user_sidecars,
            default_sidecar: default_sidecar.map(|((_, name), _)| name.clone()),
            inherits: self.inherits(&key.namespace),
            standing,
            problems,
        })
    }
}
