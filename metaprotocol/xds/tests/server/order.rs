//! What is sent with, before and in spite of what on one stream, and what streams have to do with each other.

use trimtab_xds::{CDS, Culprit, Delivery, ECDS, EDS, LDS, RDS, ResourceCache, TRDS, Update};

use crate::client::{
    ADS, ADS_DELTA, Delta, Sotw, ack, ack_delta, ask, ask_delta, changes, nack, naming, node,
    resource, strings,
};
use crate::common::{BOUND, Server};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use tokio::sync::broadcast::Receiver;
use tonic::Code;

const PAIRS: [(&str, &str); 6] = [
    (CDS, EDS),
    (LDS, RDS),
    (LDS, TRDS),
    (LDS, ECDS),
    (CDS, ECDS),
    (ECDS, TRDS),
];

fn put(cache: &ResourceCache, parent: &str, version: &str) {
    cache.update(parent, vec![naming("parent", version, "child")], &[]);
}

#[tokio::test]
async fn fault_m1_what_a_changed_resource_refers_to_follows_it_over_delta() {
    for (parent, child) in PAIRS {
        let server = Server::start().await;
        put(&server.cache, parent, "1");
        let both = vec![resource("child", "1"), resource("other", "1")];
        server.cache.update(child, both, &[]);
        let mut client = Delta::connect(&server, ADS_DELTA).await;
        client.send(ask_delta(node("n", ""), parent, &["*"]));
        let first = client.next().await;
        client.send(ack_delta(&first));
        client.send(ask_delta(node("n", ""), child, &["child", "other"]));
        let first = client.next().await;
        client.send(ack_delta(&first));
        client.silent().await;
        put(&server.cache, parent, "2");
        let changed = client.next().await;
        assert_eq!(changes(&changed).0, ["parent@2"]);
        // It is not acknowledged: the client waits for what it refers to.
        let follows = client.next().await;
        assert_eq!(follows.type_url, child, "after {parent}");
        assert_eq!(changes(&follows), (strings(&["child@1"]), vec![]));
        client.send(ack_delta(&follows));
        client.send(ack_delta(&changed));
        client.silent().await;
        server.stop().await;
    }
}

#[tokio::test]
async fn fault_m1_what_a_changed_resource_refers_to_follows_it_over_sotw() {
    for (parent, child) in PAIRS {
        let server = Server::start().await;
        put(&server.cache, parent, "1");
        server
            .cache
            .update(child, vec![resource("child", "1")], &[]);
        let mut client = Sotw::connect(&server, ADS).await;
        client.send(ask(node("n", ""), parent, &["*"]));
        let first = client.next().await;
        client.send(ack(&first, &["*"]));
        client.send(ask(node("n", ""), child, &["child"]));
        let first = client.next().await;
        client.send(ack(&first, &["child"]));
        client.silent().await;
        put(&server.cache, parent, "2");
        assert_eq!(client.next().await.type_url, parent);
        let follows = client.next().await;
        assert_eq!(follows.type_url, child, "after {parent}");
        assert_eq!(follows.resources.len(), 1);
        client.send(ack(&follows, &["child"]));
        client.silent().await;
        server.stop().await;
    }
}

#[tokio::test]
async fn fault_m7_an_unanswered_cluster_holds_back_only_what_names_it() {
    for dependent in [LDS, RDS, TRDS, ECDS] {
        let server = Server::start().await;
        for url in [CDS, dependent] {
            server.cache.serve_type(url);
        }
        let mut client = Delta::connect(&server, ADS_DELTA).await;
        for url in [CDS, dependent] {
            client.send(ask_delta(node("n", ""), url, &["*"]));
            let empty = client.next().await;
            client.send(ack_delta(&empty));
        }
        server.cache.update(CDS, vec![resource("slow", "1")], &[]);
        let unanswered = client.next().await;
        let of = |name: &str, cluster: &str| naming(name, "1", cluster);
        let both = vec![of("bound", "slow"), of("free", "quick")];
        server.cache.update(dependent, both, &[]);
        let free = client.next().await;
        assert_eq!(
            (free.type_url.as_str(), changes(&free).0),
            (dependent, strings(&["free@1"]))
        );
        client.send(ack_delta(&free));
        client.silent().await;
        client.send(ack_delta(&unanswered));
        let bound = client.next().await;
        assert_eq!(changes(&bound).0, ["bound@1"], "{dependent}");
        server.stop().await;
    }
}

#[tokio::test]
async fn fault_m7_a_new_cluster_and_its_listener_come_though_another_is_unanswered() {
    let server = Server::start().await;
    for url in [CDS, LDS] {
        server.cache.serve_type(url);
    }
    let mut client = Sotw::connect(&server, ADS).await;
    for url in [CDS, LDS] {
        client.send(ask(node("n", ""), url, &[]));
        let empty = client.next().await;
        client.send(ack(&empty, &[]));
    }
    server.cache.update(CDS, vec![resource("slow", "1")], &[]);
    client.next().await;
    let update = |url: &str, set| Update {
        type_url: url.to_owned(),
        set,
        remove: Vec::new(),
    };
    server.cache.update_all(vec![
        update(CDS, vec![resource("new", "1").into()]),
        update(LDS, vec![naming("l", "1", "new").into()]),
    ]);
    let clusters = client.next().await;
    assert_eq!(
        (clusters.type_url.as_str(), clusters.resources.len()),
        (CDS, 2)
    );
    let listeners = client.next().await;
    assert_eq!(
        (listeners.type_url.as_str(), listeners.resources.len()),
        (LDS, 1)
    );
    server.stop().await;
}

/// What was reported of streams, until there are so many.
async fn said(deliveries: &mut Receiver<Delivery>, many: usize) -> Vec<(u64, String)> {
    let mut said = Vec::new();
    while said.len() < many {
        let delivery = tokio::time::timeout(BOUND, deliveries.recv());
        match delivery.await.expect("in time").expect("a report") {
            Delivery::Acked {
                stream, version, ..
            } => said.push((stream, version)),
            Delivery::Nacked {
                stream,
                version,
                culprit,
                ..
            } => {
                assert_eq!(culprit, Culprit::Known);
                said.push((stream, format!("not {version}")));
            }
            Delivery::Closed { stream, .. } => said.push((stream, "closed".to_owned())),
            Delivery::Left { .. } => {}
        }
    }
    said
}

#[tokio::test]
async fn fault_m5_what_one_stream_refuses_another_of_the_same_node_still_gets() {
    for url in [EDS, RDS, ECDS] {
        let server = Server::start().await;
        let mut deliveries = server.cache.deliveries();
        server
            .cache
            .update(url, vec![resource("a", "1"), resource("b", "1")], &[]);
        let mut streams = Vec::new();
        for _ in 0..2 {
            let mut client = Sotw::connect(&server, ADS).await;
            client.send(ask(node("same", ""), url, &["a"]));
            let first = client.next().await;
            client.send(ack(&first, &["a"]));
            streams.push((client, first));
        }
        let ((mut two, first), (mut one, _)) =
            (streams.pop().expect("two"), streams.pop().expect("one"));
        two.send(ack(&first, &["a", "b"]));
        let busy = two.next().await;
        server.cache.update(url, vec![resource("a", "2")], &[]);
        let refused = one.next().await;
        one.send(nack(&refused, &["a"], "no room"));
        two.send(ack(&busy, &["a", "b"]));
        let taken = two.next().await;
        assert_eq!(taken.version_info, "2", "{url}");
        two.send(ack(&taken, &["a", "b"]));
        drop(one);
        let mut third = Sotw::connect(&server, ADS).await;
        third.send(ask(node("same", ""), url, &["a"]));
        let current = third.next().await;
        assert_eq!(
            current.version_info, "2",
            "a restarted proxy gets what counts"
        );
        third.send(ack(&current, &["a"]));
        let mut said = said(&mut deliveries, 7).await;
        said.sort();
        let one = [(1, "1"), (1, "closed"), (1, "not 2")];
        let others = [(2, "1"), (2, "1"), (2, "2"), (3, "2")];
        let expected = [&one[..], &others[..]].concat();
        let expected: Vec<(u64, String)> = expected
            .into_iter()
            .map(|(stream, word)| (stream, word.to_owned()))
            .collect();
        assert_eq!(said, expected, "{url}");
        server.stop().await;
    }
}

#[tokio::test]
async fn fault_m8_a_node_may_come_with_the_second_request() {
    use trimtab_xds::{Audience, Scope, Scoped};
    let server = Server::start().await;
    let own = Scoped {
        resource: resource("own", "1"),
        scope: Scope::only([Audience::Node("late".to_owned())]),
    };
    server
        .cache
        .update_scoped(RDS, vec![own, resource("all", "1").into()], &[]);
    let mut client = Delta::connect(&server, ADS_DELTA).await;
    client.send(DeltaDiscoveryRequest {
        node: None,
        ..ask_delta(node("", ""), RDS, &["*"])
    });
    let first = client.next().await;
    assert_eq!(changes(&first).0, ["all@1"]);
    client.send(DeltaDiscoveryRequest {
        node: Some(node("late", "")),
        ..ack_delta(&first)
    });
    let second = client.next().await;
    assert!(changes(&second).0.contains(&"own@1".to_owned()));
    client.send(ack_delta(&second));
    let nodes = server.cache.nodes();
    assert_eq!(nodes.len(), 1);
    assert_eq!(nodes[0].id, "late");
    client.send(ask_delta(node("other", ""), RDS, &["x"]));
    assert_eq!(client.fail().await.code(), Code::InvalidArgument);
    server.stop().await;
}

fn with_metadata(key: &str, bytes: usize) -> DiscoveryRequest {
    let mut node = node("n", "");
    let text = Value {
        kind: Some(Kind::StringValue("x".repeat(bytes))),
    };
    node.metadata = Some(Struct {
        fields: [(key.to_owned(), text)].into(),
    });
    ask(node, ECDS, &["a"])
}

#[tokio::test]
async fn fault_t6_long_texts_are_refused_and_what_istio_sends_is_not() {
    let server = Server::start().await;
    server.cache.update(ECDS, vec![resource("a", "1")], &[]);
    let long = "x".repeat(5000);
    let asks = |name: &str| ask(node("n", ""), ECDS, &[name]);
    for bad in [
        ask(node(&long, ""), ECDS, &["a"]),
        ask(node("n", &long), ECDS, &["a"]),
        with_metadata("NAMESPACE", 5000),
        with_metadata("LABELS", 300_000),
        asks(&long),
        ask(node("n", ""), &long, &["a"]),
    ] {
        let mut client = Sotw::connect(&server, ADS).await;
        client.send(bad);
        let status = client.fail().await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().len() < 300, "it does not repeat the text");
    }
    for good in [with_metadata("LABELS", 100_000), asks("a")] {
        let mut client = Sotw::connect(&server, ADS).await;
        client.send(good);
        assert_eq!(client.next().await.version_info, "1");
    }
    let mut client = Delta::connect(&server, ADS_DELTA).await;
    client.send(DeltaDiscoveryRequest {
        initial_resource_versions: [("a".to_owned(), long.clone())].into(),
        ..ask_delta(node("n", ""), ECDS, &["*"])
    });
    assert_eq!(client.fail().await.code(), Code::InvalidArgument);
    let mut client = Delta::connect(&server, ADS_DELTA).await;
    let many: Vec<String> = (0..1000).map(|i| format!("{i}{}", &long[..3000])).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    client.send(ask_delta(node("n", ""), ECDS, &many));
    assert_eq!(client.fail().await.code(), Code::ResourceExhausted);
    server.stop().await;
}

#[tokio::test]
async fn fault_t13_one_connection_too_many_is_closed_and_those_that_are_there_are_served() {
    use tokio::io::AsyncReadExt;
    use trimtab_xds::{Limits, ServerOptions};
    let cache = ResourceCache::new();
    cache.mark_ready();
    cache.update(ECDS, vec![resource("a", "1")], &[]);
    let limits = Limits {
        connections: 3,
        ..Limits::default()
    };
    let options = ServerOptions {
        limits,
        ..ServerOptions::default()
    };
    let server = Server::start_as(cache, options).await;
    let mut client = Sotw::connect(&server, ADS).await;
    client.send(ask(node("n", ""), ECDS, &["a"]));
    let first = client.next().await;
    let open = || tokio::net::TcpStream::connect(server.addr);
    let mut idle = Vec::new();
    for _ in 0..2 {
        idle.push(open().await.expect("a connection"));
    }
    let mut closed = open().await.expect("the system takes it");
    let read = tokio::time::timeout(BOUND, closed.read_u8());
    read.await.expect("closed at once").expect_err("the end");
    client.send(ack(&first, &["a"]));
    server.cache.update(ECDS, vec![resource("a", "2")], &[]);
    assert_eq!(client.next().await.version_info, "2");
    let refused = &server.cache.stats().connections.limited;
    assert_eq!(trimtab_xds::Stats::read(refused), 1);
    drop(idle);
    server.stop().await;
}
