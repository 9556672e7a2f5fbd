//! Several fences, and Sidecars of users, for the same pods.

use serde_json::{Value, json};

use crate::fixture::{Fixture, PLAIN, entry, log, reason_of, user_sidecar};
use crate::history::hosts;
use crate::logs::carried;

const CART: &str = "cart.shop.svc.cluster.local";

fn selecting(labels: &Value, host: &str) -> Value {
    json!({"workloadSelector": {"labels": labels}, "host": {host: {}}})
}

#[tokio::test]
async fn fences_of_the_same_pods_share_what_they_need() {
    // Equal, contained, and overlapping selectors; the first fence is the older one.
    for (first, second, writers) in [
        (
            json!({"app": "front"}),
            json!({"app": "front"}),
            &["one"][..],
        ),
        (
            json!({"app": "front"}),
            json!({"app": "front", "v": "1"}),
            &["one"],
        ),
        (
            json!({"app": "front", "v": "1"}),
            json!({"app": "front"}),
            &["two"],
        ),
        (json!({"app": "front"}), json!({"v": "1"}), &["one", "two"]),
    ] {
        let fixture = Fixture::shop();
        fixture.pod(
            "shop",
            "front",
            &json!({"app": "front", "v": "1"}),
            "10.0.0.1",
        );
        let operator = fixture.operator(PLAIN).await;
        fixture.fence("shop", "one", selecting(&first, CART)).await;
        fixture.scope("shop", "one", &["shop/cart"]).await;
        fixture
            .fence("shop", "two", selecting(&second, "redis.data"))
            .await;
        for name in writers {
            fixture
                .scope("shop", name, &["shop/cart", "data/redis"])
                .await;
        }
        for name in ["one", "two"].iter().filter(|n| !writers.contains(n)) {
            fixture
                .condition("shop", name, "Programmed", "Merged")
                .await;
            fixture.no_sidecar("shop", name).await;
        }
        log(&operator, vec![carried("shop", "front-1", &["stock"])]).await;
        for name in writers {
            fixture
                .scope("shop", name, &["shop/cart", "data/redis", "shop/stock"])
                .await;
        }
        for name in ["one", "two"] {
            fixture.never_narrowed("shop", name).await;
        }
        the_other_takes_over(&fixture, writers).await;
        operator.stop().await.unwrap();
    }
}

/// When the fence that writes goes.
async fn the_other_takes_over(fixture: &Fixture, writers: &[&str]) {
    let (goes, stays) = if writers == ["two"] {
        ("two", "one")
    } else {
        ("one", "two")
    };
    fixture.delete_fence("shop", goes).await;
    fixture.no_sidecar("shop", goes).await;
    let own = if stays == "one" {
        "shop/cart"
    } else {
        "data/redis"
    };
    fixture
        .hosts_where("shop", stays, "it takes over", |h| {
            h.contains(&entry(own)) && h.contains(&entry("shop/stock"))
        })
        .await;
    fixture
        .condition("shop", stays, "Programmed", "Programmed")
        .await;
}

#[tokio::test]
async fn a_users_sidecar_stays_alone() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    let labels = json!({"app": "front"});
    fixture.apply(user_sidecar("shop", "mine", &labels)).await;
    fixture
        .condition("shop", "front", "Programmed", "UserSidecar")
        .await;
    fixture.no_sidecar("shop", "front").await;
    log(&operator, vec![carried("shop", "front-1", &["stock"])]).await;
    fixture.settle().await;
    fixture.no_sidecar("shop", "front").await;
    fixture
        .delete("networking.istio.io/v1", "Sidecar", "shop", "mine")
        .await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    fixture.never_narrowed("shop", "front").await;
    // One for the whole namespace is no rival: ours goes before it.
    let mut whole = user_sidecar("shop", "default", &labels);
    whole["spec"]["workloadSelector"] = Value::Null;
    fixture.put(whole);
    fixture.settle().await;
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_users_sidecar_of_the_fences_name_is_not_taken() {
    let fixture = Fixture::shop();
    let mine = user_sidecar("shop", "front", &json!({"app": "other"}));
    fixture.apply(mine).await;
    let operator = fixture.operator(PLAIN).await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    fixture
        .status_where("shop", "front", "a word", |s| {
            !reason_of(s, "Programmed").is_empty()
        })
        .await;
    fixture.settle().await;
    let sidecar = fixture.sidecar("shop", "front").await.unwrap();
    assert_eq!(hosts(&sidecar), ["./*".to_owned()].into(), "{sidecar:?}");
    fixture
        .delete("networking.istio.io/v1", "Sidecar", "shop", "front")
        .await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
}
