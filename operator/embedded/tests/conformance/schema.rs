//! CRD schemas: validation, pruning, defaults and CEL.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams, ValidationDirective};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{eventually, install, namespace, refusal, widget, widget_crd, widgets};

/// Specs, the field that is wrong, and a part of the message.
fn mistakes() -> Vec<(Value, &'static str, &'static str)> {
    vec![
        (
            json!({"size": 101}),
            "spec.size",
            "less than or equal to 100",
        ),
        (json!({"size": "x"}), "spec.size", "must be of type integer"),
        (
            json!({"color": "blue"}),
            "spec.color",
            "supported values: \"red\", \"green\"",
        ),
        (json!({"name": "12345678901"}), "spec.name", "Too long"),
        (
            json!({"parts": [{"weight": 1}]}),
            "spec.parts[0].id",
            "Required value",
        ),
        (json!({"limit": true}), "spec.limit", "must be of type"),
        (
            json!({"tags": ["a", "a"]}),
            "spec.tags[1]",
            "Duplicate value",
        ),
        (
            json!({"size": 3, "max_rate": 2}),
            "spec",
            "max_rate is below size",
        ),
        (
            json!({"size": 3, "min": 4}),
            "spec",
            "min must not exceed size",
        ),
    ]
}

pub async fn refusals_name_the_fields(client: Client) {
    install(&client).await;
    let api = widgets(&client, &namespace(&client).await);
    for (spec, field, part) in mistakes() {
        let (code, message, status) = refusal(
            api.create(&PostParams::default(), &widget("w", spec.clone()))
                .await,
        );
        assert_eq!(code, 422, "{spec}: {message}");
        assert_eq!(status.reason, "Invalid");
        assert!(
            message.starts_with("Widget.conformance.example \"w\" is invalid: "),
            "{message}"
        );
        let causes = status.details.unwrap().causes;
        assert!(
            causes
                .iter()
                .any(|c| c.field == field && c.message.contains(part)),
            "{spec}: {causes:?}"
        );
    }
    let mut without = widget("w", json!({}));
    without.data.as_object_mut().unwrap().remove("spec");
    let (_, message, _) = refusal(api.create(&PostParams::default(), &without).await);
    // A real API server adds that rules were not checked.
    assert!(message.contains("spec: Required value"), "{message}");
}

pub async fn defaults_and_pruning(client: Client) {
    install(&client).await;
    let api = widgets(&client, &namespace(&client).await);
    let sent = widget(
        "w",
        json!({"nonsense": 1, "free": {"any": {"thing": 1}}, "limit": "5%"}),
    );
    let made = api.create(&PostParams::default(), &sent).await.unwrap();
    assert_eq!(
        made.data["spec"],
        json!({"size": 1, "free": {"any": {"thing": 1}}, "limit": "5%"})
    );
}

pub async fn nulls_of_fields_that_are_not_nullable_go(client: Client) {
    install(&client).await;
    let api = widgets(&client, &namespace(&client).await);
    let sent = widget("w", json!({"size": null, "color": null, "plain": null}));
    let made = api.create(&PostParams::default(), &sent).await.unwrap();
    assert_eq!(made.data["spec"], json!({"size": 1}));
}

/// For example an empty default of a map that must not be empty, as of `labels` here.
pub async fn defaults_that_the_schema_refuses_are_refused(client: Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let mut crd = serde_json::to_value(widget_crd()).unwrap();
    crd["metadata"]["name"] = json!("gadgets.conformance.example");
    crd["spec"]["names"] = json!({"plural": "gadgets", "singular": "gadget", "kind": "Gadget"});
    let fields = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    fields["spec"]["properties"]["labels"] = json!({
        "type": "object", "minProperties": 1, "default": {}, "additionalProperties": {"type": "string"},
    });
    let crd = serde_json::from_value(crd).unwrap();
    let (code, message, _) = refusal(api.create(&PostParams::default(), &crd).await);
    assert_eq!(code, 422);
    assert!(
        message.contains("should have at least 1 properties"),
        "{message}"
    );
}

pub async fn strict_writes_name_unknown_fields(client: Client) {
    install(&client).await;
    let api = widgets(&client, &namespace(&client).await);
    let strict = PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply("a")
    };
    let sent = widget("w", json!({"nonsense": 1}));
    let (code, message, _) = refusal(api.patch("w", &strict, &Patch::Apply(&sent)).await);
    assert!(code == 400 || code == 500, "{code}");
    assert!(message.contains("nonsense"), "{message}");
    let mut sent = widget("w", json!({"parts": [{"id": "a", "wait": 1}]}));
    sent.data["mode"] = json!(1);
    let body = serde_json::to_vec(&sent).unwrap();
    let request = kube::core::Request::new(api.resource_url());
    let mut request = request.create(&PostParams::default(), body).unwrap();
    let strict = format!("{}&fieldValidation=Strict", request.uri());
    *request.uri_mut() = strict.parse().unwrap();
    let (code, message, _) = refusal(client.request::<Value>(request).await);
    assert_eq!(code, 400, "{message}");
    for part in [
        "unknown field \"mode\"",
        "unknown field \"spec.parts[0].wait\"",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

/// The CRD of a kind that no other case looks at.
fn gear_crd(kind: &str, scope: &str, version: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gears.conformance.example"},
        "spec": {
            "group": "conformance.example", "scope": scope,
            "names": {"plural": "gears", "singular": "gear", "kind": kind},
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

/// As a cluster refuses our CRD where another program's has the same name and another scope.
pub async fn fault_m17_what_an_established_crd_keeps_does_not_change(client: Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let name = "gears.conformance.example";
    let apply = PatchParams::apply("conformance").force();
    let first = Patch::Apply(gear_crd("Gear", "Namespaced", "v1"));
    api.patch(name, &apply, &first).await.unwrap();
    eventually("the CRD is established", || async {
        let found = api.get(name).await.unwrap().status?;
        let mut conditions = found.conditions.into_iter().flatten();
        conditions
            .any(|c| c.type_ == "Established" && c.status == "True")
            .then_some(())
    })
    .await;
    for (crd, field, value) in [
        (gear_crd("Gear", "Cluster", "v1"), "spec.scope", "Cluster"),
        (
            gear_crd("Cog", "Namespaced", "v1"),
            "spec.names.kind",
            "Cog",
        ),
    ] {
        let merge = Patch::Merge(json!({"spec": crd["spec"]}));
        for (how, result) in [
            ("apply", api.patch(name, &apply, &Patch::Apply(&crd)).await),
            ("merge", api.patch(name, &<_>::default(), &merge).await),
        ] {
            let (code, message, status) = refusal(result);
            assert_eq!(code, 422, "{how}: {message}");
            let want = format!("{field}: Invalid value: \"{value}\": field is immutable");
            assert!(message.contains(&want), "{how}: {message}");
            let causes = status.details.unwrap().causes;
            assert!(causes.iter().any(|c| c.field == field), "{causes:?}");
        }
    }
    let gone = Patch::Merge(json!({"spec": gear_crd("Gear", "Namespaced", "v2")["spec"]}));
    let (code, message, _) = refusal(api.patch(name, &<_>::default(), &gone).await);
    assert_eq!(code, 422, "{message}");
    assert!(message.contains("status.storedVersions[0]"), "{message}");
    api.delete(name, &<_>::default()).await.unwrap();
}

pub async fn transition_rules_see_the_old_value(client: Client) {
    install(&client).await;
    let api = widgets(&client, &namespace(&client).await);
    api.create(&PostParams::default(), &widget("w", json!({"name": "one"})))
        .await
        .unwrap();
    let patch = Patch::Merge(json!({"spec": {"name": "two"}}));
    let (code, message, status) = refusal(api.patch("w", &PatchParams::default(), &patch).await);
    assert_eq!(code, 422);
    assert!(message.contains("name is immutable"), "{message}");
    assert_eq!(status.details.unwrap().causes[0].field, "spec.name");
    let other = Patch::Merge(json!({"spec": {"size": 4}}));
    api.patch("w", &PatchParams::default(), &other)
        .await
        .unwrap();
}
