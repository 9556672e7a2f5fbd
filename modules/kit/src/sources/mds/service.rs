//! The gRPC face of the store.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::proto::metric_discovery_server::{MetricDiscovery, MetricDiscoveryServer};
use super::proto::{PushRequest, PushResponse};
use super::store::MdsStore;
use crate::listen::{Bounds, incoming};

/// Puts what is pushed into the store.
#[derive(Clone, Debug)]
pub struct MdsService {
    store: MdsStore,
}

/// Largest message. The smallest series take two bytes there and some hundred in memory.
const MESSAGE_BYTES: usize = 512 << 10;
/// Pushers, at most.
const CONNECTIONS: usize = 256;
/// Calls that one connection may have under way.
const CALLS: u32 = 8;
/// Pause after which a silent pusher is asked whether it is there, and time for its answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Time for calls under way when the process stops.
const GRACE: Duration = Duration::from_secs(2);

/// Takes what is pushed to `listener` until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    store: MdsStore,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let service = MetricDiscoveryServer::new(MdsService { store });
    let bounds = Bounds::streams(CONNECTIONS);
    let connections = incoming(listener, "metrics.mds", bounds, shutdown.clone());
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(CALLS)
        .add_service(service.max_decoding_message_size(MESSAGE_BYTES))
        .serve_with_incoming_shutdown(connections, shutdown.clone().cancelled_owned());
    let mut server = Box::pin(server);
    tokio::select! {
        ended = &mut server => ended,
        // A pusher may go on for ever.
        () = shutdown.cancelled() => tokio::time::timeout(GRACE, server).await.unwrap_or(Ok(())),
    }
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
