//! Real gRPC clients against the server over loopback.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

#[path = "common/clients.rs"]
mod clients;
mod common;

use std::time::{Duration, Instant};

use clients::{DeltaClient, SotwClient, delta_ack, delta_nack, names, resource};
use common::{BOUND, Server, wait_until};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::envoy::service::extension::v3::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Code;
use trimtab_xds::{Culprit, Delivery, ECDS, ResourceCache, Stats};

#[tokio::test]
async fn a_sotw_client_follows_changes_of_what_it_asked_for() {
    let server = Server::start().await;
    server.set("a", "1");
    server.set("b", "1");
    let mut client = SotwClient::connect(&server, "n1").await;
    client.ask(&["a"], "");
    let first = client.next().await;
    assert_eq!(first.version_info, "1");
    assert_eq!(first.resources[0].type_url, ECDS);
    assert_eq!(first.resources[0].value, b"a@1");
    client.ask(&["a"], &first.nonce);
    wait_until("the answer arrived", || {
        Stats::read(&server.cache.stats().acks) == 1
    })
    .await;

    server.set("b", "2");
    let started = Instant::now();
    server.set("a", "2");
    let second = client.next().await;
    assert_eq!(second.version_info, "2", "the change of b concerns nobody");
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "took {:?}",
        started.elapsed()
    );
    assert_eq!(Stats::read(&server.cache.stats().pushes), 2);
    server.stop().await;
}

#[tokio::test]
async fn a_delta_client_that_comes_back_with_the_same_versions_gets_nothing() {
    let server = Server::start().await;
    server.set("a", "1");
    let mut client = DeltaClient::connect(&server, "n1").await;
    client.send(DeltaDiscoveryRequest {
        resource_names_subscribe: names(&["a"]),
        ..client.hello()
    });
    let first = client.next().await;
    assert_eq!(
        (
            first.resources[0].name.as_str(),
            first.resources[0].version.as_str()
        ),
        ("a", "1")
    );
    client.send(delta_ack(&first.nonce));
    drop(client);
    wait_until("the stream is forgotten", || {
        server.cache.streams().is_empty()
    })
    .await;

    let mut client = DeltaClient::connect(&server, "n1").await;
    client.send(DeltaDiscoveryRequest {
        resource_names_subscribe: names(&["a"]),
        initial_resource_versions: [("a".to_owned(), "1".to_owned())].into(),
        ..client.hello()
    });
    wait_until("the subscription is known", || {
        server
            .cache
            .streams()
            .first()
            .is_some_and(|stream| stream.subscribed == ["a"])
    })
    .await;
    server.set("a", "2");
    let next = client.next().await;
    assert_eq!(
        next.resources[0].version, "2",
        "the first message on the new stream is the change"
    );
    assert_eq!(server.cache.type_stats()[0].resources, 2);
    server.stop().await;
}

#[tokio::test]
async fn a_slow_reader_does_not_delay_others_and_finds_the_newest_value() {
    let server = Server::start().await;
    let big = |version: &str| resource("big", version, 700_000);
    server.cache.update(ECDS, vec![big("0")], &[]);
    // Never reads: two messages of this size do not fit into its flow control window.
    let mut slow = DeltaClient::connect(&server, "slow").await;
    slow.send(DeltaDiscoveryRequest {
        resource_names_subscribe: names(&["big"]),
        ..slow.hello()
    });
    let mut fast = DeltaClient::connect(&server, "fast").await;
    fast.send(DeltaDiscoveryRequest {
        resource_names_subscribe: names(&["big"]),
        ..fast.hello()
    });
    let first = fast.next().await;
    fast.send(delta_ack(&first.nonce));
    for version in 1..=20 {
        let version = version.to_string();
        server.cache.update(ECDS, vec![big(&version)], &[]);
        let push = tokio::time::timeout(BOUND, fast.next())
            .await
            .expect("the fast client is not held up");
        assert_eq!(push.resources[0].version, version);
        fast.send(delta_ack(&push.nonce));
    }
    // Reading requests goes on while the slow client reads nothing.
    slow.send(DeltaDiscoveryRequest {
        resource_names_subscribe: names(&["more"]),
        ..DeltaDiscoveryRequest::default()
    });
    wait_until("the request of the slow client is read", || {
        let streams = server.cache.streams();
        streams
            .iter()
            .any(|stream| stream.node == "slow" && stream.subscribed == ["big", "more"])
    })
    .await;
    let stale = slow.next().await;
    slow.send(delta_ack(&stale.nonce));
    let newest = slow.next().await;
    assert_eq!(
        newest.resources[0].version, "20",
        "nothing between the first and the newest"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_refusal_is_reported_once_a_stream_with_its_origin() {
    let server = Server::start().await;
    let mut deliveries = server.cache.deliveries();
    server.set("a", "bad");
    for _ in 0..2 {
        let mut client = DeltaClient::connect(&server, "n1").await;
        client.send(DeltaDiscoveryRequest {
            resource_names_subscribe: names(&["a"]),
            ..client.hello()
        });
        let push = client.next().await;
        client.send(delta_nack(&push.nonce, "fill interval too short"));
        wait_until("the refusal is seen", || {
            server
                .cache
                .streams()
                .iter()
                .any(|stream| stream.last_nack.is_some())
        })
        .await;
        drop(client);
        wait_until("the stream is forgotten", || {
            server.cache.streams().is_empty()
        })
        .await;
    }
    assert_eq!(Stats::read(&server.cache.stats().nacks), 2);
    for stream in [1, 2] {
        let expected = Delivery::Nacked {
            stream,
            node: "n1".into(),
            type_url: ECDS.into(),
            name: Some("a".into()),
            version: "bad".into(),
            message: "fill interval too short".into(),
            origin: "default/a".into(),
            culprit: Culprit::Known,
        };
        assert_eq!(deliveries.try_recv().expect("one report"), expected);
        let closed = Delivery::Closed {
            stream,
            node: "n1".into(),
        };
        assert_eq!(deliveries.try_recv().expect("the end"), closed);
    }
    assert!(deliveries.try_recv().is_err(), "and no other one");
    assert_eq!(
        Stats::read(&server.cache.stats().pushes),
        2,
        "no answer to a refusal"
    );
    server.stop().await;
}

#[tokio::test]
async fn an_accepted_content_is_reported_with_its_latency() {
    let server = Server::start().await;
    let mut deliveries = server.cache.deliveries();
    server.set("a", "1");
    let mut client = SotwClient::connect(&server, "n1").await;
    client.ask(&["a"], "");
    let push = client.next().await;
    client.ask(&["a"], &push.nonce);
    let delivery = tokio::time::timeout(BOUND, deliveries.recv())
        .await
        .expect("in time")
        .expect("a report");
    let Delivery::Acked {
        node,
        name,
        version,
        latency,
        ..
    } = delivery
    else {
        panic!("{delivery:?}")
    };
    assert_eq!(
        (node.as_str(), name.as_str(), version.as_str()),
        ("n1", "a", "1")
    );
    assert!(latency < BOUND);
    let stream = server.cache.streams().remove(0);
    assert_eq!(
        (stream.last_sent.as_deref(), stream.last_acked.as_deref()),
        (Some("1"), Some("1"))
    );
    assert_eq!(stream.pending_since, None);
    server.stop().await;
}

#[tokio::test]
async fn streams_are_refused_until_the_cache_is_ready() {
    let server = Server::start_with(ResourceCache::new()).await;
    let mut client = ExtensionConfigDiscoveryServiceClient::new(server.channel().await);
    let (_sender, receiver) = tokio::sync::mpsc::unbounded_channel::<DiscoveryRequest>();
    let status = client
        .stream_extension_configs(UnboundedReceiverStream::new(receiver))
        .await
        .expect_err("refused");
    assert_eq!(status.code(), Code::Unavailable);
    server.cache.mark_ready();
    let mut client = SotwClient::connect(&server, "n1").await;
    server.set("a", "1");
    client.ask(&["a"], "");
    assert_eq!(client.next().await.version_info, "1");
    server.stop().await;
}

#[tokio::test]
async fn polling_is_unimplemented_and_wrong_types_are_refused() {
    let server = Server::start().await;
    let mut client = ExtensionConfigDiscoveryServiceClient::new(server.channel().await);
    let status = client
        .fetch_extension_configs(DiscoveryRequest::default())
        .await
        .expect_err("refused");
    assert_eq!(status.code(), Code::Unimplemented);
    let mut client = SotwClient::connect(&server, "n1").await;
    client.send(DiscoveryRequest {
        type_url: "type.googleapis.com/other".into(),
        ..DiscoveryRequest::default()
    });
    assert_eq!(client.fail().await.code(), Code::InvalidArgument);
    server.stop().await;
}

#[tokio::test]
async fn on_the_aggregated_service_types_are_told_apart() {
    let server = Server::start().await;
    let other = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    server.set("a", "1");
    server
        .cache
        .update(other, vec![resource("a", "route", 1)], &[]);
    let mut client = AggregatedDiscoveryServiceClient::new(server.channel().await);
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let ask = |type_url: &str, node: &str| DiscoveryRequest {
        type_url: type_url.into(),
        resource_names: names(&["a"]),
        node: Some(Node {
            id: node.into(),
            ..Node::default()
        }),
        ..DiscoveryRequest::default()
    };
    // The unknown type is first: it must not end or block the stream.
    sender
        .send(ask("type.googleapis.com/unknown", "n1"))
        .expect("open");
    sender.send(ask(other, "")).expect("open");
    let mut stream = client
        .stream_aggregated_resources(UnboundedReceiverStream::new(receiver))
        .await
        .expect("a stream")
        .into_inner();
    let next = stream.message().await.expect("ok").expect("a message");
    assert_eq!(
        (next.type_url.as_str(), next.version_info.as_str()),
        (other, "route")
    );
    // The answer for one type is still open, the other type goes on.
    sender.send(ask(ECDS, "n1")).expect("open");
    let next = stream.message().await.expect("ok").expect("a message");
    assert_eq!(
        (next.type_url.as_str(), next.version_info.as_str()),
        (ECDS, "1")
    );
    assert_eq!(Stats::read(&server.cache.stats().unknown_types), 1);
    assert!(
        server
            .cache
            .streams()
            .iter()
            .all(|stream| stream.node == "n1")
    );
    sender.send(ask(ECDS, "n2")).expect("open");
    let status = stream
        .message()
        .await
        .expect_err("another node on the same stream");
    assert_eq!(status.code(), Code::InvalidArgument);
    server.stop().await;
}

#[tokio::test]
async fn an_empty_type_on_the_aggregated_service_is_an_invalid_argument() {
    let server = Server::start().await;
    let mut client = AggregatedDiscoveryServiceClient::new(server.channel().await);
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    sender.send(DeltaDiscoveryRequest::default()).expect("open");
    let mut stream = client
        .delta_aggregated_resources(UnboundedReceiverStream::new(receiver))
        .await
        .expect("a stream")
        .into_inner();
    let status = stream.message().await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("type_url"), "{status}");
    server.stop().await;
}

#[tokio::test]
async fn a_shutdown_ends_streams_with_ok() {
    let server = Server::start().await;
    server.set("a", "1");
    let mut client = SotwClient::connect(&server, "n1").await;
    client.ask(&["a"], "");
    client.next().await;
    let cache = server.cache.clone();
    let stopped = tokio::spawn(server.stop());
    assert!(
        client
            .stream
            .message()
            .await
            .expect("OK, not an error")
            .is_none()
    );
    drop(client);
    tokio::time::timeout(BOUND, stopped)
        .await
        .expect("in time")
        .expect("no panic");
    assert!(cache.streams().is_empty());
    assert_eq!(Stats::read(&cache.stats().streams_active), 0);
}

#[tokio::test]
async fn one_change_wakes_only_its_subscribers_among_many() {
    let server = Server::start().await;
    let channel = server.channel().await;
    let mut clients = Vec::new();
    for index in 0..200 {
        let name = format!("r{index}");
        server.set(&name, "1");
        let mut client = DeltaClient::over(channel.clone(), &format!("n{index}")).await;
        client.send(DeltaDiscoveryRequest {
            resource_names_subscribe: vec![name],
            ..client.hello()
        });
        let push = client.next().await;
        client.send(delta_ack(&push.nonce));
        clients.push(client);
    }
    let stats = server.cache.stats();
    wait_until("all answered", || Stats::read(&stats.acks) == 200).await;
    server.set("r7", "2");
    assert_eq!(clients[7].next().await.resources[0].version, "2");
    assert_eq!(Stats::read(&stats.pushes), 201);
    server.stop().await;
}
