//! What the network of a pod does, done to the configuration instead.
//!
//! A relay stands between istiod and one Envoy, passes the aggregated discovery stream through, and changes only:
//! endpoint addresses of pods, which become the loopback addresses where the tests' processes listen ([`net`]);
//! the bind address of listeners on all interfaces, which becomes that of the pod, since many proxies share one machine;
//! and the `original_dst` listener filter, in whose place comes PROXY protocol, since there is no `iptables`.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress, address};
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, lb_endpoint};
use envoy_types::pb::envoy::config::listener::v3::{Listener, ListenerFilter, listener_filter};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::protobuf::Any;
use futures::{Stream, StreamExt};
use prost::Message;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::{ClusterError, Result, net};

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const ORIGINAL_DST: &str = "envoy.filters.listener.original_dst";
const PROXY_PROTOCOL: &str =
    "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
/// istiod's own answers can be larger than the 4 MiB that gRPC takes by default.
const MAX_MESSAGE: usize = 64 << 20;

/// A running relay; dropping it closes the streams.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    _stop: DropGuard,
}

impl Relay {
    /// Listens on a free port for the proxy of a pod.
    pub async fn start(istiod: SocketAddr, pod: Ipv4Addr) -> Result<Self> {
        let other = |error: &dyn std::fmt::Display| ClusterError::Other(format!("relay: {error}"));
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .map_err(|error| other(&error))?;
        let address = listener.local_addr().map_err(|error| other(&error))?;
        let upstream = Endpoint::from_shared(format!("http://{istiod}"))
            .map_err(|error| other(&error))?
            .connect_lazy();
        let service = AggregatedDiscoveryServiceServer::new(Service { upstream, pod })
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let stop = CancellationToken::new();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming);
        // Cancelled as a whole: a graceful end would wait for a stream that never ends by itself.
        tokio::spawn(stop.clone().run_until_cancelled_owned(server));
        Ok(Self {
            address,
            _stop: stop.drop_guard(),
        })
    }

    /// Where the proxy connects.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

struct Service {
    upstream: Channel,
    pod: Ipv4Addr,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let answers = self
            .client()
            .stream_aggregated_resources(good(request))
            .await?;
        let pod = self.pod;
        let mapped = answers.into_inner().map(move |item| {
            let mut answer = item?;
            rewrite_all(&mut answer.resources, pod)?;
            Ok(answer)
        });
        Ok(Response::new(Box::pin(mapped)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let answers = self
            .client()
            .delta_aggregated_resources(good(request))
            .await?;
        let pod = self.pod;
        let mapped = answers.into_inner().map(move |item| {
            let mut answer = item?;
            let resources = answer.resources.iter_mut();
            rewrite_all(resources.filter_map(|r| r.resource.as_mut()), pod)?;
            Ok(answer)
        });
        Ok(Response::new(Box::pin(mapped)))
    }
}

impl Service {
    fn client(&self) -> AggregatedDiscoveryServiceClient<Channel> {
        AggregatedDiscoveryServiceClient::new(self.upstream.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }
}

/// The requests up to the first error, which ends the stream to istiod.
fn good<T: Send + 'static>(request: Request<Streaming<T>>) -> impl Stream<Item = T> + Send {
    request
        .into_inner()
        .take_while(|item| std::future::ready(item.is_ok()))
        .filter_map(|item| std::future::ready(item.ok()))
}

fn rewrite_all<'r>(
    resources: impl IntoIterator<Item = &'r mut Any>,
    pod: Ipv4Addr,
) -> Result<(), Status> {
    for resource in resources {
        rewrite(resource, pod).map_err(|error| Status::internal(error.to_string()))?;
    }
    Ok(())
}

/// Changes one resource as described at the module.
fn rewrite(resource: &mut Any, pod: Ipv4Addr) -> Result<(), prost::DecodeError> {
    let value = match resource.type_url.as_str() {
        ENDPOINTS => {
            let mut assignment = ClusterLoadAssignment::decode(&*resource.value)?;
            rewrite_endpoints(&mut assignment);
            assignment.encode_to_vec()
        }
        CLUSTER => {
            let mut cluster = Cluster::decode(&*resource.value)?;
            let Some(assignment) = cluster.load_assignment.as_mut() else {
                return Ok(());
            };
            rewrite_endpoints(assignment);
            cluster.encode_to_vec()
        }
        LISTENER => {
            let mut listener = Listener::decode(&*resource.value)?;
            rewrite_listener(&mut listener, pod);
            listener.encode_to_vec()
        }
        _ => return Ok(()),
    };
    resource.value = value;
    Ok(())
}

fn rewrite_endpoints(assignment: &mut ClusterLoadAssignment) {
    for endpoint in assignment
        .endpoints
        .iter_mut()
        .flat_map(|locality| &mut locality.lb_endpoints)
    {
        if let Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) =
            endpoint.host_identifier.as_mut()
            && let Some(socket) = endpoint.address.as_mut().and_then(socket)
            && let Some(local) = net::local_text(&socket.address)
        {
            socket.address = local;
        }
    }
}

fn rewrite_listener(listener: &mut Listener, pod: Ipv4Addr) {
    let bound = listener.bind_to_port.as_ref().is_none_or(|bind| bind.value);
    if bound
        && let Some(socket) = listener.address.as_mut().and_then(socket)
        && socket.address == "0.0.0.0"
    {
        socket.address = pod.to_string();
    }
    // The outbound listener has the filter implied by `use_original_dst`, the inbound one has it in its list.
    let implied = listener
        .use_original_dst
        .as_ref()
        .is_some_and(|use_it| use_it.value);
    let listed = listener
        .listener_filters
        .iter()
        .any(|filter| filter.name == ORIGINAL_DST);
    if bound && (implied || listed) {
        listener
            .listener_filters
            .retain(|filter| filter.name != ORIGINAL_DST);
        listener.listener_filters.insert(0, proxy_protocol());
    }
}

fn proxy_protocol() -> ListenerFilter {
    ListenerFilter {
        name: "envoy.filters.listener.proxy_protocol".to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(Any {
            type_url: PROXY_PROTOCOL.to_owned(),
            value: Vec::new(),
        })),
        ..ListenerFilter::default()
    }
}

fn socket(address: &mut Address) -> Option<&mut SocketAddress> {
    match address.address.as_mut()? {
        address::Address::SocketAddress(socket) => Some(socket),
        _ => None,
    }
}
