//! State of the world for listeners and clusters: a response lists everything, and what it lacks is removed.
//!
//! A refused content must therefore be replaced by the last good one, or left out, in every later response. A response that
//! was refused with more than one change in it is repeated without the resource that the error names, or with half of
//! the changes, until the bad one is alone. A response costs O(resources that the stream sees), as the protocol demands.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::message::{Item, Push, Reason};
use super::order::Order;
use super::plan::Decision;
use super::resource::{Acked, ResourceState};
use super::state::{Action, Session};
use crate::table::Table;

impl Session {
    pub(super) fn next_full(
        &mut self,
        table: &Table,
        now: Instant,
        order: Option<&Order>,
    ) -> Option<Arc<Push>> {
        // What the list lacks would be removed.
        if self.resumed && table.holds.any() {
            return None;
        }
        self.resumed = false;
        let (changes, removed) = self.drain(table, order);
        let changes = self.select(changes, removed.is_empty());
        // An empty first response would say that there is nothing.
        let due = self.response_due && self.held.is_empty();
        if changes.is_empty() && removed.is_empty() && !due {
            return None;
        }
        self.response_due = false;
        let items = self.full_list(changes);
        Some(self.send(items, removed, now))
    }

    fn drain(&mut self, table: &Table, order: Option<&Order>) -> (Vec<Item>, Vec<Arc<str>>) {
        let mut changes = Vec::new();
        let mut missing = Vec::new();
        while let Some(name) = self.queue.pop_front() {
            if table.get(&name, &self.view).is_none() {
                missing.push(name);
                continue;
            }
            match self.decide(&name, table) {
                Decision::Skip | Decision::Remove => {}
                Decision::Send {
                    entry, must_send, ..
                } if order.is_some_and(|order| order.holds(&entry)) => self.hold(name, must_send),
                Decision::Send {
                    entry,
                    fallback,
                    must_send,
                } => changes.push(Item {
                    entry,
                    fallback,
                    must_send,
                    reason: Reason::Changed,
                }),
            }
        }
        let wait = !self.held.is_empty();
        let mut removed = Vec::new();
        for name in missing {
            if wait {
                self.hold(name, false);
            } else if let Decision::Remove = self.decide(&name, table) {
                removed.push(name);
            }
        }
        (changes, removed)
    }

    /// The changes of this response; the others wait until it is answered.
    fn select(&mut self, changes: Vec<Item>, nothing_else: bool) -> Vec<Item> {
        let isolated = |item: &Item| {
            self.resources
                .get(item.name())
                .is_some_and(|state| state.isolated)
        };
        let (mut alone, mut chosen): (Vec<_>, Vec<_>) = changes.into_iter().partition(isolated);
        let mut later = chosen.split_off(self.batch_limit.min(chosen.len()));
        if chosen.is_empty() && nothing_else && !self.response_due && !alone.is_empty() {
            chosen.push(alone.remove(0));
        }
        later.append(&mut alone);
        for item in later.into_iter().rev() {
            self.requeue(self.intern(item.name()), item.must_send);
        }
        chosen
    }

    /// The changes, and what the client has of everything else; sorted by name.
    fn full_list(&self, changes: Vec<Item>) -> Vec<Item> {
        let mut chosen: HashMap<Arc<str>, Item> = changes
            .into_iter()
            .map(|item| (self.intern(item.name()), item))
            .collect();
        let acked = |state: &ResourceState| match &state.acked {
            Acked::Response(entry) => Some(Arc::clone(entry)),
            _ => None,
        };
        let mut items: Vec<Item> = self
            .resources
            .iter()
            .filter_map(|(name, state)| {
                chosen.remove(name).or_else(|| {
                    acked(state).map(|entry| Item {
                        entry,
                        fallback: false,
                        must_send: false,
                        reason: Reason::Repeated,
                    })
                })
            })
            .collect();
        items.sort_unstable_by(|a, b| a.entry.key().cmp(b.entry.key()));
        items
    }

    /// A refused response with more than one change: the next ones find out which was bad.
    fn bisect(&mut self, push: &Push, message: &Arc<str>, now: Instant, actions: &mut Vec<Action>) {
        let changes: Vec<&Item> = push.items.iter().filter(|item| item.is_change()).collect();
        let named = self.suspect(&changes, message, now, actions);
        self.uncertain = true;
        for item in &changes {
            let name = self.intern(item.name());
            if let Some(state) = self.resources.get_mut(&name) {
                state.isolated |= named.contains(&name) || changes.len() == 1;
                // Envoy may have applied it or not: only an ACK tells.
                state.must_send = true;
            }
        }
        if named.is_empty() {
            self.batch_limit = (changes.len() / 2).max(1);
        }
    }

    pub(super) fn grow_batch_limit(&mut self) {
        self.batch_limit = self.batch_limit.saturating_mul(2);
    }

    /// Takes the NACK of a full response.
    pub(super) fn reject_full(
        &mut self,
        push: &Push,
        message: &Arc<str>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let mut changes = push.items.iter().filter(|item| item.is_change());
        // The client may still have what was left out: only the ACK of a response without changes tells.
        self.uncertain |= !push.removed.is_empty();
        self.response_due |= self.uncertain && push.items.iter().any(Item::is_change);
        match (changes.next(), changes.next()) {
            (None, _) => Self::reject_removals(push, message, actions),
            (Some(item), None) if push.removed.is_empty() => {
                self.grow_batch_limit();
                self.reject_one(item, message, now, actions);
            }
            _ => {
                self.bisect(push, message, now, actions);
                self.response_due = true;
            }
        }
    }
}
