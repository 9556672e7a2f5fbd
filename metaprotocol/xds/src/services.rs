//! The gRPC services: one for all types, and one for each type that has its own.

use envoy_types::pb::envoy::service::cluster::v3::cluster_discovery_service_server::{
    ClusterDiscoveryService, ClusterDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::endpoint::v3::endpoint_discovery_service_server::{
    EndpointDiscoveryService, EndpointDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::extension::v3::extension_config_discovery_service_server::{
    ExtensionConfigDiscoveryService, ExtensionConfigDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::listener::v3::listener_discovery_service_server::{
    ListenerDiscoveryService, ListenerDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::route::v3::route_discovery_service_server::{
    RouteDiscoveryService, RouteDiscoveryServiceServer,
};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::responses::Responses;
use crate::server::{Delta, Service, Sotw};
use crate::types::{CDS, ECDS, EDS, LDS, RDS};

/// Implements a service of one type; polling is refused in words.
macro_rules! one_type {
    ($service:ident, $url:ident, $sotw:ident -> $sotw_stream:ident, $delta:ident -> $delta_stream:ident, $fetch:ident) => {
        #[tonic::async_trait]
        impl $service for Service {
            type $sotw_stream = Responses<Sotw>;
            type $delta_stream = Responses<Delta>;

            async fn $sotw(
                &self,
                request: Request<Streaming<DiscoveryRequest>>,
            ) -> Result<Response<Self::$sotw_stream>, Status> {
                self.open(Some($url), request)
            }

            async fn $delta(
                &self,
                request: Request<Streaming<DeltaDiscoveryRequest>>,
            ) -> Result<Response<Self::$delta_stream>, Status> {
                self.open(Some($url), request)
            }

            async fn $fetch(
                &self,
                _request: Request<DiscoveryRequest>,
            ) -> Result<Response<DiscoveryResponse>, Status> {
                Err(Status::unimplemented(
                    "polling is not served; use the streaming or the delta method of this service",
                ))
            }
        }
    };
}

one_type!(ClusterDiscoveryService, CDS, stream_clusters -> StreamClustersStream, delta_clusters -> DeltaClustersStream, fetch_clusters);
one_type!(EndpointDiscoveryService, EDS, stream_endpoints -> StreamEndpointsStream, delta_endpoints -> DeltaEndpointsStream, fetch_endpoints);
one_type!(ListenerDiscoveryService, LDS, stream_listeners -> StreamListenersStream, delta_listeners -> DeltaListenersStream, fetch_listeners);
one_type!(RouteDiscoveryService, RDS, stream_routes -> StreamRoutesStream, delta_routes -> DeltaRoutesStream, fetch_routes);
one_type!(ExtensionConfigDiscoveryService, ECDS, stream_extension_configs -> StreamExtensionConfigsStream, delta_extension_configs -> DeltaExtensionConfigsStream, fetch_extension_configs);

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

/// All services, each with the bound on the size of a request.
pub(crate) fn routes(service: &Service, message_bytes: usize) -> Routes {
    macro_rules! server {
        ($server:ident) => {
            $server::new(service.clone()).max_decoding_message_size(message_bytes)
        };
    }
    Routes::new(server!(AggregatedDiscoveryServiceServer))
        .add_service(server!(ClusterDiscoveryServiceServer))
        .add_service(server!(EndpointDiscoveryServiceServer))
        .add_service(server!(ListenerDiscoveryServiceServer))
        .add_service(server!(RouteDiscoveryServiceServer))
        .add_service(server!(ExtensionConfigDiscoveryServiceServer))
}
