//! What the client made of the outstanding message.

use std::sync::Arc;
use std::time::Instant;

use super::{Action, Held, Item, Push, Refusal, SUSPECTS, Session};
use crate::pins::Pin;

/// Longest text of a refusal that is kept, in bytes: enough for Envoy's reasons, too little to fill the memory with.
const MAX_MESSAGE: usize = 8 * 1024;

fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE)
            .rev()
            .find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or_default());
    }
    message
}

impl Session {
    /// Takes the answer to the outstanding message; false if the nonce is not of that message.
    pub(super) fn settle(
        &mut self,
        nonce: &str,
        error: Option<String>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(outstanding) = self
            .outstanding
            .take_if(|outstanding| outstanding.push.nonce == nonce)
        else {
            return false;
        };
        let push = outstanding.push;
        match error {
            None => self.accept(&push, now, actions),
            Some(message) => self.reject(&push, shortened(message), now, actions),
        }
        // What was in flight may have changed meanwhile in a way that looked like no difference then.
        for item in &push.items {
            self.enqueue(item.name());
        }
        true
    }

    fn accept(&mut self, push: &Push, now: Instant, actions: &mut Vec<Action>) {
        actions.push(Action::Ack);
        self.last_acked = Some(push.version.clone());
        self.widen_trial();
        self.unsure = false;
        let flying = self.calm.is_flying();
        let mut accepted = Vec::with_capacity(push.items.len());
        for item in &push.items {
            let known = self.known.contains_key(item.name());
            let since = if item.is_first() && flying && !known {
                self.calm.since.unwrap_or(self.started)
            } else {
                self.accept_one(item, now, actions)
            };
            if item.is_fresh() {
                let start = since.max(item.entry.published);
                let latency = now.saturating_duration_since(start);
                accepted.push((Arc::clone(&item.entry), latency));
            }
        }
        self.calm.land();
        actions.push(Action::Accepted(accepted));
    }

    /// Returns since when the client wanted it.
    fn accept_one(&mut self, item: &Item, now: Instant, actions: &mut Vec<Action>) -> Instant {
        let name = self.shared(item.name());
        if self.wildcard {
            // Left while in flight, then covered by a wildcard: the client holds it, so it must hear of its removal.
            self.learn(Arc::clone(&name), false, now);
            if self.delta {
                self.restless.push(Arc::clone(&name));
            }
        }
        let Some(known) = self.known.get_mut(&name) else {
            return self.started;
        };
        known.held = Held::Has(Arc::clone(&item.entry));
        if item.is_fresh() {
            known.acked = Some(now);
            known.alone = false;
            if !item.fallback {
                known.refusal = None;
                known.rejected = None;
                if std::mem::take(&mut known.pinned) {
                    actions.push(Action::Unpin(name));
                }
            }
        }
        known.since
    }

    fn reject(&mut self, push: &Push, message: String, now: Instant, actions: &mut Vec<Action>) {
        actions.push(Action::Nack);
        self.last_nack = Some(message.clone());
        for item in push.items.iter().filter(|item| item.is_first()) {
            if self.wildcard {
                self.learn(self.shared(item.name()), false, now);
            }
        }
        self.calm.land();
        self.note_refusal(push, &message, now);
        if self.full {
            self.reject_full(push, message, actions);
            return;
        }
        match push.items.as_slice() {
            [] => {
                let name = if push.removed.len() == 1 {
                    push.removed.first().map(ToString::to_string)
                } else {
                    None
                };
                actions.push(Action::RejectedEmpty {
                    name,
                    version: push.version.clone(),
                    message,
                });
            }
            [item] if item.fallback && push.removed.is_empty() => {
                self.reject_fallback(item, message, actions);
            }
            [item] if push.removed.is_empty() => self.reject_one(item, message, actions),
            // One bad resource must not hold back its neighbours: each is tried alone, and only the bad is reported.
            items => {
                let suspects = (self.most / SUSPECTS).max(1);
                let alone = items.len() <= suspects;
                if !alone {
                    self.trial = suspects;
                }
                for item in items {
                    // It may have been applied or not: only an acknowledged message can tell.
                    if self.wildcard || self.known.contains_key(item.name()) {
                        let known = self.learn(self.shared(item.name()), false, now);
                        known.alone |= alone;
                        known.owed = true;
                    }
                }
                // The client may have ignored the removals as well.
                for name in &push.removed {
                    if self.wildcard || self.known.contains_key(name) {
                        self.learn(Arc::clone(name), false, now).owed = true;
                        self.enqueue(name);
                    }
                }
            }
        }
    }

    /// Remembers what was said for the admin view, if it can only be about one resource.
    fn note_refusal(&mut self, push: &Push, message: &str, now: Instant) {
        let mut news = push.items.iter().filter(|item| item.is_fresh());
        if let (Some(item), None) = (news.next(), news.next())
            && push.removed.is_empty()
            && let Some(known) = self.known.get_mut(item.name())
        {
            known.refusal = Some(Box::new(Refusal {
                version: item.entry.version().to_owned(),
                message: message.to_owned(),
                at: now,
            }));
        }
    }

    pub(super) fn reject_fallback(
        &mut self,
        item: &Item,
        message: String,
        actions: &mut Vec<Action>,
    ) {
        if let Some(known) = self.known.get_mut(item.name()) {
            known.hopeless = true;
            known.owed |= item.owed;
        }
        actions.push(Action::Unpin(self.shared(item.name())));
        let version = item.entry.version().to_owned();
        actions.push(Action::RejectedEmpty {
            name: Some(item.name().to_owned()),
            version,
            message,
        });
    }

    pub(super) fn reject_one(&mut self, item: &Item, message: String, actions: &mut Vec<Action>) {
        let mut good = None;
        if let Some(known) = self.known.get_mut(item.name()) {
            known.rejected = Some(item.entry.version().to_owned());
            known.pinned = true;
            known.alone = true;
            known.owed |= item.owed;
            if let Held::Has(entry) = &known.held {
                good = Some(Arc::clone(entry));
            }
        }
        actions.push(Action::Rejected {
            name: self.shared(item.name()),
            origin: item.entry.origin().to_owned(),
            pin: Pin {
                bad: item.entry.version().to_owned(),
                good,
            },
            message,
        });
    }
}
