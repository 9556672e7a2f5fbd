//! What lasts: streams, upgrades, gRPC, TCP and TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Address;
use envoy_types::pb::envoy::config::core::v3::address::Address as Kind;
use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trimtab_cluster::Forwarder;
use trimtab_lazyload::fallback::FallbackInput;

use crate::caller::{ALLOW_ANY, Caller, Fallback, POD, REFUSED, options};
use crate::collector::{BOUND, Collector, metadata, path};
use crate::fallback::OURS;
use crate::servers::{Echo, Grpc, Http};

struct Fixture {
    collector: Collector,
    _fallback: Fallback,
    caller: Caller,
}

async fn fixture(name: &str) -> Fixture {
    let collector = Collector::start();
    let fallback = Fallback::start(&format!("{name}-fallback"), options(Some(&collector))).await;
    let mut input = FallbackInput::default();
    input.config.fallback.tcp = true;
    let caller = Caller::start(name, &input, ALLOW_ANY, &[&fallback.options]).await;
    Fixture {
        collector,
        _fallback: fallback,
        caller,
    }
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future)
        .await
        .unwrap_or_else(|_| panic!("{what} took longer than {BOUND:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_an_answer_arrive_as_they_are_sent() {
    let fixture = fixture("parts").await;
    let server = Http::start().await;
    let stream = fixture.caller.stream(server.address).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get("/stream")
        .header("host", "reviews.books")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let mut response = within("the head", sender.send_request(request))
        .await
        .unwrap();
    let first = within("the first part", response.frame())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(first.into_data().unwrap(), "first");
    // The answer is not at its end, and still it is learned.
    let entry = fixture
        .collector
        .http("an entry while it lasts", |e| path(e) == "/stream")
        .await;
    let common = entry.common_properties.unwrap();
    assert_eq!(common.access_log_type(), AccessLogType::DownstreamPeriodic);
    assert_eq!(
        metadata(Some(&common), "source").as_deref(),
        Some("shop/web-1")
    );
    server.go_on();
    let rest = within("the rest", response.collect())
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(rest, "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_carried() {
    let fixture = fixture("websocket").await;
    let server = Http::start().await;
    let mut stream = fixture.caller.stream(server.address).await;
    let request = "GET /chat HTTP/1.1\r\nhost: reviews.books\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = within("the upgrade", read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    for message in ["one", "two", "three"] {
        stream.write_all(message.as_bytes()).await.unwrap();
        assert_eq!(read_text(&mut stream, message.len()).await, message);
    }
    let seen = server.last();
    assert_eq!(seen.path, "/chat");
    for name in OURS {
        assert_eq!(seen.header(name), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_stream_goes_both_ways() {
    let fixture = fixture("grpc").await;
    let (address, server, _stop) = Grpc::start();
    let tunnel = tunnel(&fixture.caller, address).await;
    let at = format!("http://{}", tunnel.address());
    let mut client = AggregatedDiscoveryServiceClient::connect(at).await.unwrap();
    let (requests, receiver) = tokio::sync::mpsc::channel::<DiscoveryRequest>(1);
    let outgoing = futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|request| (request, receiver))
    });
    let answers = within("the head", client.stream_aggregated_resources(outgoing)).await;
    let mut answers = answers.unwrap().into_inner();
    for n in 0..5 {
        let request = DiscoveryRequest {
            version_info: n.to_string(),
            ..DiscoveryRequest::default()
        };
        requests.send(request).await.unwrap();
        let answer = within("an answer", answers.message())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(answer.version_info, n.to_string());
    }
    let entry = fixture
        .collector
        .http("an entry while it lasts", |e| {
            path(e).ends_with("/StreamAggregatedResources")
        })
        .await;
    let common = entry.common_properties.as_ref();
    assert_eq!(metadata(common, "destination"), Some(address.to_string()));
    drop(requests);
    assert!(
        within("the end", answers.message())
            .await
            .unwrap()
            .is_none(),
        "it ends with OK"
    );
    assert!(
        OURS.iter()
            .all(|name| !server.seen()[0].contains(&(*name).to_owned()))
    );
    let none = futures::stream::empty::<DeltaDiscoveryRequest>();
    let error = within("the error", client.delta_aggregated_resources(none))
        .await
        .unwrap_err();
    assert_eq!(
        error.code(),
        tonic::Code::ResourceExhausted,
        "trailers are passed on"
    );
}

/// An address where a client that knows nothing of the PROXY protocol reaches a server by the caller's proxy.
async fn tunnel(caller: &Caller, to: SocketAddr) -> Forwarder {
    let through = caller.listener();
    let SocketAddr::V4(to) = to else {
        panic!("{to} is not IPv4")
    };
    let open = move || trimtab_cluster::original_destination(POD, through, to);
    Forwarder::start(SocketAddr::from((POD, 0)), open)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_is_carried_by_its_original_destination() {
    let fixture = fixture("tcp").await;
    let server = Echo::start().await;
    let mut stream = fixture.caller.tcp(server.address).await;
    stream.write_all(b"\x00\x01 not HTTP").await.unwrap();
    assert_eq!(read_text(&mut stream, 11).await, "\x00\x01 not HTTP");
    let entry = fixture
        .collector
        .tcp("an entry while it lasts", |e| {
            is(
                e.common_properties
                    .as_ref()
                    .and_then(|c| c.downstream_local_address.as_ref()),
                server.address,
            )
        })
        .await;
    let common = entry.common_properties.unwrap();
    assert_eq!(
        common.access_log_type(),
        AccessLogType::TcpUpstreamConnected
    );
    let source = stream.local_addr().unwrap();
    assert!(
        is(common.downstream_remote_address.as_ref(), source),
        "{source}: {common:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_on_an_http_port_is_carried_too() {
    let fixture = fixture("not-http").await;
    let server = Echo::start().await;
    let mut stream = fixture.caller.stream(server.address).await;
    stream.write_all(b"\x00\x01 not HTTP").await.unwrap();
    assert_eq!(read_text(&mut stream, 11).await, "\x00\x01 not HTTP");
    fixture
        .collector
        .tcp("an entry", |e| {
            is(
                e.common_properties
                    .as_ref()
                    .and_then(|c| c.downstream_local_address.as_ref()),
                server.address,
            )
        })
        .await;
}

/// The first message of a TLS client that asks for a server.
pub(crate) fn hello(server: &'static str) -> Vec<u8> {
    let mut hello = Vec::new();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(rustls::RootCertStore::empty())
    .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(server).unwrap();
    rustls::ClientConnection::new(Arc::new(config), name)
        .unwrap()
        .write_tls(&mut hello)
        .unwrap();
    hello
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_passes_as_it_is() {
    let fixture = fixture("tls").await;
    let server = Echo::start().await;
    let hello = hello("db.example.com");
    let mut stream = fixture.caller.tcp(server.address).await;
    stream.write_all(&hello).await.unwrap();
    let mut back = vec![0; hello.len()];
    within("the bytes", stream.read_exact(&mut back))
        .await
        .unwrap();
    assert_eq!(back, hello);
    let entry = fixture
        .collector
        .tcp("an entry", |e| e.common_properties.is_some())
        .await;
    let tags = entry.common_properties.unwrap().custom_tags;
    assert_eq!(tags.get("sni").map(String::as_str), Some("db.example.com"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_to_the_machine_itself_is_refused() {
    let fixture = fixture("tcp-refused").await;
    let mut stream = fixture.caller.tcp(SocketAddr::from((REFUSED, 9))).await;
    stream.write_all(b"x").await.unwrap();
    let mut rest = Vec::new();
    // A reset is as good as an end.
    let _ = within("the end", stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}

fn is(address: Option<&Address>, wanted: SocketAddr) -> bool {
    use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
    let Some(Kind::SocketAddress(socket)) = address.and_then(|a| a.address.as_ref()) else {
        return false;
    };
    let port = PortSpecifier::PortValue(u32::from(wanted.port()));
    socket.address == wanted.ip().to_string() && socket.port_specifier == Some(port)
}

pub(crate) async fn read_text(stream: &mut TcpStream, length: usize) -> String {
    let mut buffer = vec![0; length];
    within("the bytes", stream.read_exact(&mut buffer))
        .await
        .unwrap();
    String::from_utf8(buffer).unwrap()
}

pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
