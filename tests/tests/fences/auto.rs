//! ServiceFences that Trimtab makes, and unmakes.

use kube::ResourceExt;
use serde_json::{Value, json};
use trimtab_lab::process::wait_until;

use crate::fixture::{BOUND, Fixture, PLAIN, log, pod, service};
use crate::logs::carried;

const AUTO: &str = "{fallback: {enabled: false}, fences: {autoFence: true}}";
const DEFAULT: &str = "{fallback: {enabled: false}, fences: {autoFence: true, defaultFence: true}}";

fn namespace(name: &str, labels: &Value, annotations: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels, "annotations": annotations}})
}

fn labelled(name: &str, fenced: &str) -> Value {
    let mut object = service("shop", name);
    object["metadata"]["labels"]["slime.io/serviceFenced"] = json!(fenced);
    object
}

/// Waits until the fences of `shop` are these.
async fn fences(fixture: &Fixture, wanted: &[&str]) {
    let api: kube::Api<trimtab_crds::fence::ServiceFence> =
        kube::Api::namespaced(fixture.api.client(), "shop");
    wait_until(&format!("the fences are {wanted:?}"), BOUND, || async {
        let all = api.list(&<_>::default()).await.unwrap();
        let mut names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
        names.sort();
        (names == wanted).then_some(()).ok_or(format!("{names:?}"))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_service_goes_before_the_namespace_and_that_before_the_default() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(AUTO).await;
    fixture.put(labelled("front", "true"));
    fences(&fixture, &["front"]).await;
    let fence = fixture.fence_of("shop", "front").await.unwrap();
    assert_eq!(
        fence.labels()["app.kubernetes.io/created-by"],
        "fence-controller"
    );
    assert!(
        fence.spec.enable
            && fence
                .spec
                .workload_selector
                .as_ref()
                .is_some_and(|w| w.from_service)
    );
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;

    fixture.put(namespace(
        "shop",
        &json!({"slime.io/serviceFenced": "true"}),
        &json!({}),
    ));
    fences(&fixture, &["cart", "front", "stock"]).await;
    fixture.put(labelled("cart", "false"));
    fences(&fixture, &["front", "stock"]).await;
    fixture.put(namespace(
        "shop",
        &json!({"slime.io/serviceFenced": "false"}),
        &json!({}),
    ));
    fences(&fixture, &["front"]).await;
    fixture.put(labelled("front", "no"));
    fences(&fixture, &[]).await;
    fixture.no_sidecar("shop", "front").await;
    operator.stop().await.unwrap();

    fixture.put(namespace("shop", &json!({}), &json!({})));
    let operator = fixture.operator(DEFAULT).await;
    fences(&fixture, &["front", "stock"]).await;
    // A deleted fence comes back while it is wanted, and goes with its Service.
    fixture.delete_fence("shop", "stock").await;
    fences(&fixture, &["front", "stock"]).await;
    fixture.delete("v1", "Service", "shop", "stock").await;
    fences(&fixture, &["front"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn switching_off_cleans_up_only_what_is_ours() {
    let fixture = Fixture::shop();
    fixture
        .fence("shop", "cart", json!({"host": {"redis.data": {}}}))
        .await;
    let operator = fixture.operator(DEFAULT).await;
    fences(&fixture, &["cart", "front", "stock"]).await;
    let mine = fixture.fence_of("shop", "cart").await.unwrap();
    assert!(mine.spec.host.contains_key("redis.data") && mine.labels().is_empty());
    operator.stop().await.unwrap();

    let operator = fixture.operator(PLAIN).await;
    fences(&fixture, &["cart"]).await;
    fixture.no_sidecar("shop", "front").await;
    fixture.scope("shop", "cart", &["data/redis"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn the_annotation_of_lazyxds_works_without_a_switch() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    let mut lazy = service("shop", "front");
    lazy["metadata"]["annotations"] = json!({"lazy-xds": "true"});
    fixture.put(lazy);
    fences(&fixture, &["front"]).await;
    fixture.put(namespace("shop", &json!({}), &json!({"lazy-xds": "True"})));
    fences(&fixture, &["cart", "front", "stock"]).await;
    fixture.put(namespace("shop", &json!({}), &json!({})));
    fences(&fixture, &["front"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn namespaces_out_of_reach_have_no_automatic_fences() {
    for (lists, wanted) in [
        ("blackNamespaceList: 'data,shop'", &[][..]),
        ("whiteNamespaceList: 'data'", &[]),
        (
            "whiteNamespaceList: 'data, shop'",
            &["cart", "front", "stock"],
        ),
        ("managementSelectors: [{team: a}]", &[]),
        (
            "managementSelectors: [{team: a}, {env: dev}]",
            &["cart", "front", "stock"],
        ),
    ] {
        let fixture = Fixture::shop();
        fixture.put(namespace("shop", &json!({"env": "dev"}), &json!({})));
        let config = format!(
            "{{fallback: {{enabled: false}}, fences: {{autoFence: true, defaultFence: true, {lists}}}}}"
        );
        let operator = fixture.operator(&config).await;
        fixture.settle().await;
        fences(&fixture, wanted).await;
        operator.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_pod_label_makes_a_fence_for_each_value() {
    let fixture = Fixture::shop();
    let config = "{fallback: {enabled: false}, fences: {fenceLabelKeyAlias: 'team:crew'}}";
    let operator = fixture.operator(config).await;
    let labels = json!({"app": "front", "team": "Red"});
    fixture.put(pod("shop", "front", &labels, "10.0.0.1"));
    let name = "crew-red.workload.identity";
    fences(&fixture, &[name]).await;
    let fence = fixture.fence_of("shop", name).await.unwrap();
    let selector = fence.spec.workload_selector.unwrap();
    assert_eq!(json!(selector.labels), json!({"team": "Red"}));
    fixture
        .condition("shop", name, "Programmed", "Programmed")
        .await;
    fixture.delete("v1", "Pod", "shop", "front-1").await;
    fences(&fixture, &[]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_pod_with_both_kinds_of_fences_has_one_sidecar() {
    let fixture = Fixture::shop();
    let config =
        "{fallback: {enabled: false}, fences: {autoFence: true, fenceLabelKeyAlias: team}}";
    fixture.put(labelled("front", "true"));
    let operator = fixture.operator(config).await;
    fences(&fixture, &["front"]).await;
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    let labels = json!({"app": "front", "team": "red"});
    fixture.put(pod("shop", "front", &labels, "10.0.0.1"));
    let other = "app-red.workload.identity";
    fences(&fixture, &[other, "front"]).await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    // Neither selector is part of the other: whichever Sidecar Istio takes, it has what the pod calls.
    for name in ["front", other] {
        fixture.scope("shop", name, &["shop/cart"]).await;
        fixture.never_narrowed("shop", name).await;
    }
    operator.stop().await.unwrap();
}
