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
use std::sync::Arc;

use calls::{Answer, Call, answer};
use mesh::{Followed, Mesh};
use meshes::{SmallMesh, small};
use random::{FIXED, Random};
use serde_json::{Value, json};
use trimtab_lazyload::object::FenceKey;
use trimtab_lazyload::predict::{Client, Egress, Given, Release, predict};
use trimtab_lazyload::scope::services::HostEntry;
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
        let longest = entries.first().map(|e| e.host.clone());
        entries.retain(|e| Some(&e.host) == longest.as_ref());
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

/// Whether the call of one host goes to another that has no address: what a scope leaves out of the way.
fn is_taken(index: &Followed, answer: &Answer, call: &Call) -> bool {
    let services = index.services();
    let mut hosts = answer.connected();
    let taker = |e: &Arc<HostEntry>| {
        e.addresses.is_empty() && e.ports.iter().any(|p| p.number == call.port)
    };
    hosts.any(|host| host != call.host && services.host(host).iter().any(taker))
}

/// Whether several objects have one host. istiod looks an exact entry up and finds one of them, whatever else is in the
/// Sidecar, and without a Sidecar it has them all.
fn has_rivals(small: &SmallMesh) -> bool {
    let mut hosts = BTreeSet::new();
    let mut all = small.objects.iter().filter_map(|object| {
        let meta = |field: &str| object["metadata"][field].as_str().expect("a name");
        match object_kind(object) {
            "Service" => Some(format!(
                "{}.{}.svc.cluster.local",
                meta("name"),
                meta("namespace")
            )),
            "ServiceEntry" => object["spec"]["hosts"][0].as_str().map(ToOwned::to_owned),
            _ => None,
        }
    });
    !all.all(|host| hosts.insert(host))
}

/// Calls that the scope changes, and how many there are. One that is unknown without a Sidecar, or fails there, may become
/// what it likes.
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
    for call in small.calls.iter().flat_map(|host| calls(&index, host)) {
        let (without, with) = (answer(&free, &call), answer(&fenced, &call));
        let open = without == Answer::default() || without.fails();
        if open || is_taken(&index, &without, &call) {
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
    let mut random = Random::new(FIXED);
    let (mut all, mut calls) = (Vec::new(), 0);
    for number in 0..MESHES {
        let small = small(number % 200, &mut random);
        if has_rivals(&small) {
            continue;
        }
        let (changed, count) = changed(&small);
        calls += count;
        if let Some(first) = changed.first() {
            let objects = small.objects.iter().map(ToString::to_string);
            let objects: Vec<String> = objects.collect();
            all.push(format!("mesh {number}: {first}\n{}", objects.join("\n")));
        }
    }
    if std::env::var_os("ALL").is_some() {
        for text in &all {
            println!("{text}\n");
        }
    }
    let few: Vec<&str> = all.iter().take(5).map(String::as_str).collect();
    assert!(calls > MESHES, "{calls} calls");
    assert!(
        all.is_empty(),
        "{} of {MESHES}\n{}",
        all.len(),
        few.join("\n\n")
    );
}
