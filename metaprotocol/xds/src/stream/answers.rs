//! What follows from a request: wake-ups, counters, and reports of what the client accepted and refused.

use std::sync::Arc;
use std::time::Duration;

use super::StreamState;
use crate::entry::Entry;
use crate::identity::Peer;
use crate::info::Culprit;
use crate::session::Action;
use crate::stats::Stats;
use crate::store::{Delivery, Store, TypeStore};

impl StreamState {
    pub(super) fn perform(
        &self,
        store: &Store,
        resources: &TypeStore,
        peer: &Peer,
        action: Action,
    ) {
        let stats = &store.stats;
        let counters = &resources.counters;
        match action {
            Action::Watch(name) => resources.index.lock().watch(name, &self.wake),
            Action::Unwatch(name) => resources.index.lock().unwatch(&name, self.id()),
            Action::WatchAll(on) => {
                let mut index = resources.index.lock();
                index.watch_all(on, &self.wake, &peer.view);
            }
            Action::Left(names) => store.report(names.iter().map(|name| Delivery::Left {
                stream: self.id(),
                node: peer.id.clone(),
                type_url: resources.url.to_string(),
                name: name.to_string(),
            })),
            Action::Ack => {
                Stats::add(&stats.acks, 1);
                Stats::add(&counters.acks, 1);
            }
            Action::Nack => {
                Stats::add(&stats.nacks, 1);
                Stats::add(&counters.nacks, 1);
            }
            Action::Stale => Stats::add(&stats.stale_nonces, 1),
            Action::ClearRejection(name) => {
                let mut table = resources.table.write();
                table.clear_rejection(&name, &peer.key);
            }
            Action::Accepted(accepted) => self.report_acks(store, resources, peer, &accepted),
            refused => self.report_nacks(store, resources, peer, refused),
        }
    }

    fn report_nacks(&self, store: &Store, resources: &TypeStore, peer: &Peer, refused: Action) {
        match refused {
            Action::Rejected {
                name,
                origin,
                rejection,
                message,
            } => {
                let version = rejection.version.clone();
                let first = resources.table.write().reject(&name, &peer.key, rejection);
                if first {
                    warn_of_nack(peer, resources, &name, &version, &message, &origin);
                }
                let nacked = self.nacked(resources, peer, message, version);
                let nack = nacked(Some(name.to_string()), origin, Culprit::Known);
                store.report(std::iter::once(nack));
            }
            Action::Suspected {
                entries,
                message,
                first,
            } => {
                if first {
                    warn_of_batch(peer, resources, &entries, &message);
                }
                let nacks = entries.iter().map(|entry| {
                    let version = entry.version().to_owned();
                    let nacked = self.nacked(resources, peer, message.clone(), version);
                    let name = Some(entry.name().to_owned());
                    nacked(name, entry.origin().to_owned(), Culprit::Unknown)
                });
                store.report(nacks);
            }
            Action::RejectedWithoutContent {
                name,
                version,
                message,
            } => {
                let named = name.as_deref().unwrap_or("-");
                warn_of_nack(peer, resources, named, &version, &message, "");
                let nacked = self.nacked(resources, peer, message, version);
                store.report(std::iter::once(nacked(name, String::new(), Culprit::Known)));
            }
            _ => {}
        }
    }

    fn nacked(
        &self,
        resources: &TypeStore,
        peer: &Peer,
        message: String,
        version: String,
    ) -> impl FnOnce(Option<String>, String, Culprit) -> Delivery {
        let (stream, node, type_url) = (self.id(), peer.id.clone(), resources.url.to_string());
        move |name, origin, culprit| Delivery::Nacked {
            stream,
            node,
            type_url,
            name,
            version,
            message,
            origin,
            culprit,
        }
    }

    fn report_acks(
        &self,
        store: &Store,
        resources: &TypeStore,
        peer: &Peer,
        accepted: &[(Arc<Entry>, Duration)],
    ) {
        for (_, latency) in accepted {
            resources.counters.convergence.observe(*latency);
        }
        store.report(accepted.iter().map(|(entry, latency)| Delivery::Acked {
            stream: self.id(),
            node: peer.id.clone(),
            type_url: resources.url.to_string(),
            name: entry.name().to_owned(),
            version: entry.version().to_owned(),
            latency: *latency,
        }));
    }
}

fn warn_of_batch(peer: &Peer, resources: &TypeStore, entries: &[Arc<Entry>], error: &str) {
    let names: Vec<&str> = entries.iter().take(3).map(|entry| entry.name()).collect();
    tracing::warn!(
        node = peer.id,
        type_url = &*resources.url,
        names = names.join(", "),
        resources = entries.len(),
        error,
        "a proxy refused a response; each of its resources is sent alone to find which one is bad"
    );
}

fn warn_of_nack(
    peer: &Peer,
    resources: &TypeStore,
    name: &str,
    version: &str,
    error: &str,
    origin: &str,
) {
    tracing::warn!(
        node = peer.id,
        type_url = &*resources.url,
        name,
        version,
        origin,
        error,
        "a proxy refused a resource and keeps what it had"
    );
}
