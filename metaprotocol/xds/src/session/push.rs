//! The next response.

use std::sync::Arc;
use std::time::Instant;

use super::baseline::Baseline;
use super::message::{Batch, InFlight, Item, Push, Reason, version_of_many};
use super::order::Order;
use super::plan::Decision;
use super::resource::Acked;
use super::state::Session;
use crate::cow_map::Position;
use crate::entry::{Entry, Variants};
use crate::table::Table;

impl Session {
    /// The next response, if there is something to send and no ACK is pending. What `order` holds waits.
    ///
    /// O(names that changed since the last call and may concern the client), and never more than O(names that it sees);
    /// O(1) if nothing changed. Full responses cost what they contain besides, and what waits is read once.
    pub(crate) fn next_push(
        &mut self,
        table: &Table,
        now: Instant,
        order: Option<&Order>,
    ) -> Option<Arc<Push>> {
        self.catch_up(table, now);
        self.retry(now);
        self.withdraw(now);
        if self.in_flight.is_some() {
            return None;
        }
        self.release(order);
        if self.full {
            return self.next_full(table, now, order);
        }
        let mut batch = Batch::new(self.max_resources.min(self.batch_limit));
        if self.drain_queue(&mut batch, table, order) {
            self.fill_initial(&mut batch, now, order);
        }
        // An empty first response would say that there is nothing.
        let due = self.response_due && self.held.is_empty();
        if batch.is_empty() && !due {
            self.compact(table, now);
            return None;
        }
        self.response_due = false;
        Some(self.send(batch.items, batch.removed, now))
    }

    /// Queues again what waited, unless it waits for the same clusters still.
    fn release(&mut self, order: Option<&Order>) {
        let generation = order.map_or(0, Order::generation);
        if self.held.is_empty() || (order.is_some() && self.held_in == generation) {
            self.held_in = generation;
            return;
        }
        self.held_in = generation;
        for name in std::mem::take(&mut self.held).into_iter().rev() {
            if let Some(state) = self.resources.get_mut(&name)
                && std::mem::take(&mut state.held)
            {
                self.queue.push_front(name);
            }
        }
    }

    /// Lets a name wait for clusters.
    pub(super) fn hold(&mut self, name: Arc<str>, must_send: bool) {
        if let Some(state) = self.resources.get_mut(&name) {
            state.queued = true;
            state.held = true;
            state.must_send |= must_send;
            self.held.push(name);
        }
    }

    /// Fills a response from the queue; true if there may be room for more.
    fn drain_queue(&mut self, batch: &mut Batch, table: &Table, order: Option<&Order>) -> bool {
        let mut missing = Vec::new();
        let mut room = true;
        while room && let Some(name) = self.queue.pop_front() {
            if table.get(&name, &self.view).is_none() {
                missing.push(name);
                continue;
            }
            match self.decide(&name, table) {
                Decision::Skip => {}
                Decision::Remove => batch.removed.push(name),
                Decision::Send {
                    entry, must_send, ..
                } if order.is_some_and(|order| order.holds(&entry)) => self.hold(name, must_send),
                Decision::Send {
                    entry,
                    fallback,
                    must_send,
                } => {
                    let isolated = self.resources.get(&name).is_some_and(|r| r.isolated);
                    if isolated {
                        self.settle_missing(&mut missing, batch, table);
                    }
                    if (isolated && !batch.is_empty()) || !batch.has_room(&entry) {
                        self.requeue(name, must_send);
                        room = false;
                        continue;
                    }
                    batch.push(Item {
                        entry,
                        fallback,
                        must_send,
                        reason: Reason::Changed,
                    });
                    room = !isolated;
                }
            }
        }
        self.settle_missing(&mut missing, batch, table);
        for name in missing {
            self.hold(name, false);
        }
        room
    }

    /// Removes names that do not exist, unless something waits: what goes makes room for it, and is missed if it goes first.
    fn settle_missing(&mut self, missing: &mut Vec<Arc<str>>, batch: &mut Batch, table: &Table) {
        if self.holds() {
            return;
        }
        for name in missing.drain(..) {
            if let Decision::Remove = self.decide(&name, table) {
                batch.removed.push(name);
            }
        }
    }

    pub(super) fn send(
        &mut self,
        items: Vec<Item>,
        removed: Vec<Arc<str>>,
        now: Instant,
    ) -> Arc<Push> {
        self.nonces += 1;
        // The stream id is in the nonce so that an answer to an earlier stream never matches by accident.
        let nonce = format!("{:x}-{}", self.stream, self.nonces);
        let version = match items.as_slice() {
            [only] if !self.full => only.entry.version().to_owned(),
            all => version_of_many(all, &removed),
        };
        self.last_nonce.clone_from(&nonce);
        self.last_sent = Some(version.clone());
        for item in items.iter().filter(|item| item.reason == Reason::Changed) {
            if let Some(state) = self.resources.get_mut(item.name()) {
                state.sent = Some((Arc::clone(&item.entry), now));
            }
        }
        let push = Arc::new(Push {
            items,
            removed,
            version,
            nonce,
        });
        self.in_flight = Some(InFlight {
            push: Arc::clone(&push),
            since: now,
        });
        push
    }

    /// A wildcard starts: the client gets everything in order, or what differs from its `initial_resource_versions`.
    pub(super) fn start_wildcard(&mut self, table: &Table, now: Instant) {
        let snapshot = table.snapshot(&self.view);
        let mut baseline = Baseline {
            cursor: table.head(),
            ..Baseline::default()
        };
        let mut initial = std::mem::take(&mut self.initial_versions);
        if initial.is_empty() {
            baseline.first_sent = Some(now);
            let node = Arc::clone(&self.node);
            for name in snapshot.scoped_names().chain(table.rejected_by(&node)) {
                self.track(name.into(), false, now);
            }
        } else {
            baseline.acked_to = Position::END;
            for name in snapshot.names() {
                if self.resources.contains_key(name) {
                    continue;
                }
                let version = initial.remove(name);
                let current = snapshot.get(name, &self.view).map(|entry| entry.version());
                if version.as_deref() != current {
                    let acked = version.map_or(Acked::Nothing, Acked::Initial);
                    self.track(name.into(), false, now).acked = acked;
                }
            }
            for (name, version) in initial {
                self.track(name.into(), false, now).acked = Acked::Initial(version);
            }
        }
        baseline.snapshot = snapshot;
        self.baseline = baseline;
        for name in self.unanswered.clone() {
            self.track(Arc::clone(&name), false, now).must_send = true;
            self.enqueue(&name);
        }
    }

    /// Adds what comes next of the initial responses to a wildcard.
    fn fill_initial(&mut self, batch: &mut Batch, now: Instant, order: Option<&Order>) {
        if self.baseline.is_complete() {
            return;
        }
        let mut end = Position::END;
        let mut before = self.baseline.acked_to;
        let mut some = false;
        let mut wait = Vec::new();
        for (after, variants) in self.baseline.snapshot.public.from(self.baseline.acked_to) {
            if let Some(entry) = self.initial_entry(variants) {
                if order.is_some_and(|order| order.holds(entry)) {
                    wait.push(Arc::from(entry.name()));
                } else if batch.has_room(entry) {
                    batch.push(Item::initial(entry));
                    some = true;
                } else {
                    end = before;
                    break;
                }
            }
            before = after;
        }
        for name in wait {
            self.track(Arc::clone(&name), false, now);
            self.hold(name, false);
        }
        if some {
            self.baseline.in_flight_to = Some(end);
        } else {
            self.baseline.acked_to = end;
        }
    }

    fn initial_entry<'a>(&self, variants: &'a Variants) -> Option<&'a Arc<Entry>> {
        let tracked = !self.resources.is_empty() && self.resources.contains_key(variants.name());
        variants.seen_by(&self.view).filter(|_| !tracked)
    }

    /// Called when there is nothing to send and no ACK is pending: moves resources that are up to date from the map into
    /// the snapshot.
    fn compact(&mut self, table: &Table, now: Instant) {
        let same = self.baseline.cursor == table.head() && self.baseline_candidates.is_empty();
        if !self.delta || !self.wildcard || same {
            return;
        }
        let before = self.resources.len();
        for name in std::mem::take(&mut self.baseline_candidates) {
            let Some(state) = self.resources.get(&name) else {
                continue;
            };
            let current = table.get(&name, &self.view).map(|entry| entry.version());
            // The client has what the table has, or there would be something to send; and what was removed is gone.
            if state.is_plain() && state.acked.version() == current {
                self.resources.remove(&name);
            }
        }
        self.baseline.snapshot = table.snapshot(&self.view);
        self.baseline.cursor = table.head();
        self.baseline.in_sync_at = Some(now);
        // After the initial responses there is much more room than names.
        if before > 16 {
            self.resources.shrink_to_fit();
        }
        self.queue.shrink_to(4);
    }
}
