//! Properties: an apply repeated changes nothing, and list plus watch give the final state.

use std::collections::BTreeMap;
use std::pin::pin;

use crate::conformance;
use crate::conformance::{LIMIT, config, widget, widgets};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use trimtab_embedded::Embedded;

fn spec() -> impl Strategy<Value = Value> {
    let part = (0_u8..4, proptest::option::of(0_i64..3)).prop_map(|(id, weight)| match weight {
        Some(weight) => json!({"id": id.to_string(), "weight": weight}),
        None => json!({"id": id.to_string()}),
    });
    let parts = proptest::collection::vec(part, 0..4).prop_map(|parts| {
        let unique: BTreeMap<String, Value> = parts
            .into_iter()
            .map(|p| (p["id"].to_string(), p))
            .collect();
        unique.into_values().collect::<Vec<_>>()
    });
    let free = proptest::collection::btree_map("[a-c]", "[x-z]", 0..3);
    (
        proptest::option::of(0_i64..5),
        proptest::option::of(parts),
        proptest::option::of(free),
        proptest::option::of(proptest::collection::btree_set("[a-c]", 0..3)),
    )
        .prop_map(|(size, parts, free, tags)| {
            let fields = [
                ("size", size.map(|v| json!(v))),
                ("parts", parts.map(|v| json!(v))),
                ("free", free.map(|v| json!(v))),
                ("tags", tags.map(|v| json!(v))),
            ];
            let present = fields
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)));
            Value::Object(present.collect())
        })
}

#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Change(u8, u8),
    Delete(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u8..5).prop_map(Step::Create),
        (0_u8..5, 0_u8..3).prop_map(|(n, v)| Step::Change(n, v)),
        (0_u8..5).prop_map(Step::Delete),
    ]
}

async fn perform(api: &Api<ConfigMap>, step: &Step) {
    // Steps on missing or existing objects are refused; that is part of the game.
    match step {
        Step::Create(n) => {
            let _ = api
                .create(&PostParams::default(), &config(&format!("o{n}"), &[]))
                .await;
        }
        Step::Change(n, v) => {
            let patch = Patch::Merge(json!({"data": {"k": v.to_string()}}));
            let _ = api
                .patch(&format!("o{n}"), &PatchParams::default(), &patch)
                .await;
        }
        Step::Delete(n) => {
            let _ = api.delete(&format!("o{n}"), &DeleteParams::default()).await;
        }
    }
}

fn state(objects: impl IntoIterator<Item = ConfigMap>) -> BTreeMap<String, Option<String>> {
    objects
        .into_iter()
        .map(|o| (o.name_any(), o.resource_version()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn apply_twice_is_apply_once(specs in proptest::collection::vec((0_u8..2, spec()), 1..6)) {
        Runtime::new().unwrap().block_on(async {
            let embedded = Embedded::new();
            embedded.install_crd(&conformance::widget_crd()).unwrap();
            let api = widgets(&embedded.client(), "default");
            for (manager, spec) in specs {
                let params = PatchParams::apply(&format!("m{manager}")).force();
                let patch = Patch::Apply(widget("w", spec.clone()));
                let first = api.patch("w", &params, &patch).await.unwrap();
                let again = api.patch("w", &params, &patch).await.unwrap();
                prop_assert_eq!(&first, &again);
                for (name, value) in spec.as_object().unwrap() {
                    if !value.is_array() && !value.is_object() {
                        prop_assert_eq!(&first.data["spec"][name], value);
                    }
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn an_only_manager_gets_exactly_what_it_applied_last(specs in proptest::collection::vec(spec(), 1..5)) {
        Runtime::new().unwrap().block_on(async {
            let embedded = Embedded::new();
            embedded.install_crd(&conformance::widget_crd()).unwrap();
            let api = widgets(&embedded.client(), "default");
            let mut last = Value::Null;
            for spec in &specs {
                let patch = Patch::Apply(widget("w", spec.clone()));
                last = api.patch("w", &PatchParams::apply("m"), &patch).await.unwrap().data["spec"].take();
            }
            let mut want = specs.last().unwrap().clone();
            if want.get("size").is_none() {
                want["size"] = json!(1);
            }
            // Keyed lists and sets keep the live order.
            let sorted = |mut v: Value| {
                for list in ["parts", "tags"] {
                    if let Some(items) = v.get_mut(list).and_then(Value::as_array_mut) {
                        items.sort_by_key(Value::to_string);
                    }
                }
                v
            };
            prop_assert_eq!(sorted(last), sorted(want));
            Ok(())
        })?;
    }

    #[test]
    fn list_and_watch_replay_the_state(before in proptest::collection::vec(step(), 0..10), after in proptest::collection::vec(step(), 0..20)) {
        Runtime::new().unwrap().block_on(async {
            let embedded = Embedded::new();
            let api: Api<ConfigMap> = Api::default_namespaced(embedded.client());
            for step in &before {
                perform(&api, step).await;
            }
            let list = api.list(&ListParams::default()).await.unwrap();
            let version = list.metadata.resource_version.clone().unwrap();
            let mut replayed = state(list.items);
            for step in &after {
                perform(&api, step).await;
            }
            // The last event of the replay.
            api.create(&PostParams::default(), &config("end", &[])).await.unwrap();
            let mut stream = pin!(api.watch(&WatchParams::default(), &version).await.unwrap());
            while !replayed.contains_key("end") {
                match tokio::time::timeout(LIMIT, stream.try_next()).await.unwrap().unwrap().unwrap() {
                    WatchEvent::Added(o) | WatchEvent::Modified(o) => {
                        replayed.insert(o.name_any(), o.resource_version());
                    }
                    WatchEvent::Deleted(o) => {
                        prop_assert!(replayed.remove(&o.name_any()).is_some());
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert_eq!(replayed, state(api.list(&ListParams::default()).await.unwrap().items));
            Ok(())
        })?;
    }
}
