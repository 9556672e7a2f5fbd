//! Delta: a request names what the client subscribes to and what it unsubscribes from.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::resource::Acked;
use super::state::{Action, Session, WILDCARD};

impl Session {
    /// Takes a delta request.
    pub(crate) fn on_delta(
        &mut self,
        mut request: DeltaDiscoveryRequest,
        now: Instant,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        // A locator is a name with parameters, and no resource here has variants by parameters.
        let more = std::mem::take(&mut request.resource_locators_subscribe);
        let names = more.into_iter().map(|locator| locator.name);
        request.resource_names_subscribe.extend(names);
        let less = std::mem::take(&mut request.resource_locators_unsubscribe);
        let names = less.into_iter().map(|locator| locator.name);
        request.resource_names_unsubscribe.extend(names);
        let first = std::mem::take(&mut self.first);
        let error = request.error_detail.map(|status| status.message);
        // A request with a stale nonce is no ACK, but its names count: they are never repeated.
        if !first
            && !request.response_nonce.is_empty()
            && !self.on_answer(&request.response_nonce, error, now, &mut actions)
        {
            actions.push(Action::Stale);
        }
        let mut initial = if first {
            request.initial_resource_versions
        } else {
            HashMap::new()
        };
        let legacy_wildcard = first && request.resource_names_subscribe.is_empty();
        for name in &request.resource_names_unsubscribe {
            self.unsubscribe(name, &mut actions);
        }
        for name in &request.resource_names_subscribe {
            if name == WILDCARD {
                self.subscribe_wildcard(&mut actions);
            } else {
                // What the client has needs no response if it is still the same.
                self.subscribe(name, !initial.contains_key(name), now, &mut actions);
            }
        }
        if legacy_wildcard {
            self.subscribe_wildcard(&mut actions);
        }
        if initial.is_empty() {
            return actions;
        }
        for (name, state) in &mut self.resources {
            if let Some(version) = initial.remove(&**name) {
                state.acked = Acked::Initial(version);
            }
        }
        if self.wildcard {
            self.initial_versions = initial;
        }
        actions
    }

    fn subscribe_wildcard(&mut self, actions: &mut Vec<Action>) {
        self.response_due = true;
        self.set_wildcard(true, actions);
    }

    fn unsubscribe(&mut self, name: &str, actions: &mut Vec<Action>) {
        if name == WILDCARD {
            self.response_due = false;
            self.set_wildcard(false, actions);
            return;
        }
        let Some((name, state)) = self.resources.get_key_value(name) else {
            return;
        };
        if !state.explicit {
            return;
        }
        let name = Arc::clone(name);
        self.names.remove(&name);
        if self.wildcard {
            // The client has dropped it, but the wildcard still covers it: send it again, or its removal.
            if let Some(state) = self.resources.get_mut(&name) {
                state.explicit = false;
                state.must_send = true;
            }
            self.baseline_candidates.push(Arc::clone(&name));
            self.enqueue(&name);
        } else {
            self.resources.remove(&name);
            self.drop_unknown_from_queue();
            actions.push(Action::Left(vec![Arc::clone(&name)]));
        }
        actions.push(Action::Unwatch(name));
    }
}
