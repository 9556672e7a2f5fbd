//! Watches.

use std::pin::pin;

use futures::{Stream, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::{LIMIT, config, namespace};

async fn next(
    stream: &mut (impl Stream<Item = Result<WatchEvent<ConfigMap>, kube::Error>> + Unpin),
) -> (&'static str, String) {
    loop {
        let event = tokio::time::timeout(LIMIT, stream.try_next())
            .await
            .unwrap()
            .unwrap();
        return match event.expect("the watch goes on") {
            WatchEvent::Added(o) => ("ADDED", o.name_any()),
            WatchEvent::Modified(o) => ("MODIFIED", o.name_any()),
            WatchEvent::Deleted(o) => ("DELETED", o.name_any()),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(e) => ("ERROR", e.code.to_string()),
        };
    }
}

fn text(kind: &'static str, name: &str) -> (&'static str, String) {
    (kind, name.to_owned())
}

pub async fn from_a_version(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    api.create(&PostParams::default(), &config("before", &[]))
        .await
        .unwrap();
    let version = api
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    api.create(&PostParams::default(), &config("a", &[]))
        .await
        .unwrap();
    let mut stream = pin!(api.watch(&WatchParams::default(), &version).await.unwrap());
    assert_eq!(next(&mut stream).await, text("ADDED", "a"));
    let patch = Patch::Merge(json!({"data": {"k": "1"}}));
    api.patch("a", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(next(&mut stream).await, text("MODIFIED", "a"));
    // Writes that change nothing are no events.
    api.patch("a", &PatchParams::default(), &patch)
        .await
        .unwrap();
    api.delete("before", &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(next(&mut stream).await, text("DELETED", "before"));
}

pub async fn objects_enter_and_leave_a_selection(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    let version = api
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let params = WatchParams::default().labels("on=yes");
    let mut stream = pin!(api.watch(&params, &version).await.unwrap());
    api.create(&PostParams::default(), &config("a", &[]))
        .await
        .unwrap();
    let on = Patch::Merge(json!({"metadata": {"labels": {"on": "yes"}}}));
    let off = Patch::Merge(json!({"metadata": {"labels": {"on": "no"}}}));
    api.patch("a", &PatchParams::default(), &on).await.unwrap();
    assert_eq!(next(&mut stream).await, text("ADDED", "a"));
    api.patch("a", &PatchParams::default(), &off).await.unwrap();
    assert_eq!(next(&mut stream).await, text("DELETED", "a"));
}

pub async fn without_a_version_starts_with_what_is_there(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    api.create(&PostParams::default(), &config("a", &[]))
        .await
        .unwrap();
    let params = WatchParams::default().fields("metadata.name=a");
    let mut stream = pin!(api.watch(&params, "0").await.unwrap());
    assert_eq!(next(&mut stream).await, text("ADDED", "a"));
}

pub async fn streaming_lists_end_with_a_bookmark(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    for name in ["a", "b"] {
        api.create(&PostParams::default(), &config(name, &[]))
            .await
            .unwrap();
    }
    let params = WatchParams::default()
        .initial_events()
        .fields("metadata.name!=kube-root-ca.crt");
    let mut stream = pin!(api.watch(&params, "0").await.unwrap());
    assert_eq!(next(&mut stream).await, text("ADDED", "a"));
    assert_eq!(next(&mut stream).await, text("ADDED", "b"));
    loop {
        let event = tokio::time::timeout(LIMIT, stream.try_next())
            .await
            .unwrap()
            .unwrap();
        let Some(WatchEvent::Bookmark(bookmark)) = event else {
            panic!("a bookmark was expected, not {event:?}");
        };
        let end = bookmark
            .metadata
            .annotations
            .get("k8s.io/initial-events-end");
        // A real API server may send a bookmark of its own in between.
        if let Some(value) = end {
            assert_eq!(value, "true");
            return;
        }
    }
}

pub async fn a_watch_ends_at_its_time_limit(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    let version = api
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let params = WatchParams::default().timeout(1).disable_bookmarks();
    let mut stream = pin!(api.watch(&params, &version).await.unwrap());
    let end = tokio::time::timeout(LIMIT, stream.try_next())
        .await
        .unwrap()
        .unwrap();
    assert!(end.is_none(), "{end:?}");
}
