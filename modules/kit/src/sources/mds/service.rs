//! The gRPC face of the store.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Request, Response, Status, Streaming};
use trimtab_xds::Tls;

use super::proto::metric_discovery_server::{MetricDiscovery, MetricDiscoveryServer};
use super::proto::{PushRequest, PushResponse};
use super::store::{MdsStore, Reach};
use crate::listen::{Bounds, Ends, Port, Share, incoming};

/// Puts what is pushed into the store.
#[derive(Clone, Debug)]
pub struct MdsService {
    store: MdsStore,
    pushers: Arc<Pushers>,
}

/// Who may push.
#[derive(Clone, Debug, Default)]
pub struct Pushers {
    /// Certificates of the mesh; `None`: the port is plain, and whoever reaches it may push for all.
    pub tls: Option<Arc<Tls>>,
    /// With TLS: namespaces whose workloads may push for all. Others push for their own namespace.
    pub for_all: Vec<String>,
}

impl Pushers {
    /// For which namespaces the peer of a request may push.
    fn reach(&self, extensions: &Extensions) -> Result<Reach, Status> {
        if self.tls.is_none() {
            return Ok(Reach::All);
        }
        let ends = extensions.get::<Ends>();
        let identity = ends.and_then(|ends| ends.identity.as_ref());
        let namespace = identity.and_then(|identity| identity.namespace());
        let namespace = namespace.ok_or_else(|| {
            Status::permission_denied(
                "the client certificate names no workload: use one of the mesh, spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT",
            )
        })?;
        if self.for_all.iter().any(|all| all == namespace) {
            return Ok(Reach::All);
        }
        Ok(Reach::Namespace(namespace.to_owned()))
    }
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
    pushers: Pushers,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let bounds = Bounds::streams(CONNECTIONS, Share::Metrics, KEEPALIVE.0);
    let port = Port::new("metrics.mds", bounds, pushers.tls.clone());
    let connections = incoming(listener, port, shutdown.clone());
    let pushers = Arc::new(pushers);
    let service = MetricDiscoveryServer::new(MdsService { store, pushers });
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
        let reach = self.pushers.reach(request.extensions())?;
        // The next request is read only after the response to this one was taken, so a pusher cannot make the server queue.
        let responses = request
            .into_inner()
            .map(move |batch| batch.map(|batch| store.put(batch, &reach)));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn put(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let reach = self.pushers.reach(request.extensions())?;
        Ok(Response::new(self.store.put(request.into_inner(), &reach)))
    }
}
