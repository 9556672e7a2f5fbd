//! Who is to blame for the refusal of a response with several resources.
//!
//! After it each resource is sent alone. One that is refused alone explains the refusal, and the others are accepted by
//! their ACKs. If none is, all stay in doubt, whatever was acknowledged: a client may acknowledge what it refused before
//! and what has not changed since, as Envoy does with extension configs.

use std::sync::Arc;
use std::time::Instant;

use super::message::Item;
use super::resource::{Refusal, Suspicion};
use super::state::{Action, Session};
use crate::info::Culprit;

impl Session {
    /// A response with several changes was refused. Returns the names of those that the message names, if any: then only
    /// they are in doubt, until they are answered alone.
    pub(super) fn suspect(
        &mut self,
        items: &[&Item],
        message: &Arc<str>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> Vec<Arc<str>> {
        let items: Vec<&Item> = items.iter().copied().filter(|i| !i.fallback).collect();
        let in_words = |item: &&Item| names_resource(message, item.name());
        let hinted = items.iter().any(in_words);
        let suspects = items.into_iter().filter(|item| !hinted || in_words(item));
        let suspects: Vec<(Arc<str>, &Item)> = suspects
            .map(|item| (self.intern(item.name()), item))
            .collect();
        let names: Vec<Arc<str>> = suspects.iter().map(|(name, _)| Arc::clone(name)).collect();
        let suspicion = (!hinted || self.remembers_refusals).then(|| {
            Arc::new(Suspicion {
                message: Arc::clone(message),
                members: names.clone(),
            })
        });
        let mut earlier: Vec<Arc<Suspicion>> = Vec::new();
        for (name, item) in &suspects {
            let Some(state) = self.resources.get_mut(name) else {
                continue;
            };
            let refusal = Refusal {
                culprit: Culprit::Unknown,
                suspicion: suspicion.clone(),
                ..Refusal::new(item.entry.version(), message, now)
            };
            let old = state.refusal.replace(Box::new(refusal));
            earlier.extend(old.and_then(|old| old.suspicion));
        }
        actions.push(Action::Suspected {
            entries: suspects.iter().map(|(_, i)| Arc::clone(&i.entry)).collect(),
            message: message.to_string(),
            first: earlier.is_empty(),
        });
        earlier.sort_by_key(Arc::as_ptr);
        earlier.dedup_by(|a, b| Arc::ptr_eq(a, b));
        for suspicion in earlier {
            self.explain(&suspicion, message, now, actions);
        }
        if hinted { names } else { Vec::new() }
    }

    /// Something of a refused response was refused again, so the rest of it is not to blame.
    pub(super) fn explain(
        &mut self,
        suspicion: &Arc<Suspicion>,
        message: &str,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let same = suspicion.message.contains(message) || message.contains(&*suspicion.message);
        // The client may have hidden another bad one behind an ACK; then the words are others.
        if self.remembers_refusals && !same {
            return;
        }
        let (mut accepted, mut cleared) = (Vec::new(), Vec::new());
        for name in &suspicion.members {
            let Some(state) = self.resources.get_mut(name) else {
                continue;
            };
            let of_this = |refusal: &Refusal| {
                let of = refusal.suspicion.as_ref();
                of.is_some_and(|other| Arc::ptr_eq(other, suspicion))
            };
            let Some(refusal) = state.refusal.take_if(|refusal| of_this(refusal)) else {
                continue;
            };
            cleared.push(Arc::clone(name));
            if let (true, Some(entry)) = (refusal.acked_since, state.acked.entry()) {
                let start = state.since.max(entry.published);
                accepted.push((Arc::clone(entry), now.saturating_duration_since(start)));
            }
        }
        for name in &cleared {
            self.may_be_baseline(name);
        }
        if !accepted.is_empty() {
            actions.push(Action::Accepted(accepted));
        }
    }
}

/// Whether an error of Envoy names this resource, as in `Error adding/updating listener(s) NAME: reason`. It only
/// decides the order of the attempts, so a mistake costs a response and nothing else.
fn names_resource(message: &str, name: &str) -> bool {
    if name.is_empty() {
        return false;
    }
    let part = |c: char| c.is_alphanumeric() || "_-./|~".contains(c);
    message.match_indices(name).any(|(start, found)| {
        let before = message
            .get(..start)
            .and_then(|text| text.chars().next_back());
        let after = message
            .get(start + found.len()..)
            .and_then(|text| text.chars().next());
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    use super::names_resource;

    #[test]
    fn a_name_counts_only_as_a_whole_word() {
        let text = "Error adding/updating listener(s) shop: bad address, outbound|80||a.b: no";
        assert!(names_resource(text, "shop"));
        assert!(names_resource(text, "outbound|80||a.b"));
        assert!(!names_resource(text, "outbound|80||a"));
        assert!(!names_resource(text, "sho"));
        assert!(!names_resource(text, ""));
        assert!(
            !names_resource("ünlike", "nlike"),
            "letters of other scripts are letters"
        );
    }
}
