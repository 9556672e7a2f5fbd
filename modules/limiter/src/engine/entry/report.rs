//! What an entry says of itself: its status, and the view of the JSON API.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use trimtab_crds::limiter::{BASE_SET, LimiterStatus};
use trimtab_kit::answers::{Answers, Outcome, Part, Words};

use super::Entry;
use crate::engine::view::{Dot, LimiterView};
use crate::index::{Form, LimiterKey};
use crate::status::{Report, lead_reason, same_decisions, status};
use crate::translate::EXTENSION_CONFIG_TYPE;

impl Entry {
    /// Builds the status of now.
    pub fn refresh_status(&mut self, answers: &Answers, now: Timestamp) {
        let (taken, blame) = self.answers(answers);
        let report = Report {
            undecodable: self.object.undecodable.as_deref(),
            apply_error: self.apply_error.clone(),
            taken,
            blame,
            delivery: self.delivery_problem(),
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

    /// What proxies say to its values, and against it.
    fn answers(&self, answers: &Answers) -> (Outcome, Option<Words>) {
        if self.resources.is_empty() {
            return <_>::default();
        }
        let resources = self.resources.iter();
        let parts: Vec<Part> = resources
            .map(|(name, version)| Part::new(EXTENSION_CONFIG_TYPE, name, version))
            .collect();
        let form = if self.input.owner.is_first_form() {
            Form::First
        } else {
            Form::V1alpha2
        };
        let key = LimiterKey {
            namespace: self.input.owner.namespace.clone(),
            name: self.input.owner.name.clone(),
            form,
        };
        (answers.of(&parts), answers.blame(&key.title()))
    }

    /// The status of the last [`Self::refresh_status`], which is about to be written.
    pub fn begin_write(&mut self) -> Arc<LimiterStatus> {
        self.writing = Some(self.latest.clone());
        self.latest.clone()
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

    /// The status of the last [`Self::begin_write`] is at the API server.
    pub fn end_write(&mut self, now: Duration) {
        if let Some(status) = self.writing.take() {
            self.written = Some(status);
            self.written_at = now;
        }
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
            reason: lead_reason(&self.decisions).unwrap_or_else(|| text(&status.reason)),
            pods: self.input.target.sets.get(BASE_SET).map_or(0, |s| s.pods),
            target: self.target(),
            descriptors: self.decisions.clone(),
            limits: self.limits(),
            metrics: self.input.metrics.clone(),
            history: points.collect(),
        }
    }
}
