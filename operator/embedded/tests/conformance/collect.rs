//! Finalizers, owners and namespaces.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::{config, eventually, namespace, refusal};

pub async fn finalizers_hold_an_object(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    let mut held = config("a", &[]);
    held.finalizers_mut()
        .push("conformance.example/hold".into());
    api.create(&PostParams::default(), &held).await.unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let waiting = api.get("a").await.unwrap();
    assert!(waiting.metadata.deletion_timestamp.is_some());
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("a", &PatchParams::default(), &release)
        .await
        .unwrap();
    assert_eq!(refusal(api.get("a").await).0, 404);
}

fn owned(name: &str, owners: &[&ConfigMap]) -> ConfigMap {
    let mut object = config(name, &[]);
    let references = owners
        .iter()
        .map(|o| {
            serde_json::from_value(json!({"apiVersion": "v1", "kind": "ConfigMap", "name": o.name_any(), "uid": o.uid()}))
                .unwrap()
        })
        .collect();
    object.metadata.owner_references = Some(references);
    object
}

pub async fn dependents_go_with_their_last_owner(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    let params = PostParams::default();
    let first = api.create(&params, &config("first", &[])).await.unwrap();
    let second = api.create(&params, &config("second", &[])).await.unwrap();
    let child = api
        .create(&params, &owned("child", &[&first]))
        .await
        .unwrap();
    api.create(&params, &owned("grandchild", &[&child]))
        .await
        .unwrap();
    api.create(&params, &owned("shared", &[&first, &second]))
        .await
        .unwrap();
    api.delete("first", &DeleteParams::background())
        .await
        .unwrap();
    for name in ["child", "grandchild"] {
        eventually("a dependent is collected", || async {
            api.get(name).await.err()
        })
        .await;
    }
    api.get("shared").await.unwrap();
    api.delete("second", &DeleteParams::background())
        .await
        .unwrap();
    eventually("the shared dependent is collected", || async {
        api.get("shared").await.err()
    })
    .await;
}

pub async fn orphans_stay(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    let owner = api
        .create(&PostParams::default(), &config("owner", &[]))
        .await
        .unwrap();
    api.create(&PostParams::default(), &owned("child", &[&owner]))
        .await
        .unwrap();
    api.delete("owner", &DeleteParams::orphan()).await.unwrap();
    eventually("the owner is gone", || async {
        api.get("owner").await.err()
    })
    .await;
    assert!(
        api.get("child")
            .await
            .unwrap()
            .owner_references()
            .is_empty()
    );
}

pub async fn an_object_of_a_dead_owner_is_collected(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    let owner = api
        .create(&PostParams::default(), &config("owner", &[]))
        .await
        .unwrap();
    api.delete("owner", &DeleteParams::default()).await.unwrap();
    api.create(&PostParams::default(), &owned("late", &[&owner]))
        .await
        .unwrap();
    eventually("the late object is collected", || async {
        api.get("late").await.err()
    })
    .await;
}

pub async fn a_namespace_takes_its_content_along(client: Client) {
    let name = namespace(&client).await;
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &name);
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut held = config("held", &[]);
    held.finalizers_mut()
        .push("conformance.example/hold".into());
    api.create(&PostParams::default(), &held).await.unwrap();
    api.create(&PostParams::default(), &config("free", &[]))
        .await
        .unwrap();
    namespaces
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    eventually("the free object is gone", || async {
        api.get("free").await.err()
    })
    .await;
    namespaces.get(&name).await.unwrap();
    assert_eq!(
        refusal(
            api.create(&PostParams::default(), &config("late", &[]))
                .await
        )
        .0,
        403
    );
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    eventually("the held object is released", || async {
        api.patch("held", &PatchParams::default(), &release)
            .await
            .ok()
    })
    .await;
    eventually("the namespace is gone", || async {
        namespaces.get(&name).await.err()
    })
    .await;
}
