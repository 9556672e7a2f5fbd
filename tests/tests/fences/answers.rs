//! The JSON API: what is in force and why, and how to forget.

use serde_json::{Value, json};
use trimtab::operator::Operator;

use crate::logs::carried;
use crate::stand::{GRACE, PLAIN, Stand, log};

const CART: &str = "cart.shop.svc.cluster.local";

async fn get(operator: &Operator, path: &str) -> (u16, Value) {
    let answer = reqwest::get(format!("http://{}{path}", operator.http)).await;
    let answer = answer.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(json!(text)))
}

async fn forget(operator: &Operator, fence: &str) -> u16 {
    let url = format!(
        "http://{}/api/v1/lazyload/fences/{fence}/forget",
        operator.http
    );
    let answer = reqwest::Client::new().post(url).send().await.unwrap();
    answer.status().as_u16()
}

#[tokio::test]
async fn forgetting_takes_what_was_learned_of_one_fence_and_nothing_else() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    stand.fence("shop", "stock", json!({})).await;
    log(
        &operator,
        vec![
            carried("shop", "front-1", &["redis.data", "stock"]),
            carried("shop", "stock-1", &["redis.data"]),
        ],
    )
    .await;
    let all = ["shop/cart", "data/redis", "shop/stock"];
    stand.scope("shop", "front", &all).await;
    stand.scope("shop", "stock", &["data/redis"]).await;
    assert_eq!(forget(&operator, "shop/nobody").await, 404);
    stand.never_narrowed("shop", "front").await;
    assert_eq!(forget(&operator, "shop/front").await, 200);
    stand
        .status_where("shop", "front", "nothing is learned", |s| {
            s.dependencies.is_empty() && s.metric_status.is_empty()
        })
        .await;
    // What was forgotten has the grace; a call in it keeps its host.
    stand.settle().await;
    stand.scope("shop", "front", &all).await;
    stand.never_narrowed("shop", "front").await;
    log(&operator, vec![carried("shop", "front-1", &["stock"])]).await;
    stand
        .status_where("shop", "front", "stock again", |s| {
            s.dependencies.len() == 1
        })
        .await;
    stand.clock.advance(GRACE);
    let kept = ["shop/cart", "shop/stock"];
    stand.scope("shop", "front", &kept).await;
    stand.scope("shop", "stock", &["data/redis"]).await;
    stand.never_narrowed("shop", "stock").await;
    operator.stop().await.unwrap();
    // A restart does not remember either.
    let operator = stand.operator(PLAIN).await;
    stand.settle().await;
    stand.scope("shop", "front", &kept).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn the_answers_say_what_is_in_scope_and_why() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    log(&operator, vec![carried("shop", "front-1", &["redis.data"])]).await;
    stand
        .scope("shop", "front", &["shop/cart", "data/redis"])
        .await;
    stand.settle().await;
    let (_, fence) = get(&operator, "/api/v1/lazyload/fences/shop/front").await;
    assert_eq!(fence["selector"], json!({"app": "front"}), "{fence}");
    assert_eq!(fence["size"]["services"], 2, "{fence}");
    let entries = fence["entries"].as_object().unwrap();
    for host in ["shop/cart.shop", "data/redis.data"] {
        let reasons = &entries[&format!("{host}.svc.cluster.local")];
        assert!(!reasons.as_array().unwrap().is_empty(), "{fence}");
    }
    let dependency = &fence["dependencies"][0];
    assert_eq!(dependency["caller"], "front", "{fence}");
    assert_eq!(dependency["evidence"], json!(["AccessLog"]), "{fence}");
    let (_, pod) = get(&operator, "/api/v1/lazyload/pods/shop/front-1").await;
    assert_eq!(pod["items"], json!([fence]));
    let (_, edges) = get(&operator, "/api/v1/lazyload/edges").await;
    assert_eq!(edges["total"], 1, "{edges}");
    assert_eq!(edges["items"][0]["caller"], "shop/front", "{edges}");
    let (_, mesh) = get(&operator, "/api/v1/lazyload").await;
    assert_eq!(mesh["edges"], 1, "{mesh}");
    for missing in ["fences/shop/nobody", "pods/shop/cart-1"] {
        let (status, text) = get(&operator, &format!("/api/v1/lazyload/{missing}")).await;
        assert_eq!(status, 404, "{text}");
    }
    operator.stop().await.unwrap();
}
