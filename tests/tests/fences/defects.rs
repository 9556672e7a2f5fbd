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

use crate::logs::carried;
use crate::prometheus::Fake;
use crate::stand::{BOUND, GRACE, PLAIN, Stand, entry, log, service, user_sidecar};

const CART: &str = "cart.shop.svc.cluster.local";
const STOCK: &str = "stock.shop.svc.cluster.local";

#[tokio::test]
async fn z01_switching_off_removes_our_sidecar_and_nothing_else() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    let labels = json!({"app": "cart"});
    stand.apply(user_sidecar("shop", "mine", &labels)).await;
    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    log(&operator, vec![carried("shop", "front-1", &["redis.data"])]).await;
    stand
        .scope("shop", "front", &["shop/cart", "data/redis"])
        .await;

    stand
        .fence(
            "shop",
            "front",
            json!({"host": {CART: {}}, "enable": false}),
        )
        .await;
    stand.no_sidecar("shop", "front").await;
    stand
        .condition("shop", "front", "Programmed", "Observing")
        .await;
    assert!(stand.sidecar("shop", "mine").await.is_some());
    let status = stand.status("shop", "front").await;
    assert_eq!(status.dependencies.len(), 1, "it still learns: {status:?}");

    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    stand
        .scope("shop", "front", &["shop/cart", "data/redis"])
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn z02_a_namespace_selector_is_read() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand
        .fence("shop", "front", json!({"namespaceSelector": ["data"]}))
        .await;
    stand.scope("shop", "front", &["data/redis"]).await;
    // A Service that comes later needs no other event.
    stand.service("data", "queue");
    stand
        .scope("shop", "front", &["data/redis", "data/queue"])
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

async fn hosts_are(stand: &Stand, wanted: &[&str]) {
    let what = format!("hosts of the domain are {wanted:?}");
    let good = |s: &FenceStatus| s.domains.get(CART).is_some_and(|d| d.hosts == wanted);
    stand.status_where("shop", "front", &what, good).await;
}

#[tokio::test]
async fn z03_destinations_of_routes_belong_to_the_dependency() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    let (stock, redis) = (
        "stock.shop.svc.cluster.local",
        "redis.data.svc.cluster.local",
    );
    hosts_are(&stand, &[CART]).await;
    stand.apply(route("stock")).await;
    hosts_are(&stand, &[CART, redis, stock]).await;
    stand.apply(route("cart")).await;
    hosts_are(&stand, &[CART, redis]).await;
    stand
        .delete("networking.istio.io/v1", "VirtualService", "shop", "cart")
        .await;
    hosts_are(&stand, &[CART]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn z04_the_grace_is_a_time_and_not_a_moment() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    stand.fence("shop", "front", json!({})).await;
    let waits = |s: &FenceStatus| {
        s.domains
            .get(CART)
            .is_some_and(|d| d.status == DomainState::ExpireWait)
    };
    stand
        .status_where("shop", "front", "EXPIREWAIT", waits)
        .await;
    stand.settle().await;
    // Each of these is an evaluation.
    for tier in ["a", "b"] {
        let mut other = service("shop", "cart");
        other["metadata"]["labels"]["tier"] = json!(tier);
        stand.put(other);
        stand.settle().await;
    }
    stand.scope("shop", "front", &["shop/cart"]).await;
    stand.never_narrowed("shop", "front").await;
    stand.clock.advance(GRACE);
    stand.scope("shop", "front", &[]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn z05_a_deadline_is_kept_without_another_event() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    let expire = stand.clock.now() + SignedDuration::from_hours(1);
    let strategy = json!({"deadline": {"expire": {"seconds": expire.as_second()}}});
    stand
        .fence("shop", "front", json!({"host": {CART: strategy}}))
        .await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    for (pass, state) in [
        (Duration::ZERO, DomainState::Active),
        (Duration::from_secs(3601), DomainState::ExpireWait),
        (GRACE, DomainState::Expire),
    ] {
        stand.clock.advance(pass);
        let what = format!("{state:?}");
        stand
            .status_where("shop", "front", &what, |s| {
                s.domains.get(CART).is_some_and(|d| d.status == state)
            })
            .await;
    }
    stand.scope("shop", "front", &[]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn z06_a_sidecar_that_is_edited_or_deleted_comes_back() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    let good = stand.sidecar("shop", "front").await.unwrap();
    stand
        .delete("networking.istio.io/v1", "Sidecar", "shop", "front")
        .await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    let edited = user_sidecar("shop", "front", &json!({"app": "other"}));
    stand.apply(edited).await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    let repaired = stand.sidecar("shop", "front").await.unwrap();
    assert_eq!(repaired.spec, good.spec);
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn z07_what_is_not_called_any_more_leaves_and_what_is_called_stays() {
    let stand = Stand::shop();
    let fake = Fake::start(&[("front", CART, true), ("front", STOCK, true)]).await;
    let operator = stand.operator(&fake.config()).await;
    stand.fence("shop", "front", json!({})).await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    let status = stand
        .status_where("shop", "front", "two dependencies", |s| {
            s.dependencies.len() == 2
        })
        .await;
    assert_eq!(status.dependencies[0].evidence, ["Prometheus"]);
    *fake.calls.lock() = vec![("front", CART, true), ("front", STOCK, false)];
    fake.pass(&stand, 3).await;
    stand.settle().await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    fake.pass(&stand, 3).await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    let expired = |s: &trimtab_crds::fence::FenceStatus| {
        s.dependencies
            .iter()
            .any(|d| d.host == STOCK && d.state == DependencyState::Expired)
    };
    stand
        .status_where("shop", "front", "stock is remembered", expired)
        .await;
    // Its next call brings it back, and from then on it lives longer.
    *fake.calls.lock() = vec![("front", CART, true), ("front", STOCK, true)];
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    *fake.calls.lock() = vec![("front", CART, true), ("front", STOCK, false)];
    fake.pass(&stand, 6).await;
    stand.settle().await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn z08_ports_are_found_without_knowing_who_installed_us() {
    let stand = Stand::shop();
    stand.fallback(true);
    let mut web = service("shop", "web");
    web["spec"]["ports"] = json!([{"name": "http-web", "port": 8081, "protocol": "TCP"}]);
    stand.put(web);
    let operator = stand.operator("{}").await;
    let filters: Api<EnvoyFilter> = Api::namespaced(stand.api.client(), "istio-system");
    let services: Api<k8s_openapi::api::core::v1::Service> =
        Api::namespaced(stand.api.client(), "trimtab-system");
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
            access_log: "trimtab.trimtab-system:8082".into(),
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
    let stand = Stand::shop();
    let mut fallback = service("shop", "global-sidecar");
    fallback["spec"]["selector"] = json!({"app": "global-sidecar"});
    stand.put(fallback);
    stand.endpoints("shop", "global-sidecar", &["10.0.9.1"]);
    let config = "fallback: {globalSidecarMode: namespace, namespace: [shop]}";
    let operator = stand.operator(config).await;
    stand.fence("shop", "front", json!({})).await;
    stand.fence("data", "redis", json!({})).await;
    stand
        .condition("shop", "front", "FallbackReady", "Ready")
        .await;
    stand
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    stand
        .condition("data", "redis", "FallbackReady", "NotReady")
        .await;
    stand
        .condition("data", "redis", "Programmed", "WaitsForFallback")
        .await;
    let hosts = stand
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
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    let spec = json!({"labelSelector": [{"selector": {"tier": "back"}}, {"selector": {"team": "x", "tier": "db"}}]});
    stand.fence("shop", "front", spec).await;
    stand
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    let labelled = |namespace: &str, name: &str, labels: Value| {
        let mut object = service(namespace, name);
        object["metadata"]["labels"] = labels;
        object
    };
    // Changed labels of a Service, then a new Service, then one that has only one of two labels.
    stand.put(labelled("shop", "cart", json!({"tier": "back"})));
    stand.scope("shop", "front", &["shop/cart"]).await;
    stand.put(labelled("data", "pg", json!({"tier": "db", "team": "x"})));
    stand.put(labelled("data", "mysql", json!({"tier": "db"})));
    stand
        .scope("shop", "front", &["shop/cart", "data/pg"])
        .await;
    stand.put(labelled("shop", "cart", json!({})));
    let gone = |s: &FenceStatus| {
        s.domains
            .get(CART)
            .is_none_or(|d| d.status != DomainState::Active)
    };
    stand
        .status_where("shop", "front", "cart is leaving", gone)
        .await;
    stand.clock.advance(GRACE);
    stand.scope("shop", "front", &["data/pg"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn z13_a_deleted_fence_stays_deleted_in_manual_mode() {
    let stand = Stand::shop();
    let mut fenced = service("shop", "front");
    fenced["metadata"]["labels"]["slime.io/serviceFenced"] = json!("true");
    stand.put(fenced);
    let operator = stand.operator(PLAIN).await;
    stand.fence("shop", "front", json!({})).await;
    stand
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    stand.delete_fence("shop", "front").await;
    stand.no_sidecar("shop", "front").await;
    stand.settle().await;
    assert!(stand.fence_of("shop", "front").await.is_none());
    operator.stop().await.unwrap();
}
