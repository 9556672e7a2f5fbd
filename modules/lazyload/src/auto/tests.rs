use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use trimtab_crds::fence::{CREATED_BY, CREATED_BY_LABEL};
use trimtab_mesh::model::Pod;
use trimtab_mesh::table::Row;

/// Automatic fences that follows a mesh.
struct Fixture {
    mesh: Arc<Mesh>,
    of: Arc<AutoFences>,
}

impl std::ops::Deref for Fixture {
    type Target = AutoFences;

    fn deref(&self) -> &AutoFences {
        &self.of
    }
}

impl Fixture {
    fn put<R: Row<Object: DeserializeOwned>>(&self, object: Value) {
        self.mesh.put::<R>(serde_json::from_value(object).unwrap());
    }
}

fn auto(config: Value) -> Fixture {
    let config: LazyloadConfig = serde_json::from_value(config).unwrap();
    config.check().unwrap();
    let mesh = Mesh::new("cluster.local");
    let of = AutoFences::new(Arc::new(config), &mesh, Arc::new(Notify::new()));
    mesh.table::<Service>().follow(&of);
    mesh.table::<Namespace>().follow(&of);
    mesh.table::<Fence>().follow(&of);
    mesh.table::<Pod>().follow(&of);
    Fixture { mesh, of }
}

fn service(name: &str, labels: &Value, annotations: &Value) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": name, "labels": labels, "annotations": annotations},
        "spec": {"selector": {"app": name}},
    })
}

fn namespace(labels: &Value, annotations: &Value) -> Value {
    json!({"metadata": {"name": "shop", "labels": labels, "annotations": annotations}})
}

fn key(name: &str) -> FenceKey {
    FenceKey {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

fn applied(auto: &AutoFences, name: &str) -> Option<Value> {
    match auto.decide(&key(name)) {
        Some(Action::Apply(fence)) => Some(serde_json::to_value(fence).unwrap()),
        _ => None,
    }
}

#[test]
fn service_then_namespace_then_default_decide() {
    let (yes, no, none) = (
        json!({"slime.io/serviceFenced": "true"}),
        json!({"slime.io/serviceFenced": "false"}),
        json!({}),
    );
    for (own, of_namespace, default, wanted) in [
        (&none, &none, false, false),
        (&none, &none, true, true),
        (&none, &yes, false, true),
        (&none, &no, true, false),
        (&yes, &no, false, true),
        (&no, &yes, true, false),
    ] {
        let auto = auto(json!({"fences": {"autoFence": true, "defaultFence": default}}));
        auto.put::<Namespace>(namespace(of_namespace, &json!({})));
        auto.put::<Service>(service("a", own, &json!({})));
        assert_eq!(
            applied(&auto, "a").is_some(),
            wanted,
            "{own} {of_namespace} {default}"
        );
    }
}

#[test]
fn a_made_fence_says_that_it_was_made_and_follows_its_service() {
    let auto =
        auto(json!({"revision": "canary", "fences": {"autoFence": true, "defaultFence": true}}));
    auto.put::<Service>(service("a", &json!({}), &json!({})));
    assert_eq!(
        auto.drain_changes().into_iter().collect::<Vec<_>>(),
        [key("a")]
    );
    let fence = applied(&auto, "a").unwrap();
    assert_eq!(fence["spec"]["enable"], true);
    assert_eq!(fence["spec"]["workloadSelector"]["fromService"], true);
    assert_eq!(fence["metadata"]["labels"][CREATED_BY_LABEL], CREATED_BY);
    assert_eq!(fence["metadata"]["labels"]["istio.io/rev"], "canary");

    let mut live = fence;
    live["metadata"]["uid"] = json!("u1");
    auto.put::<Fence>(live);
    assert_eq!(auto.decide(&key("a")), None, "it is as wanted");
    auto.mesh.remove::<Service>("shop", "a");
    assert!(auto.drain_changes().contains(&key("a")));
    let gone = Action::Delete {
        uid: "u1".to_owned(),
    };
    assert_eq!(auto.decide(&key("a")), Some(gone));
}

#[test]
fn a_fence_of_a_user_is_left_alone() {
    let auto = auto(json!({"fences": {"autoFence": true}}));
    auto.put::<Service>(service(
        "a",
        &json!({"slime.io/serviceFenced": "false"}),
        &json!({}),
    ));
    auto.put::<Fence>(
        json!({"metadata": {"namespace": "shop", "name": "a", "uid": "u"}, "spec": {"enable": true}}));
    assert_eq!(auto.decide(&key("a")), None);
}

#[test]
fn deleting_a_fence_makes_none_when_fences_are_not_automatic() {
    let auto = auto(json!({"fences": {"defaultFence": true}}));
    auto.put::<Service>(service("a", &json!({}), &json!({})));
    auto.put::<Fence>(
        json!({"metadata": {"namespace": "shop", "name": "a"}, "spec": {"enable": true}}),
    );
    auto.mesh.remove::<Fence>("shop", "a");
    assert_eq!(auto.decide(&key("a")), None);
}

#[test]
fn switching_off_deletes_only_what_was_made() {
    let on = json!({"fences": {"autoFence": true, "defaultFence": true}});
    let auto = auto(on);
    auto.put::<Service>(service("a", &json!({}), &json!({})));
    auto.put::<Service>(service("b", &json!({}), &json!({})));
    for (name, labels) in [
        ("a", json!({CREATED_BY_LABEL: CREATED_BY})),
        ("b", json!({})),
    ] {
        auto.put::<Fence>(
            json!({"metadata": {"namespace": "shop", "name": name, "uid": name, "labels": labels}, "spec": {}}));
    }
    auto.drain_changes();
    auto.reconfigure(Arc::new(LazyloadConfig::default()));
    assert_eq!(auto.drain_changes().len(), 2);
    assert!(matches!(
        auto.decide(&key("a")),
        Some(Action::Delete { .. })
    ));
    assert_eq!(auto.decide(&key("b")), None);
}

#[test]
fn services_without_selector_and_aliases_get_none() {
    let auto = auto(json!({"fences": {"autoFence": true, "defaultFence": true}}));
    for spec in [
        json!({}),
        json!({"selector": {}}),
        json!({"type": "ExternalName", "externalName": "x.example.com", "selector": {"a": "b"}}),
    ] {
        auto.put::<Service>(json!({"metadata": {"namespace": "shop", "name": "a"}, "spec": spec}));
        assert_eq!(auto.decide(&key("a")), None, "{spec}");
    }
}

#[test]
fn lazyxds_annotations_need_no_switch() {
    let auto = auto(json!({}));
    auto.put::<Service>(service("a", &json!({}), &json!({"lazy-xds": "TRUE"})));
    assert!(applied(&auto, "a").is_some());
    auto.put::<Service>(service("b", &json!({}), &json!({})));
    assert!(applied(&auto, "b").is_none());
    auto.drain_changes();
    auto.put::<Namespace>(namespace(&json!({}), &json!({"lazy-xds": "true"})));
    assert!(
        auto.drain_changes().contains(&key("b")),
        "its Services are decided again"
    );
    assert!(applied(&auto, "b").is_some());
}

#[test]
fn namespaces_out_of_reach_get_none() {
    for (fences, wanted) in [
        (json!({"blackNamespaceList": "x, shop"}), false),
        (json!({"whiteNamespaceList": "x"}), false),
        (json!({"whiteNamespaceList": "x,shop"}), true),
        (json!({"managementSelectors": [{"team": "a"}]}), true),
        (
            json!({"managementSelectors": [{"team": "b"}, {"team": "c"}]}),
            false,
        ),
    ] {
        let mut config = json!({"fences": {"autoFence": true, "defaultFence": true}});
        config["fences"]
            .as_object_mut()
            .unwrap()
            .extend(fences.as_object().unwrap().clone());
        let auto = auto(config);
        auto.put::<Namespace>(namespace(&json!({"team": "a"}), &json!({})));
        auto.put::<Service>(service("a", &json!({}), &json!({})));
        assert_eq!(applied(&auto, "a").is_some(), wanted, "{fences}");
    }
}

#[test]
fn a_pod_label_makes_a_fence_until_the_last_pod_is_gone() {
    let auto = auto(json!({"fences": {"fenceLabelKeyAlias": "team/app:wl"}}));
    let pod = |name: &str| json!({"metadata": {"namespace": "shop", "name": name, "labels": {"team/app": "Cron"}}});
    auto.put::<Pod>(pod("p1"));
    auto.put::<Pod>(pod("p2"));
    let name = "wl-cron.workload.identity";
    let fence = applied(&auto, name).unwrap();
    assert_eq!(
        fence["spec"]["workloadSelector"]["labels"]["team/app"],
        "Cron"
    );
    auto.put::<Fence>(json!({
        "metadata": {"namespace": "shop", "name": name, "uid": "u", "labels": {CREATED_BY_LABEL: CREATED_BY}},
        "spec": {},
    }));
    auto.mesh.remove::<Pod>("shop", "p1");
    assert_eq!(auto.decide(&key(name)), None);
    auto.mesh.table::<Pod>().replace(&[]);
    assert!(matches!(
        auto.decide(&key(name)),
        Some(Action::Delete { .. })
    ));
}

#[test]
fn fault_s18_no_fence_is_made_for_a_gateway() {
    let auto = auto(json!({"fences": {"autoFence": true, "defaultFence": true}}));
    auto.put::<Service>(service("gate", &json!({}), &json!({})));
    auto.put::<Service>(service("web", &json!({}), &json!({})));
    assert!(
        applied(&auto, "gate").is_some(),
        "nothing is known of its pods"
    );
    auto.drain_changes();
    let pod = |name: &str, role: &str| {
        let containers = json!([{"name": "app"}, {"name": "istio-proxy", "args": ["proxy", role]}]);
        auto.put::<Pod>(json!({
            "metadata": {"namespace": "shop", "name": name, "labels": {"app": "gate"}},
            "spec": {"containers": containers},
        }));
    };
    pod("gate-1", "router");
    assert_eq!(auto.drain_changes(), [key("gate")].into());
    assert_eq!(applied(&auto, "gate"), None);
    let mut live = json!({"metadata": {"namespace": "shop", "name": "gate", "uid": "u",
        "labels": {CREATED_BY_LABEL: CREATED_BY}}, "spec": {}});
    auto.put::<Fence>(live.clone());
    assert_eq!(
        auto.decide(&key("gate")),
        Some(Action::Delete {
            uid: "u".to_owned()
        }),
        "one that was made goes"
    );
    live["metadata"]["labels"] = json!({});
    auto.put::<Fence>(live);
    auto.drain_changes();
    pod("web-1", "sidecar");
    assert_eq!(auto.drain_changes(), [key("gate")].into());
    auto.mesh.remove::<Fence>("shop", "gate");
    assert!(applied(&auto, "gate").is_some(), "one pod obeys it");
}
