//! What is sent again without a request: what depends on something that was sent, what was refused, and what a client
//! withholds its answer for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::resource::Refusal;
use super::state::Session;
use crate::table::Table;

/// First pause before a refused content is tried again, for reasons that pass, such as an address in use; then doubling.
const FIRST_RETRY: Duration = Duration::from_secs(30);
/// Most doublings: a bit over half an hour.
const MOST_DOUBLINGS: u32 = 6;
/// Most doublings of the patience with a client that does not answer.
const MOST_PATIENCE: u32 = 4;

impl Session {
    /// When [`Session::next_push`] must be called though nothing has come; call it after that.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let retry = self.retries.iter().map(|(at, _)| *at).min();
        let withdrawal = self.withdrawal().filter(|_| !self.queue.is_empty());
        retry.into_iter().chain(withdrawal).min()
    }

    /// Whether something waits for clusters.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Names that wait until the response in flight is answered, without so many that came first.
    pub(crate) fn queued(&self, known: usize) -> impl Iterator<Item = &str> {
        let known = if self.in_flight.is_some() {
            known
        } else {
            self.queue.len()
        };
        self.queue.iter().skip(known).map(|name| &**name)
    }

    /// Sends a name again though the client has it, because it also has a new content of what refers to it.
    pub(crate) fn send_again(&mut self, name: &str, table: &Table, now: Instant) {
        if !(self.wildcard || self.resources.contains_key(name))
            || table.get(name, &self.view).is_none()
        {
            return;
        }
        let name = self.intern(name);
        self.track(Arc::clone(&name), false, now).must_send = true;
        self.enqueue(&name);
    }

    /// Notes when a refused content is tried again.
    pub(super) fn schedule(&mut self, name: &Arc<str>, now: Instant) {
        // Its ACK would say nothing.
        if self.remembers_refusals {
            return;
        }
        let Some(refusal) = self
            .resources
            .get_mut(name)
            .and_then(|s| s.refusal.as_mut())
        else {
            return;
        };
        let doublings = refusal.times.saturating_sub(1).min(MOST_DOUBLINGS);
        let at = now + FIRST_RETRY * 2_u32.pow(doublings);
        refusal.retry_at = Some(at);
        self.retries.retain(|(_, other)| other != name);
        self.retries.push((at, Arc::clone(name)));
    }

    /// Queues what was refused long enough ago.
    pub(super) fn retry(&mut self, now: Instant) {
        let due = |(at, _): &(Instant, Arc<str>)| *at <= now;
        if !self.retries.iter().any(due) {
            return;
        }
        let (due, later) = std::mem::take(&mut self.retries).into_iter().partition(due);
        self.retries = later;
        let due: Vec<(Instant, Arc<str>)> = due;
        for (_, name) in due {
            let Some(state) = self.resources.get_mut(&name) else {
                continue;
            };
            let due = |refusal: &Refusal| refusal.retry_at.is_some_and(|at| at <= now);
            if state.refusal.as_deref().is_some_and(due) {
                state.rejected = None;
                state.fallback_rejected = false;
                self.enqueue(&name);
            }
        }
    }

    fn withdrawal(&self) -> Option<Instant> {
        let in_flight = self.in_flight.as_ref()?;
        Some(in_flight.since + self.patience? * 2_u32.pow(self.withdrawn.min(MOST_PATIENCE)))
    }

    /// The client withholds its answer, as Envoy does until it has resolved the names of clusters, and changes wait: the
    /// response in flight counts as lost, and the next one has what it had and the changes.
    pub(super) fn withdraw(&mut self, now: Instant) {
        if self.queue.is_empty() || self.withdrawal().is_none_or(|at| at > now) {
            return;
        }
        let Some(in_flight) = self.in_flight.take() else {
            return;
        };
        self.withdrawn += 1;
        let push = in_flight.push;
        self.uncertain |= self.full && !push.removed.is_empty();
        let changes = push.items.iter().filter(|item| item.is_change());
        let names: Vec<Arc<str>> = changes
            .map(|item| self.intern(item.name()))
            .chain(push.removed.iter().filter(|_| !self.full).cloned())
            .collect();
        for name in names {
            if self.wildcard || self.resources.contains_key(&name) {
                // The client may have it or not.
                self.track(Arc::clone(&name), false, now).must_send = true;
                self.enqueue(&name);
            } else if self.delta {
                self.unanswered.insert(name);
            }
        }
        self.baseline.advance();
    }
}
