//! What a limiter gives: objects, values over ECDS, and the default configurations of the filters that wait for those.

use std::collections::BTreeMap;
use std::time::Duration;

use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::{Delivery, DescriptorState, DescriptorStatus};
use trimtab_kit::answers::Answers;
use trimtab_xds::{Resource, content_version};

use super::{Entry, Outputs};
use crate::decide::bucket::Bucket;
use crate::decide::defaults::{Decided, Defaults};
use crate::decide::steady::dead_band;
use crate::owner::Owner;
use crate::translate::{ExtensionConfig, Translation, decided_limits, translate};
use crate::validate::delivery_problem;

impl Entry {
    pub fn translate(&mut self, now: Duration) -> Translation {
        if self.delivery_problem().is_some() {
            return Translation::default();
        }
        if !self.retained() {
            self.settle_defaults(now);
        }
        translate(&self.input, &self.validated, &self.decisions)
    }

    pub(in crate::engine) fn delivery_problem(&self) -> Option<trimtab_kit::problem::Problem> {
        delivery_problem(self.input.delivery(), &self.input.settings.xds)
    }

    /// Whether outputs stay as they are: the object, or a rule that was in force, cannot be judged, so nothing that works is
    /// taken away before the user has corrected it.
    pub(super) fn retained(&self) -> bool {
        let live_rule_refused = self.validated.rules.iter().any(|c| {
            let index = i32::try_from(c.index).unwrap_or(i32::MAX);
            let live =
                |d: &DescriptorStatus| d.set == c.set && d.index == index && d.quota.is_some();
            c.in_force().is_none() && self.input.previous.iter().any(live)
        });
        live_rule_refused
            || self.input.target.problem.is_some()
            || self.object.undecodable.is_some()
            || !self.validated.object.is_empty()
            || self.delivery_problem().is_some()
    }

    /// Keeps the outputs of a translation and returns what changes in the xDS cache; `None` when the outputs of before stay.
    pub fn keep_outputs(&mut self, translation: &Translation, pending: bool) -> Option<Outputs> {
        if self.retained() || (pending && self.decisions.is_empty()) {
            return None;
        }
        let set: Vec<Resource> = translation
            .extension_configs
            .iter()
            .map(|c| resource(c, &self.input.owner))
            .collect();
        self.desired = serde_json::to_string(&translation.envoy_filters)
            .ok()
            .map(String::into_boxed_str);
        let versions = set.iter().map(|r| (r.name.clone(), r.version.clone()));
        let now: BTreeMap<String, String> = versions.collect();
        let old = self.resources.keys();
        let remove = old.filter(|n| !now.contains_key(*n)).cloned().collect();
        self.resources = now;
        Some(Outputs { set, remove })
    }

    /// Objects that must exist; `None` = leave them as they are.
    pub fn desired(&self) -> Option<Vec<EnvoyFilter>> {
        serde_json::from_str(self.desired.as_deref()?).ok()
    }

    pub fn resource_names(&self) -> Vec<String> {
        self.resources.keys().cloned().collect()
    }

    /// Takes over what the objects have, if nobody has looked yet.
    pub(super) fn restore_defaults(&mut self, live: Option<BTreeMap<String, Bucket>>) {
        if self.defaults.is_none() {
            let generation = self.object.latest.observed_generation;
            self.defaults = Some(Defaults::restored(live, generation, self.first_seen));
        }
    }

    /// Settles which limits the defaults have.
    fn settle_defaults(&mut self, now: Duration) {
        let limits = decided_limits(&self.input, &self.validated, &self.decisions);
        if limits.is_empty() {
            self.input.defaults = None;
            // When it is delivered by ECDS again, what was decided until then is of no use.
            if self.input.delivery() != Delivery::Ecds {
                self.defaults = Some(Defaults::default());
            }
            return;
        }
        let open = |state| state == DescriptorState::Unknown;
        let decided = Decided {
            limits: &limits,
            complete: !self.decisions.is_empty() && !self.decisions.iter().any(|d| open(d.state)),
            generation: self.input.owner.generation,
            band: dead_band(&self.input),
        };
        let defaults = self.defaults.get_or_insert_default();
        self.input.defaults = Some(defaults.settle(&decided, now));
    }

    /// Whether the defaults are not what is decided.
    pub fn has_old_defaults(&self) -> bool {
        self.defaults.as_ref().is_some_and(Defaults::differs)
    }

    /// Whether it is time to refresh the defaults. What a proxy refuses stays out of listeners.
    pub fn is_refresh_due(&self, answers: &Answers, now: Duration) -> bool {
        let due = self.defaults.as_ref().is_some_and(|d| d.is_due(now));
        due && !self.retained() && {
            let outcome = answers.of(&self.parts());
            outcome.refusing + outcome.suspecting == 0
        }
    }

    /// Has what is decided become the defaults when the objects are made next.
    pub fn refresh_defaults(&mut self) {
        if let Some(defaults) = &mut self.defaults {
            defaults.refresh();
        }
    }

    /// Whether a change of the listener, which fills all buckets there, lets no more pass than the rules may leak.
    pub fn may_fill(&self, now: Duration) -> bool {
        self.steady.may_fill_all(&self.input, &self.validated, now)
    }

    /// The listener changes.
    pub fn fill(&mut self, now: Duration) {
        self.steady.fill_all(&self.input, &self.validated, now);
    }
}

fn resource(config: &ExtensionConfig, owner: &Owner) -> Resource {
    Resource {
        name: config.name.clone(),
        version: content_version(config.canonical.as_bytes()),
        body: config.body.clone().into(),
        origin: owner.to_string(),
    }
}
