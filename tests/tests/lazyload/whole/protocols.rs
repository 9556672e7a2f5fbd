//! First calls of protocols that keep a connection or a stream open while the scope grows.

use std::net::SocketAddr;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::transport::Channel;
use trimtab_lab::process::wait_until;

use super::fixture::{Fixture, host, server};
use super::has;
use crate::collector::BOUND;
use crate::servers::{Echo, Grpc, Http};
use crate::streams::{read_head, read_text, within};

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Http2,
    Grpc,
    WebSocket,
    Tcp,
}

impl Protocol {
    const ALL: [Self; 4] = [Self::Http2, Self::Grpc, Self::WebSocket, Self::Tcp];

    /// Name of the service, and of its port.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Http2 => ("two", "http2"),
            Self::Grpc => ("calls", "grpc"),
            Self::WebSocket => ("chat", "http-chat"),
            Self::Tcp => ("bytes", "tcp"),
        }
    }

    async fn open(self, at: SocketAddr) -> Open {
        let host = host(self.names().0);
        let stream = || async { TcpStream::connect(at).await.unwrap() };
        match self {
            Self::Http2 => {
                let io = TokioIo::new(stream().await);
                let (sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                        .await
                        .unwrap();
                tokio::spawn(connection);
                Open::Http2(sender, host)
            }
            Self::Grpc => Open::grpc(at, &host).await,
            Self::WebSocket => {
                let mut stream = stream().await;
                let request = format!(
                    "GET /chat HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                );
                stream.write_all(request.as_bytes()).await.unwrap();
                let head = within("the upgrade", read_head(&mut stream)).await;
                assert!(head.starts_with("HTTP/1.1 101"), "{head}");
                Open::Bytes(stream)
            }
            Self::Tcp => Open::Bytes(stream().await),
        }
    }
}

/// What stays open.
enum Open {
    Http2(SendRequest<Full<Bytes>>, String),
    Grpc(mpsc::Sender<DiscoveryRequest>, Streaming<DiscoveryResponse>),
    Bytes(TcpStream),
}

impl Open {
    async fn grpc(at: SocketAddr, host: &str) -> Self {
        let endpoint = Channel::from_shared(format!("http://{at}")).unwrap();
        let origin = format!("http://{host}").parse().unwrap();
        let channel = endpoint.origin(origin).connect().await.unwrap();
        let (requests, receiver) = mpsc::channel::<DiscoveryRequest>(1);
        let outgoing = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|request| (request, receiver))
        });
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let answers = within("the head", client.stream_aggregated_resources(outgoing)).await;
        Self::Grpc(requests, answers.unwrap().into_inner())
    }

    /// Sends a word and gets it back.
    async fn exchange(&mut self, word: &str) {
        match self {
            Self::Http2(sender, host) => {
                let request = hyper::Request::post(format!("http://{host}/"))
                    .body(Full::from(word.to_owned()))
                    .unwrap();
                let answer = within("an answer", sender.send_request(request)).await;
                let answer = answer.unwrap();
                assert_eq!(answer.status(), 200);
                let body = within("its body", answer.collect()).await.unwrap();
                assert_eq!(body.to_bytes(), word);
            }
            Self::Grpc(requests, answers) => {
                let request = DiscoveryRequest {
                    version_info: word.to_owned(),
                    ..DiscoveryRequest::default()
                };
                requests.send(request).await.unwrap();
                let answer = within("an answer", answers.message()).await;
                assert_eq!(answer.unwrap().unwrap().version_info, word);
            }
            Self::Bytes(stream) => {
                stream.write_all(word.as_bytes()).await.unwrap();
                assert_eq!(read_text(stream, word.len()).await, word);
            }
        }
    }
}

async fn learned(fixture: &Fixture, protocol: Protocol) {
    let (name, _) = protocol.names();
    let at = fixture.at(name);
    let before = fixture.carried(name).await;
    let mut first = protocol.open(at).await;
    first.exchange("one").await;
    assert_eq!(
        fixture.carried(name).await,
        before + 1,
        "the fallback carries {protocol:?}"
    );
    fixture.scoped(name, |scope| has(scope, name)).await;
    let direct = wait_until("a direct call", BOUND, || async {
        let before = fixture.carried(name).await;
        protocol.open(at).await.exchange("two").await;
        if fixture.carried(name).await == before {
            Ok(())
        } else {
            Err(format!("{protocol:?} still goes by the fallback"))
        }
    });
    direct.await.unwrap();
    // What was open stays open; a request of its own may go the new way.
    first.exchange("three").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_call_of_every_protocol_is_carried_and_learned() {
    let ready = server("ready").await;
    let (two, chat, bytes) = (
        Http::start_http2().await,
        Http::start().await,
        Echo::start().await,
    );
    let (calls, _, _stop) = Grpc::start();
    let servers = Protocol::ALL.map(|protocol| {
        let (name, port) = protocol.names();
        let at = match protocol {
            Protocol::Http2 => two.address,
            Protocol::Grpc => calls,
            Protocol::WebSocket => chat.address,
            Protocol::Tcp => bytes.address,
        };
        (name, port, at)
    });
    let fixture = Fixture::start("protocols", &[("ready", ready.address())], &servers).await;
    fixture.ready().await;
    fixture
        .scoped("the first call to be learned", |s| has(s, "ready"))
        .await;
    for protocol in Protocol::ALL {
        assert!(!has(&fixture.scope().await, protocol.names().0));
        learned(&fixture, protocol).await;
    }
}
