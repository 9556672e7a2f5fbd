//! What is learned from access logs, and where it shows.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use trimtab_crds::fence::DependencyState;
use trimtab_kit::clock::Clock;

use crate::fixture::{Fixture, PLAIN, log, service};
use crate::logs::{carried, connection, from_address, outbound};

#[tokio::test]
async fn every_form_of_a_name_is_the_same_service() {
    for authority in [
        "cart",
        "cart:80",
        "cart.shop",
        "cart.shop.svc",
        "cart.shop.svc:8080",
        "cart.shop.svc.cluster.local",
        "CART.shop.svc.cluster.local.:80",
    ] {
        let fixture = Fixture::shop();
        let operator = fixture.operator(PLAIN).await;
        fixture.fence("shop", "front", json!({})).await;
        fixture.scope("shop", "front", &[]).await;
        log(&operator, vec![carried("shop", "front-1", &[authority])]).await;
        fixture.scope("shop", "front", &["shop/cart"]).await;
        operator.stop().await.unwrap();
    }
}

#[tokio::test]
async fn calls_are_learned_by_cluster_by_address_and_by_source_address() {
    let fixture = Fixture::shop();
    let mut redis = service("data", "redis");
    redis["spec"]["clusterIP"] = json!("10.96.0.4");
    redis["spec"]["ports"] = json!([{"name": "tcp-redis", "port": 6379, "protocol": "TCP"}]);
    fixture.put(redis);
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    let cluster = "outbound|80||stock.shop.svc.cluster.local";
    log(
        &operator,
        vec![outbound("shop", "front-1", cluster, "anything")],
    )
    .await;
    fixture.scope("shop", "front", &["shop/stock"]).await;
    log(
        &operator,
        vec![connection("shop", "front-1", "10.96.0.4:6379")],
    )
    .await;
    fixture
        .scope("shop", "front", &["shop/stock", "data/redis"])
        .await;
    log(&operator, vec![from_address("10.0.0.1:40000", "cart")]).await;
    fixture
        .scope("shop", "front", &["shop/stock", "data/redis", "shop/cart"])
        .await;
    fixture.never_narrowed("shop", "front").await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn who_is_not_known_teaches_nothing() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture.scope("shop", "front", &[]).await;
    let before = fixture.writes("shop").await;
    log(
        &operator,
        vec![
            carried("shop", "nobody-1", &["cart"]),
            from_address("192.0.2.1:1", "cart"),
            // The caller itself, the fallback, and nothing.
            carried(
                "shop",
                "front-1",
                &["localhost", "global-sidecar.shop", "", "not a host"],
            ),
        ],
    )
    .await;
    fixture.settle().await;
    fixture.scope("shop", "front", &[]).await;
    assert_eq!(fixture.writes("shop").await, before);
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn the_status_says_how_and_when_and_a_restart_writes_nothing() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    let first = Timestamp::from_second(fixture.clock.now().as_second()).unwrap();
    let message = carried("shop", "front-1", &["cart", "www.example.com"]);
    log(&operator, vec![message]).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    let status = fixture
        .status_where("shop", "front", "two dependencies", |s| {
            s.dependencies.len() == 2
        })
        .await;
    let cart = &status.dependencies[0];
    assert_eq!(cart.host, "cart.shop.svc.cluster.local");
    assert_eq!(
        (cart.caller.as_str(), cart.state),
        ("front", DependencyState::Active)
    );
    assert_eq!(cart.evidence, ["AccessLog"]);
    assert_eq!(
        (cart.first_seen.clone(), cart.last_seen.clone()),
        (first.to_string(), first.to_string())
    );
    assert_eq!(cart.idle, None);
    let outside = &status.dependencies[1];
    assert_eq!(
        (outside.host.as_str(), outside.state),
        ("www.example.com", DependencyState::Unresolved)
    );
    let key = "{destination_service=\"cart.shop.svc.cluster.local\"}";
    assert_eq!(status.metric_status.get(key).map(String::as_str), Some("1"));
    operator.stop().await.unwrap();

    let before = fixture.writes("shop").await;
    fixture.clock.advance(Duration::from_secs(86_400));
    let again = fixture.operator(PLAIN).await;
    fixture.settle().await;
    assert_eq!(fixture.writes("shop").await, before);
    fixture.scope("shop", "front", &["shop/cart"]).await;
    log(&again, vec![carried("shop", "front-1", &["stock"])]).await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    fixture.never_narrowed("shop", "front").await;
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_call_before_the_fence_counts() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    assert_eq!(
        fixture.sidecars.of("shop", "front").len(),
        1,
        "not by steps"
    );
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn forgetting_begins_anew() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    let url = format!(
        "http://{}/lazyload/debug/svfReset?ns=shop&name=front",
        operator.http
    );
    let request = reqwest::Client::new().post(url);
    let answer = request.header(trimtab::http::REQUEST_HEADER, "1").send();
    answer.await.unwrap().error_for_status().unwrap();
    fixture
        .status_where("shop", "front", "nothing is learned", |s| {
            s.dependencies.is_empty()
        })
        .await;
    fixture.clock.advance(crate::fixture::GRACE);
    fixture.scope("shop", "front", &[]).await;
    operator.stop().await.unwrap();
}
