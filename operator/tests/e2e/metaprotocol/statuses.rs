//! Statuses of the other kinds, and of routers that are not in force.

use serde_json::json;
use trimtab_metaprotocol::object::Kind;

use super::{
    AERAKI, HOST, api, condition, load, mesh, operator, router_with, service, subsets, told,
};

fn redis_service(name: &str, host: &str) -> serde_json::Value {
    json!({"apiVersion": "redis.aeraki.io/v1alpha1", "kind": "RedisService", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"host": [host], "redis": [{"route": {"host": HOST}}]}})
}

#[tokio::test]
async fn redis_objects_are_told_what_became_of_them() {
    let embedded = api();
    load(&embedded, service("orders", "tcp-redis"));
    load(&embedded, redis_service("orders", HOST));
    load(
        &embedded,
        redis_service("lost", "nobody.shop.svc.cluster.local"),
    );
    load(
        &embedded,
        json!({"apiVersion": "redis.aeraki.io/v1alpha1", "kind": "RedisDestination", "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"host": HOST, "trafficPolicy": {"connectionPool": {"redis": {"mode": "PROXY", "auth": {"secret": {"name": "keys"}}}}}}}),
    );
    load(
        &embedded,
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "shop"}, "stringData": {"password": "s3cret"}}),
    );
    let operator = operator(
        &embedded,
        "metaprotocol: {readSecrets: true, secretsInline: true}",
    )
    .await;
    told(
        &embedded,
        Kind::RedisService,
        "orders",
        &[
            ("Accepted", "True Accepted"),
            ("ResolvedRefs", "True ResolvedRefs"),
        ],
    )
    .await;
    told(
        &embedded,
        Kind::RedisDestination,
        "orders",
        &[
            ("Accepted", "True Accepted"),
            ("ResolvedRefs", "True ResolvedRefs"),
        ],
    )
    .await;
    let lost = told(
        &embedded,
        Kind::RedisService,
        "lost",
        &[
            ("ResolvedRefs", "False NoHost"),
            ("Programmed", "False NotInForce"),
        ],
    )
    .await;
    assert!(
        condition(&lost, "ResolvedRefs").1.contains("tcp-redis"),
        "{lost}"
    );
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_secret_that_may_not_be_read_is_a_reference_that_does_not_resolve() {
    let embedded = api();
    load(&embedded, service("orders", "tcp-redis"));
    load(
        &embedded,
        json!({"apiVersion": "redis.aeraki.io/v1alpha1", "kind": "RedisDestination", "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"host": HOST, "trafficPolicy": {"connectionPool": {"redis": {"mode": "PROXY", "auth": {"secret": {"name": "keys"}}}}}}}),
    );
    load(
        &embedded,
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "shop"}, "stringData": {"password": "s3cret"}}),
    );
    let operator = operator(&embedded, "{}").await;
    let object = super::get(&embedded, Kind::RedisDestination, "orders").await;
    assert_eq!(object["metadata"]["name"], "orders");
    let told = trimtab_lab::process::wait_until("a reference", crate::support::BOUND, || async {
        let object = super::get(&embedded, Kind::RedisDestination, "orders").await;
        let (what, message) = condition(&object, "ResolvedRefs");
        if what.starts_with("False Secret") {
            Ok(message)
        } else {
            Err(object["status"].to_string())
        }
    })
    .await
    .unwrap();
    assert!(told.contains("shop/keys"), "{told}");
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn protocols_policies_and_second_routers_are_told() {
    let embedded = mesh();
    for name in ["a", "b"] {
        load(
            &embedded,
            json!({"apiVersion": "metaprotocol.aeraki.io/v1alpha1", "kind": "ApplicationProtocol", "metadata": {"name": name},
            "spec": {"protocol": "brpc", "codec": format!("codec.{name}")}}),
        );
    }
    load(
        &embedded,
        json!({"apiVersion": "dubbo.aeraki.io/v1alpha1", "kind": "DubboAuthorizationPolicy", "metadata": {"name": "all", "namespace": "shop"},
        "spec": {"rules": [{}]}}),
    );
    load(
        &embedded,
        router_with(
            "second",
            json!({"hosts": [HOST], "routes": [{"route": [{"destination": {"host": HOST}}]}]}),
        ),
    );
    load(
        &embedded,
        router_with(
            "nowhere",
            json!({"hosts": ["nobody.shop.svc.cluster.local"], "routes": [{"route": [{"destination": {"host": HOST}}]}]}),
        ),
    );
    let operator = operator(&embedded, AERAKI).await;
    told(
        &embedded,
        Kind::ApplicationProtocol,
        "b",
        &[("Accepted", "True Accepted")],
    )
    .await;
    let first = told(
        &embedded,
        Kind::ApplicationProtocol,
        "a",
        &[("Accepted", "False Conflict")],
    )
    .await;
    assert!(
        condition(&first, "Accepted")
            .1
            .contains("ApplicationProtocol b"),
        "{first}"
    );
    told(
        &embedded,
        Kind::DubboAuthorizationPolicy,
        "all",
        &[("ResolvedRefs", "True ResolvedRefs")],
    )
    .await;
    let second = told(
        &embedded,
        Kind::MetaRouter,
        "second",
        &[
            ("Accepted", "False Conflict"),
            ("Programmed", "False Conflict"),
        ],
    )
    .await;
    assert_eq!(second["status"].get("routes"), None);
    told(
        &embedded,
        Kind::MetaRouter,
        "nowhere",
        &[("ResolvedRefs", "False UnknownHost")],
    )
    .await;
    // The host comes up: an event of the Service reaches the waiting router.
    load(&embedded, service("nobody", "tcp-metaprotocol-dubbo"));
    told(
        &embedded,
        Kind::MetaRouter,
        "nowhere",
        &[
            ("ResolvedRefs", "True ResolvedRefs"),
            ("Programmed", "True NoProxies"),
        ],
    )
    .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_route_to_another_host_follows_the_events_of_that_host() {
    let embedded = api();
    load(&embedded, service("orders", "tcp-metaprotocol-dubbo"));
    load(&embedded, service("carts", "tcp-other"));
    let to = "carts.shop.svc.cluster.local";
    load(
        &embedded,
        router_with(
            "orders",
            json!({"hosts": [HOST], "routes": [{"route": [{"destination": {"host": to, "subset": "v9", "port": {"number": 20880}}}]}]}),
        ),
    );
    let operator = operator(&embedded, AERAKI).await;
    told(
        &embedded,
        Kind::MetaRouter,
        "orders",
        &[("ResolvedRefs", "False UnknownSubset")],
    )
    .await;
    let mut rule = subsets();
    rule["metadata"]["name"] = json!("carts");
    // A short name, as a user may write it.
    rule["spec"] =
        json!({"host": "carts", "subsets": [{"name": "v9", "labels": {"version": "v9"}}]});
    load(&embedded, rule);
    told(
        &embedded,
        Kind::MetaRouter,
        "orders",
        &[
            ("Accepted", "True Accepted"),
            ("ResolvedRefs", "True ResolvedRefs"),
        ],
    )
    .await;
    operator.stop().await.unwrap();
}
