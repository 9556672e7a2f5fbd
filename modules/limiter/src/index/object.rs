//! A limiter, and what it points at.

use std::collections::BTreeMap;
use std::sync::Arc;

use trimtab_crds::limiter::{DescriptorState, DescriptorStatus, LimiterSpec, LimiterStatus};
use trimtab_kit::sources::PodFacts;

use crate::decide::bucket::Bucket;
use crate::input::TargetFacts;
use crate::owner::Owner;
use crate::programmed::DECIDED;

/// A limiter as last seen.
#[derive(Clone, Debug, PartialEq)]
pub struct LimiterObject {
    /// Identity.
    pub owner: Owner,
    /// What it says.
    pub spec: Arc<LimiterSpec>,
    /// Status at the time it was first seen: decisions to start from.
    pub status: Arc<LimiterStatus>,
    /// Status as it is now: what the leader decides, for replicas that do not lead.
    pub latest: Arc<LimiterStatus>,
    /// Why the newest version cannot be read; the spec is then an older one, or empty.
    pub undecodable: Option<String>,
}

/// A limiter with what it points at.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The object.
    pub object: LimiterObject,
    /// What it points at.
    pub target: TargetFacts,
    /// Pods by set, sorted by name.
    pub pods: BTreeMap<String, Arc<[PodFacts]>>,
    /// Name of the service for metric queries.
    pub service: String,
    /// Limits in the default configurations of its objects; none: there are no such objects.
    pub defaults: Option<BTreeMap<String, Bucket>>,
}

impl LimiterObject {
    /// Decisions of an earlier run.
    pub fn previous(&self) -> Vec<DescriptorStatus> {
        decisions(&self.status)
    }

    /// Decisions of the leader about this very spec; `None`: there are none yet.
    pub fn led(&self) -> Option<Vec<DescriptorStatus>> {
        let same = self.latest.observed_generation == Some(self.owner.generation);
        same.then(|| decisions(&self.latest))
    }

    /// Whether a rule is for one inbound port.
    pub(super) fn names_port(&self) -> bool {
        let own = self.spec.sets.values().flatten();
        let targets = own.filter_map(|d| d.target.as_ref());
        let mut targets = targets.chain(&self.spec.target);
        targets.any(|t| !t.is_outbound() && t.port.is_some_and(|port| port > 0))
    }

    /// Whether its pods are those of the Service of its name.
    pub(super) fn of_service(&self) -> bool {
        let spec = &self.spec;
        spec.workload_selector.is_empty() && !spec.gateway && spec.host.is_none()
    }
}

fn decisions(status: &LimiterStatus) -> Vec<DescriptorStatus> {
    let mut all = status.descriptors.clone();
    // What was decided does not depend on who held it.
    for decision in &mut all {
        if let Some(adaptive) = &mut decision.adaptive {
            adaptive.memory = None;
        }
        if decision.state == DescriptorState::NoProxy {
            let decided = decision.decided.take();
            decision.state = decided.unwrap_or(DescriptorState::Limiting);
        }
        if let Some((_, own)) = decision.reason.split_once(DECIDED) {
            decision.reason = own.to_owned();
        }
    }
    all
}
