//! The whole way: objects of the operator's API to proxies.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab::standalone;
use trimtab_dataplane::module::Proxies;
use trimtab_dataplane::{FALLBACK_GROUP, FallbackInput, bootstrap};
use trimtab_embedded::Embedded;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{KeepAlive, Request};
use trimtab_lab::ports::free_port;
use trimtab_xds::{CDS, LDS};

use super::host;
use crate::http::pod;
use crate::lab::{folder, options, until};

const POD: [u8; 4] = [127, 79, 10, 1];
const FALLBACK: [u8; 4] = [127, 79, 10, 10];

fn load(embedded: &Embedded, objects: Vec<Value>) {
    for object in objects {
        embedded.load(object).expect("a good object");
    }
}

fn sidecar(hosts: &[&str]) -> Vec<Value> {
    vec![
        json!({"apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
        "metadata": {"name": "web", "namespace": "shop"}, "spec": {"egress": [{"hosts": hosts}]}}),
    ]
}

fn objects(port: u16, at: SocketAddr) -> Vec<Value> {
    let ip = IpAddr::from(POD).to_string();
    vec![
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"ports": [{"name": "http", "port": port}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "a", "namespace": "shop", "labels": {"kubernetes.io/service-name": "a"}},
            "ports": [{"name": "http", "port": at.port()}], "endpoints": [{"addresses": ["127.0.0.1"]}]}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "namespace": "shop"},
            "spec": {"containers": [{"name": "app", "image": "a"}]}, "status": {"phase": "Running", "podIP": ip}}),
    ]
}

async fn proxy(of: &str, xds: SocketAddr, group: &str) -> Envoy {
    let mut options = options(xds);
    options.node = group.to_owned();
    options.group = Some(group.to_owned());
    let folder = folder(&format!("{of}-{}", group.replace('/', "-")));
    Envoy::start(&bootstrap(&options), &folder)
        .await
        .expect("a proxy")
}

async fn count(envoy: &Envoy, name: &str) -> u64 {
    envoy.stat(name).await.expect("a number")
}

#[tokio::test]
async fn an_edit_of_a_sidecar_reaches_the_proxy_of_its_pod() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let a = pod("a").await;
    let port = free_port().expect("a port");
    let embedded = standalone::embedded().expect("an API");
    embedded.ensure_namespace("shop").expect("a namespace");
    load(&embedded, objects(port, a.address()));
    load(&embedded, sidecar(&["~/*"]));
    let mut config = Config::default();
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    config.data_plane = Some(Proxies {
        fallback: Some(FallbackInput {
            addresses: vec![FALLBACK.into()],
            access_log: None,
        }),
        ..Proxies::default()
    });
    let operator = Operator::start(config, embedded.client(), CancellationToken::new()).await;
    let operator = operator.expect("an operator");
    until("it is ready", || operator.cache.is_ready()).await;
    let fallback = proxy("operator", operator.xds, FALLBACK_GROUP).await;
    let own = proxy("operator", operator.xds, "shop/web-1").await;
    let mut held = KeepAlive::connect(SocketAddr::new(POD.into(), port))
        .await
        .expect("the proxy");
    let request = Request::get("/").header("host", "a");
    let detours = format!("http.{}_{port}.downstream_rq_total", IpAddr::from(FALLBACK));
    assert_eq!(
        held.send(&request).await.expect("an answer").body.trim(),
        "a"
    );
    assert_eq!(count(&fallback, &detours).await, 1);

    let cluster = format!("outbound|{port}||{}", host("a"));
    let holds = || {
        let node = operator.cache.node("shop/web-1").expect("it is connected");
        let of = node.subscriptions.into_iter().filter(|s| s.type_url == CDS);
        let mut all = of.flat_map(|s| s.resources);
        all.any(|r| r.name == cluster && r.current.is_some())
    };
    assert!(!holds());
    load(&embedded, sidecar(&["./*"]));
    let calls = format!("cluster.{}.upstream_rq_total", cluster.replace('.', "_"));
    let started = std::time::Instant::now();
    while count(&own, &calls).await == 0 {
        assert!(
            started.elapsed() < crate::lab::BOUND,
            "it is never called directly"
        );
        assert_eq!(held.send(&request).await.expect("an answer").status, 200);
    }
    assert!(holds());

    load(&embedded, sidecar(&["~/*"]));
    let before = count(&fallback, &detours).await;
    let started = std::time::Instant::now();
    while count(&fallback, &detours).await == before {
        assert!(
            started.elapsed() < crate::lab::BOUND,
            "it is always called directly"
        );
        assert_eq!(held.send(&request).await.expect("an answer").status, 200);
    }
    assert!(holds(), "it is kept for a while");
    until("the cluster goes", || !holds()).await;
    assert_eq!(held.send(&request).await.expect("an answer").status, 200);
    assert!(held.survived().await);
    operator.stop().await.expect("it stops");
}

/// Envoy never ends its start when a cluster that still waits for its endpoints becomes one of a kind that does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_starts_while_its_scope_changes_becomes_ready() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let a = pod("a").await;
    let port = free_port().expect("a port");
    let embedded = standalone::embedded().expect("an API");
    embedded.ensure_namespace("shop").expect("a namespace");
    load(&embedded, objects(port, a.address()));
    load(&embedded, bytes(free_port().expect("a port"), a.address()));
    let mut config = Config::default();
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    config.data_plane = Some(Proxies {
        fallback: Some(FallbackInput {
            addresses: vec![FALLBACK.into()],
            access_log: None,
        }),
        ..Proxies::default()
    });
    let operator = Operator::start(config, embedded.client(), CancellationToken::new()).await;
    let operator = operator.expect("an operator");
    until("it is ready", || operator.cache.is_ready()).await;
    let api: kube::Api<trimtab_crds::istio::Sidecar> =
        kube::Api::namespaced(embedded.client(), "shop");
    for round in 0_u64..60 {
        let xds = operator.xds;
        let start = tokio::spawn(async move { proxy("starts", xds, "shop/web-1").await });
        // Not a wait: the moment of the change wanders through the proxy's start.
        tokio::time::sleep(Duration::from_millis(round % 60)).await;
        load(&embedded, sidecar(&["~/*"]));
        drop(start.await.expect("no panic"));
        api.delete("web", &<_>::default()).await.expect("it goes");
        let own = format!("{}_", IpAddr::from(POD));
        let scoped = || {
            operator
                .cache
                .names(LDS)
                .iter()
                .any(|n| n.starts_with(&own))
        };
        until("the pod sees all again", || !scoped()).await;
    }
    operator.stop().await.expect("it stops");
}

fn bytes(port: u16, at: SocketAddr) -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bytes", "namespace": "shop"},
            "spec": {"ports": [{"name": "tcp", "port": port}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "bytes", "namespace": "shop", "labels": {"kubernetes.io/service-name": "bytes"}},
            "ports": [{"name": "tcp", "port": at.port()}], "endpoints": [{"addresses": ["127.0.0.1"]}]}),
    ]
}
