//! Several fences, and Sidecars of users, for the same pods.

use serde_json::{Value, json};

use crate::history::hosts;
use crate::logs::carried;
use crate::stand::{PLAIN, Stand, entry, log, reason_of, user_sidecar};

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
        let stand = Stand::shop();
        stand.pod(
            "shop",
            "front",
            &json!({"app": "front", "v": "1"}),
            "10.0.0.1",
        );
        let operator = stand.operator(PLAIN).await;
        stand.fence("shop", "one", selecting(&first, CART)).await;
        stand.scope("shop", "one", &["shop/cart"]).await;
        stand
            .fence("shop", "two", selecting(&second, "redis.data"))
            .await;
        for name in writers {
            stand
                .scope("shop", name, &["shop/cart", "data/redis"])
                .await;
        }
        for name in ["one", "two"].iter().filter(|n| !writers.contains(n)) {
            stand.condition("shop", name, "Programmed", "Merged").await;
            stand.no_sidecar("shop", name).await;
        }
        log(&operator, vec![carried("shop", "front-1", &["stock"])]).await;
        for name in writers {
            stand
                .scope("shop", name, &["shop/cart", "data/redis", "shop/stock"])
                .await;
        }
        for name in ["one", "two"] {
            stand.never_narrowed("shop", name).await;
        }
        the_other_takes_over(&stand, writers).await;
        operator.stop().await.unwrap();
    }
}

/// When the fence that writes goes.
async fn the_other_takes_over(stand: &Stand, writers: &[&str]) {
    let (goes, stays) = if writers == ["two"] {
        ("two", "one")
    } else {
        ("one", "two")
    };
    stand.delete_fence("shop", goes).await;
    stand.no_sidecar("shop", goes).await;
    let own = if stays == "one" {
        "shop/cart"
    } else {
        "data/redis"
    };
    stand
        .hosts_where("shop", stays, "it takes over", |h| {
            h.contains(&entry(own)) && h.contains(&entry("shop/stock"))
        })
        .await;
    stand
        .condition("shop", stays, "Programmed", "Programmed")
        .await;
}

#[tokio::test]
async fn a_users_sidecar_stays_alone() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    let labels = json!({"app": "front"});
    stand.apply(user_sidecar("shop", "mine", &labels)).await;
    stand
        .condition("shop", "front", "Programmed", "UserSidecar")
        .await;
    stand.no_sidecar("shop", "front").await;
    log(&operator, vec![carried("shop", "front-1", &["stock"])]).await;
    stand.settle().await;
    stand.no_sidecar("shop", "front").await;
    stand
        .delete("networking.istio.io/v1", "Sidecar", "shop", "mine")
        .await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    stand.never_narrowed("shop", "front").await;
    // One for the whole namespace is no rival: ours goes before it.
    let mut whole = user_sidecar("shop", "default", &labels);
    whole["spec"]["workloadSelector"] = Value::Null;
    stand.put(whole);
    stand.settle().await;
    stand
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_users_sidecar_of_the_fences_name_is_not_taken() {
    let stand = Stand::shop();
    let mine = user_sidecar("shop", "front", &json!({"app": "other"}));
    stand.apply(mine).await;
    let operator = stand.operator(PLAIN).await;
    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    stand
        .status_where("shop", "front", "a word", |s| {
            !reason_of(s, "Programmed").is_empty()
        })
        .await;
    stand.settle().await;
    let sidecar = stand.sidecar("shop", "front").await.unwrap();
    assert_eq!(hosts(&sidecar), ["./*".to_owned()].into(), "{sidecar:?}");
    stand
        .delete("networking.istio.io/v1", "Sidecar", "shop", "front")
        .await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
}
