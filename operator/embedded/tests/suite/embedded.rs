//! What the embedded API offers beyond a real one: faults, counters, loading, a clock.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::conformance;
use crate::conformance::{LIMIT, config, refusal, widget, widgets};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use trimtab_embedded::{Clock, Embedded, Filter};

fn configs(client: &Client) -> Api<ConfigMap> {
    Api::default_namespaced(client.clone())
}

/// Applies watcher events until `name` is seen.
async fn until(
    stream: &mut (impl StreamExt<Item = watcher::Result<ConfigMap>> + Unpin),
    name: &str,
) {
    tokio::time::timeout(LIMIT, async {
        while let Some(event) = stream.next().await {
            if event.is_ok_and(|o| o.name_any() == name) {
                return;
            }
        }
        panic!("the watcher ended");
    })
    .await
    .expect("the object is seen in time");
}

async fn watcher_survives(config_of: watcher::Config) {
    let embedded = Embedded::new();
    let api = configs(&embedded.client());
    let mut stream = pin!(
        watcher(api.clone(), config_of)
            .default_backoff()
            .applied_objects()
    );
    api.create(&PostParams::default(), &config("a", &[]))
        .await
        .unwrap();
    until(&mut stream, "a").await;
    embedded.expire_history("configmaps");
    api.create(&PostParams::default(), &config("b", &[]))
        .await
        .unwrap();
    until(&mut stream, "b").await;
    embedded
        .faults()
        .drop_watches(Filter::any().resource("configmaps"));
    api.create(&PostParams::default(), &config("c", &[]))
        .await
        .unwrap();
    until(&mut stream, "c").await;
}

#[tokio::test]
async fn a_watcher_survives_410_and_dropped_connections() {
    watcher_survives(watcher::Config::default()).await;
}

#[tokio::test]
async fn a_streaming_watcher_survives_them_too() {
    watcher_survives(watcher::Config::default().streaming_lists()).await;
}

#[tokio::test]
async fn an_old_version_gets_410_as_an_event() {
    let embedded = Embedded::new();
    embedded.set_history(2);
    let api = configs(&embedded.client());
    let version = api
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    for name in ["a", "b", "c", "d"] {
        api.create(&PostParams::default(), &config(name, &[]))
            .await
            .unwrap();
    }
    for start in [version.as_str(), "999999"] {
        let mut stream = pin!(api.watch(&WatchParams::default(), start).await.unwrap());
        let event = tokio::time::timeout(LIMIT, stream.try_next())
            .await
            .unwrap()
            .unwrap();
        assert!(
            matches!(event, Some(WatchEvent::Error(e)) if e.code == 410 && e.reason == "Expired")
        );
        assert!(stream.try_next().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn quiet_watches_get_bookmarks_that_can_be_started_from() {
    let embedded = Embedded::new();
    embedded.set_bookmark_interval(Duration::from_millis(20));
    let api = configs(&embedded.client());
    api.create(&PostParams::default(), &config("a", &[]))
        .await
        .unwrap();
    let mut stream = pin!(api.watch(&WatchParams::default(), "0").await.unwrap());
    let mut version = String::new();
    while version.is_empty() {
        match tokio::time::timeout(LIMIT, stream.try_next())
            .await
            .unwrap()
            .unwrap()
        {
            Some(WatchEvent::Bookmark(b)) => version = b.metadata.resource_version,
            Some(WatchEvent::Added(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    api.create(&PostParams::default(), &config("b", &[]))
        .await
        .unwrap();
    let params = WatchParams::default().disable_bookmarks();
    let mut later = pin!(api.watch(&params, &version).await.unwrap());
    let event = tokio::time::timeout(LIMIT, later.try_next())
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(event, Some(WatchEvent::Added(o)) if o.name_any() == "b"));
}

#[tokio::test]
async fn requests_fail_wait_and_lose_their_answer_on_demand() {
    let embedded = Embedded::new();
    let api = configs(&embedded.client());
    let creates = Filter::any().verb("create").resource("configmaps");
    embedded.faults().fail_next(creates.clone(), 1, 503);
    assert_eq!(
        refusal(api.create(&PostParams::default(), &config("a", &[])).await).0,
        503
    );
    assert_eq!(embedded.write_count(), 0);
    embedded.faults().lose_next(creates.clone(), 1);
    assert_eq!(
        refusal(api.create(&PostParams::default(), &config("a", &[])).await).0,
        504
    );
    assert_eq!(
        refusal(api.create(&PostParams::default(), &config("a", &[])).await).0,
        409
    );
    embedded.faults().delay(creates, Duration::from_millis(50));
    let start = Instant::now();
    api.create(&PostParams::default(), &config("b", &[]))
        .await
        .unwrap();
    assert!(start.elapsed() >= Duration::from_millis(50));
    embedded.faults().fail_next(Filter::any(), 5, 500);
    embedded.faults().clear();
    api.get("b").await.unwrap();
}

#[tokio::test]
async fn writes_are_counted_only_when_something_changed() {
    let embedded = Embedded::new();
    embedded.install_crd(&conformance::widget_crd()).unwrap();
    embedded.install_crd(&conformance::widget_crd()).unwrap();
    let api = widgets(&embedded.client(), "default");
    for _ in 0..3 {
        let patch = Patch::Apply(widget("w", json!({"size": 2})));
        api.patch("w", &PatchParams::apply("a"), &patch)
            .await
            .unwrap();
    }
    let status = Patch::Merge(json!({"status": {"a": 1}}));
    api.patch_status("w", &PatchParams::default(), &status)
        .await
        .unwrap();
    assert_eq!(embedded.write_count(), 2);
    assert_eq!(embedded.writes("widgets", "apply"), 1);
    assert_eq!(embedded.writes("widgets/status", "patch"), 1);
    assert_eq!(embedded.requests("widgets", "patch"), 3);
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Running", "podIP": "10.0.0.1"}})
}

#[tokio::test]
async fn loading_keeps_the_status_and_repeats_without_a_write() {
    let embedded = Embedded::new();
    let first = embedded.load(pod("p")).unwrap();
    let again = embedded.load(pod("p")).unwrap();
    assert_eq!(first, again);
    let api: Api<Pod> = Api::default_namespaced(embedded.client());
    let read = api.get("p").await.unwrap();
    assert_eq!(read.status.unwrap().phase.as_deref(), Some("Running"));
    assert!(read.metadata.managed_fields.is_none());
    let error = embedded
        .load(json!({"apiVersion": "x/v1", "kind": "Y", "metadata": {"name": "n"}}))
        .unwrap_err();
    assert!(error.to_string().contains("install its CRD"), "{error}");
    let error = embedded
        .load(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n", "namespace": "no"}}))
        .unwrap_err();
    assert_eq!(error.code(), 404);
    embedded.ensure_namespace("no").unwrap();
}

#[tokio::test]
async fn metadata_watches_carry_only_metadata() {
    let embedded = Embedded::new();
    embedded.load(pod("p")).unwrap();
    let api: Api<Pod> = Api::default_namespaced(embedded.client());
    let listed = api.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(listed.items[0].name_any(), "p");
    let mut stream = pin!(
        api.watch_metadata(&WatchParams::default(), "0")
            .await
            .unwrap()
    );
    let event = tokio::time::timeout(LIMIT, stream.try_next())
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(event, Some(WatchEvent::Added(o)) if o.name_any() == "p"));
}

struct Frozen;

impl Clock for Frozen {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
}

#[tokio::test]
async fn time_comes_from_the_clock() {
    let embedded = Embedded::with_clock(Arc::new(Frozen));
    let made = configs(&embedded.client())
        .create(&PostParams::default(), &config("a", &[]))
        .await
        .unwrap();
    assert_eq!(
        made.metadata.creation_timestamp.unwrap().0,
        Timestamp::UNIX_EPOCH
    );
}

#[tokio::test]
async fn every_served_version_shows_the_same_object() {
    let embedded = Embedded::new();
    let mut crd = serde_json::to_value(conformance::widget_crd()).unwrap();
    let mut second = crd["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    crd["spec"]["versions"].as_array_mut().unwrap().push(second);
    embedded
        .install_crd(&serde_json::from_value(crd).unwrap())
        .unwrap();
    let one = widgets(&embedded.client(), "default");
    one.create(&PostParams::default(), &widget("w", json!({"size": 3})))
        .await
        .unwrap();
    let mut resource = conformance::widget_resource();
    "v2".clone_into(&mut resource.version);
    "conformance.example/v2".clone_into(&mut resource.api_version);
    let two: Api<kube::api::DynamicObject> =
        Api::default_namespaced_with(embedded.client(), &resource);
    let patch = Patch::Merge(json!({"spec": {"size": 4}}));
    let seen = two
        .patch("w", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(seen.types.unwrap().api_version, "conformance.example/v2");
    let listed = one.list(&ListParams::default()).await.unwrap();
    assert_eq!(listed.items[0].data["spec"]["size"], 4);
    assert_eq!(
        listed.items[0].types.as_ref().unwrap().api_version,
        "conformance.example/v1"
    );
}

#[tokio::test]
async fn a_crd_with_a_bad_rule_is_refused() {
    let embedded = Embedded::new();
    let mut crd = serde_json::to_value(conformance::widget_crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] =
        json!([{"rule": "self. >"}]);
    let error = embedded
        .install_crd(&serde_json::from_value(crd).unwrap())
        .unwrap_err();
    assert_eq!(error.code(), 422);
    assert!(
        error.to_string().contains("spec.versions[0].schema"),
        "{error}"
    );
}

#[tokio::test]
async fn many_objects_are_listed_in_pages_and_watched_in_order() {
    const COUNT: usize = 3000;
    let embedded = Embedded::new();
    embedded.set_history(COUNT);
    let api: Api<Pod> = Api::default_namespaced(embedded.client());
    let start = embedded.revision().to_string();
    for i in 0..COUNT {
        embedded.load(pod(&format!("p{i:05}"))).unwrap();
    }
    let (mut names, mut params) = (Vec::new(), ListParams::default().limit(700));
    loop {
        let page = api.list(&params).await.unwrap();
        names.extend(page.iter().map(ResourceExt::name_any));
        match page.metadata.continue_.filter(|t| !t.is_empty()) {
            Some(token) => params = ListParams::default().limit(700).continue_token(&token),
            None => break,
        }
    }
    let mut stream = pin!(api.watch(&WatchParams::default(), &start).await.unwrap());
    let mut watched = Vec::new();
    while watched.len() < COUNT {
        if let Some(WatchEvent::Added(o)) = tokio::time::timeout(LIMIT, stream.try_next())
            .await
            .unwrap()
            .unwrap()
        {
            watched.push(o.name_any());
        }
    }
    assert_eq!(names, watched);
    api.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .unwrap();
    assert_eq!(
        api.list(&ListParams::default()).await.unwrap().items.len(),
        0
    );
}

#[tokio::test]
async fn unknown_fields_are_warned_about() {
    let embedded = Embedded::new();
    embedded.install_crd(&conformance::widget_crd()).unwrap();
    let body = serde_json::to_vec(&widget("w", json!({"nonsense": 1}))).unwrap();
    let request = http::Request::post("/apis/conformance.example/v1/namespaces/default/widgets")
        .header("content-type", "application/json")
        .body(kube::client::Body::from(body))
        .unwrap();
    let response = embedded.client().send(request).await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(
        response.headers()["warning"].to_str().unwrap(),
        "299 - \"unknown field \\\"spec.nonsense\\\"\""
    );
}

#[tokio::test]
async fn events_are_seen_through_both_groups() {
    let embedded = Embedded::new();
    let events: Api<k8s_openapi::api::events::v1::Event> =
        Api::default_namespaced(embedded.client());
    let event = serde_json::from_value(json!({"metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Widget", "name": "w", "namespace": "default"}, "reason": "Refused", "note": "because",
        "type": "Warning", "reportingController": "trimtab", "reportingInstance": "i", "action": "Apply"}))
    .unwrap();
    events.create(&PostParams::default(), &event).await.unwrap();
    let core: Api<k8s_openapi::api::core::v1::Event> = Api::default_namespaced(embedded.client());
    let of_widget =
        ListParams::default().fields("involvedObject.name=w,involvedObject.kind=Widget");
    let found = core.list(&of_widget).await.unwrap();
    assert_eq!(found.items[0].message.as_deref(), Some("because"));
    assert_eq!(
        found.items[0]
            .last_timestamp
            .as_ref()
            .unwrap()
            .0
            .to_string(),
        "2026-01-01T00:00:00Z"
    );
    events.delete("e", &DeleteParams::default()).await.unwrap();
    assert_eq!(refusal(core.get("e").await).0, 404);
}

#[test]
fn the_crds_of_this_project_are_accepted() {
    let embedded = Embedded::new();
    let mut all = trimtab_crds::manifests::istio_crds();
    let ours = trimtab_crds::manifests::trimtab_crds();
    all.extend(ours.into_iter().map(|(_, crd)| crd));
    for crd in all {
        embedded
            .install_crd(&crd)
            .unwrap_or_else(|e| panic!("{}: {e}", crd.name_any()));
    }
}

#[tokio::test]
async fn fault_s14_t7_an_object_that_etcd_would_not_take_is_refused() {
    let embedded = Embedded::new();
    let api = configs(&embedded.client());
    let large = |bytes: usize| config("large", &[("text", &"x".repeat(bytes))]);
    api.create(&PostParams::default(), &large(1_400_000))
        .await
        .unwrap();
    let new = json!({"data": {"more": "x".repeat(200_000)}});
    let (post, patch) = (PostParams::default(), PatchParams::default());
    let (code, message, status) = refusal(api.patch("large", &patch, &Patch::Merge(new)).await);
    assert_eq!((code, &*status.reason), (413, "RequestEntityTooLarge"));
    assert!(
        message.ends_with("etcdserver: request is too large"),
        "{message}"
    );
    let larger = large(1_600_000);
    let (code, _, _) = refusal(api.replace("large", &post, &larger).await);
    assert_eq!(code, 413);
    let kept = api.get("large").await.unwrap().data.unwrap();
    assert_eq!(kept["text"].len(), 1_400_000);
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    api.replace("large", &dry, &larger).await.unwrap();
}
