//! How much of the past is kept for watches, and that it is enough for what they must see.

use std::pin::pin;

use crate::conformance::{LIMIT, config};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use trimtab_embedded::Embedded;

fn configs(client: &Client) -> Api<ConfigMap> {
    Api::default_namespaced(client.clone())
}

/// Whether a watch can start from a version, and what it gets first.
async fn first_event(api: &Api<ConfigMap>, version: &str) -> Option<WatchEvent<ConfigMap>> {
    let mut stream = pin!(api.watch(&WatchParams::default(), version).await.unwrap());
    let event = tokio::time::timeout(LIMIT, stream.try_next()).await;
    event.unwrap().unwrap()
}

#[tokio::test]
async fn fault_o8_the_past_is_bounded_by_events_and_by_bytes() {
    for (edits, bytes) in [(1100, 10), (12, 1 << 20)] {
        let embedded = Embedded::new();
        let api = configs(&embedded.client());
        let created = api.create(&PostParams::default(), &config("a", &[])).await;
        let old = created.unwrap().metadata.resource_version.unwrap();
        let mut last = old.clone();
        for i in 0..edits {
            let text = format!("{}{i}", "x".repeat(bytes));
            let patch = Patch::Merge(json!({"data": {"text": text}}));
            let patched = api.patch("a", &PatchParams::default(), &patch).await;
            let version = patched.unwrap().metadata.resource_version.unwrap();
            if i + 2 == edits {
                last = version;
            }
        }
        let behind = first_event(&api, &old).await;
        assert!(
            matches!(behind, Some(WatchEvent::Error(e)) if e.code == 410),
            "{edits}"
        );
        let near = first_event(&api, &last).await;
        let Some(WatchEvent::Modified(map)) = near else {
            panic!("{near:?}");
        };
        let text = map.data.unwrap().remove("text").unwrap();
        assert!(text.ends_with(&(edits - 1).to_string()), "whole objects");
        // Another kind keeps its own past.
        let spaces: Api<Namespace> = Api::all(embedded.client());
        let mut stream = pin!(spaces.watch(&WatchParams::default(), "1").await.unwrap());
        let event = tokio::time::timeout(LIMIT, stream.try_next()).await;
        assert!(matches!(
            event.unwrap().unwrap(),
            Some(WatchEvent::Added(_))
        ));
    }
}

#[tokio::test]
async fn fault_o8_a_watch_with_a_selector_sees_objects_leave() {
    let embedded = Embedded::new();
    let api = configs(&embedded.client());
    let version = api.list(&ListParams::default()).await.unwrap();
    let version = version.metadata.resource_version.unwrap();
    api.create(&PostParams::default(), &config("a", &[]))
        .await
        .unwrap();
    let tier = async |value: &str| {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"tier": value}}}));
        let patched = api.patch("a", &PatchParams::default(), &patch).await;
        patched.unwrap();
    };
    tier("x").await;
    let params = WatchParams::default().labels("tier=x");
    let mut stream = pin!(api.watch(&params, &version).await.unwrap());
    let mut next = async || {
        let event = tokio::time::timeout(LIMIT, stream.try_next()).await;
        event.unwrap().unwrap()
    };
    assert!(matches!(next().await, Some(WatchEvent::Added(_))));
    tier("y").await;
    assert!(matches!(next().await, Some(WatchEvent::Deleted(_))));
}
