//! The defects of Slime's lazyload, Z-1 to Z-13, none of which is here. What Z-9 is about is tested with real Envoys in
//! the target `lazyload` as well.

use std::time::Duration;

use jiff::SignedDuration;
use kube::Api;
use serde_json::{Value, json};
use trimtab_crds::fence::{DependencyState, DomainState, FenceStatus};
use trimtab_crds::istio::EnvoyFilter;
use trimtab_kit::clock::Clock;
use trimtab_lab::process::wait_until;
use trimtab_lazyload::config::{Fallback, GlobalSidecarMode, LazyloadConfig};
use trimtab_lazyload::fallback::proxy::ProxyOptions;
use trimtab_lazyload::fallback::{FallbackInput, manifests};

use crate::fixture::{BOUND, Fixture, GRACE, PLAIN, entry, log, service, user_sidecar};
use crate::logs::carried;
use crate::prometheus::Fake;

const CART: &str = "cart.shop.svc.cluster.local";
const STOCK: &str = "stock.shop.svc.cluster.local";

#[tokio::test]
async fn z01_switching_off_removes_our_sidecar_and_nothing_else() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    let labels = json!({"app": "cart"});
    fixture.apply(user_sidecar("shop", "mine", &labels)).await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    log(&operator, vec![carried("shop", "front-1", &["redis.data"])]).await;
    fixture
        .scope("shop", "front", &["shop/cart", "data/redis"])
        .await;

    fixture
        .fence(
            "shop",
            "front",
            json!({"host": {CART: {}}, "enable": false}),
        )
        .await;
    fixture.no_sidecar("shop", "front").await;
    fixture
        .condition("shop", "front", "Programmed", "Observing")
        .await;
    assert!(fixture.sidecar("shop", "mine").await.is_some());
    let status = fixture.status("shop", "front").await;
    assert_eq!(status.dependencies.len(), 1, "it still learns: {status:?}");

    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    fixture
        .scope("shop", "front", &["shop/cart", "data/redis"])
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn z02_a_namespace_selector_is_read() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture
        .fence("shop", "front", json!({"namespaceSelector": ["data"]}))
        .await;
    fixture.scope("shop", "front", &["data/*"]).await;
    // A Service that comes later needs no other event.
    fixture.service("data", "queue");
    let grown = |s: &FenceStatus| s.scope.as_ref().is_some_and(|size| size.services == 2);
    fixture
        .status_where("shop", "front", "two services of data", grown)
        .await;
    operator.stop().await.unwrap();
}

fn route(to: &str) -> Value {
    let destination = |host: &str| json!([{"destination": {"host": host}}]);
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"namespace": "shop", "name": "cart"},
        "spec": {"hosts": ["cart"], "http": [{"route": destination(to)}],
            "tcp": [{"route": destination("redis.data.svc.cluster.local")}]},
    })
}

async fn hosts_are(fixture: &Fixture, wanted: &[&str]) {
    let what = format!("hosts of the domain are {wanted:?}");
    let good = |s: &FenceStatus| s.domains.get(CART).is_some_and(|d| d.hosts == wanted);
    fixture.status_where("shop", "front", &what, good).await;
}

#[tokio::test]
async fn z03_destinations_of_routes_belong_to_the_dependency() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    let (stock, redis) = (
        "stock.shop.svc.cluster.local",
        "redis.data.svc.cluster.local",
    );
    hosts_are(&fixture, &[CART]).await;
    fixture.apply(route("stock")).await;
    hosts_are(&fixture, &[CART, redis, stock]).await;
    fixture.apply(route("cart")).await;
    hosts_are(&fixture, &[CART, redis]).await;
    fixture
        .delete("networking.istio.io/v1", "VirtualService", "shop", "cart")
        .await;
    hosts_are(&fixture, &[CART]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn z04_the_grace_is_a_time_and_not_a_moment() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    fixture.fence("shop", "front", json!({})).await;
    let waits = |s: &FenceStatus| {
        s.domains
            .get(CART)
            .is_some_and(|d| d.status == DomainState::ExpireWait)
    };
    fixture
        .status_where("shop", "front", "EXPIREWAIT", waits)
        .await;
    fixture.settle().await;
    // Each of these is an evaluation.
    for tier in ["a", "b"] {
        let mut other = service("shop", "cart");
        other["metadata"]["labels"]["tier"] = json!(tier);
        fixture.put(other);
        fixture.settle().await;
    }
    fixture.scope("shop", "front", &["shop/cart"]).await;
    fixture.never_narrowed("shop", "front").await;
    fixture.clock.advance(GRACE);
    fixture.scope("shop", "front", &[]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn z05_a_deadline_is_kept_without_another_event() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    let expire = fixture.clock.now() + SignedDuration::from_hours(1);
    let strategy = json!({"deadline": {"expire": {"seconds": expire.as_second()}}});
    fixture
        .fence("shop", "front", json!({"host": {CART: strategy}}))
        .await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    for (pass, state) in [
        (Duration::ZERO, DomainState::Active),
        (Duration::from_secs(3601), DomainState::ExpireWait),
        (GRACE, DomainState::Expire),
    ] {
        fixture.clock.advance(pass);
        let what = format!("{state:?}");
        fixture
            .status_where("shop", "front", &what, |s| {
                s.domains.get(CART).is_some_and(|d| d.status == state)
            })
            .await;
    }
    fixture.scope("shop", "front", &[]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn z06_a_sidecar_that_is_edited_or_deleted_comes_back() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    let good = fixture.sidecar("shop", "front").await.unwrap();
    fixture
        .delete("networking.istio.io/v1", "Sidecar", "shop", "front")
        .await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    let edited = user_sidecar("shop", "front", &json!({"app": "other"}));
    fixture.apply(edited).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    let repaired = fixture.sidecar("shop", "front").await.unwrap();
    assert_eq!(repaired.spec, good.spec);
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn z07_what_is_not_called_any_more_leaves_and_what_is_called_stays() {
    let fixture = Fixture::shop();
    let fake = Fake::start(&[("front", CART, true), ("front", STOCK, true)]).await;
    let operator = fixture.operator(&fake.config()).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    let status = fixture
        .status_where("shop", "front", "two dependencies", |s| {
            s.dependencies.len() == 2
        })
        .await;
    assert_eq!(status.dependencies[0].evidence, ["Prometheus"]);
    *fake.calls.lock() = vec![("front", CART, true), ("front", STOCK, false)];
    fake.pass(&fixture, 3).await;
    fixture.settle().await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    fake.pass(&fixture, 3).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    let expired = |s: &trimtab_crds::fence::FenceStatus| {
        s.dependencies
            .iter()
            .any(|d| d.host == STOCK && d.state == DependencyState::Expired)
    };
    fixture
        .status_where("shop", "front", "stock is remembered", expired)
        .await;
    // Its next call brings it back, and from then on it lives longer.
    *fake.calls.lock() = vec![("front", CART, true), ("front", STOCK, true)];
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    *fake.calls.lock() = vec![("front", CART, true), ("front", STOCK, false)];
    fake.pass(&fixture, 6).await;
    fixture.settle().await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn z08_ports_are_found_without_knowing_who_installed_us() {
    let fixture = Fixture::shop();
    fixture.fallback(true);
    let mut web = service("shop", "web");
    web["spec"]["ports"] = json!([{"name": "http-web", "port": 8081, "protocol": "TCP"}]);
    fixture.put(web);
    let operator = fixture.operator("{}").await;
    let filters: Api<EnvoyFilter> = Api::namespaced(fixture.api.client(), "istio-system");
    let services: Api<k8s_openapi::api::core::v1::Service> =
        Api::namespaced(fixture.api.client(), "istio-system");
    wait_until("port 8081 is wired", BOUND, || async {
        let filters = filters.list(&<_>::default()).await.unwrap().items;
        let wired = serde_json::to_string(&filters)
            .unwrap()
            .contains("\"8081\"");
        let service = services
            .get(trimtab_lazyload::fallback::NAME)
            .await
            .unwrap();
        let ports = service.spec.unwrap_or_default().ports.unwrap_or_default();
        let open = ports.iter().any(|p| p.port == 8081);
        (wired && open)
            .then_some(())
            .ok_or(format!("wired: {wired}, open: {open}"))
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
}

fn in_namespaces() -> Vec<Value> {
    let fallback = Fallback {
        global_sidecar_mode: GlobalSidecarMode::Namespace,
        namespace: vec!["data".into(), "shop".into()],
        ..Fallback::default()
    };
    manifests(&FallbackInput {
        config: LazyloadConfig {
            fallback,
            ..LazyloadConfig::default()
        },
        proxy: ProxyOptions {
            access_log: "trimtab.istio-system:8082".into(),
            ..ProxyOptions::default()
        },
        ..FallbackInput::default()
    })
}

#[test]
fn z09_the_fallback_is_a_stock_envoy() {
    let objects = in_namespaces();
    let deployments: Vec<&Value> = objects
        .iter()
        .filter(|o| o["kind"] == "Deployment")
        .collect();
    assert_eq!(deployments.len(), 2);
    for deployment in deployments {
        let containers = deployment
            .pointer("/spec/template/spec/containers")
            .unwrap();
        let containers = containers.as_array().unwrap();
        assert_eq!(containers.len(), 1);
        let image = containers[0]["image"].as_str().unwrap();
        assert!(image.starts_with("envoyproxy/envoy:"), "{image}");
    }
}

#[tokio::test]
async fn z10_namespace_mode_logs_calls_in_each_namespace() {
    for object in in_namespaces().iter().filter(|o| o["kind"] == "ConfigMap") {
        let text = object["data"].to_string();
        assert!(text.contains("HttpGrpcAccessLogConfig"), "{text}");
    }
    let fixture = Fixture::shop();
    let mut fallback = service("shop", "global-sidecar");
    fallback["spec"]["selector"] = json!({"app": "global-sidecar"});
    fixture.put(fallback);
    fixture.endpoints("shop", "global-sidecar", &["10.0.9.1"]);
    let config = "fallback: {globalSidecarMode: namespace, namespace: [shop]}";
    let operator = fixture.operator(config).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture.fence("data", "redis", json!({})).await;
    fixture
        .condition("shop", "front", "FallbackReady", "Ready")
        .await;
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    fixture
        .condition("data", "redis", "FallbackReady", "NotReady")
        .await;
    fixture
        .condition("data", "redis", "Programmed", "WaitsForFallback")
        .await;
    let hosts = fixture
        .hosts_where("shop", "front", "the fallback", |_| true)
        .await;
    assert!(hosts.contains(&entry("shop/global-sidecar")), "{hosts:?}");
    operator.stop().await.unwrap();
}

#[test]
fn z11_the_fallback_needs_no_rights() {
    let objects = in_namespaces();
    for object in &objects {
        let kind = object["kind"].as_str().unwrap();
        assert!(!kind.contains("Role"), "{object}");
        if kind == "ServiceAccount" {
            assert_eq!(object["automountServiceAccountToken"], false);
        }
    }
}

#[tokio::test]
async fn z12_labels_and_services_that_change_are_seen() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    let spec = json!({"labelSelector": [{"selector": {"tier": "back"}}, {"selector": {"team": "x", "tier": "db"}}]});
    fixture.fence("shop", "front", spec).await;
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    let labelled = |namespace: &str, name: &str, labels: Value| {
        let mut object = service(namespace, name);
        object["metadata"]["labels"] = labels;
        object
    };
    // Changed labels of a Service, then a new Service, then one that has only one of two labels.
    fixture.put(labelled("shop", "cart", json!({"tier": "back"})));
    fixture.scope("shop", "front", &["shop/cart"]).await;
    fixture.put(labelled("data", "pg", json!({"tier": "db", "team": "x"})));
    fixture.put(labelled("data", "mysql", json!({"tier": "db"})));
    fixture
        .scope("shop", "front", &["shop/cart", "data/pg"])
        .await;
    fixture.put(labelled("shop", "cart", json!({})));
    let gone = |s: &FenceStatus| {
        s.domains
            .get(CART)
            .is_none_or(|d| d.status != DomainState::Active)
    };
    fixture
        .status_where("shop", "front", "cart is leaving", gone)
        .await;
    fixture.clock.advance(GRACE);
    fixture.scope("shop", "front", &["data/pg"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn z13_a_deleted_fence_stays_deleted_in_manual_mode() {
    let fixture = Fixture::shop();
    let mut fenced = service("shop", "front");
    fenced["metadata"]["labels"]["slime.io/serviceFenced"] = json!("true");
    fixture.put(fenced);
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    fixture.delete_fence("shop", "front").await;
    fixture.no_sidecar("shop", "front").await;
    fixture.settle().await;
    assert!(fixture.fence_of("shop", "front").await.is_none());
    operator.stop().await.unwrap();
}
