//! The JSON API: what is in force and why, and how to forget.

use serde_json::{Value, json};
use trimtab::http::REQUEST_HEADER;
use trimtab::operator::Operator;

use crate::fixture::{Fixture, GRACE, PLAIN, log};
use crate::logs::carried;

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
    let request = reqwest::Client::new().post(url);
    let request = request.header(REQUEST_HEADER, "1");
    let answer = request.send().await.unwrap();
    answer.status().as_u16()
}

#[tokio::test]
async fn fault_o27_only_a_post_from_here_forgets() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    let client = reqwest::Client::new();
    for path in [
        "lazyload/debug/svfReset?ns=shop",
        "api/v1/lazyload/fences/shop/front/forget",
    ] {
        let url = format!("http://{}/{path}", operator.http);
        let post = || client.post(&url).header(REQUEST_HEADER, "1");
        let status = async |request: reqwest::RequestBuilder| {
            let answer = request.send().await.unwrap();
            answer.status().as_u16()
        };
        assert_eq!(status(client.get(&url)).await, 405, "{path}");
        assert_eq!(status(client.post(&url)).await, 403, "{path}");
        for (name, value) in [
            ("sec-fetch-site", "cross-site"),
            ("origin", "https://elsewhere.example"),
            ("origin", "null"),
        ] {
            assert_eq!(status(post().header(name, value)).await, 403, "{path}");
        }
    }
    let (_, view) = get(&operator, "/api/v1/lazyload/fences/shop/front").await;
    let known = view["dependencies"].as_array().unwrap().len();
    assert_eq!(known, 1, "nothing is forgotten: {view}");
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_o27_pages_are_neither_framed_nor_sniffed_and_run_only_our_scripts() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    for path in [
        "/",
        "/dependencies",
        "/status.js",
        "/dependencies.js",
        "/status.css",
        "/nothing",
    ] {
        let answer = reqwest::get(format!("http://{}{path}", operator.http));
        let answer = answer.await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("x-frame-options"), "DENY", "{path}");
        let policy = header("content-security-policy");
        assert!(
            policy.contains("script-src 'self'") && !policy.contains("unsafe"),
            "{policy}"
        );
        let kind = header("content-type");
        assert_eq!(kind.contains("javascript"), path.ends_with(".js"), "{path}");
        let text = answer.text().await.unwrap();
        assert!(
            !text.contains("<script>") && !text.contains(" style="),
            "{path}: the policy lets nothing run that is in the page"
        );
    }
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn forgetting_takes_what_was_learned_of_one_fence_and_nothing_else() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    fixture.fence("shop", "stock", json!({})).await;
    log(
        &operator,
        vec![
            carried("shop", "front-1", &["redis.data", "stock"]),
            carried("shop", "stock-1", &["redis.data"]),
        ],
    )
    .await;
    let all = ["shop/cart", "data/redis", "shop/stock"];
    fixture.scope("shop", "front", &all).await;
    fixture.scope("shop", "stock", &["data/redis"]).await;
    assert_eq!(forget(&operator, "shop/nobody").await, 404);
    fixture.never_narrowed("shop", "front").await;
    assert_eq!(forget(&operator, "shop/front").await, 200);
    fixture
        .status_where("shop", "front", "nothing is learned", |s| {
            s.dependencies.is_empty() && s.metric_status.is_empty()
        })
        .await;
    // What was forgotten has the grace; a call in it keeps its host.
    fixture.settle().await;
    fixture.scope("shop", "front", &all).await;
    fixture.never_narrowed("shop", "front").await;
    log(&operator, vec![carried("shop", "front-1", &["stock"])]).await;
    fixture
        .status_where("shop", "front", "stock again", |s| {
            s.dependencies.len() == 1
        })
        .await;
    fixture.clock.advance(GRACE);
    let kept = ["shop/cart", "shop/stock"];
    fixture.scope("shop", "front", &kept).await;
    fixture.scope("shop", "stock", &["data/redis"]).await;
    fixture.never_narrowed("shop", "stock").await;
    operator.stop().await.unwrap();
    // A restart does not remember either.
    let operator = fixture.operator(PLAIN).await;
    fixture.settle().await;
    fixture.scope("shop", "front", &kept).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn the_answers_say_what_is_in_scope_and_why() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    log(&operator, vec![carried("shop", "front-1", &["redis.data"])]).await;
    fixture
        .scope("shop", "front", &["shop/cart", "data/redis"])
        .await;
    fixture.settle().await;
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
