//! State of the world: a request names everything that the client subscribes to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;

use super::state::{Action, Session, WILDCARD};

impl Session {
    /// Takes a state-of-the-world request.
    pub(crate) fn on_sotw(&mut self, mut request: DiscoveryRequest, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        // A locator is a name with parameters, and no resource here has variants by parameters.
        let more = std::mem::take(&mut request.resource_locators);
        let names = more.into_iter().map(|locator| locator.name);
        request.resource_names.extend(names);
        let first = std::mem::take(&mut self.first);
        self.resumed |= first && !request.version_info.is_empty();
        // The nonce of a first request is from another stream and means nothing. Later, an old nonce means that a newer
        // response is in flight; its ACK repeats the names, so nothing of this request is lost. None at all is that of a
        // client that starts again.
        let again = !first && request.response_nonce.is_empty() && self.in_flight.is_none();
        if again {
            self.start_again();
        } else if !first {
            if request.response_nonce != self.last_nonce {
                self.note_dropped(&request.resource_names);
                return vec![Action::Stale];
            }
            let error = request.error_detail.map(|status| status.message);
            self.on_answer(&request.response_nonce, error, now, &mut actions);
        }
        self.set_names(&request.resource_names, first, now, &mut actions);
        actions
    }

    /// The client has forgotten what it got.
    fn start_again(&mut self) {
        if self.last_nonce.is_empty() {
            return;
        }
        self.response_due |= self.full;
        let names: Vec<Arc<str>> = self.resources.keys().cloned().collect();
        for name in names {
            if let Some(state) = self.resources.get_mut(&name) {
                state.must_send = true;
            }
            self.enqueue(&name);
        }
    }

    /// A stale request may lack a name that the next one has again. The two valid requests do not differ, while the client
    /// has dropped the content and waits for it: so it is sent again.
    fn note_dropped(&mut self, names: &[String]) {
        let present: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        for (name, state) in &mut self.resources {
            let covered =
                present.contains(&**name) || (!state.explicit && present.contains(WILDCARD));
            if !covered {
                state.must_send = true;
                self.dropped_by_stale.insert(Arc::clone(name));
            }
        }
    }

    fn set_names(
        &mut self,
        names: &[String],
        first: bool,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let subscribed: BTreeSet<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|name| *name != WILDCARD)
            .collect();
        let star = names.iter().any(|name| name == WILDCARD);
        // An empty list is a wildcard until a name was given once; from then on it is an empty list.
        let legacy_wildcard = names.is_empty() && (first || self.legacy_wildcard);
        self.legacy_wildcard = legacy_wildcard;
        let unsubscribed: Vec<Arc<str>> = self
            .subscribed()
            .filter(|name| !subscribed.contains(&***name))
            .cloned()
            .collect();
        // A client of a full type waits for a first response even if it is empty.
        self.response_due |= self.full && (star || legacy_wildcard) && !self.wildcard;
        self.set_wildcard(star || legacy_wildcard, actions);
        for name in unsubscribed {
            self.names.remove(&name);
            if self.wildcard {
                if let Some(state) = self.resources.get_mut(&name) {
                    state.explicit = false;
                    // The client may have dropped it, though the wildcard still covers it.
                    state.must_send = true;
                }
                self.enqueue(&name);
            } else {
                self.resources.remove(&name);
                actions.push(Action::Left(vec![Arc::clone(&name)]));
            }
            actions.push(Action::Unwatch(name));
        }
        self.drop_unknown_from_queue();
        for name in std::mem::take(&mut self.dropped_by_stale) {
            self.enqueue(&name);
        }
        for name in subscribed {
            if !self.resources.get(name).is_some_and(|state| state.explicit) {
                self.subscribe(name, true, now, actions);
            }
        }
    }
}
