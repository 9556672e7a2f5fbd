//! The index, fed with objects as watches feed it.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use trimtab_mesh::Mesh;
use trimtab_mesh::model::{DestinationRule, Pod, Service, ServiceEntry};
use trimtab_mesh::table::Row;

use super::{FirstForm, Form, Index, LimiterKey, V1alpha2};
use crate::input::{ServicePort, TargetProblem};

fn object<K: DeserializeOwned>(value: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value).unwrap())
}

/// An index that follows a mesh.
struct Fixture {
    mesh: Arc<Mesh>,
    index: Arc<Index>,
}

impl std::ops::Deref for Fixture {
    type Target = Index;

    fn deref(&self) -> &Index {
        &self.index
    }
}

fn empty() -> Fixture {
    let mesh = Mesh::new("cluster.local");
    let index = Index::new("istio-system", &mesh);
    index.attach(&mesh);
    Fixture { mesh, index }
}

fn put<R: Row<Object: DeserializeOwned>>(index: &Fixture, value: Value) {
    index.mesh.table::<R>().put(&object(value));
}

fn replace<R: Row<Object: DeserializeOwned>>(index: &Fixture, values: Vec<Value>) {
    let objects: Vec<Arc<R::Object>> = values.into_iter().map(object).collect();
    index.mesh.table::<R>().replace(&objects);
}

fn service(name: &str) -> Value {
    json!({"metadata": {"namespace": "default", "name": name}, "spec": {"selector": {"app": name}}})
}

fn pod(name: &str, labels: &Value, ready: &str) -> Value {
    json!({"metadata": {"namespace": "default", "name": name, "labels": labels},
        "status": {"conditions": [{"type": "Ready", "status": ready}]}})
}

fn limiter(name: &str, generation: i64, more: &Value) -> Value {
    let mut spec = json!({"sets": {"_base": {"descriptor": [
        {"condition": "true", "action": {"quota": "1", "fill_interval": {"seconds": 1}}}]}}});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"namespace": "default", "name": name, "generation": generation}, "spec": spec})
}

fn key(name: &str) -> LimiterKey {
    LimiterKey {
        namespace: "default".into(),
        name: name.into(),
        form: Form::V1alpha2,
    }
}

/// Ready pods by set.
fn counts(index: &Fixture, name: &str) -> Vec<(String, i64)> {
    let target = index.resolve(&key(name)).unwrap().target;
    assert_eq!(target.problem, None);
    let sets = target.sets.into_iter();
    sets.map(|(set, facts)| (set, facts.pods)).collect()
}

fn problem(index: &Fixture, name: &str) -> Option<TargetProblem> {
    index.resolve(&key(name)).unwrap().target.problem
}

/// Limiters that events have touched since the last call.
fn touched(index: &Fixture) -> Vec<String> {
    let (dirty, _) = index.drain_changes();
    dirty.into_iter().map(|k| k.name).collect()
}

/// A limiter `a` of a Service with one Ready pod, resolved once.
fn fixture() -> Fixture {
    let index = empty();
    put::<Service>(&index, service("a"));
    put::<Pod>(&index, pod("a-0", &json!({"app": "a"}), "True"));
    put::<V1alpha2>(&index, limiter("a", 1, &json!({})));
    assert_eq!(touched(&index), ["a"]);
    assert_eq!(counts(&index, "a"), [("_base".into(), 1)]);
    index
}

#[test]
fn only_ready_pods_that_stay_are_counted() {
    let index = fixture();
    put::<Pod>(&index, pod("a-1", &json!({"app": "a"}), "False"));
    assert_eq!(
        touched(&index),
        ["a"],
        "its readiness may matter to sources"
    );
    assert_eq!(counts(&index, "a"), [("_base".into(), 1)]);
    put::<Pod>(&index, pod("a-1", &json!({"app": "a"}), "True"));
    assert_eq!(touched(&index), ["a"]);
    assert_eq!(counts(&index, "a"), [("_base".into(), 2)]);
    let mut leaving = pod("a-1", &json!({"app": "a"}), "True");
    leaving["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
    put::<Pod>(&index, leaving);
    assert_eq!(counts(&index, "a"), [("_base".into(), 1)]);
}

#[test]
fn pods_of_others_touch_nobody() {
    let index = fixture();
    put::<Pod>(&index, pod("b-0", &json!({"app": "b"}), "True"));
    let mut elsewhere = pod("a-9", &json!({"app": "a"}), "True");
    elsewhere["metadata"]["namespace"] = json!("shop");
    put::<Pod>(&index, elsewhere);
    assert_eq!(touched(&index), Vec::<String>::new());
    assert_eq!(counts(&index, "a"), [("_base".into(), 1)]);
    put::<Pod>(&index, pod("a-0", &json!({"app": "a"}), "True"));
    assert_eq!(
        touched(&index),
        Vec::<String>::new(),
        "the same pod again is no change"
    );
}

#[test]
fn a_pod_whose_labels_change_moves() {
    let index = fixture();
    put::<Pod>(&index, pod("a-0", &json!({"app": "b"}), "True"));
    assert_eq!(touched(&index), ["a"]);
    assert_eq!(counts(&index, "a"), [("_base".into(), 0)]);
}

#[test]
fn subsets_follow_the_destination_rule() {
    let index = fixture();
    put::<Pod>(
        &index,
        pod("a-1", &json!({"app": "a", "version": "v1"}), "True"),
    );
    touched(&index);
    for host in ["a", "a.default.svc.cluster.local"] {
        let rule = json!({"metadata": {"namespace": "default", "name": "a"},
            "spec": {"host": host, "subsets": [{"name": "v1", "labels": {"version": "v1"}}]}});
        put::<DestinationRule>(&index, rule.clone());
        assert_eq!(touched(&index), ["a"], "{host}");
        assert_eq!(
            counts(&index, "a"),
            [("_base".into(), 2), ("v1".into(), 1)],
            "{host}"
        );
        index.mesh.remove::<DestinationRule>("default", "a");
        assert_eq!(touched(&index), ["a"], "{host}");
        assert_eq!(counts(&index, "a"), [("_base".into(), 2)], "{host}");
    }
}

#[test]
fn a_host_follows_its_service_entry() {
    let index = empty();
    put::<V1alpha2>(
        &index,
        limiter("api", 1, &json!({"host": "api.example.com"})),
    );
    touched(&index);
    assert_eq!(
        problem(&index, "api"),
        Some(TargetProblem::ServiceEntryNotFound)
    );
    let entry =
        |spec: Value| json!({"metadata": {"namespace": "default", "name": "api"}, "spec": spec});
    let selecting = entry(
        json!({"hosts": ["api.example.com"], "workloadSelector": {"labels": {"app": "api"}}}),
    );
    put::<ServiceEntry>(&index, selecting.clone());
    assert_eq!(touched(&index), ["api"]);
    put::<Pod>(&index, pod("api-0", &json!({"app": "api"}), "True"));
    assert_eq!(counts(&index, "api"), [("_base".into(), 1)]);
    touched(&index);

    let bare = entry(json!({"hosts": ["api.example.com"]}));
    put::<ServiceEntry>(&index, bare);
    assert_eq!(touched(&index), ["api"]);
    assert_eq!(
        problem(&index, "api"),
        Some(TargetProblem::ServiceEntryWithoutSelector)
    );

    let mut labelled = entry(
        json!({"hosts": ["api.example.com"], "endpoints": [{"address": "10.0.0.1"}, {"address": "10.0.0.2"}], "ports": [{"number": 80}]}),
    );
    labelled["metadata"]["labels"] = json!({"app": "static"});
    put::<ServiceEntry>(&index, labelled);
    assert_eq!(
        counts(&index, "api"),
        [("_base".into(), 2)],
        "static endpoints stand for pods"
    );
    touched(&index);
    index.mesh.remove::<ServiceEntry>("default", "api");
    assert_eq!(touched(&index), ["api"]);
    assert_eq!(
        problem(&index, "api"),
        Some(TargetProblem::ServiceEntryNotFound)
    );
}

#[test]
fn a_service_that_comes_changes_and_goes() {
    let index = empty();
    put::<V1alpha2>(&index, limiter("a", 1, &json!({})));
    touched(&index);
    assert_eq!(problem(&index, "a"), Some(TargetProblem::ServiceNotFound));
    let mut headless = service("a");
    headless["spec"] = json!({});
    put::<Service>(&index, headless);
    assert_eq!(touched(&index), ["a"]);
    assert_eq!(
        problem(&index, "a"),
        Some(TargetProblem::ServiceWithoutSelector)
    );
    put::<Service>(&index, service("a"));
    assert_eq!(touched(&index), ["a"]);
    assert_eq!(problem(&index, "a"), None);
    index.mesh.remove::<Service>("default", "a");
    assert_eq!(touched(&index), ["a"]);
    assert_eq!(problem(&index, "a"), Some(TargetProblem::ServiceNotFound));
}

/// Ports of the limiter's Service, as `<port>-><target>`.
fn ports(index: &Fixture, name: &str) -> Vec<String> {
    let target = index.resolve(&key(name)).unwrap().target;
    let show = |p: &ServicePort| {
        let target = p.target.map_or("named".to_owned(), |t| t.to_string());
        format!("{}->{target}", p.port)
    };
    target.ports.iter().map(show).collect()
}

#[test]
fn the_ports_of_a_service_are_known_and_a_change_touches_its_limiter() {
    let index = fixture();
    assert_eq!(ports(&index, "a"), [""; 0]);
    let put_ports = |list: Value| {
        let mut with = service("a");
        with["spec"]["ports"] = list;
        put::<Service>(&index, with);
    };
    put_ports(json!([
        {"port": 9000, "targetPort": "grpc"}, {"port": 80, "targetPort": 9080}, {"port": 81},
        {"port": 82, "targetPort": 0}, {"port": 83, "targetPort": ""},
        {"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"},
    ]));
    assert_eq!(touched(&index), ["a"]);
    let all = [
        "53->53",
        "80->9080",
        "81->81",
        "82->82",
        "83->83",
        "9000->named",
    ];
    assert_eq!(ports(&index, "a"), all);
    put_ports(json!([{"port": 80, "targetPort": 9080}]));
    assert_eq!(touched(&index), ["a"]);
    put_ports(json!([{"name": "http", "port": 80, "targetPort": 9080}]));
    assert_eq!(
        touched(&index),
        [""; 0],
        "a name says nothing about the target"
    );
    put_ports(json!([{"port": 80, "targetPort": 9081}]));
    assert_eq!(touched(&index), ["a"]);
    assert_eq!(ports(&index, "a"), ["80->9081"]);

    put::<V1alpha2>(
        &index,
        limiter("a", 2, &json!({"workloadSelector": {"app": "a"}})),
    );
    assert_eq!(
        ports(&index, "a"),
        [""; 0],
        "pods of a selector are not those of the Service"
    );
}

#[test]
fn a_relist_keeps_what_is_there_and_drops_what_is_not() {
    let index = fixture();
    put::<Pod>(&index, pod("a-1", &json!({"app": "a"}), "True"));
    touched(&index);
    let list = vec![
        pod("a-0", &json!({"app": "a"}), "True"),
        pod("a-2", &json!({"app": "a"}), "True"),
    ];
    replace::<Pod>(&index, list.clone());
    assert_eq!(touched(&index), ["a"]);
    let names: Vec<String> = index.resolve(&key("a")).unwrap().pods["_base"]
        .iter()
        .map(|p| p.name.to_string())
        .collect();
    assert_eq!(names, ["a-0", "a-2"]);
    replace::<Pod>(&index, list);
    assert_eq!(
        touched(&index),
        Vec::<String>::new(),
        "the same list again is no change"
    );

    replace::<V1alpha2>(&index, vec![limiter("b", 1, &json!({}))]);
    let (dirty, gone) = index.drain_changes();
    assert_eq!((dirty, gone), (vec![key("b")], vec![key("a")]));
    assert!(index.resolve(&key("a")).is_none());
}

#[test]
fn a_status_write_touches_nobody_and_a_new_generation_does() {
    let index = fixture();
    let mut seen = limiter("a", 1, &json!({}));
    seen["status"] = json!({"limit": "1/1s per pod"});
    put::<V1alpha2>(&index, seen);
    assert_eq!(touched(&index), Vec::<String>::new());
    put::<V1alpha2>(&index, limiter("a", 2, &json!({})));
    assert_eq!(touched(&index), ["a"]);
}

#[test]
fn of_two_forms_of_one_name_the_newer_is_in_force() {
    let index = fixture();
    let first = json!({"metadata": {"namespace": "default", "name": "a", "generation": 1}, "spec": {"descriptors": [
        {"condition": "true", "action": {"quota": "9", "fill_interval": {"seconds": 1}}}]}});
    put::<FirstForm>(&index, first);
    assert_eq!(
        index.drain_changes().0.len(),
        2,
        "each may concern the other"
    );
    let first_key = LimiterKey {
        form: Form::First,
        ..key("a")
    };
    let of_first = |index: &Fixture| index.resolve(&first_key).unwrap().target.problem;
    assert_eq!(
        of_first(&index),
        Some(TargetProblem::Shadowed {
            by: "microservice.slime.io/v1alpha2".into()
        })
    );
    assert_eq!(problem(&index, "a"), None);
    index.mesh.remove::<V1alpha2>("default", "a");
    let (dirty, gone) = index.drain_changes();
    assert_eq!((dirty, gone), (vec![first_key.clone()], vec![key("a")]));
    assert_eq!(of_first(&index), None);
}

#[test]
fn a_selector_replaces_the_service_and_reaches_all_namespaces_from_the_root() {
    let index = empty();
    let selector = json!({"workloadSelector": {"tier": "edge"}});
    put::<V1alpha2>(&index, limiter("edge", 1, &selector));
    let mut root = limiter("edge", 1, &selector);
    root["metadata"]["namespace"] = json!("istio-system");
    put::<V1alpha2>(&index, root);
    let root_key = LimiterKey {
        namespace: "istio-system".into(),
        ..key("edge")
    };
    index.drain_changes();
    let count = |key: &LimiterKey| index.resolve(key).unwrap().target.sets["_base"].pods;
    assert_eq!((count(&key("edge")), count(&root_key)), (0, 0));
    put::<Pod>(&index, pod("e-0", &json!({"tier": "edge"}), "True"));
    assert_eq!(index.drain_changes().0, [key("edge"), root_key.clone()]);
    let mut elsewhere = pod("e-1", &json!({"tier": "edge"}), "True");
    elsewhere["metadata"]["namespace"] = json!("shop");
    put::<Pod>(&index, elsewhere);
    assert_eq!(index.drain_changes().0, std::slice::from_ref(&root_key));
    assert_eq!((count(&key("edge")), count(&root_key)), (1, 2));
}

#[test]
fn an_object_that_cannot_be_read_keeps_its_last_version() {
    let index = fixture();
    let name = ("default".to_owned(), "a".to_owned());
    let table = index.mesh.table::<V1alpha2>();
    table.undecodable(&name, "missing field");
    assert_eq!(touched(&index), ["a"]);
    let resolved = index.resolve(&key("a")).unwrap();
    assert_eq!(
        resolved.object.undecodable.as_deref(),
        Some("missing field")
    );
    assert_eq!(resolved.object.spec.sets["_base"].len(), 1);
    put::<V1alpha2>(&index, limiter("a", 1, &json!({})));
    assert_eq!(touched(&index), ["a"], "readable again");
    assert_eq!(index.resolve(&key("a")).unwrap().object.undecodable, None);
}

#[test]
fn deletion_leaves_no_trace() {
    let index = fixture();
    index.mesh.remove::<V1alpha2>("default", "a");
    let (dirty, gone) = index.drain_changes();
    assert_eq!((dirty, gone), (vec![], vec![key("a")]));
    put::<Pod>(&index, pod("a-3", &json!({"app": "a"}), "True"));
    put::<Service>(&index, service("a"));
    assert_eq!(touched(&index), Vec::<String>::new());
    assert_eq!(index.sizes(), (0, 1, 2));
    assert!(!index.exists("default", "a"));
}

#[test]
fn subsets_of_external_hosts_are_found() {
    for host in ["api.example.com", "example.com", "api"] {
        let index = empty();
        let meta = json!({"namespace": "default", "name": "x"});
        put::<ServiceEntry>(
            &index,
            json!({"metadata": meta, "spec": {
            "hosts": [host], "workloadSelector": {"labels": {"app": "x"}}}}),
        );
        put::<V1alpha2>(&index, limiter("x", 1, &json!({"host": host})));
        assert_eq!(counts(&index, "x"), [("_base".into(), 0)], "{host}");
        touched(&index);
        put::<DestinationRule>(
            &index,
            json!({"metadata": meta, "spec": {
            "host": host, "subsets": [{"name": "v1", "labels": {"version": "v1"}}]}}),
        );
        assert_eq!(touched(&index), ["x"], "{host}");
        assert_eq!(
            counts(&index, "x"),
            [("_base".into(), 0), ("v1".into(), 0)],
            "{host}"
        );
    }
}

#[test]
fn an_object_that_is_unreadable_in_a_relist_is_not_gone() {
    let index = fixture();
    let kept = [("default".to_owned(), "a".to_owned())];
    let (limiters, services) = (
        index.mesh.table::<V1alpha2>(),
        index.mesh.table::<Service>(),
    );
    limiters.begin();
    limiters.end(&kept);
    services.begin();
    services.end(&kept);
    assert_eq!(index.drain_changes().1, []);
    assert_eq!(counts(&index, "a"), [("_base".into(), 1)]);
    replace::<Service>(&index, Vec::new());
    assert_eq!(problem(&index, "a"), Some(TargetProblem::ServiceNotFound));
}

/// Whether the limiter must leave the plain filter name to another one.
fn shares(index: &Fixture, name: &str) -> bool {
    index.resolve(&key(name)).unwrap().target.shared
}

#[test]
fn of_limiters_with_the_same_pods_the_first_by_name_keeps_the_plain_filter() {
    let index = fixture();
    assert!(!shares(&index, "a"));
    // A second Service of the same pods.
    put::<Service>(
        &index,
        json!({"metadata": {"namespace": "default", "name": "b"}, "spec": {"selector": {"app": "a"}}}),
    );
    put::<V1alpha2>(&index, limiter("b", 1, &json!({})));
    assert_eq!(touched(&index), ["b"]);
    assert!(shares(&index, "b"));
    assert_eq!(touched(&index), ["a"], "a is looked at again, once");
    assert!(!shares(&index, "a"));
    assert_eq!(touched(&index), [""; 0]);
    // When the first goes, the second takes its place.
    index.mesh.remove::<V1alpha2>("default", "a");
    assert_eq!(touched(&index), ["b"]);
    assert!(!shares(&index, "b"));
    // A selector of its own keeps out of it.
    put::<V1alpha2>(
        &index,
        limiter("a", 1, &json!({"workloadSelector": {"app": "a"}})),
    );
    touched(&index);
    assert!(!shares(&index, "a") && !shares(&index, "b"));
}
