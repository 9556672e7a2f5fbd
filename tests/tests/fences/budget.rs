//! How much is written.

use std::time::Duration;

use kube::Api;
use serde_json::json;
use trimtab_crds::istio::Sidecar;
use trimtab_lab::process::wait_until;

use crate::fixture::{BOUND, Fixture, PLAIN, log};
use crate::logs::carried;

#[tokio::test]
async fn the_budget_bounds_writes_of_sidecars_and_nothing_is_lost() {
    let fixture = Fixture::shop();
    let config = "{fallback: {enabled: false}, writes: {perMinute: 3}}";
    let operator = fixture.operator(config).await;
    for i in 0..9 {
        fixture.fence("shop", &format!("f{i}"), json!({})).await;
    }
    let sidecars: Api<Sidecar> = Api::namespaced(fixture.api.client(), "shop");
    let count = || async { sidecars.list(&<_>::default()).await.unwrap().items.len() };
    let reach = |wanted: usize| async move {
        wait_until(&format!("{wanted} Sidecars"), BOUND, || async {
            let found = count().await;
            (found == wanted).then_some(()).ok_or(format!("{found}"))
        })
        .await
        .unwrap();
    };
    reach(3).await;
    // Statuses do not wait for Sidecars.
    for i in 0..9 {
        let what = format!("a word about f{i}");
        fixture
            .status_where("shop", &format!("f{i}"), &what, |s| {
                !s.conditions.is_empty()
            })
            .await;
    }
    assert_eq!(count().await, 3);
    for wanted in 4..=9 {
        fixture.clock.advance(Duration::from_secs(20));
        reach(wanted).await;
    }
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn calls_of_what_is_known_write_nothing() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    for name in ["front", "cart", "stock"] {
        fixture.fence("shop", name, json!({})).await;
    }
    let round = || {
        vec![
            carried("shop", "front-1", &["cart", "stock", "www.example.com"]),
            carried("shop", "cart-1", &["stock", "redis.data"]),
            carried("shop", "stock-1", &["redis.data:6379"]),
        ]
    };
    log(&operator, round()).await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    fixture
        .scope("shop", "cart", &["shop/stock", "data/redis"])
        .await;
    fixture.scope("shop", "stock", &["data/redis"]).await;
    fixture.settle().await;
    let before = fixture.writes("shop").await;
    // 6000 entries over more than a day.
    for _ in 0..1000 {
        fixture.clock.advance(Duration::from_secs(100));
        log(&operator, round()).await;
    }
    fixture.settle().await;
    assert_eq!(fixture.writes("shop").await, before);
    operator.stop().await.unwrap();
}
