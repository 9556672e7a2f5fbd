//! What must be there before a Sidecar is written.

use std::time::Duration;

use kube::{Api, ResourceExt};
use serde_json::json;
use trimtab_crds::istio::{EnvoyFilter, Sidecar};
use trimtab_embedded::Filter;
use trimtab_lab::process::wait_until;

use crate::fixture::{BOUND, Fixture, GRACE, PLAIN, log};
use crate::logs::carried;

const CART: &str = "cart.shop.svc.cluster.local";

#[tokio::test]
async fn without_a_fallback_first_sidecars_wait_and_others_only_grow() {
    let fixture = Fixture::shop();
    fixture.fallback(false);
    let operator = fixture.operator("{}").await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    fixture
        .condition("shop", "front", "Programmed", "WaitsForFallback")
        .await;
    fixture.settle().await;
    fixture.no_sidecar("shop", "front").await;
    fixture.fallback(true);
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    // Pods that are restarted are no reason; a Service that is gone is one.
    fixture.fallback(false);
    fixture.settle().await;
    fixture
        .condition("shop", "front", "FallbackReady", "Ready")
        .await;
    fixture
        .delete("v1", "Service", "istio-system", "global-sidecar")
        .await;
    fixture
        .condition("shop", "front", "FallbackReady", "NotReady")
        .await;
    fixture.fence("shop", "front", json!({})).await;
    log(&operator, vec![carried("shop", "front-1", &["stock"])]).await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    fixture.clock.advance(GRACE);
    fixture.clock.advance(GRACE);
    fixture.settle().await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    // Other fences of the same mesh wait again.
    fixture.fence("shop", "cart", json!({})).await;
    fixture
        .condition("shop", "cart", "Programmed", "WaitsForFallback")
        .await;
    fixture.never_narrowed("shop", "front").await;
    operator.stop().await.unwrap();
    // A restart without it neither.
    let operator = fixture.operator("{}").await;
    fixture.settle().await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    fixture.never_narrowed("shop", "front").await;
    fixture.fallback(true);
    fixture
        .condition("shop", "cart", "Programmed", "Programmed")
        .await;
    fixture.clock.advance(GRACE);
    fixture.scope("shop", "front", &["shop/stock"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_slow_start_writes_nothing_before_everything_is_listed() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture
        .fence(
            "shop",
            "front",
            json!({"labelSelector": [{"selector": {"app": "redis"}}]}),
        )
        .await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture
        .scope("shop", "front", &["shop/cart", "data/redis"])
        .await;
    fixture.settle().await;
    operator.stop().await.unwrap();
    let before = fixture.writes("shop").await;
    let slow = Filter::any().resource("services").verb("list");
    fixture.api.faults().delay(slow, Duration::from_secs(2));
    let operator = fixture.started(PLAIN).await;
    wait_until("readiness", BOUND, || async {
        let missing = operator.readiness.missing();
        missing
            .is_empty()
            .then_some(())
            .ok_or(format!("{missing:?}"))
    })
    .await
    .unwrap();
    fixture.api.faults().clear();
    fixture.settle().await;
    assert_eq!(fixture.writes("shop").await, before);
    let all: Api<Sidecar> = Api::namespaced(fixture.api.client(), "shop");
    assert_eq!(all.list(&<_>::default()).await.unwrap().items.len(), 1);
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn the_route_to_the_fallback_is_there_before_the_first_sidecar() {
    let fixture = Fixture::shop();
    fixture.fallback(true);
    let filters = || Filter::any().resource("envoyfilters").verb("patch");
    fixture.api.faults().fail_next(filters(), 10_000, 500);
    let operator = fixture.operator("{}").await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    fixture
        .condition("shop", "front", "FallbackReady", "NotReady")
        .await;
    fixture
        .condition("shop", "front", "Programmed", "WaitsForFallback")
        .await;
    fixture.settle().await;
    fixture.no_sidecar("shop", "front").await;
    fixture.api.faults().clear();
    fixture.scope("shop", "front", &["shop/cart"]).await;
    let api: Api<EnvoyFilter> = Api::namespaced(fixture.api.client(), "istio-system");
    let filter = api.get("to-global-sidecar").await.unwrap();
    let version = |version: Option<String>| version.unwrap().parse::<u64>().unwrap();
    let first = fixture.sidecars.of("shop", "front").remove(0).unwrap();
    assert!(version(filter.resource_version()) < version(first.resource_version()));
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_while_the_fallback_is_away_takes_no_route_away() {
    let fixture = Fixture::shop();
    fixture.fallback(true);
    let operator = fixture.operator("{}").await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
    fixture.fallback(false);
    let api: Api<EnvoyFilter> = Api::namespaced(fixture.api.client(), "istio-system");
    let before = api.get("to-global-sidecar").await.unwrap();
    let operator = fixture.operator("{}").await;
    fixture
        .condition("shop", "front", "FallbackReady", "NotReady")
        .await;
    fixture.settle().await;
    let after = api.get("to-global-sidecar").await.unwrap();
    assert_eq!(before.resource_version(), after.resource_version());
    // Without its Service it is no more.
    fixture
        .delete("v1", "Service", "istio-system", "global-sidecar")
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
    fixture.never_narrowed("shop", "front").await;
    operator.stop().await.unwrap();
}
