use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use trimtab_crds::fence::ServiceFence;
use trimtab_mesh::table::Row;

use super::*;
use crate::object::Directory;
use crate::scope::Services;

/// An index that follows a mesh.
struct Fixture {
    mesh: Arc<Mesh>,
    of: Arc<Index>,
}

impl std::ops::Deref for Fixture {
    type Target = Index;

    fn deref(&self) -> &Index {
        &self.of
    }
}

fn put<R: Row<Object: DeserializeOwned>>(index: &Fixture, object: Value) {
    index.mesh.put::<R>(serde_json::from_value(object).unwrap());
}

fn meta(namespace: &str, name: &str) -> Value {
    json!({"name": name, "namespace": namespace})
}

fn object(namespace: &str, name: &str, spec: Value) -> Value {
    let mut object = json!({"metadata": meta(namespace, name)});
    object["spec"] = spec;
    object
}

fn service(index: &Fixture, namespace: &str, name: &str, spec: Value) {
    put::<Service>(index, object(namespace, name, spec));
}

fn entry(index: &Fixture, namespace: &str, name: &str, spec: Value) {
    put::<ServiceEntry>(index, object(namespace, name, spec));
}

fn slice(index: &Fixture, service: &str, addresses: Value) {
    let mut object = json!({"metadata": meta("a", &format!("{service}-1")), "addressType": "IPv4", "endpoints": [{}]});
    object["metadata"]["labels"] = json!({"kubernetes.io/service-name": service});
    object["endpoints"][0]["addresses"] = addresses;
    put::<EndpointSlice>(index, object);
}

fn pod(labels: Value, owner: Option<(&str, &str)>, ips: &[&str], spec: Value) -> Value {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let mut object = object("a", "p-0", spec);
    object["metadata"]["labels"] = labels;
    if let Some((kind, name)) = owner {
        object["metadata"]["ownerReferences"] = json!([
            {"apiVersion": "v1", "kind": "Node", "name": "other", "uid": "1"},
            {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "2", "controller": true},
        ]);
    }
    object["status"] = json!({"phase": "Running", "podIPs": ips});
    object
}

fn index() -> Fixture {
    let mesh = Mesh::new("cluster.local");
    let of = Index::new(&LazyloadConfig::default(), &mesh);
    of.attach(&mesh);
    Fixture { mesh, of }
}

#[test]
fn workloads_are_named_as_the_injector_names_them() {
    for (labels, owner, wanted) in [
        (
            json!({"pod-template-hash": "6d4"}),
            Some(("ReplicaSet", "web-6d4")),
            "web",
        ),
        (
            json!({"pod-template-hash": "x"}),
            Some(("ReplicaSet", "web-6d4")),
            "web-6d4",
        ),
        (json!({}), Some(("ReplicaSet", "web-6d4")), "web-6d4"),
        (json!({}), Some(("Job", "clean-12345678")), "clean"),
        (json!({}), Some(("Job", "clean-1234567890")), "clean"),
        (json!({}), Some(("Job", "clean-1234567")), "clean-1234567"),
        (
            json!({}),
            Some(("Job", "clean-12345678901")),
            "clean-12345678901",
        ),
        (json!({}), Some(("StatefulSet", "db")), "db"),
        (
            json!({"deploymentconfig": "os"}),
            Some(("ReplicationController", "os-12")),
            "os",
        ),
        (json!({}), Some(("ReplicationController", "rc-12")), "rc-12"),
        (json!({}), None, "p-0"),
    ] {
        let pod: v1::Pod =
            serde_json::from_value(pod(labels, owner, &[], json!({"containers": []}))).unwrap();
        assert_eq!(*Caller::of(&pod).workload, *wanted);
    }
}

#[test]
fn callers_are_found_by_either_address_and_by_pod() {
    let index = index();
    let plain = json!({"containers": []});
    let owner = Some(("StatefulSet", "db"));
    put::<Pod>(
        &index,
        pod(json!({}), owner, &["10.0.0.1", "fd00::1"], plain.clone()),
    );
    let db = Some(Caller::new("a", "db"));
    assert_eq!(index.caller_at("10.0.0.1".parse().unwrap()), db);
    assert_eq!(index.caller_at("fd00::1".parse().unwrap()), db);
    assert_eq!(index.caller_at("::ffff:10.0.0.1".parse().unwrap()), db);
    assert_eq!(index.caller_at("10.0.0.2".parse().unwrap()), None);
    assert_eq!(index.caller_of_pod("a", "p-0"), db);

    // An address that a pod got before the end of its last owner was seen.
    let mut new = pod(json!({}), None, &["10.0.0.1"], plain.clone());
    new["metadata"]["name"] = json!("new");
    put::<Pod>(&index, new);
    assert_eq!(
        index.caller_at("10.0.0.1".parse().unwrap()),
        Some(Caller::new("a", "new"))
    );
    let mut ended = pod(json!({}), owner, &["10.0.0.1", "fd00::1"], plain);
    ended["status"]["phase"] = json!("Succeeded");
    put::<Pod>(&index, ended);
    assert_eq!(index.caller_at("fd00::1".parse().unwrap()), None);
    assert_eq!(
        index.caller_of_pod("a", "p-0"),
        db,
        "its labels still count"
    );
}

#[test]
fn pods_on_the_host_network_have_no_address_of_their_own() {
    let index = index();
    let spec = json!({"containers": [], "hostNetwork": true});
    put::<Pod>(&index, pod(json!({}), None, &["10.0.0.1"], spec));
    assert_eq!(index.caller_at("10.0.0.1".parse().unwrap()), None);
    assert_eq!(
        index.caller_of_pod("a", "p-0"),
        Some(Caller::new("a", "p-0"))
    );
}

#[test]
fn names_mean_what_they_mean_to_the_client() {
    let index = index();
    service(&index, "a", "web", json!({}));
    service(&index, "b", "web", json!({}));
    service(&index, "b", "only", json!({}));
    service(&index, "a", "kafka", json!({"clusterIP": "None"}));
    service(
        &index,
        "a",
        "out",
        json!({"type": "ExternalName", "externalName": "db.example.com"}),
    );
    entry(
        &index,
        "b",
        "wild",
        json!({"hosts": ["*.example.com", "*.api.example.com", "single"]}),
    );
    entry(
        &index,
        "a",
        "wild",
        json!({"hosts": ["*.example.com"], "exportTo": ["."]}),
    );
    put::<VirtualService>(
        &index,
        json!({"metadata": meta("b", "v"), "spec": {"hosts": ["x.api.example.com", "virtual.only", "*.virtual"]}}),
    );
    for (name, host) in [
        ("web", Some("web.a.svc.cluster.local")),
        ("WEB.", Some("web.a.svc.cluster.local")),
        ("web.b", Some("web.b.svc.cluster.local")),
        ("web.b.svc", Some("web.b.svc.cluster.local")),
        ("web.b.svc.cluster.local", Some("web.b.svc.cluster.local")),
        ("Web.B.svc.cluster.local.", Some("web.b.svc.cluster.local")),
        ("only", None),
        ("only.b", Some("only.b.svc.cluster.local")),
        ("kafka-0.kafka", Some("kafka.a.svc.cluster.local")),
        ("kafka-0.kafka.a", Some("kafka.a.svc.cluster.local")),
        ("kafka-0.kafka.a.svc", Some("kafka.a.svc.cluster.local")),
        (
            "kafka-0.kafka.a.svc.cluster.local",
            Some("kafka.a.svc.cluster.local"),
        ),
        ("web-0.web.a.svc.cluster.local", None),
        ("out", Some("out.a.svc.cluster.local")),
        ("www.example.com", Some("*.example.com")),
        ("y.api.example.com", Some("*.api.example.com")),
        ("x.api.example.com", Some("x.api.example.com")),
        ("*.example.com", Some("*.example.com")),
        ("example.com", None),
        ("single", Some("single")),
        ("virtual.only", Some("virtual.only")),
        ("z.virtual", Some("*.virtual")),
        ("web:80", None),
        ("", None),
        ("10.0.0.1", None),
    ] {
        assert_eq!(index.host_of_name(name, "a").as_deref(), host, "{name}");
    }
}

fn at(index: &Fixture, address: &str, port: u16) -> Vec<String> {
    let hosts = index.hosts_at(address.parse().unwrap(), port);
    hosts.iter().map(ToString::to_string).collect()
}

#[test]
fn addresses_of_services_lead_to_hosts() {
    let index = index();
    let both = json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::9"], "ports": [{"port": 80}]});
    service(&index, "a", "web", both);
    service(&index, "a", "plain", json!({"clusterIP": "10.96.0.2"}));
    service(&index, "a", "head", json!({"clusterIP": "None"}));
    slice(&index, "plain", json!(["10.1.0.1", "10.1.0.2"]));
    slice(&index, "head", json!(["10.1.0.1"]));
    assert_eq!(at(&index, "10.96.0.1", 80), ["web.a.svc.cluster.local"]);
    assert_eq!(at(&index, "fd00::9", 80), ["web.a.svc.cluster.local"]);
    let shared = at(&index, "10.1.0.1", 80);
    assert_eq!(shared, ["head.a.svc.cluster.local"], "headless first");
    assert_eq!(at(&index, "10.1.0.2", 80), ["plain.a.svc.cluster.local"]);
    assert!(at(&index, "198.51.100.1", 1).is_empty());
    service(&index, "a", "web", json!({"clusterIP": "10.96.0.3"}));
    assert!(at(&index, "10.96.0.1", 80).is_empty());
    index.mesh.table::<EndpointSlice>().replace(&[]);
    assert!(at(&index, "10.1.0.1", 80).is_empty());
}

#[test]
fn addresses_of_service_entries_lead_to_hosts() {
    let index = index();
    let add = |name: &str, addresses: Value, port: u16| {
        let ports = json!([{"number": port, "name": "tcp", "protocol": "TCP"}]);
        let mut spec = json!({"ports": ports, "hosts": [format!("{name}.example.com")]});
        spec["addresses"] = addresses;
        spec["resolution"] = json!("STATIC");
        spec["endpoints"] = json!([{"address": format!("203.0.113.{port}")}]);
        entry(&index, "a", name, spec);
    };
    add("one", json!(["192.0.2.1"]), 1);
    add("two", json!(["192.0.2.1"]), 2);
    add("net", json!(["192.0.2.0/24", "2001:db8::/32"]), 3);
    add("wide", json!(["192.0.0.0/16"]), 4);
    assert_eq!(at(&index, "192.0.2.1", 1), ["one.example.com"]);
    let either = at(&index, "192.0.2.1", 9);
    assert_eq!(either, ["one.example.com", "two.example.com"]);
    let longest = at(&index, "192.0.2.9", 4);
    assert_eq!(longest, ["net.example.com"], "the longest prefix");
    assert_eq!(at(&index, "192.0.3.9", 4), ["wide.example.com"]);
    assert_eq!(at(&index, "2001:db8::5", 3), ["net.example.com"]);
    assert_eq!(at(&index, "203.0.113.4", 4), ["wide.example.com"]);

    let unreadable = [("a".to_owned(), "one".to_owned())];
    let entries = index.mesh.table::<ServiceEntry>();
    entries.begin();
    entries.end(&unreadable);
    assert_eq!(at(&index, "192.0.2.1", 9), ["one.example.com"], "it stays");
    assert!(at(&index, "192.0.2.9", 3).is_empty());
    assert!(at(&index, "203.0.113.4", 4).is_empty());
}

#[test]
fn totals_follow_what_each_namespace_sees() {
    let index = index();
    service(
        &index,
        "a",
        "web",
        json!({"ports": [{"port": 80, "name": "http"}]}),
    );
    let hidden = json!({"metadata": {"name": "own", "namespace": "b", "annotations": {"networking.istio.io/exportTo": "., b, c"}},
        "spec": {"ports": [{"port": 80, "name": "http"}]}});
    put::<Service>(&index, hidden.clone());
    let services = |client: &str| index.services().totals(client).services;
    assert_eq!((services("a"), services("b"), services("c")), (1, 2, 2));
    let before = index.services().totals("a").bytes;
    slice(&index, "web", json!(["10.1.0.1", "10.1.0.2", "fd00::1"]));
    assert_eq!(
        index.services().totals("a").bytes - before,
        2 * crate::scope::size::ENDPOINT
    );
    let mut other = hidden;
    other["metadata"]["annotations"] = json!({});
    put::<Service>(&index, other);
    assert_eq!((services("a"), services("b")), (2, 2));
    index.mesh.table::<Service>().replace(&[]);
    assert_eq!(index.services().totals("b").services, 0);
    assert_eq!(
        index.services().totals("b").bytes,
        crate::scope::size::PROXY
    );
}

fn fence(name: &str, spec: Value, status: Value) -> ServiceFence {
    let mut object = object("a", name, spec);
    object["apiVersion"] = json!("microservice.slime.io/v1alpha1");
    object["kind"] = json!("ServiceFence");
    object["metadata"]["generation"] = json!(1);
    object["status"] = status;
    serde_json::from_value(object).unwrap()
}

#[test]
fn a_roll_out_marks_no_fence() {
    let index = index();
    index
        .mesh
        .put::<Fence>(fence("web", json!({"enable": true}), json!({})));
    let plain = json!({"containers": []});
    let labels = json!({"app": "web"});
    put::<Pod>(
        &index,
        pod(
            labels.clone(),
            Some(("StatefulSet", "web")),
            &["10.0.0.1"],
            plain.clone(),
        ),
    );
    let first = index.drain_changes();
    assert_eq!(first.fences.len(), 1);
    let mut second = pod(labels, Some(("StatefulSet", "web")), &["10.0.0.2"], plain);
    second["metadata"]["name"] = json!("p-1");
    put::<Pod>(&index, second);
    index.mesh.remove::<Pod>("a", "p-0");
    assert!(index.drain_changes().is_empty());
    let caller = Caller::new("a", "web");
    assert_eq!(index.fences_of(&caller).len(), 1);
    assert_eq!(index.caller_at("10.0.0.2".parse().unwrap()), Some(caller));
}

#[test]
fn a_status_is_reported_and_marks_a_fence_only_for_its_callers() {
    let index = index();
    let key = FenceKey {
        namespace: "a".to_owned(),
        name: "web".to_owned(),
    };
    index.mesh.put::<Fence>(fence("web", json!({}), json!({})));
    index.drain_changes();
    let learned = json!({"metricStatus": {"x": "1"}});
    index.mesh.put::<Fence>(fence("web", json!({}), learned));
    let changes = index.drain_changes();
    assert!(changes.fences.is_empty());
    assert!(changes.statuses.contains(&key));
    let learned = json!({"dependencies": [{"host": "b", "caller": "nightly"}]});
    index.mesh.put::<Fence>(fence("web", json!({}), learned));
    assert!(index.drain_changes().fences.contains(&key));
    let nightly = Caller::new("a", "nightly");
    assert_eq!(index.fences_of(&nightly), std::slice::from_ref(&key));
    assert!(index.resolve(&key).unwrap().callers.contains(&nightly));
    let name = ("a".to_owned(), "web".to_owned());
    index.mesh.table::<Fence>().undecodable(&name, "bad");
    assert_eq!(
        index.resolve(&key).unwrap().problems,
        [Problem::Undecodable("bad".to_owned())]
    );
    index.mesh.remove::<Fence>("a", "web");
    assert!(index.drain_changes().fences.contains(&key));
    assert!(index.resolve(&key).is_none());
    assert!(index.fences_of(&nightly).is_empty());
}

#[tokio::test]
async fn whoever_waits_is_woken() {
    let index = index();
    index.mesh.put::<Fence>(fence("web", json!({}), json!({})));
    index.changed().await;
    assert_eq!(index.drain_changes().fences.len(), 1);
}

fn scoped(index: &Index, key: &FenceKey) {
    let fence = index.resolve(key).unwrap();
    let settings = crate::scope::Settings::new(&LazyloadConfig::default(), Vec::new());
    index.scope(&ScopeInput {
        fence: key,
        spec: &fence.spec,
        created: None,
        learned: &[],
        before: &BTreeMap::new(),
        fading: &BTreeMap::new(),
        now: jiff::Timestamp::UNIX_EPOCH,
        settings: &settings,
        required: &[],
    });
}

#[test]
fn one_of_many_services_marks_the_fences_that_name_it() {
    let index = index();
    // A namespace that comes is a remark less.
    service(&index, "b", "first", json!({}));
    for n in 0..100 {
        let host = format!("s{n}.b.svc.cluster.local");
        let spec = json!({"enable": true, "host": {host: {}}});
        index
            .mesh
            .put::<Fence>(fence(&format!("f{n}"), spec, json!({})));
    }
    for key in index.drain_changes().fences {
        scoped(&index, &key);
    }
    let marked = || -> Vec<String> {
        let fences = index.drain_changes().fences;
        fences.into_iter().map(|key| key.name).collect()
    };
    service(&index, "b", "s7", json!({}));
    assert_eq!(marked(), ["f7"]);
    service(&index, "b", "unnamed", json!({}));
    assert!(marked().is_empty());
    entry(
        &index,
        "c",
        "e",
        json!({"hosts": ["*.c.svc.cluster.local"]}),
    );
    assert!(marked().is_empty());
    entry(
        &index,
        "c",
        "e",
        json!({"hosts": ["*.b.svc.cluster.local"]}),
    );
    assert_eq!(marked().len(), 100, "it covers all of them");
    slice(&index, "s7", json!(["10.0.0.1"]));
    assert!(index.drain_changes().is_empty());
}
