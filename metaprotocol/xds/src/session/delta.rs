//! Delta: a request names what the client gained or lost interest in.

use std::sync::Arc;
use std::time::Instant;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::{Action, Held, Session, WILDCARD};

impl Session {
    /// Takes a delta request.
    pub(crate) fn on_delta(&mut self, request: DeltaDiscoveryRequest, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let first = std::mem::take(&mut self.first);
        let error = request.error_detail.map(|status| status.message);
        // A stale nonce answers nothing, but the names in the request still count: they are never repeated.
        if !first
            && !request.response_nonce.is_empty()
            && !self.settle(&request.response_nonce, error, now, &mut actions)
        {
            actions.push(Action::Stale);
        }
        let initial = if first {
            request.initial_resource_versions
        } else {
            std::collections::HashMap::new()
        };
        let legacy = first && request.resource_names_subscribe.is_empty();
        for name in &request.resource_names_unsubscribe {
            self.unsubscribe(name, &mut actions);
        }
        for name in &request.resource_names_subscribe {
            if name == WILDCARD {
                self.want_all(&mut actions);
            } else {
                // What the client says it holds needs no answer if it is still the same.
                self.subscribe(name, !initial.contains_key(name), now, &mut actions);
            }
        }
        if legacy {
            self.want_all(&mut actions);
        }
        let mut announced = initial;
        if announced.is_empty() {
            return actions;
        }
        for (name, known) in &mut self.known {
            if let Some(version) = announced.remove(&**name) {
                known.held = Held::Announced(version);
            }
        }
        if self.wildcard {
            self.announced = announced;
        }
        actions
    }

    fn want_all(&mut self, actions: &mut Vec<Action>) {
        self.greet |= !self.wildcard;
        self.set_wildcard(true, actions);
    }

    fn unsubscribe(&mut self, name: &str, actions: &mut Vec<Action>) {
        if name == WILDCARD {
            self.greet = false;
            self.set_wildcard(false, actions);
            return;
        }
        let Some((name, known)) = self.known.get_key_value(name) else {
            return;
        };
        if !known.explicit {
            return;
        }
        let name = Arc::clone(name);
        if self.wildcard {
            // The client has dropped it, but the wildcard still covers it: say again whether it exists.
            if let Some(known) = self.known.get_mut(&name) {
                known.explicit = false;
                known.owed = true;
            }
            self.restless.push(Arc::clone(&name));
            self.enqueue(&name);
        } else {
            self.known.remove(&name);
            self.forget_queued();
        }
        actions.push(Action::Unwatch(name));
    }
}
