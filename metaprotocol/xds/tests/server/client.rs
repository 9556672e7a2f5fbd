//! A client of any discovery method.

use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::rpc;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use trimtab_xds::{Resource, Scope, Scoped};

use crate::common::{BOUND, Server};

pub const ADS: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
pub const ADS_DELTA: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

pub type Sotw = Client<DiscoveryRequest, DiscoveryResponse>;
pub type Delta = Client<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

pub struct Client<Q, R> {
    requests: UnboundedSender<Q>,
    responses: Streaming<R>,
}

impl<Q, R> Client<Q, R>
where
    Q: prost::Message + Default + 'static,
    R: prost::Message + Default + std::fmt::Debug + 'static,
{
    pub async fn open(channel: Channel, path: &'static str) -> Result<Self, Status> {
        let mut grpc = tonic::client::Grpc::new(channel);
        let unavailable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
        grpc.ready().await.map_err(unavailable)?;
        let (requests, receiver) = unbounded_channel();
        let codec = tonic_prost::ProstCodec::<Q, R>::default();
        let request = Request::new(UnboundedReceiverStream::new(receiver));
        let path = PathAndQuery::from_static(path);
        let response = grpc.streaming(request, path, codec).await?;
        Ok(Self {
            requests,
            responses: response.into_inner(),
        })
    }

    pub async fn connect(server: &Server, path: &'static str) -> Self {
        let channel = channel(server).await;
        Self::open(channel, path).await.expect("a stream")
    }

    pub fn send(&self, request: Q) {
        self.requests.send(request).expect("an open stream");
    }

    async fn message(&mut self) -> Result<Option<R>, Status> {
        tokio::time::timeout(BOUND, self.responses.message())
            .await
            .expect("an answer in time")
    }

    pub async fn next(&mut self) -> R {
        self.message()
            .await
            .expect("no error")
            .expect("an open stream")
    }

    pub async fn fail(&mut self) -> Status {
        self.message().await.expect_err("an error")
    }

    pub async fn end(&mut self) {
        assert!(self.message().await.expect("no error").is_none());
    }

    /// Nothing comes for a while: only for what would come at once if it came.
    pub async fn silent(&mut self) {
        let waited = tokio::time::timeout(Duration::from_millis(50), self.responses.message());
        assert!(waited.await.is_err(), "an unexpected message");
    }
}

pub async fn channel(server: &Server) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", server.addr)).expect("a URI");
    endpoint.connect().await.expect("a connection")
}

pub fn node(id: &str, cluster: &str) -> Node {
    Node {
        id: id.into(),
        cluster: cluster.into(),
        ..Node::default()
    }
}

pub fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// A first request, for names or, without any, for everything.
pub fn ask(node: Node, url: &str, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(node),
        type_url: url.into(),
        resource_names: strings(names),
        ..DiscoveryRequest::default()
    }
}

pub fn ask_delta(node: Node, url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(node),
        type_url: url.into(),
        resource_names_subscribe: strings(names),
        ..DeltaDiscoveryRequest::default()
    }
}

pub fn ack(response: &DiscoveryResponse, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: response.type_url.clone(),
        resource_names: strings(names),
        version_info: response.version_info.clone(),
        response_nonce: response.nonce.clone(),
        ..DiscoveryRequest::default()
    }
}

pub fn nack(response: &DiscoveryResponse, names: &[&str], message: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        error_detail: Some(rpc::Status {
            code: 3,
            message: message.into(),
            details: vec![],
        }),
        ..ack(response, names)
    }
}

pub fn ack_delta(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..DeltaDiscoveryRequest::default()
    }
}

/// The body is `name@version`.
pub fn resource(name: &str, version: &str) -> Resource {
    Resource {
        name: name.into(),
        version: version.into(),
        body: Bytes::from(format!("{name}@{version}")),
        origin: format!("default/{name}"),
    }
}

/// The body is a message that has the name of another resource, and is of one version.
pub fn naming(name: &str, version: &str, other: &str) -> Resource {
    let field = |number: u8, text: &str| {
        let length = u8::try_from(text.len()).expect("a short name");
        let head = [number << 3 | 2, length];
        head.into_iter().chain(text.bytes()).collect::<Vec<u8>>()
    };
    let nested = [field(1, other), field(2, version)].concat();
    let nested = String::from_utf8(nested).expect("short ASCII texts");
    Resource {
        body: Bytes::from(field(3, &nested)),
        ..resource(name, version)
    }
}

pub fn scoped(name: &str, version: &str, scope: Scope) -> Scoped {
    Scoped {
        resource: resource(name, version),
        scope,
    }
}

/// The bodies of a response.
pub fn listed(response: &DiscoveryResponse) -> Vec<String> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    response
        .resources
        .iter()
        .map(|any| text(&any.value))
        .collect()
}

/// What a delta response sets, as `name@version`, and what it removes.
pub fn changes(response: &DeltaDiscoveryResponse) -> (Vec<String>, Vec<String>) {
    let set = response.resources.iter();
    let set = set.map(|r| format!("{}@{}", r.name, r.version)).collect();
    (set, response.removed_resources.clone())
}
