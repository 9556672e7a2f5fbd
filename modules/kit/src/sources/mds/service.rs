//! The gRPC face of the store.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::proto::metric_discovery_server::{MetricDiscovery, MetricDiscoveryServer};
use super::proto::{PushRequest, PushResponse};
use super::store::MdsStore;

/// Puts what is pushed into the store.
#[derive(Clone, Debug)]
pub struct MdsService {
    store: MdsStore,
}

/// The server for the host to add to its router.
pub fn service(store: MdsStore) -> MetricDiscoveryServer<MdsService> {
    MetricDiscoveryServer::new(MdsService { store })
}

#[tonic::async_trait]
impl MetricDiscovery for MdsService {
    type PushStream = Pin<Box<dyn Stream<Item = Result<PushResponse, Status>> + Send>>;

    async fn push(
        &self,
        request: Request<Streaming<PushRequest>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let store = self.store.clone();
        // The next request is read only after the response to this one was taken, so a pusher cannot make the server queue.
        let responses = request
            .into_inner()
            .map(move |batch| batch.map(|batch| store.put(batch)));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn put(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        Ok(Response::new(self.store.put(request.into_inner())))
    }
}
