//! The configuration file is followed while the operator runs.

use std::path::PathBuf;
use std::time::Duration;

use kube::Api;
use serde_json::json;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_lab::process::wait_until;

use crate::logs::carried;
use crate::stand::{BOUND, Stand, log, service};

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

    async fn operator(&self, stand: &Stand) -> Operator {
        stand.started_with(Config::load(&self.0).unwrap()).await
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn modes_and_hosts_change_at_once_and_a_bad_file_changes_nothing() {
    let stand = Stand::shop();
    let file = File::new("modes", "{fallback: {enabled: false}}");
    let operator = file.operator(&stand).await;
    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    log(&operator, vec![carried("shop", "front-1", &["stock"])]).await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    file.write("{fallback: {enabled: false}, stableHost: ['data/*']}");
    let wider = ["shop/cart", "shop/stock", "data/redis"];
    stand.scope("shop", "front", &wider).await;
    stand.never_narrowed("shop", "front").await;
    // Refused as a whole: one key is unknown. Nothing but a line in the log tells that it was read, so two looks at the
    // file must pass.
    file.write("{fallback: {enabled: false}, mode: Observe, nonsense: 1}");
    tokio::time::sleep(Duration::from_secs(4)).await;
    stand.settle().await;
    stand.scope("shop", "front", &wider).await;
    stand.never_narrowed("shop", "front").await;
    file.write("{fallback: {enabled: false}, stableHost: ['data/*'], mode: Observe}");
    stand.no_sidecar("shop", "front").await;
    stand
        .condition("shop", "front", "Programmed", "Observing")
        .await;
    file.write("{fallback: {enabled: false}, stableHost: ['data/*']}");
    stand.scope("shop", "front", &wider).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn automatic_fences_come_and_go_with_their_switch() {
    let stand = Stand::shop();
    let file = File::new("auto", "{fallback: {enabled: false}}");
    let operator = file.operator(&stand).await;
    stand
        .fence("shop", "cart", json!({"host": {"redis.data": {}}}))
        .await;
    stand.scope("shop", "cart", &["data/redis"]).await;
    file.write(
        "{fallback: {enabled: false}, revision: canary, fences: {autoFence: true, defaultFence: true}}",
    );
    stand
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    let fence = stand.fence_of("shop", "front").await.unwrap();
    assert_eq!(fence.metadata.labels.unwrap()["istio.io/rev"], "canary");
    file.write("{fallback: {enabled: false}}");
    stand.no_sidecar("shop", "front").await;
    for name in ["front", "stock"] {
        wait_until("automatic fences are gone", BOUND, || async {
            let there = stand.fence_of("shop", name).await.is_some();
            (!there).then_some(()).ok_or(name.to_owned())
        })
        .await
        .unwrap();
    }
    stand.settle().await;
    stand.scope("shop", "cart", &["data/redis"]).await;
    stand.never_narrowed("shop", "cart").await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_fallback_that_is_switched_off_leaves_nothing_of_ours() {
    let stand = Stand::shop();
    stand.fallback(true);
    let mine = json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": {"namespace": "istio-system", "name": "mine"},
        "spec": {"configPatches": [{"applyTo": "CLUSTER", "match": {"context": "SIDECAR_OUTBOUND"},
            "patch": {"operation": "MERGE", "value": {"connect_timeout": "1s"}}}]},
    });
    stand.apply(mine).await;
    let mut web = service("shop", "web");
    web["spec"]["ports"] = json!([{"name": "http-web", "port": 8081, "protocol": "TCP"}]);
    stand.put(web);
    let file = File::new("fallback", "{}");
    let operator = file.operator(&stand).await;
    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    let filters: Api<EnvoyFilter> = Api::namespaced(stand.api.client(), "istio-system");
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
    stand
        .condition("shop", "front", "FallbackReady", "NotUsed")
        .await;
    assert!(filters.get_opt("mine").await.unwrap().is_some());
    stand.scope("shop", "front", &["shop/cart"]).await;
    file.write("{}");
    wait_until("it is wired again", BOUND, || async {
        let there = filters.get_opt("to-global-sidecar").await.unwrap();
        there.map(drop).ok_or(String::new())
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
}
