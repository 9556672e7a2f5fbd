//! What must be there before a Sidecar is written.

use std::time::Duration;

use kube::{Api, ResourceExt};
use serde_json::json;
use trimtab_crds::istio::{EnvoyFilter, Sidecar};
use trimtab_embedded::Filter;
use trimtab_lab::process::wait_until;

use crate::logs::carried;
use crate::stand::{BOUND, GRACE, PLAIN, Stand, log};

const CART: &str = "cart.shop.svc.cluster.local";

#[tokio::test]
async fn without_a_fallback_first_sidecars_wait_and_others_only_grow() {
    let stand = Stand::shop();
    stand.fallback(false);
    let operator = stand.operator("{}").await;
    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    stand
        .condition("shop", "front", "Programmed", "WaitsForFallback")
        .await;
    stand.settle().await;
    stand.no_sidecar("shop", "front").await;
    stand.fallback(true);
    stand
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    // Pods that are restarted are no reason; a Service that is gone is one.
    stand.fallback(false);
    stand.settle().await;
    stand
        .condition("shop", "front", "FallbackReady", "Ready")
        .await;
    stand
        .delete("v1", "Service", "trimtab-system", "global-sidecar")
        .await;
    stand
        .condition("shop", "front", "FallbackReady", "NotReady")
        .await;
    stand.fence("shop", "front", json!({})).await;
    log(&operator, vec![carried("shop", "front-1", &["stock"])]).await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    stand.clock.advance(GRACE);
    stand.clock.advance(GRACE);
    stand.settle().await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    // Other fences of the same mesh wait again.
    stand.fence("shop", "cart", json!({})).await;
    stand
        .condition("shop", "cart", "Programmed", "WaitsForFallback")
        .await;
    stand.never_narrowed("shop", "front").await;
    operator.stop().await.unwrap();
    // A restart without it neither.
    let operator = stand.operator("{}").await;
    stand.settle().await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    stand.never_narrowed("shop", "front").await;
    stand.fallback(true);
    stand
        .condition("shop", "cart", "Programmed", "Programmed")
        .await;
    stand.clock.advance(GRACE);
    stand.scope("shop", "front", &["shop/stock"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_slow_start_writes_nothing_before_everything_is_listed() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand
        .fence(
            "shop",
            "front",
            json!({"labelSelector": [{"selector": {"app": "redis"}}]}),
        )
        .await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    stand
        .scope("shop", "front", &["shop/cart", "data/redis"])
        .await;
    stand.settle().await;
    operator.stop().await.unwrap();
    let before = stand.writes("shop").await;
    let slow = Filter::any().resource("services").verb("list");
    stand.api.faults().delay(slow, Duration::from_secs(2));
    let operator = stand.started(PLAIN).await;
    wait_until("readiness", BOUND, || async {
        let missing = operator.readiness.missing();
        missing
            .is_empty()
            .then_some(())
            .ok_or(format!("{missing:?}"))
    })
    .await
    .unwrap();
    stand.api.faults().clear();
    stand.settle().await;
    assert_eq!(stand.writes("shop").await, before);
    let all: Api<Sidecar> = Api::namespaced(stand.api.client(), "shop");
    assert_eq!(all.list(&<_>::default()).await.unwrap().items.len(), 1);
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn the_route_to_the_fallback_is_there_before_the_first_sidecar() {
    let stand = Stand::shop();
    stand.fallback(true);
    let filters = || Filter::any().resource("envoyfilters").verb("patch");
    stand.api.faults().fail_next(filters(), 10_000, 500);
    let operator = stand.operator("{}").await;
    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    stand
        .condition("shop", "front", "FallbackReady", "NotReady")
        .await;
    stand
        .condition("shop", "front", "Programmed", "WaitsForFallback")
        .await;
    stand.settle().await;
    stand.no_sidecar("shop", "front").await;
    stand.api.faults().clear();
    stand.scope("shop", "front", &["shop/cart"]).await;
    let api: Api<EnvoyFilter> = Api::namespaced(stand.api.client(), "istio-system");
    let filter = api.get("to-global-sidecar").await.unwrap();
    let version = |version: Option<String>| version.unwrap().parse::<u64>().unwrap();
    let first = stand.sidecars.of("shop", "front").remove(0).unwrap();
    assert!(version(filter.resource_version()) < version(first.resource_version()));
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_while_the_fallback_is_away_takes_no_route_away() {
    let stand = Stand::shop();
    stand.fallback(true);
    let operator = stand.operator("{}").await;
    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
    stand.fallback(false);
    let api: Api<EnvoyFilter> = Api::namespaced(stand.api.client(), "istio-system");
    let before = api.get("to-global-sidecar").await.unwrap();
    let operator = stand.operator("{}").await;
    stand
        .condition("shop", "front", "FallbackReady", "NotReady")
        .await;
    stand.settle().await;
    let after = api.get("to-global-sidecar").await.unwrap();
    assert_eq!(before.resource_version(), after.resource_version());
    // Without its Service it is no more.
    stand
        .delete("v1", "Service", "trimtab-system", "global-sidecar")
        .await;
    wait_until("the end of the route", BOUND, || async {
        let filter = api.get_opt("to-global-sidecar").await;
        match filter.map_err(|e| e.to_string())? {
            None => Ok(()),
            Some(_) => Err("it is there".to_owned()),
        }
    })
    .await
    .unwrap();
    stand.never_narrowed("shop", "front").await;
    operator.stop().await.unwrap();
}
