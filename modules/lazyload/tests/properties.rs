//! What holds for every mesh.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a broken test must stop with its reason"
)]

mod mesh;

use std::collections::{BTreeMap, BTreeSet};

use mesh::{Mesh, Part, apply, delete, written};
use proptest::prelude::*;
use serde_json::{Value, json};
use trimtab_lazyload::mesh::{Index, ResolvedFence};
use trimtab_lazyload::object::FenceKey;
use trimtab_lazyload::scope::{NOTHING, Reason, Scope};

/// Objects that events are drawn from: several variants of each name.
fn samples() -> Vec<Value> {
    let mut out = Vec::new();
    for ns in ["a", "b"] {
        rules(ns, &mut out);
        for name in ["x", "y"] {
            services(ns, name, &mut out);
        }
        for (i, labels) in [
            json!({"app": "w"}),
            json!({"app": "w", "tier": "f"}),
            json!({"tier": "f"}),
        ]
        .into_iter()
        .enumerate()
        {
            out.push(json!({"kind": "Pod", "metadata": {"name": format!("p{}", i % 2), "namespace": ns, "labels": labels},
                "spec": {"containers": []}, "status": {"podIP": format!("10.0.0.{i}")}}));
        }
        let selectors = [
            json!({"labels": {"app": "w"}}),
            json!({"labels": {"tier": "f"}}),
            json!({}),
        ];
        for (i, selector) in selectors.into_iter().enumerate() {
            out.push(json!({"kind": "Sidecar", "metadata": {"name": format!("s{}", i % 2), "namespace": ns},
                "spec": {"workloadSelector": selector}}));
        }
    }
    fences(&mut out);
    out
}

fn services(ns: &str, name: &str, out: &mut Vec<Value>) {
    let object = |meta: Value, spec: Value| {
        let mut metadata = json!({"name": name, "namespace": ns});
        metadata
            .as_object_mut()
            .expect("a map")
            .extend(meta.as_object().expect("a map").clone());
        json!({"kind": "Service", "metadata": metadata, "spec": spec})
    };
    let ports = json!([{"port": 80, "name": "http"}]);
    out.push(object(
        json!({}),
        json!({"ports": ports, "selector": {"app": "w"}}),
    ));
    out.push(object(
        json!({"labels": {"tier": "db"}}),
        json!({"ports": ports}),
    ));
    out.push(object(
        json!({"labels": {"tier": "db", "team": "t"}}),
        json!({"ports": ports, "selector": {"tier": "f"}}),
    ));
    out.push(object(
        json!({"annotations": {"networking.istio.io/exportTo": "."}}),
        json!({"ports": ports}),
    ));
    out.push(object(
        json!({}),
        json!({"clusterIP": "None", "ports": ports}),
    ));
    out.push(object(
        json!({}),
        json!({"type": "ExternalName", "externalName": "y.b.svc.cluster.local"}),
    ));
    let tcp = json!([{"port": 5432, "name": "tcp"}]);
    out.push(object(
        json!({}),
        json!({"clusterIP": "10.96.0.7", "ports": tcp}),
    ));
    out.push(object(
        json!({}),
        json!({"clusterIP": "None", "ports": tcp}),
    ));
    out.push(json!({"kind": "EndpointSlice", "metadata": {"name": name, "namespace": ns, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.9.0.1"]}]}));
}

fn rules(ns: &str, out: &mut Vec<Value>) {
    let hosts = [
        json!(["api.ex.com", "n.ex.com"]),
        json!(["*.ex.com"]),
        json!(["*.api.ex.com", "x.a.svc.cluster.local"]),
        json!(["*-z.ex.com", "short"]),
    ];
    for (i, hosts) in hosts.iter().enumerate() {
        let name = format!("e{}", i % 2);
        let export = if i == 3 { json!(["."]) } else { json!([]) };
        out.push(json!({"kind": "ServiceEntry", "metadata": {"name": name, "namespace": ns},
            "spec": {"hosts": hosts, "exportTo": export, "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]}}));
    }
    let ports = json!([{"number": 5432, "name": "tcp", "protocol": "TCP"}]);
    for spec in [
        json!({"hosts": ["n.ex.com"], "resolution": "DNS", "ports": ports}),
        json!({"hosts": ["n.ex.com"], "resolution": "STATIC", "addresses": ["10.96.0.0/16"], "ports": ports}),
    ] {
        out.push(json!({"kind": "ServiceEntry", "metadata": {"name": "e2", "namespace": ns}, "spec": spec}));
    }
    let to = |host: &str| json!([{"route": [{"destination": {"host": host}}]}]);
    let delegating = json!([{"delegate": {"name": "v1", "namespace": "b"}}]);
    let routes = [
        json!({"hosts": ["x"], "http": to("y")}),
        json!({"hosts": ["*.ex.com"], "tcp": to("y.b.svc.cluster.local")}),
        json!({"hosts": ["x.a.svc.cluster.local", "only.vs"], "http": delegating}),
        json!({"http": to("x")}),
        json!({"hosts": ["*.a.svc.cluster.local"], "gateways": ["mesh"], "tls": to("api.ex.com")}),
        json!({"hosts": ["x.a.svc.cluster.local"], "exportTo": ["."], "http": to("n.ex.com")}),
    ];
    for (i, spec) in routes.into_iter().enumerate() {
        out.push(json!({"kind": "VirtualService", "metadata": {"name": format!("v{}", i % 2), "namespace": ns}, "spec": spec}));
    }
    for spec in [
        json!({"host": "x", "exportTo": ["."]}),
        json!({"host": "*.ex.com", "exportTo": ["."]}),
        json!({"host": "x"}),
    ] {
        out.push(json!({"kind": "DestinationRule", "metadata": {"name": "d", "namespace": ns}, "spec": spec}));
    }
}

fn fences(out: &mut Vec<Value>) {
    let deps = |hosts: &[&str]| {
        let list: Vec<Value> = hosts
            .iter()
            .map(|h| json!({"host": h, "caller": "w"}))
            .collect();
        json!({"dependencies": list})
    };
    let hosts = |keys: &[&str]| -> Value {
        keys.iter()
            .map(|k| ((*k).to_owned(), json!({})))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let specs = [
        (
            "f",
            json!({"enable": true, "workloadSelector": {"labels": {"app": "w"}}}),
            deps(&["x.a.svc.cluster.local", "api.ex.com", "q-z.ex.com"]),
        ),
        (
            "f",
            json!({"enable": true, "host": hosts(&["x", "y.b", "*.ex.com"]), "workloadSelector": {"labels": {"tier": "f"}}}),
            json!({}),
        ),
        (
            "g",
            json!({"enable": true, "host": hosts(&["b/*", "only.vs", "short"]), "workloadSelector": {"labels": {"app": "w", "tier": "f"}}}),
            json!({}),
        ),
        (
            "g",
            json!({"enable": true, "namespaceSelector": ["a"], "labelSelector": [{"selector": {"team": "t", "tier": "db"}}], "workloadSelector": {"labels": {"tier": "f"}}}),
            deps(&["*.api.ex.com"]),
        ),
        (
            "x",
            json!({"enable": true, "host": hosts(&["p-0.x", "p-0.y.b", "z.api.ex.com"]), "workloadSelector": {"fromService": true}}),
            json!({}),
        ),
        (
            "x",
            json!({"enable": false, "host": hosts(&["b/x.a.svc.cluster.local"]), "workloadSelector": {"labels": {"app": "w"}}}),
            deps(&["n.ex.com"]),
        ),
    ];
    for ns in ["a", "c"] {
        for (i, (name, spec, status)) in specs.iter().enumerate() {
            out.push(json!({"kind": "ServiceFence", "metadata": {"name": name, "namespace": ns, "uid": format!("u{i}"), "generation": i,
                "creationTimestamp": format!("2023-01-0{}T00:00:00Z", i + 1)}, "spec": spec, "status": status}));
        }
    }
}

fn key(object: &Value) -> (String, String, String) {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    (
        text("/kind"),
        text("/metadata/namespace"),
        text("/metadata/name"),
    )
}

/// Indexes into the library, each with whether the object is deleted.
fn events(most: usize) -> impl Strategy<Value = Vec<(usize, bool)>> {
    let one = (0..samples().len(), proptest::bool::weighted(0.25));
    proptest::collection::vec(one, 1..most)
}

fn mesh_of(events: &[(usize, bool)]) -> Mesh {
    let library = samples();
    let objects: BTreeMap<_, _> = events
        .iter()
        .map(|(i, _)| (key(&library[*i]), library[*i].clone()))
        .collect();
    Mesh {
        objects: objects.into_values().collect(),
        ..Mesh::default()
    }
}

/// Whether entries import what this one does: it is there, or a wildcard of its namespace has it.
fn has<T>(entries: &BTreeMap<String, T>, entry: &str) -> bool {
    let (namespace, host) = entry.split_once('/').expect("a namespace");
    let wide = |other: &String| {
        let (owner, pattern) = other.split_once('/').expect("a namespace");
        // Of a host in any namespace the wildcards of those that have it say the same.
        (owner == namespace || namespace == "*")
            && pattern
                .strip_prefix('*')
                .is_some_and(|suffix| host.ends_with(suffix))
    };
    entries.contains_key(entry) || entries.keys().any(wide)
}

/// What must not change without a mark. Sizes may.
fn facts(part: &Part) -> (Scope, String) {
    let mut scope = part.scope.clone();
    scope.size = <_>::default();
    scope
        .imports
        .services
        .values_mut()
        .for_each(|bytes| *bytes = 0);
    let ResolvedFence {
        spec,
        selector,
        callers,
        overlaps,
        user_sidecars,
        default_sidecar,
        inherits,
        standing,
        problems,
        mode,
        ..
    } = &part.fence;
    let rest = format!(
        "{spec:?} {selector:?} {callers:?} {overlaps:?} {user_sidecars:?} {default_sidecar:?} {inherits:?} {:?} {problems:?} {mode:?}",
        standing.outside
    );
    (scope, rest)
}

fn follow(
    mesh: &Mesh,
    index: &Index,
    known: &mut BTreeMap<FenceKey, (Scope, String)>,
    what: &Value,
) {
    let changes = index.drain_changes();
    for fence in &changes.fences {
        match mesh.part(index, fence) {
            Some(part) => known.insert(fence.clone(), facts(&part)),
            None => known.remove(fence),
        };
    }
    let all: BTreeSet<FenceKey> = index.fences().into_iter().collect();
    assert_eq!(
        known.keys().cloned().collect::<BTreeSet<_>>(),
        all,
        "after {what}"
    );
    for (fence, before) in known {
        let now = facts(&mesh.peek(index, fence).expect("a fence"));
        assert_eq!(&now, before, "{fence} was not marked by {what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_fence_that_no_event_marks_has_the_same_scope(events in events(40)) {
        let library = samples();
        let mesh = Mesh::default();
        let index = mesh.index();
        let mut known = BTreeMap::new();
        for (i, gone) in events {
            let object = &library[i];
            if gone { delete(&index, object) } else { apply(&index, object) }
            follow(&mesh, &index, &mut known, object);
        }
    }

    #[test]
    fn the_history_leaves_no_trace(events in events(60)) {
        let library = samples();
        let (mut mesh, index) = (Mesh::default(), Mesh::default().index());
        let mut left: BTreeMap<_, Value> = BTreeMap::new();
        for (i, gone) in events {
            let object = &library[i];
            if gone {
                delete(&index, object);
                left.remove(&key(object));
            } else {
                apply(&index, object);
                left.insert(key(object), object.clone());
            }
        }
        mesh.objects = left.into_values().rev().collect();
        prop_assert_eq!(mesh.render_from(&index), mesh.render());
    }

    #[test]
    fn one_more_edge_never_narrows(events in events(40), host in prop::sample::select(vec![
        "x.a.svc.cluster.local", "y.b.svc.cluster.local", "api.ex.com", "*.ex.com", "only.vs", "t.ex.com", "nobody.example",
    ])) {
        let mesh = mesh_of(&events);
        let mut more = mesh.clone();
        for object in more.objects.iter_mut().filter(|o| o["kind"] == "ServiceFence") {
            let edge = json!({"host": host, "caller": "w2"});
            match object["status"]["dependencies"].as_array_mut() {
                Some(list) => list.push(edge),
                None => object["status"]["dependencies"] = json!([edge]),
            }
        }
        let (before, after) = (mesh.parts(&mesh.index()), more.parts(&more.index()));
        for (fence, part) in before {
            let wider = &after[&fence].scope;
            // What only gives a listener is for nothing when another service in scope gives it.
            let only_listens = |why: &BTreeSet<Reason>| why.iter().all(|r| matches!(r, Reason::Listener(_)));
            let (spare, own): (Vec<_>, Vec<_>) = part.scope.entries.iter().partition(|(_, why)| only_listens(why));
            for (entry, why) in own.into_iter().filter(|(e, _)| *e != NOTHING) {
                prop_assert!(has(&wider.entries, entry), "{fence} lost {entry} for {host}: {why:?}");
            }
            // Of a host in two namespaces istiod takes one, and it may be the other one now.
            let hosts = |scope: &Scope| -> BTreeSet<String> {
                scope.imports.services.keys().filter_map(|s| Some(s.split_once('/')?.1.to_owned())).collect()
            };
            let spare = |host: &String| spare.iter().any(|(e, _)| e.split_once('/').is_some_and(|(_, of)| of == host));
            let lost: Vec<String> = hosts(&part.scope).difference(&hosts(wider)).filter(|h| !spare(h)).cloned().collect();
            prop_assert!(lost.is_empty(), "{fence} lost imports {lost:?} for {host}");
        }
    }

    #[test]
    fn whichever_sidecar_a_pod_gets_has_what_each_of_its_fences_needs(events in events(40)) {
        let mut mesh = mesh_of(&events);
        mesh.objects.retain(|o| o["kind"] != "Sidecar");
        let parts = mesh.parts(&mesh.index());
        for pod in mesh.objects.iter().filter(|o| o["kind"] == "Pod") {
            let selects = |part: &&Part| part.fence.selector.iter().flatten().all(|(k, v)| pod["metadata"]["labels"][k] == **v);
            let mine: Vec<&Part> = parts.values()
                .filter(|p| p.fence.key.namespace == pod["metadata"]["namespace"] && p.fence.selector.is_some())
                .filter(selects)
                .filter(|p| p.fence.claim().is_some_and(|c| c.writes))
                .collect();
            let unions: Vec<_> = mine.iter().filter_map(|p| written(p, &parts).1).collect();
            prop_assert!(mine.is_empty() || !unions.is_empty(), "nobody writes for {pod}");
            for union in unions {
                for entry in mine.iter().flat_map(|p| p.scope.entries.keys()).filter(|e| *e != NOTHING) {
                    prop_assert!(has(&union.entries, entry), "{entry} is missing");
                }
            }
        }
    }
}
