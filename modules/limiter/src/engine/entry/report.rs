//! What an entry says of itself: its status, and the view of the JSON API.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use trimtab_crds::limiter::{BASE_SET, DescriptorStatus, LimiterStatus};
use trimtab_kit::answers::{Answers, Outcome, Part};
use trimtab_kit::events::Step;

use super::Entry;
use super::adaptive::has_law;
use crate::engine::view::{Dot, LimiterView};
use crate::index::{Form, LimiterKey};
use crate::input::Proxies;
use crate::status::{Report, lead_reason, same_decisions, status};
use crate::told;
use crate::translate::EXTENSION_CONFIG_TYPE;

impl Entry {
    /// Builds the status of now.
    pub fn refresh_status(&mut self, answers: &Answers, now: Timestamp) {
        let key = self.key().title();
        let programmed = match self.input.settings.proxies {
            Proxies::Plain => answers.of(&[self.parts(), answers.parts_of(&key)].concat()),
            Proxies::Istio | Proxies::Offline => Outcome::default(),
        };
        let report = Report {
            undecodable: self.object.undecodable.as_deref(),
            apply_error: self.apply_error.clone(),
            taken: answers.of(&self.parts()),
            blame: answers.blame(&key),
            delivery: self.delivery_problem(),
            programmed,
            served: !self.resources.is_empty(),
            retained: self.retained(),
        };
        let before = self
            .written
            .as_ref()
            .map(|s| s.conditions.as_slice())
            .unwrap_or_default();
        let latest = status(
            &self.input,
            &self.validated,
            &self.decisions,
            &report,
            before,
            now,
        );
        if *self.latest != latest {
            self.latest = Arc::new(latest);
        }
    }

    /// Conditions of now.
    pub(in crate::engine) fn latest_conditions(&self) -> &[Condition] {
        &self.latest.conditions
    }

    /// Its values in the xDS cache.
    pub(in crate::engine) fn parts(&self) -> Vec<Part> {
        let resources = self.resources.iter();
        resources
            .map(|(name, version)| Part::new(EXTENSION_CONFIG_TYPE, name, version))
            .collect()
    }

    fn key(&self) -> LimiterKey {
        let form = if self.input.owner.is_first_form() {
            Form::First
        } else {
            Form::V1alpha2
        };
        LimiterKey {
            namespace: self.input.owner.namespace.clone(),
            name: self.input.owner.name.clone(),
            form,
        }
    }

    /// The decisions as the status shows them.
    pub fn shown(&self) -> &[DescriptorStatus] {
        let shown = &self.latest.descriptors;
        if shown.len() == self.decisions.len() {
            shown
        } else {
            &self.decisions
        }
    }

    /// The status of the last [`Self::refresh_status`], which is about to be written.
    pub fn begin_write(&mut self) -> Arc<LimiterStatus> {
        self.writing = Some(self.latest.clone());
        if has_law(&self.latest.descriptors) {
            self.with_memory(&self.latest).into()
        } else {
            self.latest.clone()
        }
    }

    /// Whether moving values in the written status are old, or it says something else than the latest one.
    pub fn is_due(&self, now: Duration) -> bool {
        match &self.written {
            Some(written) if same_decisions(written, &self.latest) => {
                now.saturating_sub(self.written_at) >= self.refresh_after
            }
            None | Some(_) => true,
        }
    }

    /// Whether the latest status says something that the written one does not, or moving values in it are old.
    pub fn should_write(&self, now: Duration) -> bool {
        match &self.written {
            Some(written) if *written == self.latest => false,
            None | Some(_) => self.is_due(now),
        }
    }

    /// The status of the last [`Self::begin_write`] is at the API server. Returns what is told of it.
    pub fn end_write(&mut self, now: Duration) -> Vec<Step> {
        let Some(status) = self.writing.take() else {
            return Vec::new();
        };
        let steps = told::steps(&self.input.owner, self.written.as_deref(), &status);
        self.written = Some(status);
        self.written_at = now;
        steps
    }

    pub fn view(&self, history: bool) -> LimiterView {
        let status = &self.latest;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let points = self.history.iter().map(Dot::point).filter(|_| history);
        LimiterView {
            api_version: self.input.owner.api_version.clone(),
            namespace: self.input.owner.namespace.clone(),
            name: self.input.owner.name.clone(),
            limit: text(&status.limit),
            strategy: text(&status.strategy),
            state: text(&status.state),
            ready: condition(status, "Ready"),
            programmed: condition(status, "Programmed"),
            reason: lead_reason(self.shown()).unwrap_or_else(|| text(&status.reason)),
            pods: self.input.target.sets.get(BASE_SET).map_or(0, |s| s.pods),
            target: self.target(),
            descriptors: self.shown().to_vec(),
            limits: self.limits(),
            metrics: self.input.metrics.clone(),
            history: points.collect(),
        }
    }
}

/// Status of a condition; empty: there is none yet.
fn condition(status: &LimiterStatus, kind: &str) -> String {
    let found = status.conditions.iter().find(|c| c.type_ == kind);
    found.map(|c| c.status.clone()).unwrap_or_default()
}
