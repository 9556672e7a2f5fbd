//! The tonic shell.

use std::pin::Pin;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::extension::v3::extension_config_discovery_service_server::{
    ExtensionConfigDiscoveryService, ExtensionConfigDiscoveryServiceServer,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::ECDS;
use crate::cache::SnapshotCache;
use crate::error::ServeError;
use crate::session::{Action, Push, Session, delta, sotw};
use crate::stats::Stats;
use crate::stream::{Protocol, Responses, open};

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client that does not read may hold up the shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

struct Sotw;

impl Protocol for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const DELTA: bool = false;

    fn type_url(request: &mut DiscoveryRequest) -> &mut String {
        &mut request.type_url
    }

    fn node(request: &mut DiscoveryRequest) -> Option<Node> {
        request.node.take()
    }

    fn handle(session: &mut Session, request: DiscoveryRequest, now: Instant) -> Vec<Action> {
        session.on_sotw(request, now)
    }

    fn render(type_url: &str, push: Push) -> DiscoveryResponse {
        sotw::render(type_url, push)
    }
}

struct Delta;

impl Protocol for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    const DELTA: bool = true;

    fn type_url(request: &mut DeltaDiscoveryRequest) -> &mut String {
        &mut request.type_url
    }

    fn node(request: &mut DeltaDiscoveryRequest) -> Option<Node> {
        request.node.take()
    }

    fn handle(session: &mut Session, request: DeltaDiscoveryRequest, now: Instant) -> Vec<Action> {
        session.on_delta(request, now)
    }

    fn render(type_url: &str, push: Push) -> DeltaDiscoveryResponse {
        delta::render(type_url, push)
    }
}

#[derive(Clone)]
struct Service {
    cache: SnapshotCache,
    shutdown: CancellationToken,
}

impl Service {
    fn open<P: Protocol>(
        &self,
        only: Option<&'static str>,
        request: Request<Streaming<P::Request>>,
    ) -> Result<Response<Responses<P>>, Status> {
        if !self.cache.is_ready() {
            Stats::add(&self.cache.stats().streams_refused, 1);
            return Err(Status::unavailable(
                "the first snapshot is not complete yet; try again",
            ));
        }
        Ok(Response::new(open(
            &self.cache,
            only,
            request.into_inner(),
            &self.shutdown,
        )))
    }
}

#[tonic::async_trait]
impl ExtensionConfigDiscoveryService for Service {
    type StreamExtensionConfigsStream = Responses<Sotw>;
    type DeltaExtensionConfigsStream = Responses<Delta>;

    async fn stream_extension_configs(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamExtensionConfigsStream>, Status> {
        self.open(Some(ECDS), request)
    }

    async fn delta_extension_configs(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaExtensionConfigsStream>, Status> {
        self.open(Some(ECDS), request)
    }

    async fn fetch_extension_configs(
        &self,
        _request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented(
            "polling is not served; use StreamExtensionConfigs or DeltaExtensionConfigs",
        ))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Responses<Sotw>;
    type DeltaAggregatedResourcesStream = Responses<Delta>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open(None, request)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open(None, request)
    }
}

/// Serves the cache on a bound listener until `shutdown`; then streams end with OK, so that clients go elsewhere.
///
/// A client that does not read holds up the end for a few seconds at most.
pub async fn serve(
    cache: SnapshotCache,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let addr = listener.local_addr().map_err(ServeError::Listener)?;
    let service = Service {
        cache,
        shutdown: shutdown.clone(),
    };
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(ExtensionConfigDiscoveryServiceServer::new(service.clone()))
        .add_service(AggregatedDiscoveryServiceServer::new(service))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown.clone().cancelled_owned(),
        );
    let mut server: Pin<Box<_>> = Box::pin(server);
    tokio::select! {
        ended = &mut server => return ended.map_err(|source| ServeError::Transport { addr, source }),
        () = shutdown.cancelled() => {}
    }
    match tokio::time::timeout(SHUTDOWN_GRACE, server).await {
        Ok(ended) => ended.map_err(|source| ServeError::Transport { addr, source }),
        Err(_) => Ok(()),
    }
}
