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
mod mesh;
#[path = "../../../tests/tests/prediction/meshes/mod.rs"]
mod meshes;
#[path = "../../../tests/tests/validity/random.rs"]
mod random;

use std::collections::BTreeSet;

use calls::{Call, answer};
use mesh::{Followed, Mesh};
use meshes::{SmallMesh, small};
use random::{FIXED, Random};
use serde_json::{Value, json};
use trimtab_lazyload::object::FenceKey;
use trimtab_lazyload::predict::{Client, Egress, Given, Release, predict};
use trimtab_lazyload::scope::{Labels, Services};
use trimtab_mesh::Protocol;

const MESHES: usize = 2000;

/// The mesh as an API server would have it, with a fence for what is called.
fn mesh_of(small: &SmallMesh) -> Mesh {
    let mut mesh = Mesh::default();
    for (at, object) in small.objects.iter().enumerate() {
        let mut object = object.clone();
        let spec = &mut object["spec"];
        if object_kind(&small.objects[at]) == "Service"
            && spec["clusterIP"].is_null()
            && spec["type"].is_null()
        {
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

fn object_kind(object: &Value) -> &str {
    object["kind"].as_str().expect("a kind")
}

fn given(index: &Followed, namespace: &str, entries: Option<&BTreeSet<String>>) -> Given {
    let labels = Labels::from([("app".to_owned(), "fenced".to_owned())]);
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

/// Calls to a host, at the addresses and ports of what it is.
fn calls(index: &Followed, host: &str) -> BTreeSet<Call> {
    let services = index.services();
    let mut of = host.to_owned();
    for _ in 0..8 {
        let target = services.host(&of).iter().find_map(|e| e.target.clone());
        let Some(target) = target else { break };
        of = target.to_string();
    }
    let mut entries = services.host(&of);
    if entries.is_empty() {
        entries = services.covering(&of);
    }
    let call = |address, port, http| Call {
        host: host.to_owned(),
        address,
        port,
        http,
    };
    if entries.is_empty() {
        return BTreeSet::from([call(None, 80, true)]);
    }
    let mut out = BTreeSet::new();
    for entry in &entries {
        let address = entry.addresses.first().map(ipnet::IpNet::addr);
        for port in &entry.ports {
            let (http, other) = match port.protocol {
                Protocol::Auto => (true, true),
                Protocol::Tcp | Protocol::Tls => (false, true),
                _ => (true, false),
            };
            let kinds = [(http, true), (other, false)].into_iter();
            out.extend(
                kinds
                    .filter(|k| k.0)
                    .map(|k| call(address, port.number, k.1)),
            );
        }
    }
    out
}

/// Calls that the scope changes.
fn changed(small: &SmallMesh) -> Vec<String> {
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
    let mut out = Vec::new();
    for call in small.calls.iter().flat_map(|host| calls(&index, host)) {
        let (without, with) = (answer(&free, &call), answer(&fenced, &call));
        if without != with {
            out.push(format!(
                "{call:?} of {}, scope {entries:?}\n  without {without:?}\n  in scope {with:?}",
                small.client
            ));
        }
    }
    out
}

#[test]
fn what_is_called_gets_in_scope_what_it_gets_without_a_sidecar() {
    let mut random = Random::new(FIXED);
    let mut all = Vec::new();
    for number in 0..MESHES {
        let small = small(number % 200, &mut random);
        let changed = changed(&small);
        if let Some(first) = changed.first() {
            let objects = small.objects.iter().map(ToString::to_string);
            let objects: Vec<String> = objects.collect();
            all.push(format!("mesh {number}: {first}\n{}", objects.join("\n")));
        }
    }
    if std::env::var_os("ALL").is_some() {
        for text in &all {
            println!("{}", text.lines().take(3).collect::<Vec<_>>().join("\n"));
        }
    }
    let few: Vec<&str> = all.iter().take(5).map(String::as_str).collect();
    assert!(
        all.is_empty(),
        "{} of {MESHES}\n{}",
        all.len(),
        few.join("\n\n")
    );
}
