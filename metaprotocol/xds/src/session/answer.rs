//! ACK and NACK of the response in flight.

use std::sync::Arc;
use std::time::Instant;

use super::message::{Item, Push};
use super::resource::{Acked, Refusal};
use super::state::{Action, Session};
use crate::rejections::Rejection;
use crate::types::MAX_TEXT;

/// Of a refused response with more than this part of the most resources, not each is sent in a response of its own:
/// first the batches become that small.
const ISOLATED_PART: usize = 4;
/// In a text of its own: a part of the long one would keep all of its memory.
fn shortened(message: &str) -> Arc<str> {
    let end = (0..=MAX_TEXT.min(message.len())).rev();
    let end = end.into_iter().find(|at| message.is_char_boundary(*at));
    message
        .get(..end.unwrap_or_default())
        .unwrap_or_default()
        .into()
}

impl Session {
    /// Takes an ACK, or a NACK with its `error`; false if the nonce is not of the response in flight.
    pub(super) fn on_answer(
        &mut self,
        nonce: &str,
        error: Option<String>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(in_flight) = self
            .in_flight
            .take_if(|in_flight| in_flight.push.nonce == nonce)
        else {
            return false;
        };
        let push = in_flight.push;
        self.withdrawn = 0;
        // Answers come in the order of the responses. A wildcard that has not started yet still needs the names.
        if !self.rescan {
            self.unanswered.clear();
        }
        match error {
            None => self.accept(&push, now, actions),
            Some(message) => self.reject(&push, &shortened(&message), now, actions),
        }
        // What was in flight may have changed meanwhile, back to what the client had when it was compared.
        for item in &push.items {
            self.enqueue(item.name());
        }
        true
    }

    fn accept(&mut self, push: &Push, now: Instant, actions: &mut Vec<Action>) {
        actions.push(Action::Ack);
        self.last_acked = Some(push.version.clone());
        self.grow_batch_limit();
        self.uncertain = false;
        let initial_in_flight = self.baseline.is_in_flight();
        let mut accepted = Vec::with_capacity(push.items.len());
        for item in &push.items {
            let tracked = self.resources.contains_key(item.name());
            let news = if item.is_initial() && initial_in_flight && !tracked {
                Some(self.baseline.first_sent.unwrap_or(self.started))
            } else {
                self.accept_one(item, now, actions)
            };
            if let Some(since) = news {
                let start = since.max(item.entry.published);
                let latency = now.saturating_duration_since(start);
                accepted.push((Arc::clone(&item.entry), latency));
            }
        }
        self.baseline.advance();
        actions.push(Action::Accepted(accepted));
    }

    /// Returns when the client subscribed to it, if its acceptance is to be reported.
    fn accept_one(
        &mut self,
        item: &Item,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> Option<Instant> {
        let name = self.intern(item.name());
        if self.wildcard {
            // Unsubscribed while in flight, then covered by a wildcard: the client has it, so it needs its removal.
            self.track(Arc::clone(&name), false, now);
            if self.delta {
                self.baseline_candidates.push(Arc::clone(&name));
            }
        }
        let state = self.resources.get_mut(&name)?;
        let version = item.entry.version();
        let before = state.acked.entry().map(|entry| entry.version());
        let mut news = before != Some(version) || state.refusal.is_some();
        state.acked = Acked::Response(Arc::clone(&item.entry));
        if !item.is_change() {
            return None;
        }
        state.acked_at = Some(now);
        state.isolated = false;
        if !item.fallback {
            let doubt = state.is_in_doubt(version, self.remembers_refusals);
            match &mut state.refusal {
                Some(refusal) if doubt => refusal.acked_since = true,
                refusal => *refusal = None,
            }
            news &= !doubt;
            state.rejected = None;
            if !doubt && std::mem::take(&mut state.rejection_stored) {
                actions.push(Action::ClearRejection(name));
            }
        }
        // The last good content is no news, and would hide that the current one is refused.
        (news && !item.fallback).then_some(state.since)
    }

    fn reject(&mut self, push: &Push, message: &Arc<str>, now: Instant, actions: &mut Vec<Action>) {
        actions.push(Action::Nack);
        self.last_nack = Some(message.to_string());
        for item in push.items.iter().filter(|item| item.is_initial()) {
            if self.wildcard {
                self.track(self.intern(item.name()), false, now);
            }
        }
        self.baseline.advance();
        if self.full {
            self.reject_full(push, message, now, actions);
            return;
        }
        match push.items.as_slice() {
            [] => Self::reject_removals(push, message, actions),
            [item] if push.removed.is_empty() => self.reject_one(item, message, now, actions),
            // One bad resource must not hold back the others: each is sent alone, and only the bad one is reported.
            items => {
                let items: Vec<&Item> = items.iter().collect();
                let named = self.suspect(&items, message, now, actions);
                let most = (self.max_resources / ISOLATED_PART).max(1);
                let all = items.len() <= most && named.is_empty();
                if items.len() > most && named.is_empty() {
                    self.batch_limit = most;
                }
                for item in items {
                    // Envoy may have applied it or not: only an ACK tells.
                    if self.wildcard || self.resources.contains_key(item.name()) {
                        let name = self.intern(item.name());
                        let isolated = all || named.contains(&name);
                        let state = self.track(name, false, now);
                        state.isolated |= isolated;
                        state.must_send = true;
                    }
                }
                // The client may have ignored the removals as well.
                for name in &push.removed {
                    if self.wildcard || self.resources.contains_key(name) {
                        self.track(Arc::clone(name), false, now).must_send = true;
                        self.enqueue(name);
                    }
                }
            }
        }
    }

    /// No content is to blame.
    pub(super) fn reject_removals(push: &Push, message: &Arc<str>, actions: &mut Vec<Action>) {
        let name = match push.removed.as_slice() {
            [only] => Some(only.to_string()),
            _ => None,
        };
        actions.push(Action::RejectedWithoutContent {
            name,
            version: push.version.clone(),
            message: message.to_string(),
        });
    }

    /// The refusal of one content, in a response without others.
    pub(super) fn reject_one(
        &mut self,
        item: &Item,
        message: &Arc<str>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        if item.fallback {
            self.reject_fallback(item, message, actions);
            return;
        }
        // It may have left.
        let Some(state) = self.resources.get_mut(item.name()) else {
            return;
        };
        let version = item.entry.version();
        let mut refusal = Refusal::new(version, message, now);
        let before = state.refusal.as_ref().filter(|old| old.version == version);
        refusal.times = 1 + before.map_or(0, |old| old.times);
        let earlier = state.refusal.replace(Box::new(refusal));
        let suspicion = earlier.and_then(|earlier| earlier.suspicion);
        state.rejected = Some(version.to_owned());
        state.rejection_stored = true;
        state.isolated = true;
        state.must_send |= item.must_send;
        let last_good = state.acked.entry().cloned();
        let name = self.intern(item.name());
        self.schedule(&name, now);
        actions.push(Action::Rejected {
            name,
            origin: item.entry.origin().to_owned(),
            rejection: Rejection {
                version: version.to_owned(),
                last_good,
            },
            message: message.to_string(),
        });
        if let Some(suspicion) = suspicion {
            self.explain(&suspicion, message, now, actions);
        }
    }

    fn reject_fallback(&mut self, item: &Item, message: &Arc<str>, actions: &mut Vec<Action>) {
        if let Some(state) = self.resources.get_mut(item.name()) {
            state.fallback_rejected = true;
            state.must_send |= item.must_send;
        }
        actions.push(Action::ClearRejection(self.intern(item.name())));
        actions.push(Action::RejectedWithoutContent {
            name: Some(item.name().to_owned()),
            version: item.entry.version().to_owned(),
            message: message.to_string(),
        });
    }
}
