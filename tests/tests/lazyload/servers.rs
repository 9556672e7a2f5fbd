//! Servers that see what arrives.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use futures::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};
use trimtab_lab::ports::free_address;

/// A request as a server got it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct Shared {
    connections: AtomicU64,
    seen: Mutex<Vec<Seen>>,
    go_on: Notify,
}

/// A server of HTTP.
///
/// `/redirect` answers 302; `/stream` sends one part and the next only after [`Self::go_on`]; a request for an upgrade to
/// `websocket` gets its bytes back; everything else gets its body back.
pub(crate) struct Http {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

impl Http {
    pub(crate) async fn start() -> Self {
        Self::serve(false).await
    }

    /// HTTP/2 without TLS instead, by prior knowledge.
    pub(crate) async fn start_http2() -> Self {
        Self::serve(true).await
    }

    async fn serve(http2: bool) -> Self {
        let address = free_address().unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let shared = Arc::new(Shared::default());
        let stop = CancellationToken::new();
        let state = Arc::clone(&shared);
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                state.connections.fetch_add(1, Ordering::Relaxed);
                let state = Arc::clone(&state);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let io = TokioIo::new(stream);
                if http2 {
                    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, service);
                    tokio::spawn(connection);
                } else {
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(io, service)
                        .with_upgrades();
                    tokio::spawn(connection);
                }
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept));
        Self {
            address,
            shared,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }

    /// Lets `/stream` send its second part.
    pub(crate) fn go_on(&self) {
        self.shared.go_on.notify_one();
    }
}

async fn answer(
    shared: Arc<Shared>,
    mut request: hyper::Request<Incoming>,
) -> Result<hyper::Response<UnsyncBoxBody<Bytes, Infallible>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let headers: Vec<(String, String)> = request
        .headers()
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                value.to_str().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    let upgrade = request.headers().contains_key("upgrade");
    let remember = |body: String| {
        shared.seen.lock().unwrap().push(Seen {
            path: path.clone(),
            headers,
            body,
        });
    };
    if upgrade {
        remember(String::new());
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.unwrap());
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                stream.write_all(&buffer[..count]).await.unwrap();
            }
        });
        let response = hyper::Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .body(Full::default().boxed_unsync());
        return Ok(response.unwrap());
    }
    let body = request.into_body().collect().await?.to_bytes();
    remember(String::from_utf8_lossy(&body).into_owned());
    let response = match path.as_str() {
        "/redirect" => hyper::Response::builder()
            .status(302)
            .header("location", "/elsewhere")
            .body(Full::default().boxed_unsync()),
        "/stream" => {
            let first = futures::stream::once(async { Ok(Frame::data(Bytes::from("first"))) });
            let second = futures::stream::once(async move {
                shared.go_on.notified().await;
                Ok(Frame::data(Bytes::from("second")))
            });
            hyper::Response::builder()
                .body(StreamBody::new(first.chain(second).boxed()).boxed_unsync())
        }
        _ => hyper::Response::builder().body(Full::from(body).boxed_unsync()),
    };
    Ok(response.unwrap())
}

/// Gives bytes back, and counts connections.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    _stop: DropGuard,
}

impl Echo {
    pub(crate) async fn start() -> Self {
        let address = free_address().unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let stop = CancellationToken::new();
        let accept = async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept));
        Self {
            address,
            _stop: stop.drop_guard(),
        }
    }
}

/// A gRPC server with a bidirectional stream: each request is answered at once with its version.
#[derive(Clone, Default)]
pub(crate) struct Grpc {
    seen: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Grpc {
    pub(crate) fn start() -> (SocketAddr, Self, DropGuard) {
        let address = free_address().unwrap();
        let grpc = Self::default();
        let stop = CancellationToken::new();
        let server = tonic::transport::Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(grpc.clone()))
            .serve(address);
        tokio::spawn(stop.clone().run_until_cancelled_owned(server));
        (address, grpc, stop.drop_guard())
    }

    /// Names of the headers of each call.
    pub(crate) fn seen(&self) -> Vec<Vec<String>> {
        self.seen.lock().unwrap().clone()
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Grpc {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let names = request.metadata().keys();
        let names = names.map(|key| match key {
            tonic::metadata::KeyRef::Ascii(key) => key.to_string(),
            tonic::metadata::KeyRef::Binary(key) => key.to_string(),
        });
        self.seen.lock().unwrap().push(names.collect());
        let answers = request.into_inner().map(|request| {
            request.map(|request| DiscoveryResponse {
                version_info: request.version_info,
                ..DiscoveryResponse::default()
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::resource_exhausted("an error in trailers"))
    }
}
