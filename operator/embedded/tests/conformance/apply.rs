//! Server-side apply.

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::{install, namespace, refusal, widget, widgets};

async fn apply(
    api: &Api<DynamicObject>,
    manager: &str,
    spec: Value,
) -> Result<DynamicObject, kube::Error> {
    let params = PatchParams::apply(manager);
    api.patch("w", &params, &Patch::Apply(widget("w", spec)))
        .await
}

fn managers(object: &DynamicObject) -> Vec<String> {
    object
        .managed_fields()
        .iter()
        .map(|m| m.manager.clone().unwrap_or_default())
        .collect()
}

pub async fn creates_and_is_idempotent(client: Client) {
    install(&client).await;
    let api = widgets(&client, &namespace(&client).await);
    let made = apply(&api, "a", json!({"size": 5, "color": "red"}))
        .await
        .unwrap();
    let again = apply(&api, "a", json!({"size": 5, "color": "red"}))
        .await
        .unwrap();
    assert_eq!(again.resource_version(), made.resource_version());
    let owned = serde_json::to_value(&made.managed_fields()[0].fields_v1).unwrap();
    assert_eq!(owned, json!({"f:spec": {"f:color": {}, "f:size": {}}}));
    assert_eq!(made.managed_fields()[0].operation.as_deref(), Some("Apply"));
}

pub async fn conflicts_name_manager_and_field(client: Client) {
    install(&client).await;
    let api = widgets(&client, &namespace(&client).await);
    apply(&api, "a", json!({"size": 5})).await.unwrap();
    let (code, message, status) = refusal(apply(&api, "b", json!({"size": 6})).await);
    assert_eq!(code, 409);
    assert!(
        message.contains("conflict with \"a\"") && message.contains(".spec.size"),
        "{message}"
    );
    let causes = status.details.unwrap().causes;
    assert_eq!(
        (causes[0].reason.as_str(), causes[0].field.as_str()),
        ("FieldManagerConflict", ".spec.size")
    );

    // The same value is no conflict: both own the field.
    let shared = apply(&api, "b", json!({"size": 5})).await.unwrap();
    // Their order is not promised.
    let mut both = managers(&shared);
    both.sort_unstable();
    assert_eq!(both, ["a", "b"]);

    let params = PatchParams::apply("c").force();
    let patch = Patch::Apply(widget("w", json!({"size": 7})));
    let forced = api.patch("w", &params, &patch).await.unwrap();
    assert_eq!(forced.data["spec"]["size"], 7);
    assert_eq!(managers(&forced), ["c"]);
}

pub async fn an_update_takes_ownership(client: Client) {
    install(&client).await;
    let api = widgets(&client, &namespace(&client).await);
    apply(&api, "a", json!({"size": 5, "color": "red"}))
        .await
        .unwrap();
    let params = PatchParams {
        field_manager: Some("editor".into()),
        ..Default::default()
    };
    api.patch("w", &params, &Patch::Merge(json!({"spec": {"size": 6}})))
        .await
        .unwrap();
    let (code, message, _) = refusal(apply(&api, "a", json!({"size": 5, "color": "red"})).await);
    assert_eq!(code, 409);
    assert!(
        message.contains("conflict with \"editor\" using conformance.example/v1"),
        "{message}"
    );
    // Not sending the field any more gives it to the editor.
    let given = apply(&api, "a", json!({"color": "red"})).await.unwrap();
    assert_eq!(given.data["spec"]["size"], 6);
}

pub async fn fields_not_sent_any_more_go(client: Client) {
    install(&client).await;
    let api = widgets(&client, &namespace(&client).await);
    let full = json!({"size": 5, "color": "red", "free": {"x": 1, "y": 2}, "plain": ["p"], "tags": ["t", "u"],
        "parts": [{"id": "1", "weight": 1, "unit": "kg"}, {"id": "2", "weight": 2}]});
    apply(&api, "a", full).await.unwrap();
    let params = PatchParams {
        field_manager: Some("other".into()),
        ..Default::default()
    };
    let add = json!([{"op": "add", "path": "/spec/parts/-", "value": {"id": "3", "weight": 3}},
        {"op": "add", "path": "/spec/tags/-", "value": "v"}]);
    let add = Patch::<()>::Json(serde_json::from_value(add).unwrap());
    api.patch("w", &params, &add).await.unwrap();

    let less =
        json!({"size": 5, "free": {"x": 1}, "tags": ["u"], "parts": [{"id": "1", "weight": 1}]});
    let after = apply(&api, "a", less).await.unwrap();
    assert_eq!(
        after.data["spec"],
        json!({"size": 5, "free": {"x": 1}, "tags": ["u", "v"],
            "parts": [{"id": "1", "weight": 1}, {"id": "3", "weight": 3}]})
    );
    // A field with a default takes it when its only owner lets go.
    let after = apply(&api, "a", json!({"color": "red"})).await.unwrap();
    assert_eq!(after.data["spec"]["size"], 1);
    assert!(after.data["spec"].get("free").is_none());
}

pub async fn two_managers_share_keyed_lists(client: Client) {
    install(&client).await;
    let api = widgets(&client, &namespace(&client).await);
    apply(
        &api,
        "a",
        json!({"parts": [{"id": "1", "weight": 1}], "plain": ["x"]}),
    )
    .await
    .unwrap();
    let both = apply(&api, "b", json!({"parts": [{"id": "2", "weight": 2}]}))
        .await
        .unwrap();
    assert_eq!(both.data["spec"]["parts"].as_array().unwrap().len(), 2);
    // An atomic list belongs to one manager as a whole.
    assert_eq!(
        refusal(apply(&api, "b", json!({"plain": ["y"]})).await).0,
        409
    );
    let gone = apply(&api, "b", json!({"color": "red"})).await.unwrap();
    assert_eq!(
        gone.data["spec"]["parts"],
        json!([{"id": "1", "weight": 1}])
    );
}

pub async fn status_is_applied_apart(client: Client) {
    install(&client).await;
    let api = widgets(&client, &namespace(&client).await);
    apply(&api, "a", json!({"size": 5})).await.unwrap();
    let status = json!({"apiVersion": "conformance.example/v1", "kind": "Widget", "metadata": {"name": "w"},
        "status": {"phase": "ok"}});
    let params = PatchParams::apply("a");
    let after = api
        .patch_status("w", &params, &Patch::Apply(&status))
        .await
        .unwrap();
    assert_eq!(after.data["status"]["phase"], "ok");
    assert_eq!(after.data["spec"]["size"], 5);
    let again = api
        .patch_status("w", &params, &Patch::Apply(&status))
        .await
        .unwrap();
    assert_eq!(again.resource_version(), after.resource_version());
    // The status has an entry of its own, so applying the spec does not take the status away.
    let after = apply(&api, "a", json!({"size": 6})).await.unwrap();
    assert_eq!(after.data["status"]["phase"], "ok");
    assert_eq!(
        after
            .managed_fields()
            .iter()
            .filter(|m| m.subresource.as_deref() == Some("status"))
            .count(),
        1
    );
}

pub async fn managed_fields_are_not_accepted(client: Client) {
    install(&client).await;
    let api = widgets(&client, &namespace(&client).await);
    let made = api
        .create(&PostParams::default(), &widget("w", json!({})))
        .await
        .unwrap();
    let patch = Patch::Apply(&made);
    let (code, message, _) = refusal(api.patch("w", &PatchParams::apply("a"), &patch).await);
    assert_eq!(
        (code, message.as_str()),
        (400, "metadata.managedFields must be nil")
    );
}
