//! Objects one by one and in lists.

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::{config, install, namespace, refusal, widget, widgets};

pub async fn create_get_update_delete(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    let made = api
        .create(&PostParams::default(), &config("a", &[("k", "1")]))
        .await
        .unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    assert_eq!(
        refusal(api.create(&PostParams::default(), &config("a", &[])).await)
            .2
            .reason,
        "AlreadyExists"
    );
    let mut changed = made.clone();
    changed
        .data
        .get_or_insert_default()
        .insert("k".into(), "2".into());
    let updated = api
        .replace("a", &PostParams::default(), &changed)
        .await
        .unwrap();
    assert_ne!(updated.resource_version(), made.resource_version());
    let (code, message, _) = refusal(api.replace("a", &PostParams::default(), &changed).await);
    assert_eq!(code, 409);
    assert!(
        message.contains("the object has been modified"),
        "{message}"
    );
    assert_eq!(api.get("a").await.unwrap().data.unwrap()["k"], "2");
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let (code, message, _) = refusal(api.get("a").await);
    assert_eq!(
        (code, message.as_str()),
        (404, "configmaps \"a\" not found")
    );
}

pub async fn no_op_writes_keep_the_version(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    let made = api
        .create(&PostParams::default(), &config("a", &[("k", "1")]))
        .await
        .unwrap();
    let again = api
        .replace("a", &PostParams::default(), &made)
        .await
        .unwrap();
    assert_eq!(again.resource_version(), made.resource_version());
    let patch = Patch::Merge(json!({"data": {"k": "1"}}));
    let again = api
        .patch("a", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(again.resource_version(), made.resource_version());
}

pub async fn patches(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    api.create(
        &PostParams::default(),
        &config("a", &[("k", "1"), ("gone", "x")]),
    )
    .await
    .unwrap();
    let params = PatchParams::default();
    let merged = api
        .patch(
            "a",
            &params,
            &Patch::Merge(json!({"data": {"gone": null, "new": "y"}})),
        )
        .await
        .unwrap();
    let data = merged.data.unwrap();
    assert_eq!(data.len(), 2);
    assert_eq!(data["new"], "y");
    let operations =
        serde_json::from_value(json!([{"op": "replace", "path": "/data/k", "value": "3"}]))
            .unwrap();
    let patched = api
        .patch("a", &params, &Patch::<()>::Json(operations))
        .await
        .unwrap();
    assert_eq!(patched.data.unwrap()["k"], "3");
    let failing =
        serde_json::from_value(json!([{"op": "test", "path": "/data/k", "value": "9"}])).unwrap();
    assert_eq!(
        refusal(api.patch("a", &params, &Patch::<()>::Json(failing)).await).0,
        422
    );
    assert_eq!(
        refusal(api.patch("none", &params, &Patch::Merge(json!({}))).await).0,
        404
    );
    let stale = Patch::Merge(json!({"metadata": {"resourceVersion": "1"}, "data": {"k": "4"}}));
    assert_eq!(refusal(api.patch("a", &params, &stale).await).0, 409);
}

pub async fn strategic_merge_of_keyed_lists(client: Client) {
    let api: Api<Service> = Api::namespaced(client.clone(), &namespace(&client).await);
    let service = serde_json::from_value(
        json!({"metadata": {"name": "s"}, "spec": {"selector": {"app": "x"},
        "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}}),
    )
    .unwrap();
    api.create(&PostParams::default(), &service).await.unwrap();
    let patch = Patch::Strategic(json!({"spec": {"ports": [
        {"port": 81, "$patch": "delete"}, {"name": "c", "port": 82}]}}));
    let patched = api
        .patch("s", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let mut ports: Vec<i32> = patched
        .spec
        .unwrap()
        .ports
        .unwrap()
        .iter()
        .map(|p| p.port)
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, [80, 82]);
}

pub async fn names_and_namespaces_are_checked(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    let (code, _, status) = refusal(
        api.create(&PostParams::default(), &config("Bad_Name", &[]))
            .await,
    );
    assert_eq!(code, 422);
    assert_eq!(status.details.unwrap().causes[0].field, "metadata.name");
    let missing: Api<ConfigMap> = Api::namespaced(client.clone(), "not-there");
    let (code, message, _) = refusal(
        missing
            .create(&PostParams::default(), &config("a", &[]))
            .await,
    );
    assert_eq!(
        (code, message.as_str()),
        (404, "namespaces \"not-there\" not found")
    );
    let mut generated = config("", &[]);
    generated.metadata.name = None;
    assert_eq!(
        refusal(api.create(&PostParams::default(), &generated).await).0,
        422
    );
    generated.metadata.generate_name = Some("g-".into());
    let made = api
        .create(&PostParams::default(), &generated)
        .await
        .unwrap();
    assert!(made.name_any().starts_with("g-") && made.name_any().len() == 7);
}

pub async fn selectors_and_pages(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    for (name, tier) in [("a", "web"), ("b", "db"), ("c", "web"), ("d", "cache")] {
        let mut object = config(name, &[]);
        object.labels_mut().insert("tier".into(), tier.into());
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    let names = async |params: ListParams| -> Vec<String> {
        api.list(&params)
            .await
            .unwrap()
            .iter()
            .map(ResourceExt::name_any)
            .collect()
    };
    assert_eq!(
        names(ListParams::default().labels("tier=web")).await,
        ["a", "c"]
    );
    assert_eq!(
        names(ListParams::default().labels("tier in (db, cache)")).await,
        ["b", "d"]
    );
    assert_eq!(
        names(ListParams::default().labels("tier notin (web),tier")).await,
        ["b", "d"]
    );
    assert_eq!(
        // A cluster may have published its root certificate here.
        names(
            ListParams::default()
                .labels("!tier")
                .fields("metadata.name!=kube-root-ca.crt")
        )
        .await,
        Vec::<String>::new()
    );
    assert_eq!(
        names(ListParams::default().fields("metadata.name=c")).await,
        ["c"]
    );
    assert_eq!(
        refusal(api.list(&ListParams::default().fields("data.x=1")).await).0,
        400
    );

    let first = api.list(&ListParams::default().limit(3)).await.unwrap();
    assert_eq!(first.items.len(), 3);
    assert_eq!(first.metadata.remaining_item_count, Some(1));
    let token = first.metadata.continue_.unwrap();
    let rest = api
        .list(&ListParams::default().limit(3).continue_token(&token))
        .await
        .unwrap();
    assert_eq!(
        rest.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["d"]
    );
    assert_eq!(rest.metadata.continue_.unwrap_or_default(), "");
}

pub async fn status_is_a_door_of_its_own(client: Client) {
    install(&client).await;
    let api = widgets(&client, &namespace(&client).await);
    let mut sent = widget("w", json!({"size": 2}));
    sent.data["status"] = json!({"phase": "sent with create"});
    let made = api.create(&PostParams::default(), &sent).await.unwrap();
    assert!(made.data.get("status").is_none());
    assert_eq!(made.metadata.generation, Some(1));

    let patch = Patch::Merge(json!({"status": {"phase": "ok"}, "spec": {"size": 9}}));
    let after = api
        .patch_status("w", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(after.data["status"]["phase"], "ok");
    assert_eq!(after.data["spec"]["size"], 2);
    assert_eq!(after.metadata.generation, Some(1));

    let patch = Patch::Merge(json!({"status": {"phase": "no"}, "spec": {"size": 3}}));
    let after = api
        .patch("w", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(after.data["status"]["phase"], "ok");
    assert_eq!(after.data["spec"]["size"], 3);
    assert_eq!(after.metadata.generation, Some(2));

    let patch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    let after = api
        .patch("w", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(after.metadata.generation, Some(2));

    let mut replaced = after.clone();
    replaced.data["status"] = json!({"phase": "put"});
    replaced.data["spec"]["size"] = json!(50);
    let after = api
        .replace_status("w", &PostParams::default(), &replaced)
        .await
        .unwrap();
    assert_eq!(after.data["status"]["phase"], "put");
    assert_eq!(after.data["spec"]["size"], 3);
}

pub async fn pods_have_a_status_and_fields(client: Client) {
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace(&client).await);
    for name in ["p", "q"] {
        let pod = serde_json::from_value(json!({"metadata": {"name": name},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}}))
        .unwrap();
        api.create(&PostParams::default(), &pod).await.unwrap();
    }
    let patch = Patch::Merge(json!({"status": {"phase": "Running"}}));
    api.patch_status("p", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let running = api
        .list(&ListParams::default().fields("status.phase=Running"))
        .await
        .unwrap();
    assert_eq!(
        running
            .iter()
            .map(ResourceExt::name_any)
            .collect::<Vec<_>>(),
        ["p"]
    );
    let other = ListParams::default().fields("status.phase!=Running,spec.nodeName=n1");
    let other = api.list(&other).await.unwrap();
    assert_eq!(
        other.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["q"]
    );
}

pub async fn dry_runs_change_nothing(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    let dry = PostParams {
        dry_run: true,
        ..Default::default()
    };
    api.create(&dry, &config("a", &[])).await.unwrap();
    assert_eq!(refusal(api.get("a").await).0, 404);
    api.create(&PostParams::default(), &config("a", &[("k", "1")]))
        .await
        .unwrap();
    let params = PatchParams::default().dry_run();
    let answer = api
        .patch("a", &params, &Patch::Merge(json!({"data": {"k": "2"}})))
        .await
        .unwrap();
    assert_eq!(answer.data.unwrap()["k"], "2");
    assert_eq!(api.get("a").await.unwrap().data.unwrap()["k"], "1");
    api.delete("a", &DeleteParams::default().dry_run())
        .await
        .unwrap();
    api.get("a").await.unwrap();
}

pub async fn deletes_have_preconditions_and_collections(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(&client).await);
    for name in ["a", "b", "c"] {
        let mut object = config(name, &[]);
        object
            .labels_mut()
            .insert("keep".into(), (name == "c").to_string());
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    let wrong = DeleteParams::default().preconditions(Preconditions {
        uid: Some("00000000-0000-0000-0000-000000000000".into()),
        ..Default::default()
    });
    assert_eq!(refusal(api.delete("a", &wrong).await.map(|_| ())).0, 409);
    api.delete_collection(
        &DeleteParams::default(),
        &ListParams::default().labels("keep=false"),
    )
    .await
    .unwrap();
    let left = api
        .list(&ListParams::default().labels("keep"))
        .await
        .unwrap();
    assert_eq!(
        left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["c"]
    );
}
