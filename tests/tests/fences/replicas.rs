//! Two operators on one API: what each of them learns is known to both, and then nobody writes any more.

use serde_json::json;

use crate::fixture::{Fixture, PLAIN, log};
use crate::logs::carried;

#[tokio::test]
async fn replicas_converge_to_the_union_and_then_are_silent() {
    let fixture = Fixture::shop();
    let one = fixture.operator(PLAIN).await;
    let two = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture.scope("shop", "front", &[]).await;
    // Both at the same time, so that their writes cross.
    tokio::join!(
        log(
            &one,
            vec![carried("shop", "front-1", &["cart", "www.one.example"])]
        ),
        log(
            &two,
            vec![carried("shop", "front-1", &["stock", "www.two.example"])]
        ),
    );
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    log(&two, vec![carried("shop", "front-1", &["redis.data"])]).await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock", "data/redis"])
        .await;
    fixture
        .status_where("shop", "front", "the union", |s| s.dependencies.len() == 5)
        .await;
    for operator in [&one, &two] {
        let engine = operator.get::<trimtab_lazyload::engine::Engine>().unwrap();
        trimtab_lab::process::wait_until("five edges", crate::fixture::BOUND, || async {
            let edges = engine.mesh_view().edges;
            (edges == 5).then_some(()).ok_or(format!("{edges}"))
        })
        .await
        .unwrap();
    }
    fixture.settle().await;
    let before = fixture.writes("shop").await;
    // Calls of what is known, to either.
    let known = || {
        carried(
            "shop",
            "front-1",
            &["cart", "stock", "redis.data", "www.one.example"],
        )
    };
    log(&one, vec![known()]).await;
    log(&two, vec![known()]).await;
    fixture.settle().await;
    assert_eq!(fixture.writes("shop").await, before);
    fixture.never_narrowed("shop", "front").await;
    one.stop().await.unwrap();
    two.stop().await.unwrap();
}

#[tokio::test]
async fn many_rounds_of_crossing_writes_lose_nothing() {
    let fixture = Fixture::shop();
    for i in 0..40 {
        fixture.service("data", &format!("s{i:02}"));
    }
    let one = fixture.operator(PLAIN).await;
    let two = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture.scope("shop", "front", &[]).await;
    for round in 0..20 {
        let (a, b) = (
            format!("s{:02}.data", 2 * round),
            format!("s{:02}.data", 2 * round + 1),
        );
        tokio::join!(
            log(&one, vec![carried("shop", "front-1", &[&a])]),
            log(&two, vec![carried("shop", "front-1", &[&b])]),
        );
    }
    let all: Vec<String> = (0..40).map(|i| format!("data/s{i:02}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    fixture.scope("shop", "front", &all).await;
    fixture
        .status_where("shop", "front", "all 40", |s| s.dependencies.len() == 40)
        .await;
    fixture.settle().await;
    let before = fixture.writes("shop").await;
    fixture.settle().await;
    assert_eq!(fixture.status("shop", "front").await.dependencies.len(), 40);
    assert_eq!(fixture.writes("shop").await, before);
    one.stop().await.unwrap();
    two.stop().await.unwrap();
    fixture.never_narrowed("shop", "front").await;
    // All of it survives both.
    let three = fixture.operator(PLAIN).await;
    fixture.settle().await;
    fixture.scope("shop", "front", &all).await;
    assert_eq!(fixture.writes("shop").await, before);
    three.stop().await.unwrap();
}
