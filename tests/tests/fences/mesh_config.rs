//! What the MeshConfig says of the mesh is followed: who sees what, identities, calls to the unknown.

use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use trimtab_crds::fence::FenceStatus;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_lab::process::wait_until;

use crate::fixture::{BOUND, Fixture, GRACE, PLAIN, reason_of, service};

const REDIS: &str = "redis.data.svc.cluster.local";
const CART: &str = "cart.shop.svc.cluster.local";

fn mesh(text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "istio-system", "name": "istio"}, "data": {"mesh": text}})
}

#[tokio::test]
async fn a_default_of_exports_narrows_scopes_and_is_followed() {
    let fixture = Fixture::shop();
    fixture.put(mesh("defaultServiceExportTo: [\".\"]"));
    let operator = fixture.operator(PLAIN).await;
    fixture
        .fence("shop", "front", json!({"host": {CART: {}, REDIS: {}}}))
        .await;
    // A declared host stays in the Sidecar; whether istiod sends it is another thing.
    let imported = |count: i64, reason: &'static str| {
        fixture.status_where("shop", "front", reason, move |status| {
            let services = status.scope.as_ref().map(|scope| scope.services);
            services == Some(count) && reason_of(status, "Accepted") == reason
        })
    };
    imported(1, "AcceptedWithRemarks").await;
    let mut open = service("data", "redis");
    open["metadata"]["annotations"] = json!({"networking.istio.io/exportTo": "*"});
    fixture.put(open);
    imported(2, "Accepted").await;
    fixture.put(service("data", "redis"));
    imported(1, "AcceptedWithRemarks").await;
    fixture.put(mesh("accessLogFile: /dev/stdout"));
    imported(2, "Accepted").await;
    fixture.put(mesh("defaultServiceExportTo: [shop]"));
    fixture.settle().await;
    imported(2, "Accepted").await;
    operator.stop().await.unwrap();
}

fn told(status: &FenceStatus) -> Option<&str> {
    let mut all = status.conditions.iter();
    let found = all.find(|c| c.type_ == "FirstCallsRefused")?;
    assert_eq!(
        (found.status.as_str(), found.reason.as_str()),
        ("True", "TargetPolicy")
    );
    Some(&found.message)
}

fn policy(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"namespace": "data", "name": name}, "spec": spec})
}

fn of_redis(principals: &[&str]) -> Value {
    json!({"selector": {"matchLabels": {"app": "redis"}},
        "rules": [{"from": [{"source": {"principals": principals}}]}]})
}

#[tokio::test]
async fn fault_t15_a_fence_tells_of_targets_that_refuse_the_fallback() {
    let fixture = Fixture::shop();
    fixture.fallback(true);
    let operator = fixture.operator("{}").await;
    fixture.fence("shop", "front", json!({})).await;
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    assert_eq!(told(&fixture.status("shop", "front").await), None);
    let refused = || fixture.status_where("shop", "front", "a refused host", |s| told(s).is_some());
    let fine = || fixture.status_where("shop", "front", "no refused host", |s| told(s).is_none());
    // What was in scope stays for the grace.
    let forgotten = || async {
        fixture.settle().await;
        fixture.clock.advance(GRACE);
    };
    let apply = |spec: Value| fixture.apply(policy("p", &spec));

    apply(of_redis(&["*/sa/front"])).await;
    let status = refused().await;
    let message = told(&status).unwrap();
    assert!(
        message.contains(REDIS) && message.contains("data/p"),
        "{message}"
    );
    let ready = status
        .conditions
        .iter()
        .find(|c| c.type_ == "Ready")
        .unwrap();
    assert_eq!(ready.status, "True", "what the fence does works");

    // The fallback is let in too, by the mesh's trust domain once it is known.
    let fallback = "mesh.example/ns/istio-system/sa/global-sidecar";
    apply(of_redis(&["*/sa/front", fallback])).await;
    fixture.settle().await;
    refused().await;
    fixture.put(mesh("trustDomain: mesh.example"));
    fine().await;
    fixture.put(mesh("trustDomain: other.example"));
    refused().await;

    // A hint, and a declaration: the first call is direct.
    apply(of_redis(&["mesh.example/ns/shop/sa/front"])).await;
    fine().await;
    apply(of_redis(&["*/sa/front"])).await;
    forgotten().await;
    refused().await;
    fixture
        .fence("shop", "front", json!({"host": {REDIS: {}}}))
        .await;
    fine().await;
    fixture.fence("shop", "front", json!({})).await;
    forgotten().await;
    refused().await;

    // What it is for goes, and comes back.
    let mut other = service("data", "redis");
    other["spec"]["selector"] = json!({"app": "other"});
    fixture.put(other);
    fine().await;
    fixture.put(service("data", "redis"));
    refused().await;
    fixture
        .delete("security.istio.io/v1", "AuthorizationPolicy", "data", "p")
        .await;
    fine().await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_t15_without_hints_and_by_denial() {
    let fixture = Fixture::shop();
    fixture.fallback(true);
    fixture.put(policy("p", &of_redis(&["cluster.local/ns/shop/sa/front"])));
    let operator = fixture.operator("learn: {hints: false}").await;
    fixture.fence("shop", "front", json!({})).await;
    let named = |s: &FenceStatus| told(s).is_some_and(|m| m.contains(REDIS));
    fixture
        .status_where("shop", "front", "without hints", named)
        .await;
    let deny =
        json!({"action": "DENY", "rules": [{"from": [{"source": {"notNamespaces": ["shop"]}}]}]});
    fixture.apply(policy("p", &deny)).await;
    fixture.status_where("shop", "front", "denied", named).await;
    operator.stop().await.unwrap();
    // No first call takes the fallback.
    let operator = fixture.operator(PLAIN).await;
    let none = |s: &FenceStatus| told(s).is_none();
    fixture
        .status_where("shop", "front", "no fallback", none)
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn registry_only_is_that_of_the_mesh() {
    let fixture = Fixture::shop();
    fixture.fallback(true);
    let filters: Api<EnvoyFilter> = Api::all(fixture.api.client());
    let own = |wanted: &'static str| {
        let filters = filters.clone();
        wait_until(wanted, BOUND, move || {
            let filters = filters.clone();
            async move {
                let all = filters
                    .list(&<_>::default())
                    .await
                    .map_err(|e| e.to_string())?;
                let ours = all
                    .items
                    .iter()
                    .find(|f| f.name_any() == "to-global-sidecar");
                let text = serde_json::to_string(&ours).map_err(|e| e.to_string())?;
                if text.contains(wanted) {
                    Ok(())
                } else {
                    Err(text)
                }
            }
        })
    };
    let operator = fixture.operator("fallback: {tcp: true}").await;
    own("PassthroughCluster").await.unwrap();
    fixture.put(mesh("outboundTrafficPolicy: {mode: REGISTRY_ONLY}"));
    own("BlackHoleCluster").await.unwrap();
    fixture.put(mesh("outboundTrafficPolicy: {mode: ALLOW_ANY}"));
    own("PassthroughCluster").await.unwrap();
    operator.stop().await.unwrap();
    fixture.put(mesh("outboundTrafficPolicy: {mode: REGISTRY_ONLY}"));
    let operator = fixture
        .operator("fallback: {tcp: true, registryOnly: false}")
        .await;
    fixture.settle().await;
    own("PassthroughCluster").await.unwrap();
    operator.stop().await.unwrap();
}
