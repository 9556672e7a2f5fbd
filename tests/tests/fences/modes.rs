//! Every field and label of a ServiceFence, and what the configuration adds.

use jiff::SignedDuration;
use serde_json::{Value, json};
use trimtab_crds::fence::DomainState;
use trimtab_kit::clock::Clock;

use crate::logs::carried;
use crate::stand::{GRACE, PLAIN, Stand, log, pod, reason_of, service};

const CART: &str = "cart.shop.svc.cluster.local";
const STOCK: &str = "stock.shop.svc.cluster.local";

#[tokio::test]
async fn hosts_hold_as_their_strategies_say() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    let past = stand.clock.now() - SignedDuration::from_hours(2);
    let spec = json!({"host": {
        CART: {"stable": {}},
        STOCK: {},
        "data/*": {},
        "redis.data": {"deadline": {"expire": {"seconds": past.as_second()}}},
    }});
    stand.fence("shop", "front", spec).await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock", "data/redis"])
        .await;
    let status = stand.status("shop", "front").await;
    assert_eq!(status.domains["redis.data"].status, DomainState::Expire);
    assert_eq!(status.domains["data/*"].status, DomainState::Active);
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn auto_holds_while_it_is_called() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    // As Slime's examples write it, with the time that nobody sets.
    let auto = json!({"auto": {"duration": {"seconds": 3600}}, "RecentlyCalled": {"seconds": 1}});
    stand
        .fence(
            "shop",
            "front",
            json!({"host": {CART: auto.clone(), STOCK: auto}}),
        )
        .await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    stand.clock.advance(std::time::Duration::from_secs(3000));
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    stand
        .status_where("shop", "front", "cart is learned", |s| {
            !s.dependencies.is_empty()
        })
        .await;
    stand.clock.advance(std::time::Duration::from_secs(700));
    let waits = |s: &trimtab_crds::fence::FenceStatus| {
        s.domains[STOCK].status == DomainState::ExpireWait
            && s.domains[CART].status == DomainState::Active
    };
    stand
        .status_where("shop", "front", "stock expires", waits)
        .await;
    stand.clock.advance(GRACE);
    stand.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
}

async fn selector(stand: &Stand, name: &str) -> Value {
    stand.hosts_where("shop", name, "a Sidecar", |_| true).await;
    let sidecar = stand.sidecar("shop", name).await.unwrap();
    json!(sidecar.spec.workload_selector.unwrap().labels)
}

#[tokio::test]
async fn pods_are_selected_by_labels_by_service_or_by_name() {
    let stand = Stand::shop();
    let operator = stand
        .operator("{fallback: {enabled: false}, workloadLabel: svc}")
        .await;
    let labels = json!({"workloadSelector": {"labels": {"app": "front", "version": "v2"}}});
    stand.fence("shop", "labelled", labels).await;
    assert_eq!(
        selector(&stand, "labelled").await,
        json!({"app": "front", "version": "v2"})
    );
    stand
        .fence(
            "shop",
            "cart",
            json!({"workloadSelector": {"fromService": true}}),
        )
        .await;
    assert_eq!(selector(&stand, "cart").await, json!({"app": "cart"}));
    stand.fence("shop", "plain", json!({})).await;
    assert_eq!(selector(&stand, "plain").await, json!({"svc": "plain"}));
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn from_service_waits_for_the_service_and_follows_its_selector() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand
        .fence(
            "shop",
            "late",
            json!({"workloadSelector": {"fromService": true}}),
        )
        .await;
    stand
        .condition("shop", "late", "Accepted", "ServiceNotFound")
        .await;
    stand
        .condition("shop", "late", "Programmed", "Refused")
        .await;
    let mut late = service("shop", "late");
    late["spec"]["selector"] = Value::Null;
    stand.put(late.clone());
    stand
        .condition("shop", "late", "Accepted", "ServiceWithoutSelector")
        .await;
    late["spec"]["selector"] = json!({"app": "front"});
    stand.put(late.clone());
    stand
        .condition("shop", "late", "Programmed", "Programmed")
        .await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    stand.scope("shop", "late", &["shop/cart"]).await;
    late["spec"]["selector"] = json!({"app": "stock"});
    stand.put(late);
    let what = "the Sidecar follows";
    trimtab_lab::process::wait_until(what, crate::stand::BOUND, || async {
        let found = selector(&stand, "late").await;
        (found == json!({"app": "stock"}))
            .then_some(())
            .ok_or(found.to_string())
    })
    .await
    .unwrap();
    // Without the Service the Sidecar stays as it is.
    stand.delete("v1", "Service", "shop", "late").await;
    stand
        .condition("shop", "late", "Accepted", "ServiceNotFound")
        .await;
    stand.settle().await;
    assert!(stand.sidecar("shop", "late").await.is_some());
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn what_slime_has_learned_is_read_back() {
    let stand = Stand::shop();
    stand.fence("shop", "front", json!({})).await;
    stand
        .set_status(
            "shop",
            "front",
            json!({
                "domains": {CART: {"hosts": [CART], "status": "ACTIVE"}},
                "metricStatus": {
                    "{destination_service=\"cart.shop.svc.cluster.local\"}": "42",
                    "{request_host=\"stock.shop.svc.cluster.local\"}": "7",
                    "{destination_service=\"global-sidecar.x\"}": "1",
                },
            }),
        )
        .await;
    let operator = stand.operator(PLAIN).await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    let status = stand
        .status_where("shop", "front", "two dependencies", |s| {
            s.dependencies.len() == 2
        })
        .await;
    assert_eq!(status.dependencies[0].evidence, ["Restored"]);
    assert_eq!(status.dependencies[0].caller, "front");
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn aliases_and_stable_hosts_are_in() {
    let stand = Stand::shop();
    let config = "{fallback: {enabled: false}, stableHost: ['data/*', stock.shop.svc.cluster.local], \
        domainAliases: [{pattern: '^(?P<s>[a-z]+)\\.shop\\.svc\\.cluster\\.local$', templates: ['$s-v2.shop.svc.cluster.local']}]}";
    stand.service("shop", "cart-v2");
    let operator = stand.operator(config).await;
    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    let wanted = [
        "shop/cart",
        "shop/cart-v2",
        "shop/stock",
        "shop/stock-v2",
        "data/redis",
    ];
    stand.scope("shop", "front", &wanted).await;
    let status = stand.status("shop", "front").await;
    let hosts = [CART, "cart-v2.shop.svc.cluster.local"];
    assert_eq!(status.domains[CART].hosts, hosts);
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn the_revision_goes_from_the_fence_or_the_configuration_to_the_sidecar() {
    let fence = json!({
        "apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
        "metadata": {"namespace": "shop", "name": "front", "labels": {"istio.io/rev": "canary"}},
        "spec": {"enable": true},
    });
    for (config, revision) in [
        (PLAIN, "canary"),
        ("{fallback: {enabled: false}, revision: stable}", "stable"),
    ] {
        let stand = Stand::shop();
        let operator = stand.operator(config).await;
        stand.apply(fence.clone()).await;
        stand
            .hosts_where("shop", "front", "a Sidecar", |_| true)
            .await;
        let labels = stand
            .sidecar("shop", "front")
            .await
            .unwrap()
            .metadata
            .labels
            .unwrap();
        assert_eq!(labels["istio.io/rev"], revision);
        operator.stop().await.unwrap();
    }
}

#[tokio::test]
async fn modes_say_how_far_a_fence_goes() {
    let stand = Stand::shop();
    let operator = stand
        .operator("{fallback: {enabled: false}, mode: Observe}")
        .await;
    stand
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    stand
        .condition("shop", "front", "Programmed", "Observing")
        .await;
    let status = stand.status("shop", "front").await;
    assert!(
        status
            .scope
            .is_some_and(|s| s.services == 1 && s.mesh_services > 1)
    );
    stand
        .fence(
            "shop",
            "front",
            json!({"host": {CART: {}}, "mode": "Enforce"}),
        )
        .await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    stand
        .fence(
            "shop",
            "front",
            json!({"host": {CART: {}}, "mode": "Exclude"}),
        )
        .await;
    stand
        .condition("shop", "front", "Programmed", "Unsupported")
        .await;
    stand.no_sidecar("shop", "front").await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn nonsense_is_refused_or_remarked() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    let both = json!({
        "apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
        "metadata": {"namespace": "shop", "name": "both"},
        "spec": {"enable": true, "workloadSelector": {"fromService": true, "labels": {"app": "a"}}},
    });
    assert!(stand.api.load(both).is_err());
    let spec = json!({"host": {CART: {}, "no such host:80": {}, "gone.nowhere.example": {}}});
    stand.fence("shop", "front", spec).await;
    stand
        .condition("shop", "front", "Accepted", "AcceptedWithRemarks")
        .await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn pods_of_another_version_have_their_own_fence() {
    let stand = Stand::shop();
    let mut canary = pod(
        "shop",
        "canary",
        &json!({"app": "front", "version": "v2"}),
        "10.0.0.7",
    );
    canary["metadata"]["name"] = json!("canary-1");
    stand.put(canary);
    let operator = stand.operator(PLAIN).await;
    stand
        .fence(
            "shop",
            "canary",
            json!({"workloadSelector": {"labels": {"app": "canary"}}}),
        )
        .await;
    stand.fence("shop", "front", json!({})).await;
    log(&operator, vec![carried("shop", "canary-1", &["cart"])]).await;
    // Of the fence whose pods they are, and not of the one with the workload's name.
    stand.scope("shop", "front", &["shop/cart"]).await;
    let status = stand.status("shop", "front").await;
    assert_eq!(status.dependencies[0].caller, "canary");
    assert_eq!(reason_of(&status, "Programmed"), "Programmed");
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn what_slime_wrote_into_the_status_stays() {
    let stand = Stand::shop();
    stand.fence("shop", "front", json!({})).await;
    let visitor = json!({"visitor": {CART: true}});
    stand.set_status("shop", "front", visitor).await;
    let operator = stand.operator(PLAIN).await;
    stand
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    let status = stand.status("shop", "front").await;
    assert!(status.visitor.contains_key(CART), "{status:?}");
    // It is an older word for what may be called, and no dependency.
    stand.scope("shop", "front", &[]).await;
    operator.stop().await.unwrap();
}
