//! Who the client of a stream is.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use tonic::Status;

use super::{Inner, StreamState};
use crate::identity::{Peer, check_size};
use crate::stats::Stats;
use crate::store::Store;

impl StreamState {
    /// The first node with an id tells who the client is; later ones must not contradict it. Until it comes, the client
    /// sees what is for all.
    pub(super) fn identify(
        &self,
        store: &Store,
        inner: &mut Inner,
        node: Option<Node>,
    ) -> Result<(), Status> {
        if let Some(node) = &node {
            check_size(node).map_err(Status::invalid_argument)?;
        }
        match (&inner.peer, node) {
            (Some(_), None) => Ok(()),
            (Some(known), Some(node)) if node.id.is_empty() || node.id == known.id => Ok(()),
            (Some(known), Some(node)) if !known.id.is_empty() => {
                Err(Status::invalid_argument(format!(
                    "node.id changed from '{}' to '{}' on one stream; open a new stream for another node",
                    known.id, node.id
                )))
            }
            (_, node) => self.introduce(store, inner, &node.unwrap_or_default()),
        }
    }

    fn introduce(&self, store: &Store, inner: &mut Inner, node: &Node) -> Result<(), Status> {
        let info = &self.settings.info;
        let peer = Peer::new(node, info.spiffe.clone(), self.settings.trust)
            .map_err(Status::permission_denied)?;
        for identity in std::mem::take(&mut inner.identities) {
            store.release(&identity);
        }
        let limit = self.limits().streams_per_identity;
        for identity in self.identities_of(&peer) {
            if !store.admit(&identity, limit) {
                Stats::add(&store.stats.limited_streams, 1);
                return Err(Status::resource_exhausted(format!(
                    "'{identity}' has {limit} streams open, and more are not allowed; close some, or raise the limit of streams per identity"
                )));
            }
            inner.identities.push(identity);
        }
        for (resources, session) in &mut inner.sessions {
            let mut index = resources.index.lock();
            if let Some(before) = &inner.peer {
                index.watch_all(false, &self.wake, &before.view);
            }
            if session.is_wildcard() {
                index.watch_all(true, &self.wake, &peer.view);
            }
            session.set_client(Arc::clone(&peer.key), Arc::clone(&peer.view));
        }
        inner.peer = Some(peer);
        Ok(())
    }

    /// What the stream counts for: who the client is, and from where it comes, since without a certificate it may say
    /// that it is many. All of this machine have one address.
    fn identities_of(&self, peer: &Peer) -> Vec<String> {
        let info = &self.settings.info;
        let address = info.addr.map(|addr| addr.ip().to_canonical());
        let who = match (&peer.spiffe, address) {
            (Some(id), _) => id.to_string(),
            (None, Some(address)) if peer.id.is_empty() => address.to_string(),
            _ => peer.id.clone(),
        };
        let from = address.filter(|address| peer.spiffe.is_none() && !address.is_loopback());
        let from = from.map(|address| address.to_string());
        let mut identities = vec![who];
        identities.extend(from.filter(|from| !identities.contains(from)));
        identities
    }
}
