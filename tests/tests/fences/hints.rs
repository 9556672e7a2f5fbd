//! What objects declare before the first call.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::fixture::{Fixture, GRACE, PLAIN, log, pod, service};
use crate::logs::carried;

fn calling(value: &str) -> Value {
    let mut object = pod("shop", "front", &json!({"app": "front"}), "10.0.0.1");
    object["spec"]["containers"][0]["env"] = json!([{"name": "X", "value": value}]);
    object
}

#[tokio::test]
async fn a_host_in_the_environment_is_in_scope_before_the_first_call() {
    let fixture = Fixture::shop();
    fixture.put(calling("redis://redis.data:6379/0,http://late.data"));
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture.scope("shop", "front", &["data/redis"]).await;
    let status = fixture
        .status_where("shop", "front", "one dependency", |s| {
            s.dependencies.len() == 1
        })
        .await;
    assert_eq!(status.dependencies[0].evidence, ["Template"]);
    assert!(status.metric_status.is_empty(), "no call was seen");
    // A Service that comes later was meant all the time.
    fixture.service("data", "late");
    fixture
        .scope("shop", "front", &["data/redis", "data/late"])
        .await;
    log(&operator, vec![carried("shop", "front-1", &["redis.data"])]).await;
    fixture
        .status_where("shop", "front", "both kinds", |s| {
            s.dependencies
                .iter()
                .any(|d| d.evidence == ["AccessLog", "Template"])
        })
        .await;
    fixture.settle().await;
    let before = fixture.writes("shop").await;
    operator.stop().await.unwrap();
    let operator = fixture.operator(PLAIN).await;
    fixture.settle().await;
    assert_eq!(
        fixture.writes("shop").await,
        before,
        "a restart writes nothing"
    );
    a_roll_out(&fixture).await;
    operator.stop().await.unwrap();
}

/// Hints of both templates hold until the old pod is gone.
async fn a_roll_out(fixture: &Fixture) {
    let mut next = calling("http://cart");
    next["metadata"]["name"] = json!("front-2");
    fixture.put(next);
    fixture
        .scope("shop", "front", &["data/redis", "data/late", "shop/cart"])
        .await;
    fixture.delete("v1", "Pod", "shop", "front-1").await;
    fixture
        .status_where(
            "shop",
            "front",
            "late is forgotten, redis was called",
            |s| {
                let hosts: BTreeSet<&str> =
                    s.dependencies.iter().map(|d| d.host.as_str()).collect();
                hosts
                    == BTreeSet::from([
                        "cart.shop.svc.cluster.local",
                        "redis.data.svc.cluster.local",
                    ])
            },
        )
        .await;
    fixture.never_narrowed("shop", "front").await;
    fixture.clock.advance(GRACE);
    fixture
        .scope("shop", "front", &["data/redis", "shop/cart"])
        .await;
}

#[tokio::test]
async fn proxies_of_istio_declare_nothing_and_hints_can_be_switched_off() {
    let fixture = Fixture::shop();
    let mut object = calling("http://cart");
    let proxy = json!({"name": "istio-proxy", "image": "p", "env": [{"name": "A", "value": "stock.shop:15012"}]});
    let containers = object["spec"]["containers"].as_array_mut().unwrap();
    containers.push(proxy);
    fixture.put(object);
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
    // Written hints go too.
    let operator = fixture
        .operator("{fallback: {enabled: false}, learn: {hints: false}}")
        .await;
    fixture
        .status_where("shop", "front", "no dependency", |s| {
            s.dependencies.is_empty()
        })
        .await;
    fixture.clock.advance(GRACE);
    fixture.scope("shop", "front", &[]).await;
    operator.stop().await.unwrap();
}

fn policy(spec: &Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"namespace": "data", "name": "p"}, "spec": spec,
    })
}

#[tokio::test]
async fn a_principal_that_is_allowed_is_a_caller() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture.fence("shop", "stock", json!({})).await;
    fixture.scope("shop", "front", &[]).await;
    let from = |principal: &str| json!([{"from": [{"source": {"principals": [principal]}}]}]);
    let rules = from("cluster.local/ns/shop/sa/front");
    fixture
        .apply(policy(
            &json!({"selector": {"matchLabels": {"app": "redis"}}, "rules": rules}),
        ))
        .await;
    fixture.scope("shop", "front", &["data/redis"]).await;
    fixture.scope("shop", "stock", &[]).await;
    let status = fixture.status("shop", "front").await;
    assert_eq!(status.dependencies[0].evidence, ["Policy"]);
    // A Service that the policy is for, made later; and one that it is not for.
    let mut also = service("data", "also");
    also["spec"]["selector"] = json!({"app": "redis"});
    fixture.put(also);
    fixture.service("data", "other");
    fixture
        .scope("shop", "front", &["data/redis", "data/also"])
        .await;
    // Another caller, by namespace and by name of the target.
    let targets = json!([{"kind": "Service", "group": "", "name": "other"}]);
    let everyone = json!([{"from": [{"source": {"namespaces": ["shop"]}}]}]);
    fixture
        .apply(policy(&json!({"targetRefs": targets, "rules": everyone})))
        .await;
    fixture.scope("shop", "stock", &["data/other"]).await;
    fixture
        .status_where("shop", "front", "the new one", |s| {
            s.dependencies.len() == 1 && s.dependencies[0].host.starts_with("other.data")
        })
        .await;
    fixture
        .delete("security.istio.io/v1", "AuthorizationPolicy", "data", "p")
        .await;
    fixture
        .status_where("shop", "stock", "no dependency", |s| {
            s.dependencies.is_empty()
        })
        .await;
    fixture.clock.advance(GRACE);
    fixture.scope("shop", "front", &[]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_host_in_the_arguments_is_in_scope_before_the_first_call() {
    let fixture = Fixture::shop();
    let mut object = calling("nothing");
    object["spec"]["containers"][0]["args"] = json!(["--cache=redis.data:6379", "--verbose"]);
    object["spec"]["containers"][0]["command"] = json!(["/app", "--cart", "http://cart.shop/v1"]);
    fixture.put(object);
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture
        .scope("shop", "front", &["data/redis", "shop/cart"])
        .await;
    assert_eq!(
        fixture.sidecars.of("shop", "front").len(),
        1,
        "from the first"
    );
    operator.stop().await.unwrap();
}
