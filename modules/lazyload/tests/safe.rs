//! What a workload calls gets in scope what it gets without a Sidecar: the same listener, route and cluster. The meshes are
//! those on which the prediction is held against istiod.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a broken test must stop with its reason"
)]

#[path = "../../../tests/tests/prediction/calls.rs"]
mod calls;
#[allow(dead_code, reason = "not every test asks everything")]
mod mesh;
#[allow(dead_code, reason = "not every test asks everything")]
#[path = "../../../tests/tests/prediction/meshes/mod.rs"]
mod meshes;
#[allow(dead_code, reason = "not every test asks everything")]
#[path = "../../../tests/tests/validity/random.rs"]
mod random;

use std::collections::BTreeSet;

use calls::{Answer, answer, calls, is_hidden, is_shared};
use mesh::{Followed, Mesh};
use meshes::{SmallMesh, small};
use random::{FIXED, Random};
use serde_json::{Value, json};
use trimtab_lazyload::object::FenceKey;
use trimtab_lazyload::predict::{Client, Egress, Given, Release, predict};
use trimtab_lazyload::scope::Labels;

const MESHES: usize = 2000;

/// All objects but Sidecars.
fn all(small: &SmallMesh) -> impl Iterator<Item = &Value> {
    small.objects.iter().chain(&small.later)
}

/// The mesh as an API server would have it, with a fence for what is called.
fn mesh_of(small: &SmallMesh) -> Mesh {
    let mut mesh = Mesh::default();
    for (at, object) in all(small).enumerate() {
        let mut object = object.clone();
        let is_service = object["kind"] == "Service";
        let spec = &mut object["spec"];
        if is_service && spec["clusterIP"].is_null() && spec["type"].is_null() {
            spec["clusterIP"] = json!(format!("10.96.0.{at}"));
        }
        let time = format!("2024-01-01T00:00:{:02}Z", at % 60);
        object["metadata"]["creationTimestamp"] = json!(time);
        mesh.objects.push(object);
    }
    let hosts = small.calls.iter().map(|host| (host.clone(), json!({})));
    let hosts: serde_json::Map<String, Value> = hosts.collect();
    mesh.objects.push(json!({"kind": "ServiceFence",
        "metadata": {"namespace": small.client, "name": "fenced", "uid": "u"},
        "spec": {"enable": true, "host": hosts}}));
    mesh
}

fn given(index: &Followed, namespace: &str, entries: Option<&BTreeSet<String>>) -> Given {
    let labels = Labels::from([("app".to_owned(), "client".to_owned())]);
    let client = Client {
        namespace,
        labels: Some(&labels),
        domain: "cluster.local",
        root: "istio-system",
        release: Release::default(),
    };
    let egress = entries.map(|all| Egress::new(all.iter().map(String::as_str), namespace));
    predict(&client, egress.as_ref(), &*index.services())
}

/// Calls that the scope changes, and how many there are. One that is unknown without a Sidecar, fails there, or shares its
/// connections, may become what it likes.
fn changed(small: &SmallMesh) -> (Vec<String>, usize) {
    let mesh = mesh_of(small);
    let index = mesh.index();
    let key = FenceKey {
        namespace: small.client.clone(),
        name: "fenced".to_owned(),
    };
    let scope = mesh.part(&index, &key).expect("the fence").scope;
    let entries: BTreeSet<String> = scope.entries.into_keys().collect();
    let free = given(&index, &small.client, None);
    let fenced = given(&index, &small.client, Some(&entries));
    let (mut out, mut count) = (Vec::new(), 0);
    let services = index.services();
    let client = &small.client;
    let hosts = small.calls.iter();
    for call in hosts.flat_map(|host| calls(&*services, client, host)) {
        let (without, with) = (answer(&free, &call), answer(&fenced, &call));
        let open = without == Answer::default()
            || without.fails()
            || is_hidden(&*services, client, &without, &call);
        if open || is_shared(&*services, client, &without, &call) {
            continue;
        }
        count += 1;
        if without != with {
            out.push(format!(
                "{call:?} of {}, scope {entries:?}\n  without {without:?}\n  in scope {with:?}",
                small.client
            ));
        }
    }
    (out, count)
}

#[test]
fn what_is_called_gets_in_scope_what_it_gets_without_a_sidecar() {
    let seed = std::env::var("TRIMTAB_FUZZ_SEED").map_or(FIXED, |text| text.parse().unwrap());
    let mut random = Random::new(seed);
    let (mut failed, mut calls) = (Vec::new(), 0);
    for number in 0..MESHES {
        let small = small(number % 200, &mut random);
        let (changed, count) = changed(&small);
        calls += count;
        if let Some(first) = changed.first() {
            let objects = all(&small).map(ToString::to_string);
            let objects: Vec<String> = objects.collect();
            failed.push(format!("mesh {number}: {first}\n{}", objects.join("\n")));
        }
    }
    if std::env::var_os("ALL").is_some() {
        for text in &failed {
            println!("{text}\n");
        }
    }
    let few: Vec<&str> = failed.iter().take(5).map(String::as_str).collect();
    assert!(calls > MESHES, "{calls} calls");
    assert!(
        failed.is_empty(),
        "{} of {MESHES}\n{}",
        failed.len(),
        few.join("\n\n")
    );
}
