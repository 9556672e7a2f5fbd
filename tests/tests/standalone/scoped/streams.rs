//! What stays open: WebSockets and streams of gRPC.

use std::net::SocketAddr;

use envoy_types::pb::envoy::data::accesslog::v3::{HttpAccessLogEntry, HttpRequestProperties};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, LogEntries,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Channel;
use trimtab_lab::ports::{free_port, loopback};

use super::{Lab, host, mesh, say};
use crate::http::pod;
use crate::lab::{BOUND, until};
use crate::logs::Receiver;

/// A server that takes every connection for a WebSocket and sends back what it gets after that.
async fn web_socket() -> SocketAddr {
    let at = loopback(free_port().expect("a port"));
    let listener = TcpListener::bind(at).await.expect("the port");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                read_head(&mut stream).await;
                let switch = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
                stream
                    .write_all(switch.as_bytes())
                    .await
                    .expect("it is sent");
                let (mut read, mut write) = stream.split();
                // It ends with the connection, however that ends.
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    at
}

/// Everything up to the empty line.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(BOUND, stream.read_u8()).await;
        head.push(byte.expect("in time").expect("more of the head"));
    }
    String::from_utf8_lossy(&head).into_owned()
}

async fn open_web_socket(at: SocketAddr, name: &str) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.expect("the proxy");
    let request = format!(
        "GET / HTTP/1.1\r\nhost: {}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        host(name)
    );
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it is sent");
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

#[tokio::test]
async fn web_sockets_go_through_the_fallback_and_stay_open_when_the_scope_grows() {
    let a = pod("a").await;
    let servers = vec![("a", a.address()), ("socket", web_socket().await)];
    let mut lab = Lab::start("socket", mesh(6, servers, 1).await, &["a"]).await;
    let mut old = open_web_socket(lab.http(), "socket").await;
    say(&mut old, "one").await;
    assert_eq!(lab.detours().await, 1);
    lab.see(&["a", "socket"]).await;
    let mut new = open_web_socket(lab.http(), "socket").await;
    say(&mut new, "two").await;
    say(&mut old, "three").await;
    assert_eq!(lab.detours().await, 1);
    lab.see(&[]).await;
    say(&mut new, "four").await;
    say(&mut old, "five").await;
}

/// A message of a stream of access logs: anything that a server tells one by one.
fn message(text: &str) -> StreamAccessLogsMessage {
    let call = HttpRequestProperties {
        authority: text.to_owned(),
        ..HttpRequestProperties::default()
    };
    let entry = HttpAccessLogEntry {
        request: Some(call),
        ..HttpAccessLogEntry::default()
    };
    let entries = HttpAccessLogEntries {
        log_entry: vec![entry],
    };
    StreamAccessLogsMessage {
        log_entries: Some(LogEntries::HttpLogs(entries)),
        ..StreamAccessLogsMessage::default()
    }
}

#[tokio::test]
async fn streams_of_grpc_go_through_the_fallback_as_http2() {
    let a = pod("a").await;
    let receiver = Receiver::start().await;
    let mut mesh = mesh(7, vec![("a", a.address())], 1).await;
    let port = free_port().expect("a port");
    mesh.calls = Some((port, receiver.address()));
    let at = SocketAddr::new(mesh.pod, port);
    let mut lab = Lab::start("grpc", mesh, &["a"]).await;
    let origin = format!("http://{}", host("calls")).parse().expect("a URI");
    let endpoint = Channel::from_shared(format!("http://{at}")).expect("a URI");
    let channel = endpoint.origin(origin).connect().await.expect("the proxy");
    let told = |text: &str| receiver.seen().iter().any(|s| s.what == text);
    let open = |first: &str| {
        let (sender, messages) = tokio::sync::mpsc::unbounded_channel();
        sender.send(message(first)).expect("it is open");
        let messages = futures::stream::unfold(messages, |mut messages| async move {
            Some((messages.recv().await?, messages))
        });
        let mut client = AccessLogServiceClient::new(channel.clone());
        let call = tokio::spawn(async move { client.stream_access_logs(messages).await });
        (sender, call)
    };
    let (old, old_call) = open("one");
    until("the first message is there", || told("one")).await;
    lab.see(&["a", "calls"]).await;
    let (new, new_call) = open("two");
    until("the second stream is there", || told("two")).await;
    old.send(message("three")).expect("it is open");
    until("the first stream goes on", || told("three")).await;
    drop((old, new));
    for call in [old_call, new_call] {
        call.await.expect("no panic").expect("a good end");
    }
    let envoy = &lab.pod;
    for (cluster, streams) in [
        (format!("trimtab-fallback|{port}"), 1),
        (
            format!("outbound|{port}||{}", host("calls").replace('.', "_")),
            1,
        ),
    ] {
        let of = |name: &str| format!("cluster.{cluster}.{name}");
        let total = envoy
            .stat(&of("upstream_rq_total"))
            .await
            .expect("a number");
        let http2 = envoy
            .stat(&of("upstream_cx_http2_total"))
            .await
            .expect("a number");
        assert_eq!((total, http2), (streams, 1), "{cluster}");
    }
}
