//! The configuration file is followed while the operator runs.

use std::path::PathBuf;
use std::time::Duration;

use kube::Api;
use serde_json::json;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_lab::process::wait_until;

use crate::fixture::{BOUND, Fixture, log, service};
use crate::logs::carried;

const CART: &str = "cart.shop.svc.cluster.local";

/// A file that goes with the test.
struct File(PathBuf);

impl File {
    fn new(name: &str, lazyload: &str) -> Self {
        let name = format!("trimtab-fences-{}-{name}.yaml", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(lazyload);
        file
    }

    fn write(&self, lazyload: &str) {
        std::fs::write(&self.0, format!("lazyload: {lazyload}\n")).unwrap();
    }

    async fn operator(&self, fixture: &Fixture) -> Operator {
        fixture.started_with(Config::load(&self.0).unwrap()).await
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn modes_and_hosts_change_at_once_and_a_bad_file_changes_nothing() {
    let fixture = Fixture::shop();
    let file = File::new("modes", "{fallback: {enabled: false}}");
    let operator = file.operator(&fixture).await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    log(&operator, vec![carried("shop", "front-1", &["stock"])]).await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    file.write("{fallback: {enabled: false}, stableHost: ['data/*']}");
    let wider = ["shop/cart", "shop/stock", "data/*"];
    fixture.scope("shop", "front", &wider).await;
    fixture.never_narrowed("shop", "front").await;
    // Refused as a whole: one key is unknown. Nothing but a line in the log tells that it was read, so two looks at the
    // file must pass.
    file.write("{fallback: {enabled: false}, mode: Observe, nonsense: 1}");
    tokio::time::sleep(Duration::from_secs(4)).await;
    fixture.settle().await;
    fixture.scope("shop", "front", &wider).await;
    fixture.never_narrowed("shop", "front").await;
    file.write("{fallback: {enabled: false}, stableHost: ['data/*'], mode: Observe}");
    fixture.no_sidecar("shop", "front").await;
    fixture
        .condition("shop", "front", "Programmed", "Observing")
        .await;
    file.write("{fallback: {enabled: false}, stableHost: ['data/*']}");
    fixture.scope("shop", "front", &wider).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn automatic_fences_come_and_go_with_their_switch() {
    let fixture = Fixture::shop();
    let file = File::new("auto", "{fallback: {enabled: false}}");
    let operator = file.operator(&fixture).await;
    fixture
        .fence("shop", "cart", json!({"host": {"redis.data": {}}}))
        .await;
    fixture.scope("shop", "cart", &["data/redis"]).await;
    file.write(
        "{fallback: {enabled: false}, revision: canary, fences: {autoFence: true, defaultFence: true}}",
    );
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    let fence = fixture.fence_of("shop", "front").await.unwrap();
    assert_eq!(fence.metadata.labels.unwrap()["istio.io/rev"], "canary");
    file.write("{fallback: {enabled: false}}");
    fixture.no_sidecar("shop", "front").await;
    for name in ["front", "stock"] {
        wait_until("automatic fences are gone", BOUND, || async {
            let there = fixture.fence_of("shop", name).await.is_some();
            (!there).then_some(()).ok_or(name.to_owned())
        })
        .await
        .unwrap();
    }
    fixture.settle().await;
    fixture.scope("shop", "cart", &["data/redis"]).await;
    fixture.never_narrowed("shop", "cart").await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_fallback_that_is_switched_off_leaves_nothing_of_ours() {
    let fixture = Fixture::shop();
    fixture.fallback(true);
    let mine = json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": {"namespace": "istio-system", "name": "mine"},
        "spec": {"configPatches": [{"applyTo": "CLUSTER", "match": {"context": "SIDECAR_OUTBOUND"},
            "patch": {"operation": "MERGE", "value": {"connect_timeout": "1s"}}}]},
    });
    fixture.apply(mine).await;
    let mut web = service("shop", "web");
    web["spec"]["ports"] = json!([{"name": "http-web", "port": 8081, "protocol": "TCP"}]);
    fixture.put(web);
    let file = File::new("fallback", "{}");
    let operator = file.operator(&fixture).await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    let filters: Api<EnvoyFilter> = Api::namespaced(fixture.api.client(), "istio-system");
    assert!(
        filters
            .get_opt("to-global-sidecar")
            .await
            .unwrap()
            .is_some()
    );
    file.write("{fallback: {enabled: false}}");
    wait_until("ours is gone", BOUND, || async {
        let there = filters.get_opt("to-global-sidecar").await.unwrap();
        there.map_or(Ok(()), |_| Err(String::new()))
    })
    .await
    .unwrap();
    fixture
        .condition("shop", "front", "FallbackReady", "NotUsed")
        .await;
    assert!(filters.get_opt("mine").await.unwrap().is_some());
    fixture.scope("shop", "front", &["shop/cart"]).await;
    file.write("{}");
    wait_until("it is wired again", BOUND, || async {
        let there = filters.get_opt("to-global-sidecar").await.unwrap();
        there.map(drop).ok_or(String::new())
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
}
