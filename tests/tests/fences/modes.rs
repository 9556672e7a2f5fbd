//! Every field and label of a ServiceFence, and what the configuration adds.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde_json::{Value, json};
use trimtab_crds::fence::DomainState;
use trimtab_kit::clock::Clock;

use crate::fixture::{Fixture, GRACE, PLAIN, log, pod, reason_of, service};
use crate::logs::carried;

const CART: &str = "cart.shop.svc.cluster.local";
const STOCK: &str = "stock.shop.svc.cluster.local";

#[tokio::test]
async fn hosts_hold_as_their_strategies_say() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    let past = fixture.clock.now() - SignedDuration::from_hours(2);
    let spec = json!({"host": {
        CART: {"stable": {}},
        STOCK: {},
        "data/*": {},
        "redis.data": {"deadline": {"expire": {"seconds": past.as_second()}}},
    }});
    fixture.fence("shop", "front", spec).await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock", "data/*"])
        .await;
    let status = fixture.status("shop", "front").await;
    assert_eq!(status.domains["redis.data"].status, DomainState::Expire);
    assert_eq!(status.domains["data/*"].status, DomainState::Active);
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn auto_holds_while_it_is_called() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    // As Slime's examples write it, with the time that nobody sets.
    let auto = json!({"auto": {"duration": {"seconds": 3600}}, "RecentlyCalled": {"seconds": 1}});
    fixture
        .fence(
            "shop",
            "front",
            json!({"host": {CART: auto.clone(), STOCK: auto}}),
        )
        .await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    fixture.clock.advance(std::time::Duration::from_secs(3000));
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture
        .status_where("shop", "front", "cart is learned", |s| {
            !s.dependencies.is_empty()
        })
        .await;
    fixture.clock.advance(std::time::Duration::from_secs(700));
    let waits = |s: &trimtab_crds::fence::FenceStatus| {
        s.domains[STOCK].status == DomainState::ExpireWait
            && s.domains[CART].status == DomainState::Active
    };
    fixture
        .status_where("shop", "front", "stock expires", waits)
        .await;
    fixture.clock.advance(GRACE);
    fixture.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
}

async fn selector(fixture: &Fixture, name: &str) -> Value {
    fixture
        .hosts_where("shop", name, "a Sidecar", |_| true)
        .await;
    let sidecar = fixture.sidecar("shop", name).await.unwrap();
    json!(sidecar.spec.workload_selector.unwrap().labels)
}

#[tokio::test]
async fn pods_are_selected_by_labels_by_service_or_by_name() {
    let fixture = Fixture::shop();
    let operator = fixture
        .operator("{fallback: {enabled: false}, workloadLabel: svc}")
        .await;
    let labels = json!({"workloadSelector": {"labels": {"app": "front", "version": "v2"}}});
    fixture.fence("shop", "labelled", labels).await;
    assert_eq!(
        selector(&fixture, "labelled").await,
        json!({"app": "front", "version": "v2"})
    );
    fixture
        .fence(
            "shop",
            "cart",
            json!({"workloadSelector": {"fromService": true}}),
        )
        .await;
    assert_eq!(selector(&fixture, "cart").await, json!({"app": "cart"}));
    fixture.fence("shop", "plain", json!({})).await;
    assert_eq!(selector(&fixture, "plain").await, json!({"svc": "plain"}));
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn from_service_waits_for_the_service_and_follows_its_selector() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture
        .fence(
            "shop",
            "late",
            json!({"workloadSelector": {"fromService": true}}),
        )
        .await;
    fixture
        .condition("shop", "late", "Accepted", "ServiceNotFound")
        .await;
    fixture
        .condition("shop", "late", "Programmed", "Refused")
        .await;
    let mut late = service("shop", "late");
    late["spec"]["selector"] = Value::Null;
    fixture.put(late.clone());
    fixture
        .condition("shop", "late", "Accepted", "ServiceWithoutSelector")
        .await;
    late["spec"]["selector"] = json!({"app": "front"});
    fixture.put(late.clone());
    fixture
        .condition("shop", "late", "Programmed", "Programmed")
        .await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture.scope("shop", "late", &["shop/cart"]).await;
    late["spec"]["selector"] = json!({"app": "stock"});
    fixture.put(late);
    let what = "the Sidecar follows";
    trimtab_lab::process::wait_until(what, crate::fixture::BOUND, || async {
        let found = selector(&fixture, "late").await;
        (found == json!({"app": "stock"}))
            .then_some(())
            .ok_or(found.to_string())
    })
    .await
    .unwrap();
    // Without the Service the Sidecar stays as it is.
    fixture.delete("v1", "Service", "shop", "late").await;
    fixture
        .condition("shop", "late", "Accepted", "ServiceNotFound")
        .await;
    fixture.settle().await;
    assert!(fixture.sidecar("shop", "late").await.is_some());
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn what_slime_has_learned_is_read_back() {
    let fixture = Fixture::shop();
    fixture.fence("shop", "front", json!({})).await;
    fixture
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
    let operator = fixture.operator(PLAIN).await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    let status = fixture
        .status_where("shop", "front", "two dependencies", |s| {
            s.dependencies.len() == 2
        })
        .await;
    assert_eq!(status.dependencies[0].evidence, ["Restored"]);
    assert_eq!(status.dependencies[0].caller, "front");
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_o34_aliases_and_stable_hosts_are_in() {
    let fixture = Fixture::shop();
    let config = "{fallback: {enabled: false}, stableHost: ['data/*', stock.shop.svc.cluster.local], \
        domainAliases: [{pattern: '^(?P<s>[a-z]+)\\.shop\\.svc\\.cluster\\.local$', templates: ['$s-v2.shop.svc.cluster.local']}]}";
    fixture.service("shop", "cart-v2");
    let operator = fixture.operator(config).await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    let wanted = [
        "shop/cart",
        "shop/cart-v2",
        "shop/stock",
        "shop/stock-v2",
        "data/*",
    ];
    fixture.scope("shop", "front", &wanted).await;
    let status = fixture.status("shop", "front").await;
    let hosts = [CART, "cart-v2.shop.svc.cluster.local"];
    assert_eq!(status.domains[CART].hosts, hosts);
    let alias = &status.domains["cart-v2.shop.svc.cluster.local"];
    assert_eq!(alias.hosts, ["cart-v2.shop.svc.cluster.local"]);
    assert_eq!(alias.status, status.domains[CART].status);
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
        let fixture = Fixture::shop();
        let operator = fixture.operator(config).await;
        fixture.apply(fence.clone()).await;
        fixture
            .hosts_where("shop", "front", "a Sidecar", |_| true)
            .await;
        let labels = fixture
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
    let fixture = Fixture::shop();
    let operator = fixture
        .operator("{fallback: {enabled: false}, mode: Observe}")
        .await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}}}))
        .await;
    fixture
        .condition("shop", "front", "Programmed", "Observing")
        .await;
    let status = fixture.status("shop", "front").await;
    assert!(
        status
            .scope
            .is_some_and(|s| s.services == 1 && s.mesh_services > 1)
    );
    fixture
        .fence(
            "shop",
            "front",
            json!({"host": {CART: {}}, "mode": "Enforce"}),
        )
        .await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    fixture
        .fence(
            "shop",
            "front",
            json!({"host": {CART: {}}, "mode": "Exclude"}),
        )
        .await;
    let everything = |hosts: &BTreeSet<String>| *hosts == BTreeSet::from(["*/*".to_owned()]);
    fixture
        .hosts_where("shop", "front", "everything", everything)
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn nonsense_is_refused_or_remarked() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    let both = json!({
        "apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
        "metadata": {"namespace": "shop", "name": "both"},
        "spec": {"enable": true, "workloadSelector": {"fromService": true, "labels": {"app": "a"}}},
    });
    assert!(fixture.api.load(both).is_err());
    let spec = json!({"host": {CART: {}, "no such host:80": {}, "gone.nowhere.example": {}}});
    fixture.fence("shop", "front", spec).await;
    fixture
        .condition("shop", "front", "Accepted", "AcceptedWithRemarks")
        .await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn pods_of_another_version_have_their_own_fence() {
    let fixture = Fixture::shop();
    let mut canary = pod(
        "shop",
        "canary",
        &json!({"app": "front", "version": "v2"}),
        "10.0.0.7",
    );
    canary["metadata"]["name"] = json!("canary-1");
    fixture.put(canary);
    let operator = fixture.operator(PLAIN).await;
    fixture
        .fence(
            "shop",
            "canary",
            json!({"workloadSelector": {"labels": {"app": "canary"}}}),
        )
        .await;
    fixture.fence("shop", "front", json!({})).await;
    log(&operator, vec![carried("shop", "canary-1", &["cart"])]).await;
    // Of the fence whose pods they are, and not of the one with the workload's name.
    fixture.scope("shop", "front", &["shop/cart"]).await;
    let status = fixture.status("shop", "front").await;
    assert_eq!(status.dependencies[0].caller, "canary");
    assert_eq!(reason_of(&status, "Programmed"), "Programmed");
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn what_slime_wrote_into_the_status_stays() {
    let fixture = Fixture::shop();
    fixture.fence("shop", "front", json!({})).await;
    let visitor = json!({"visitor": {CART: true}});
    fixture.set_status("shop", "front", visitor).await;
    let operator = fixture.operator(PLAIN).await;
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    let status = fixture.status("shop", "front").await;
    assert!(status.visitor.contains_key(CART), "{status:?}");
    // It is an older word for what may be called, and no dependency.
    fixture.scope("shop", "front", &[]).await;
    operator.stop().await.unwrap();
}
