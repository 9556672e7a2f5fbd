//! State of the world: a request names everything that the client wants.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;

use super::{Action, Session, WILDCARD};

impl Session {
    /// Takes a state-of-the-world request.
    pub(crate) fn on_sotw(&mut self, request: DiscoveryRequest, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let first = std::mem::take(&mut self.first);
        // On a new stream the nonce is from the old one and means nothing. Later, an old nonce means that a newer
        // response is on its way; the answer to that one repeats the names, so nothing of this request is lost.
        if !first {
            if request.response_nonce != self.last_nonce {
                self.note_left(&request.resource_names);
                return vec![Action::Stale];
            }
            let error = request.error_detail.map(|status| status.message);
            self.settle(&request.response_nonce, error, now, &mut actions);
        }
        self.set_names(&request.resource_names, first, now, &mut actions);
        actions
    }

    /// A void request may leave a name that a later one takes up again. The server would see no difference between the
    /// two requests that count, while the client has dropped the content and waits: so it is sent again.
    fn note_left(&mut self, names: &[String]) {
        let asked: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        for (name, known) in &mut self.known {
            let covered = asked.contains(&**name) || (!known.explicit && asked.contains(WILDCARD));
            if !covered {
                known.owed = true;
                self.doubtful.insert(Arc::clone(name));
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
        let wanted: BTreeSet<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|name| *name != WILDCARD)
            .collect();
        let starred = names.iter().any(|name| name == WILDCARD);
        // No names mean everything until a name was given once; from then on they mean nothing.
        let legacy = names.is_empty() && (first || self.legacy);
        self.legacy = legacy;
        let gone: Vec<Arc<str>> = self
            .subscribed()
            .filter(|name| !wanted.contains(&***name))
            .cloned()
            .collect();
        // A client of a full type waits for a first answer even if it is empty.
        self.greet |= self.full && (starred || legacy) && !self.wildcard;
        self.set_wildcard(starred || legacy, actions);
        for name in gone {
            if self.wildcard {
                if let Some(known) = self.known.get_mut(&name) {
                    known.explicit = false;
                    // The client may have dropped it, though the wildcard still covers it.
                    known.owed = true;
                }
                self.enqueue(&name);
            } else {
                self.known.remove(&name);
            }
            actions.push(Action::Unwatch(name));
        }
        self.forget_queued();
        for name in std::mem::take(&mut self.doubtful) {
            self.enqueue(&name);
        }
        for name in wanted {
            if !self.known.get(name).is_some_and(|known| known.explicit) {
                self.subscribe(name, true, now, actions);
            }
        }
    }
}
