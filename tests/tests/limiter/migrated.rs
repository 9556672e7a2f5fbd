//! Hand-made EnvoyFilters, and the SmartLimiters that `trimtab migrate istio-ratelimit` makes of them: a real Envoy refuses
//! the same requests by both.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use trimtab::manifests;
use trimtab::migrate::{MigrateArgs, migrate};
use trimtab::translate;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::Request;
use trimtab_lab::load::burst;

use crate::lab::{Mesh, RATINGS, folder, pod};

fn input(case: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("golden/migrate").join(case).join("in.yaml")
}

/// The EnvoyFilters as they were written by hand.
fn by_hand(case: &str) -> Vec<Value> {
    let read = manifests::read_file(&input(case)).unwrap();
    let documents = read.complete().unwrap();
    documents.into_iter().map(|d| d.object).collect()
}

/// Those that Trimtab makes of the SmartLimiters that take their place.
async fn by_limiters(case: &str) -> Vec<Value> {
    let file = input(case).display().to_string();
    let args = MigrateArgs::of(&["istio-ratelimit", "-f", &file]).unwrap();
    let printed = migrate(&args).await.unwrap().text;
    let path = folder(&format!("migrated-{case}")).join("limiters.yaml");
    std::fs::write(&path, printed).unwrap();
    let config = translate::configuration(None).unwrap();
    let output = translate::run(&[path], "default", &BTreeMap::new(), &config).await;
    let output = output.unwrap();
    assert_eq!(output.refused, Vec::<String>::new(), "{case}");
    output.objects
}

/// A request so many times at an entry of the mesh.
struct Calls {
    at: fn(&Mesh) -> SocketAddr,
    request: Request,
    times: usize,
}

fn calls(at: fn(&Mesh) -> SocketAddr, times: usize, request: Request) -> Calls {
    Calls { at, request, times }
}

/// How often each status was answered, in order of the calls.
async fn answers(what: &str, filters: &[Value], all: &[Calls]) -> Vec<BTreeMap<u16, usize>> {
    let pod = pod().await;
    let mesh = Mesh::new(pod.address());
    let config = mesh.merged(filters);
    let dir = folder(&format!("migrated-run-{what}"));
    let _envoy = Envoy::start(&config, &dir).await.unwrap();
    let mut out = Vec::new();
    for calls in all {
        let counts = burst((calls.at)(&mesh), calls.times, &calls.request).await;
        out.push(counts.unwrap().into_iter().collect());
    }
    out
}

async fn same(case: &str, all: &[Calls], want: &[&[(u16, usize)]]) {
    let want: Vec<BTreeMap<u16, usize>> = want
        .iter()
        .map(|counts| counts.iter().copied().collect())
        .collect();
    let before = answers(&format!("{case}-before"), &by_hand(case), all).await;
    assert_eq!(before, want, "{case}: the EnvoyFilters");
    let after = answers(&format!("{case}-after"), &by_limiters(case).await, all).await;
    assert_eq!(after, want, "{case}: the SmartLimiters");
}

fn get(path: &str) -> Request {
    Request::get(path)
}

#[tokio::test]
async fn a_bucket_of_the_whole_workload() {
    let all = [
        calls(|m| m.inbound, 4, get("/")),
        calls(|m| m.other, 3, get("/")),
        calls(|m| m.outbound, 3, get("/").header("host", RATINGS)),
    ];
    // Each port has a connection manager, and with it a bucket, of its own.
    same(
        "ratelimit-workload",
        &all,
        &[&[(200, 2), (429, 2)], &[(200, 2), (429, 1)], &[(200, 3)]],
    )
    .await;
}

#[tokio::test]
async fn buckets_of_a_port_and_of_a_route() {
    let slow = get("/slow").header("host", RATINGS);
    let all = [
        calls(|m| m.inbound, 5, get("/")),
        calls(|m| m.other, 5, get("/")),
        calls(|m| m.outbound, 3, slow),
        calls(|m| m.outbound, 3, get("/").header("host", RATINGS)),
    ];
    // The route is only watched: filter_enforced is absent there.
    let want: [&[(u16, usize)]; 4] = [&[(200, 3), (503, 2)], &[(200, 5)], &[(200, 3)], &[(200, 3)]];
    same("ratelimit-routes", &all, &want).await;
}

#[tokio::test]
async fn buckets_by_header_query_and_address() {
    let from = |address: &str| get("/").header("x-forwarded-for", address);
    let all = [
        calls(|m| m.inbound, 3, get("/").header("tier", "free")),
        calls(|m| m.inbound, 2, get("/?size=12345")),
        calls(|m| m.inbound, 2, from("10.1.2.3")),
        calls(|m| m.other, 3, get("/").header("tier", "free")),
        calls(|m| m.inbound, 1, get("/admin").header("x-test", "yes")),
        calls(|m| m.inbound, 2, get("/")),
    ];
    let want: [&[(u16, usize)]; 6] = [
        &[(200, 2), (429, 1)],
        &[(200, 1), (429, 1)],
        &[(200, 1), (429, 1)],
        &[(200, 3)],
        &[(200, 1)],
        &[(429, 2)],
    ];
    same("ratelimit-descriptors", &all, &want).await;
}

#[tokio::test]
async fn buckets_of_hosts_of_a_gateway() {
    let to = |host: &str| get("/").header("host", host);
    let all = [
        calls(|m| m.gateway, 3, to("a.example.com")),
        calls(|m| m.gateway, 3, to("b.example.com")),
    ];
    same(
        "ratelimit-gateway",
        &all,
        &[&[(200, 2), (429, 1)], &[(200, 3)]],
    )
    .await;
}
