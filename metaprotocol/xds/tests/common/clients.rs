//! Clients that speak the protocol.

use std::future::Future;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::extension::v3::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient;
use envoy_types::pb::google::rpc;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use trimtab_xds::{ECDS, Resource};

use crate::common::{BOUND, Server};

impl Server {
    pub fn set(&self, name: &str, version: &str) {
        let resource = resource(name, version, 0);
        assert_eq!(self.cache.update(ECDS, vec![resource], &[]), 1);
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.addr)).expect("a URI");
        endpoint.connect().await.expect("a connection")
    }
}

/// The body is `name@version`, padded to `size`.
pub fn resource(name: &str, version: &str, size: usize) -> Resource {
    let mut body = format!("{name}@{version}").into_bytes();
    body.resize(size.max(body.len()), b' ');
    Resource {
        name: name.into(),
        version: version.into(),
        body: Bytes::from(body),
        origin: format!("default/{name}"),
    }
}

pub fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future)
        .await
        .unwrap_or_else(|_| panic!("never happened: {what}"))
}

fn node(id: &str) -> Node {
    Node {
        id: id.into(),
        ..Node::default()
    }
}

pub struct SotwClient {
    node: Option<Node>,
    requests: UnboundedSender<DiscoveryRequest>,
    pub stream: Streaming<DiscoveryResponse>,
}

impl SotwClient {
    pub async fn connect(server: &Server, id: &str) -> Self {
        let mut client = ExtensionConfigDiscoveryServiceClient::new(server.channel().await);
        let (requests, receiver) = unbounded_channel();
        let stream = client
            .stream_extension_configs(UnboundedReceiverStream::new(receiver))
            .await;
        Self {
            node: Some(node(id)),
            requests,
            stream: stream.expect("a stream").into_inner(),
        }
    }

    pub fn send(&self, request: DiscoveryRequest) {
        self.requests.send(request).expect("an open stream");
    }

    /// Asks for names; only the first request carries the node.
    pub fn ask(&mut self, list: &[&str], nonce: &str) {
        let request = DiscoveryRequest {
            node: self.node.take(),
            resource_names: names(list),
            response_nonce: nonce.into(),
            ..DiscoveryRequest::default()
        };
        self.send(request);
    }

    pub async fn next(&mut self) -> DiscoveryResponse {
        within("a response", self.stream.message())
            .await
            .expect("no error")
            .expect("an open stream")
    }

    pub async fn fail(&mut self) -> Status {
        within("an error", self.stream.message())
            .await
            .expect_err("an error")
    }
}

pub struct DeltaClient {
    id: String,
    requests: UnboundedSender<DeltaDiscoveryRequest>,
    stream: Streaming<DeltaDiscoveryResponse>,
}

impl DeltaClient {
    pub async fn connect(server: &Server, id: &str) -> Self {
        Self::over(server.channel().await, id).await
    }

    pub async fn over(channel: Channel, id: &str) -> Self {
        let mut client = ExtensionConfigDiscoveryServiceClient::new(channel);
        let (requests, receiver) = unbounded_channel();
        let stream = client
            .delta_extension_configs(UnboundedReceiverStream::new(receiver))
            .await;
        Self {
            id: id.into(),
            requests,
            stream: stream.expect("a stream").into_inner(),
        }
    }

    /// The start of a first request.
    pub fn hello(&self) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            node: Some(node(&self.id)),
            ..DeltaDiscoveryRequest::default()
        }
    }

    pub fn send(&mut self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).expect("an open stream");
    }

    pub async fn next(&mut self) -> DeltaDiscoveryResponse {
        within("a response", self.stream.message())
            .await
            .expect("no error")
            .expect("an open stream")
    }
}

pub fn delta_ack(nonce: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        response_nonce: nonce.into(),
        ..DeltaDiscoveryRequest::default()
    }
}

pub fn delta_nack(nonce: &str, message: &str) -> DeltaDiscoveryRequest {
    let error_detail = Some(rpc::Status {
        code: 3,
        message: message.into(),
        details: vec![],
    });
    DeltaDiscoveryRequest {
        error_detail,
        ..delta_ack(nonce)
    }
}
