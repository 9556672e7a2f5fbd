//! No client, however it behaves, disturbs another.

use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use trimtab_xds::{ECDS, Limits, ResourceCache, ServerOptions, Stats};

use crate::client::{
    ADS, ADS_DELTA, Client, Delta, Sotw, ack, ask, ask_delta, changes, channel, listed, node,
    resource, strings,
};
use crate::common::{BOUND, Server, wait_until};

async fn limited(limits: Limits) -> Server {
    let options = ServerOptions {
        limits,
        ..ServerOptions::default()
    };
    ready(options).await
}

async fn ready(options: ServerOptions) -> Server {
    let cache = ResourceCache::new();
    cache.mark_ready();
    cache.update(ECDS, vec![resource("a", "1")], &[]);
    Server::start_as(cache, options).await
}

/// A client that behaves, and notices if it is disturbed.
struct Bystander {
    client: Sotw,
    version: u32,
}

impl Bystander {
    async fn new(server: &Server) -> Self {
        let mut client = Sotw::connect(server, ADS).await;
        client.send(ask(node("bystander", ""), ECDS, &["calm"]));
        wait_until("it is subscribed", || !server.cache.nodes().is_empty()).await;
        server.cache.update(ECDS, vec![resource("calm", "0")], &[]);
        let first = client.next().await;
        client.send(ack(&first, &["calm"]));
        Self { client, version: 0 }
    }

    async fn still_served(&mut self, server: &Server) {
        self.version += 1;
        let version = self.version.to_string();
        server
            .cache
            .update(ECDS, vec![resource("calm", &version)], &[]);
        let next = self.client.next().await;
        assert_eq!(next.version_info, version);
        self.client.send(ack(&next, &["calm"]));
    }
}

/// Sends bytes and waits for the server to hang up, or for nothing if it waits for more.
async fn throw(server: &Server, bytes: &[u8]) {
    let mut stream = TcpStream::connect(server.addr).await.expect("a connection");
    // The server may have hung up before all is written, and that is fine.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(BOUND, stream.read_to_end(&mut rest));
    let _ = read.await.expect("the server hangs up");
}

#[tokio::test]
async fn garbage_on_connections_disturbs_nobody() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let join = |parts: &[&[u8]]| parts.concat();
    let bad_headers = [0, 0, 4, 1, 4, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
    let huge_frame = [0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1];
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 100_000],
        preface.to_vec(),
        join(&[preface, &[0xff; 64]]),
        join(&[preface, &settings, &bad_headers]),
        join(&[preface, &settings, &huge_frame]),
    ] {
        throw(&server, &bytes).await;
        bystander.still_served(&server).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_connection_that_answers_no_ping_is_closed() {
    let server = ready(ServerOptions {
        keepalive_interval: Duration::from_millis(50),
        keepalive_timeout: Duration::from_millis(50),
        ..ServerOptions::default()
    })
    .await;
    let mut bystander = Bystander::new(&server).await;
    let mut stream = TcpStream::connect(server.addr).await.expect("a connection");
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(hello).await.expect("a greeting");
    let mut rest = Vec::new();
    let read = tokio::time::timeout(BOUND, stream.read_to_end(&mut rest));
    // A reset ends the connection as well.
    let _ = read.await.expect("the server hangs up");
    bystander.still_served(&server).await;
    server.stop().await;
}

/// Bytes that are sent as they are.
#[derive(Clone, PartialEq, prost::Message)]
struct Wrong {
    /// `DiscoveryRequest` has a message in this place.
    #[prost(uint64, tag = "2")]
    node: u64,
}

#[tokio::test]
async fn requests_that_are_no_messages_end_their_stream_only() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    // Over one connection, so that it is the stream that ends and not the connection.
    let channel = channel(&server).await;
    let mut good = Sotw::open(channel.clone(), ADS).await.expect("a stream");
    good.send(ask(node("good", ""), ECDS, &["none"]));
    let mut bad = Client::<Wrong, DiscoveryResponse>::open(channel.clone(), ADS)
        .await
        .expect("a stream");
    bad.send(Wrong { node: 7 });
    assert_eq!(bad.fail().await.code(), Code::Internal);
    let mut empty = Sotw::open(channel, ADS).await.expect("a stream");
    empty.send(ask(node("n", ""), "", &[]));
    assert_eq!(empty.fail().await.code(), Code::InvalidArgument);
    assert_eq!(Stats::read(&server.cache.stats().malformed), 2);
    bystander.still_served(&server).await;
    server.cache.update(ECDS, vec![resource("none", "1")], &[]);
    assert_eq!(listed(&good.next().await), ["none@1"]);
    server.stop().await;
}

#[tokio::test]
async fn a_request_above_the_limit_of_size_ends_its_stream() {
    let server = limited(Limits {
        message_bytes: 1000,
        ..Limits::default()
    })
    .await;
    let mut bystander = Bystander::new(&server).await;
    let mut client = Sotw::connect(&server, ADS).await;
    client.send(ask(node("n", ""), ECDS, &["a"]));
    assert_eq!(
        listed(&client.next().await),
        ["a@1"],
        "a small one is answered"
    );
    client.send(ask(node("n", ""), ECDS, &["x".repeat(1000).as_str()]));
    assert_eq!(client.fail().await.code(), Code::OutOfRange);
    assert_eq!(Stats::read(&server.cache.stats().limited_bytes), 1);
    bystander.still_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_stream_may_subscribe_to_so_many_names_over_all_requests() {
    let server = limited(Limits {
        names_per_stream: 3,
        ..Limits::default()
    })
    .await;
    let mut client = Delta::connect(&server, ADS_DELTA).await;
    client.send(ask_delta(node("n", ""), ECDS, &["a", "b"]));
    let first = client.next().await;
    assert_eq!(changes(&first), (strings(&["a@1"]), strings(&["b"])));
    client.send(ask_delta(node("n", ""), ECDS, &["a", "c"]));
    wait_until("three names are fine", || {
        server
            .cache
            .streams()
            .iter()
            .any(|s| s.subscribed.len() == 3)
    })
    .await;
    client.send(ask_delta(node("n", ""), ECDS, &["d"]));
    let status = client.fail().await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(
        status.message().contains("4 names, and 3 are allowed"),
        "{status}"
    );
    assert_eq!(Stats::read(&server.cache.stats().limited_names), 1);
    wait_until("nothing is left", || server.cache.streams().is_empty()).await;
    server.stop().await;
}

#[tokio::test]
async fn fault_t6_all_streams_together_have_so_many_names_and_who_has_few_is_served() {
    let server = limited(Limits {
        names: 300,
        ..Limits::default()
    })
    .await;
    let many: Vec<String> = (0..200).map(|i| format!("n{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).chain(["a"]).collect();
    let mut first = Delta::connect(&server, ADS_DELTA).await;
    first.send(ask_delta(node("first", ""), ECDS, &many));
    first.next().await;
    let mut second = Delta::connect(&server, ADS_DELTA).await;
    second.send(ask_delta(node("second", ""), ECDS, &many));
    let status = second.fail().await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("402 names"), "{status}");
    wait_until("only the first is left", || {
        server.cache.streams().len() == 1
    })
    .await;
    let mut few = Delta::connect(&server, ADS_DELTA).await;
    few.send(ask_delta(node("few", ""), ECDS, &many[150..]));
    few.next().await;
    drop((first, few));
    wait_until("all have left", || server.cache.streams().is_empty()).await;
    let mut third = Delta::connect(&server, ADS_DELTA).await;
    third.send(ask_delta(node("third", ""), ECDS, &many));
    third.next().await;
    server.stop().await;
}

#[tokio::test]
async fn an_identity_may_have_so_many_streams_and_a_closed_one_makes_room() {
    let server = limited(Limits {
        streams_per_identity: 2,
        ..Limits::default()
    })
    .await;
    let asked = |id: &'static str| {
        let server = &server;
        async move {
            let client = Sotw::connect(server, ADS).await;
            client.send(ask(node(id, ""), ECDS, &["a"]));
            client
        }
    };
    let (mut one, mut two) = (asked("n").await, asked("n").await);
    one.next().await;
    two.next().await;
    let status = asked("n").await.fail().await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("'n' has 2 streams"), "{status}");
    asked("other").await.next().await;
    drop(two);
    wait_until("the stream is forgotten", || {
        let streams = server.cache.streams();
        streams.iter().filter(|s| s.node == "n").count() == 1
    })
    .await;
    asked("n").await.next().await;
    assert_eq!(Stats::read(&server.cache.stats().limited_streams), 1);
    server.stop().await;
}

#[tokio::test]
async fn the_server_may_have_so_many_streams() {
    let server = limited(Limits {
        streams: 1,
        ..Limits::default()
    })
    .await;
    let one = Sotw::connect(&server, ADS).await;
    let refused = Sotw::open(channel(&server).await, ADS).await;
    assert_eq!(
        refused.err().expect("refused").code(),
        Code::ResourceExhausted
    );
    drop(one);
    wait_until("the stream is forgotten", || {
        Stats::read(&server.cache.stats().streams_active) == 0
    })
    .await;
    assert!(Sotw::open(channel(&server).await, ADS).await.is_ok());
    server.stop().await;
}

#[tokio::test]
async fn a_stream_without_a_request_ends() {
    let server = limited(Limits {
        first_request: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let mut quick = Sotw::connect(&server, ADS).await;
    quick.send(ask(node("n", ""), ECDS, &["a"]));
    let first = quick.next().await;
    let mut idle = Sotw::connect(&server, ADS).await;
    assert_eq!(idle.fail().await.code(), Code::DeadlineExceeded);
    quick.send(ack(&first, &["a"]));
    quick.silent().await;
    server.stop().await;
}

#[tokio::test]
async fn an_old_stream_ends_with_ok_and_the_client_goes_on_with_another() {
    let age = Duration::from_millis(200);
    let server = ready(ServerOptions {
        max_connection_age: Some(age),
        ..ServerOptions::default()
    })
    .await;
    let started = Instant::now();
    let mut client = Sotw::connect(&server, ADS).await;
    client.send(ask(node("n", ""), ECDS, &["a"]));
    client.next().await;
    client.end().await;
    assert!(started.elapsed() >= age, "after {:?}", started.elapsed());
    let mut again = Sotw::connect(&server, ADS).await;
    again.send(ask(node("n", ""), ECDS, &["a"]));
    assert_eq!(listed(&again.next().await), ["a@1"]);
    server.stop().await;
}

#[tokio::test]
async fn changes_are_gathered_for_as_long_as_the_options_say() {
    let debounce = Duration::from_millis(200);
    let server = ready(ServerOptions {
        debounce,
        ..ServerOptions::default()
    })
    .await;
    let mut client = Sotw::connect(&server, ADS).await;
    client.send(ask(node("n", ""), ECDS, &["a"]));
    let first = client.next().await;
    client.send(ack(&first, &["a"]));
    wait_until("the answer", || {
        Stats::read(&server.cache.stats().acks) == 1
    })
    .await;
    let started = Instant::now();
    for version in 2..=9 {
        let set = vec![resource("a", &version.to_string())];
        server.cache.update(ECDS, set, &[]);
        tokio::task::yield_now().await;
    }
    let next = client.next().await;
    assert_eq!(next.version_info, "9", "the newest, and nothing between");
    assert!(
        started.elapsed() >= debounce,
        "after {:?}",
        started.elapsed()
    );
    client.send(ack(&next, &["a"]));
    server.cache.update(ECDS, vec![resource("a", "10")], &[]);
    assert_eq!(
        client.next().await.version_info,
        "10",
        "later changes are told too"
    );
    server.stop().await;
}
