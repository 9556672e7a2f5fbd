//! Thrift on a real Envoy: calls of a real client move with the router, on the connection that they are made on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use envoy_types::pb::envoy::extensions::filters::network::thrift_proxy::v3 as thrift;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::protobuf::UInt32Value;
use prost::Message;
use serde_json::{Value, json};
use trimtab_kit::identity::XdsEndpoint;
use trimtab_metaprotocol::features::{Feature, Target};
use trimtab_metaprotocol::input::{Delivery, ServicePortInput};
use trimtab_xds::{Resource, TRDS, xdstp_name};

use crate::lab::{Fixture, Mesh, VIP, read};
use crate::peers::{Counts, Peer, client, counts, server};

const HOST: &str = "orders.shop.svc.cluster.local";
const PORT: u16 = 9090;

/// The service, with subsets v1 and v2, and these routes.
fn input(routes: Value) -> ServicePortInput {
    let mut out = json!({
        "host": HOST, "namespace": "shop", "service": "orders",
        "port": {"number": PORT, "name": "tcp-thrift"},
        "protocol": {"kind": "thrift"},
        "vips": [VIP],
        "workloadSelector": {"app": "orders"},
        "hosts": {HOST: {"ports": {"9090": "tcp-thrift"}, "subsets": {"v1": {}, "v2": {}}}},
        "router": {
            "owner": {"kind": "MetaRouter", "namespace": "shop", "name": "orders"},
        },
        "settings": {"dataPlanes": ["envoy"]},
    });
    out["router"]["routes"] = routes;
    read(out)
}

fn to(subset: &str) -> Value {
    json!([{"destination": {"host": HOST, "subset": subset}}])
}

fn split(v1: u32, v2: u32) -> Value {
    json!([
        {"destination": {"host": HOST, "subset": "v1"}, "weight": v1},
        {"destination": {"host": HOST, "subset": "v2"}, "weight": v2},
    ])
}

fn all_to(subset: &str) -> ServicePortInput {
    input(json!([{"route": to(subset)}]))
}

struct Lab {
    fixture: Fixture,
    at: SocketAddr,
    v1: Peer,
    v2: Peer,
}

async fn lab(name: &str, delivery: Delivery, first: &ServicePortInput) -> Lab {
    let (v1, at1) = server("thrift_server.py", "v1").await;
    let (v2, at2) = server("thrift_server.py", "v2").await;
    let mut mesh = Mesh::default();
    let own = format!("outbound|{PORT}||{HOST}");
    let at = mesh.outbound(PORT, &own);
    let framed = json!({"typed_extension_protocol_options": {"envoy.filters.network.thrift_proxy": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.thrift_proxy.v3.ThriftProtocolOptions",
        "transport": "FRAMED", "protocol": "BINARY",
    }}});
    mesh.cluster_with(&own, at1, framed.clone());
    for (subset, address) in [("v1", at1), ("v2", at2)] {
        mesh.cluster_with(
            &format!("outbound|{PORT}|{subset}|{HOST}"),
            address,
            framed.clone(),
        );
    }
    let fixture = Fixture::start(&format!("thrift-{name}"), &mesh, delivery, first).await;
    Lab {
        fixture,
        at,
        v1,
        v2,
    }
}

impl Lab {
    fn connect(&self, more: &[&str]) -> Peer {
        client("thrift_client.py", self.at, more)
    }

    async fn connections(&self) -> u64 {
        self.fixture.connections().await
    }
}

fn say(calls: u64) -> Value {
    json!({"method": "say", "calls": calls})
}

fn share(found: &Counts, name: &str) -> u64 {
    found.get(name).copied().unwrap_or(0)
}

#[tokio::test]
async fn a_changed_router_moves_calls_on_a_live_connection() {
    let mut lab = lab("live", Delivery::RouteDiscovery, &all_to("v1")).await;
    let mut caller = lab.connect(&[]);
    assert_eq!(caller.ask(say(5)).await, counts(&[("v1", 5)]));
    let before = lab.connections().await;

    lab.fixture.publish(&all_to("v2")).await;
    assert_eq!(caller.ask(say(5)).await, counts(&[("v2", 5)]));

    lab.fixture
        .publish(&input(json!([{"route": split(50, 50)}])))
        .await;
    let found = caller.ask(say(200)).await;
    assert_eq!(share(&found, "v1") + share(&found, "v2"), 200, "{found:?}");
    assert!((60..=140).contains(&share(&found, "v1")), "{found:?}");

    lab.fixture
        .publish(&input(json!([{"route": split(0, 7)}])))
        .await;
    assert_eq!(
        caller.ask(say(5)).await,
        counts(&[("v2", 5)]),
        "a weight of 0"
    );

    let by_method = json!([
        {"match": {"method": {"exact": "bye"}}, "route": to("v2")},
        {"route": to("v1")},
    ]);
    lab.fixture.publish(&input(by_method)).await;
    let bye = json!({"method": "bye", "calls": 3});
    assert_eq!(caller.ask(bye).await, counts(&[("v2", 3)]));
    assert_eq!(caller.ask(say(3)).await, counts(&[("v1", 3)]));

    assert_eq!(lab.connections().await, before, "all on one connection");
    let listeners = lab
        .fixture
        .counter(&["listener_manager.listener_modified"])
        .await;
    assert_eq!(listeners, 0, "the listener was never touched");
}

#[tokio::test]
async fn services_of_multiplexed_calls_and_headers_choose_the_route() {
    let routes = json!([
        {"match": {"service": {"exact": "Hello"}, "method": {"exact": "bye"}}, "route": to("v2")},
        {"match": {"service": {"exact": "Hello"}}, "route": to("v1")},
        {"match": {"x-tier": {"prefix": "go"}}, "route": to("v2")},
        {"match": {"x-old": "present"}, "route": to("v2")},
        {"route": to("v1")},
    ]);
    let lab = lab("matches", Delivery::RouteDiscovery, &input(routes)).await;
    let mut caller = lab.connect(&[]);
    let call =
        |method: &str, service: &str| json!({"method": method, "calls": 2, "service": service});
    assert_eq!(caller.ask(call("bye", "Hello")).await, counts(&[("v2", 2)]));
    assert_eq!(caller.ask(call("say", "Hello")).await, counts(&[("v1", 2)]));
    assert_eq!(caller.ask(call("bye", "Other")).await, counts(&[("v1", 2)]));

    let mut caller = lab.connect(&["header"]);
    let call = |headers: Value| json!({"method": "say", "calls": 2, "headers": headers});
    assert_eq!(
        caller.ask(call(json!({"x-tier": "gold"}))).await,
        counts(&[("v2", 2)])
    );
    assert_eq!(
        caller.ask(call(json!({"x-tier": "silver"}))).await,
        counts(&[("v1", 2)])
    );
    assert_eq!(
        caller.ask(call(json!({"x-old": "1"}))).await,
        counts(&[("v2", 2)])
    );
    assert_eq!(caller.ask(call(json!({}))).await, counts(&[("v1", 2)]));
}

#[tokio::test]
async fn a_mirror_gets_copies() {
    let route = json!([{
        "route": to("v1"),
        "mirror": {"destination": {"host": HOST, "subset": "v2"}, "percent": 100.0},
    }]);
    let mut lab = lab("mirror", Delivery::RouteDiscovery, &input(route)).await;
    let mut caller = lab.connect(&[]);
    assert_eq!(caller.ask(say(20)).await, counts(&[("v1", 20)]));
    let mut copies = 0;
    for _ in 0..200 {
        copies = lab.v2.calls().await;
        if copies == 20 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!((lab.v1.calls().await, copies), (20, 20));
}

#[tokio::test]
async fn bad_routes_are_refused_and_the_old_ones_stay() {
    let good = all_to("v2");
    let mut lab = lab("bad", Delivery::RouteDiscovery, &good).await;
    let mut caller = lab.connect(&[]);
    assert_eq!(caller.ask(say(2)).await, counts(&[("v2", 2)]));

    // By Trimtab: a pattern that the filter cannot compare.
    let mut asked = input(json!([{"match": {"method": {"prefix": "s"}}, "route": to("v1")}]));
    asked.last_good = good.router.clone().map(Box::new);
    let made = lab.fixture.translated(&asked);
    let [refusal] = made.refusals.as_slice() else {
        panic!("{:?}", made.refusals)
    };
    assert_eq!(refusal.feature, Some(Feature::MatchMethodPattern));
    assert_eq!(refusal.target, Some(Target::ThriftProxy));
    assert_eq!(made.resources, lab.fixture.translated(&good).resources);

    // By Envoy: what Trimtab would never send.
    let name = xdstp_name("trimtab", TRDS, &format!("outbound/{HOST}_{PORT}"));
    assert_eq!(made.resources[0].name, name);
    let mut message =
        thrift::RouteConfiguration::decode(made.resources[0].body.as_slice()).expect("routes");
    let action = message.routes[0].route.as_mut().expect("an action");
    action.cluster_specifier = Some(thrift::route_action::ClusterSpecifier::WeightedClusters(
        thrift::WeightedCluster {
            clusters: vec![thrift::weighted_cluster::ClusterWeight {
                name: "nowhere".to_owned(),
                weight: Some(UInt32Value { value: 0 }),
                ..Default::default()
            }],
        },
    ));
    let bad = Resource {
        name,
        version: "bad".to_owned(),
        body: message.encode_to_vec().into(),
        origin: "shop/orders".to_owned(),
    };
    let reason = lab.fixture.refused(TRDS, bad).await;
    assert!(reason.contains("Weight"), "{reason}");
    assert_eq!(caller.ask(say(3)).await, counts(&[("v2", 3)]));

    lab.fixture.publish(&all_to("v1")).await;
    assert_eq!(
        caller.ask(say(3)).await,
        counts(&[("v1", 3)]),
        "a good one after it"
    );
    assert_eq!(lab.connections().await, 1);
}

#[tokio::test]
async fn with_ecds_new_connections_follow() {
    let mut lab = lab("ecds", Delivery::Ecds, &all_to("v1")).await;
    let mut old = lab.connect(&[]);
    assert_eq!(old.ask(say(3)).await, counts(&[("v1", 3)]));
    lab.fixture.publish(&all_to("v2")).await;
    assert_eq!(
        old.ask(say(3)).await,
        counts(&[("v1", 3)]),
        "a connection keeps its filter"
    );
    let mut new = lab.connect(&[]);
    assert_eq!(new.ask(say(3)).await, counts(&[("v2", 3)]));
    let drained = lab
        .fixture
        .counter(&["listener_manager.total_listeners_draining"])
        .await;
    assert_eq!(drained, 0);
}

#[tokio::test]
async fn inline_routes_need_no_server() {
    let lab = lab("inline", Delivery::Inline, &all_to("v2")).await;
    let mut caller = lab.connect(&[]);
    assert_eq!(caller.ask(say(3)).await, counts(&[("v2", 3)]));
    let streams = lab.fixture.cache.streams();
    assert!(streams.is_empty(), "{streams:?}");
}

#[tokio::test]
async fn a_proxy_that_starts_while_the_server_is_away_calls_the_service_itself() {
    let nobody = trimtab_lab::ports::free_address().expect("a port");
    let mut asked = all_to("v2");
    let mut settings = asked.settings.as_ref().clone();
    settings.xds = XdsEndpoint::plain(nobody.to_string());
    asked.settings = settings.into();
    let made = trimtab_metaprotocol::translate::translate(&asked);
    assert_eq!(made.programs[0].delivery, Delivery::Ecds);
    let (_server, at1) = server("thrift_server.py", "v1").await;
    let mut mesh = Mesh::default();
    let own = format!("outbound|{PORT}||{HOST}");
    let at = mesh.outbound(PORT, &own);
    mesh.cluster(&own, at1);
    let config = mesh.bootstrap(&crate::lab::filters(&made), None);
    let folder = crate::lab::folder("thrift-away");
    let _envoy = trimtab_lab::envoy::Envoy::start(&config, &folder)
        .await
        .expect("Envoy");
    let mut caller = client("thrift_client.py", at, &[]);
    assert_eq!(caller.ask(say(2)).await, counts(&[("v1", 2)]));
}

/// Lets so many calls pass, and keeps what it was asked.
struct Limiter {
    left: Mutex<u32>,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

#[tonic::async_trait]
impl RateLimitService for Limiter {
    async fn should_rate_limit(
        &self,
        request: tonic::Request<RateLimitRequest>,
    ) -> Result<tonic::Response<RateLimitResponse>, tonic::Status> {
        let request = request.into_inner();
        let entries = request.descriptors.into_iter().flat_map(|d| d.entries);
        self.asked
            .lock()
            .expect("no panic")
            .extend(entries.map(|e| (e.key, e.value)));
        let mut left = self.left.lock().expect("no panic");
        let code = if *left == 0 {
            Code::OverLimit
        } else {
            Code::Ok
        };
        *left = left.saturating_sub(1);
        Ok(tonic::Response::new(RateLimitResponse {
            overall_code: code.into(),
            ..RateLimitResponse::default()
        }))
    }
}

/// The limit counts the calls that it matches, and asks with the values of the call.
#[tokio::test]
async fn a_global_limit_refuses_calls_at_the_services_own_side() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let limiter = Limiter {
        left: Mutex::new(2),
        asked: Arc::clone(&asked),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let limits = listener.local_addr().expect("its address");
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(RateLimitServiceServer::new(limiter))
            .serve_with_incoming(tokio_stream(listener)),
    );
    let cluster = "outbound|8081||limits.shop.svc.cluster.local";
    let mut asking = serde_json::to_value(all_to("v1")).expect("JSON");
    asking["router"]["globalRateLimit"] = json!({
        "domain": "shop", "cluster": cluster, "denyOnFail": true, "timeout": "5s",
        "match": {"method": {"exact": "say"}},
        "descriptors": [{"property": "method", "descriptorKey": "verb"}],
    });
    let made = trimtab_metaprotocol::translate::translate(&read(asking));
    assert_eq!(made.refusals, Vec::new());
    let (_server, pod) = server("thrift_server.py", "v1").await;
    let mut mesh = Mesh::default();
    let at = mesh.inbound(PORT);
    mesh.cluster(&format!("inbound|{PORT}||"), pod);
    let http2 = json!({"typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        },
    }});
    mesh.cluster_with(cluster, limits, http2);
    let config = mesh.bootstrap(&crate::lab::filters(&made), None);
    let folder = crate::lab::folder("thrift-limit");
    let _envoy = trimtab_lab::envoy::Envoy::start(&config, &folder)
        .await
        .expect("Envoy");

    let mut caller = client("thrift_client.py", at, &[]);
    let bye = json!({"method": "bye", "calls": 5});
    assert_eq!(
        caller.ask(bye).await,
        counts(&[("v1", 5)]),
        "other methods are not counted"
    );
    let first = caller.ask(say(2)).await;
    assert_eq!(first, counts(&[("v1", 2)]));
    assert_eq!(
        caller.ask(say(1)).await,
        counts(&[("error: over limit", 1)])
    );
    let verb = ("verb".to_owned(), "say".to_owned());
    assert_eq!(
        *asked.lock().expect("no panic"),
        vec![verb.clone(), verb.clone(), verb]
    );
}

fn tokio_stream(
    listener: tokio::net::TcpListener,
) -> impl futures::Stream<Item = std::io::Result<tokio::net::TcpStream>> {
    futures::stream::unfold(listener, |listener| async move {
        let next = listener.accept().await.map(|(stream, _)| stream);
        Some((next, listener))
    })
}
