//! ServiceFences that Trimtab makes, and unmakes.

use kube::ResourceExt;
use serde_json::{Value, json};
use trimtab_lab::process::wait_until;

use crate::logs::carried;
use crate::stand::{BOUND, PLAIN, Stand, log, pod, service};

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
async fn fences(stand: &Stand, wanted: &[&str]) {
    let api: kube::Api<trimtab_crds::fence::ServiceFence> =
        kube::Api::namespaced(stand.api.client(), "shop");
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
    let stand = Stand::shop();
    let operator = stand.operator(AUTO).await;
    stand.put(labelled("front", "true"));
    fences(&stand, &["front"]).await;
    let fence = stand.fence_of("shop", "front").await.unwrap();
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
    stand
        .condition("shop", "front", "Programmed", "Programmed")
        .await;

    stand.put(namespace(
        "shop",
        &json!({"slime.io/serviceFenced": "true"}),
        &json!({}),
    ));
    fences(&stand, &["cart", "front", "stock"]).await;
    stand.put(labelled("cart", "false"));
    fences(&stand, &["front", "stock"]).await;
    stand.put(namespace(
        "shop",
        &json!({"slime.io/serviceFenced": "false"}),
        &json!({}),
    ));
    fences(&stand, &["front"]).await;
    stand.put(labelled("front", "no"));
    fences(&stand, &[]).await;
    stand.no_sidecar("shop", "front").await;
    operator.stop().await.unwrap();

    stand.put(namespace("shop", &json!({}), &json!({})));
    let operator = stand.operator(DEFAULT).await;
    fences(&stand, &["front", "stock"]).await;
    // A deleted fence comes back while it is wanted, and goes with its Service.
    stand.delete_fence("shop", "stock").await;
    fences(&stand, &["front", "stock"]).await;
    stand.delete("v1", "Service", "shop", "stock").await;
    fences(&stand, &["front"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn switching_off_cleans_up_only_what_is_ours() {
    let stand = Stand::shop();
    stand
        .fence("shop", "cart", json!({"host": {"redis.data": {}}}))
        .await;
    let operator = stand.operator(DEFAULT).await;
    fences(&stand, &["cart", "front", "stock"]).await;
    let mine = stand.fence_of("shop", "cart").await.unwrap();
    assert!(mine.spec.host.contains_key("redis.data") && mine.labels().is_empty());
    operator.stop().await.unwrap();

    let operator = stand.operator(PLAIN).await;
    fences(&stand, &["cart"]).await;
    stand.no_sidecar("shop", "front").await;
    stand.scope("shop", "cart", &["data/redis"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn the_annotation_of_lazyxds_works_without_a_switch() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    let mut lazy = service("shop", "front");
    lazy["metadata"]["annotations"] = json!({"lazy-xds": "true"});
    stand.put(lazy);
    fences(&stand, &["front"]).await;
    stand.put(namespace("shop", &json!({}), &json!({"lazy-xds": "True"})));
    fences(&stand, &["cart", "front", "stock"]).await;
    stand.put(namespace("shop", &json!({}), &json!({})));
    fences(&stand, &["front"]).await;
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
        let stand = Stand::shop();
        stand.put(namespace("shop", &json!({"env": "dev"}), &json!({})));
        let config = format!(
            "{{fallback: {{enabled: false}}, fences: {{autoFence: true, defaultFence: true, {lists}}}}}"
        );
        let operator = stand.operator(&config).await;
        stand.settle().await;
        fences(&stand, wanted).await;
        operator.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_pod_label_makes_a_fence_for_each_value() {
    let stand = Stand::shop();
    let config = "{fallback: {enabled: false}, fences: {fenceLabelKeyAlias: 'team:crew'}}";
    let operator = stand.operator(config).await;
    let labels = json!({"app": "front", "team": "Red"});
    stand.put(pod("shop", "front", &labels, "10.0.0.1"));
    let name = "crew-red.workload.identity";
    fences(&stand, &[name]).await;
    let fence = stand.fence_of("shop", name).await.unwrap();
    let selector = fence.spec.workload_selector.unwrap();
    assert_eq!(json!(selector.labels), json!({"team": "Red"}));
    stand
        .condition("shop", name, "Programmed", "Programmed")
        .await;
    stand.delete("v1", "Pod", "shop", "front-1").await;
    fences(&stand, &[]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_pod_with_both_kinds_of_fences_has_one_sidecar() {
    let stand = Stand::shop();
    let config =
        "{fallback: {enabled: false}, fences: {autoFence: true, fenceLabelKeyAlias: team}}";
    stand.put(labelled("front", "true"));
    let operator = stand.operator(config).await;
    fences(&stand, &["front"]).await;
    stand
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    let labels = json!({"app": "front", "team": "red"});
    stand.put(pod("shop", "front", &labels, "10.0.0.1"));
    let other = "app-red.workload.identity";
    fences(&stand, &[other, "front"]).await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    // Neither selector is part of the other: whichever Sidecar Istio takes, it has what the pod calls.
    for name in ["front", other] {
        stand.scope("shop", name, &["shop/cart"]).await;
        stand.never_narrowed("shop", name).await;
    }
    operator.stop().await.unwrap();
}
