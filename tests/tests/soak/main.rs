//! A whole mesh under load while its parts die: two replicas, istiod, kube-apiserver, etcd, Prometheus and proxies, all of them
//! real. Each answer is judged by its client: lost, wrongly limited or wrongly routed must be none.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail the test"
)]

mod disturb;
mod flow;
mod judge;
mod mesh;
#[path = "../metaprotocol/peers.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod peers;
#[path = "../leader/replica.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod replica;
mod report;
mod usage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trimtab_cluster::wait_for;

use disturb::ALL;
use flow::Book;
use mesh::{Mesh, OTHERS};
use replica::Replica;
use usage::Usage;

/// Bound for what takes seconds.
const BOUND: Duration = Duration::from_secs(60);
/// Processes whose death costs the requests that they carry.
const CARRIERS: [&str; 8] = [
    "edge",
    "productpage",
    "details",
    "reviews-v1",
    "reviews-v2",
    "reviews-v3",
    "ratings",
    "fallback",
];
const THRIFT: &str = "productpage to orders, Thrift";

/// Waits until one of them leads; its place.
async fn leader(replicas: &mut [Replica]) -> usize {
    wait_for("a leader", BOUND, || {
        let asked = futures::future::join_all(replicas.iter().map(Replica::says));
        async move {
            let said = asked.await;
            let mut leads = said.iter().map(|s| s.contains("leader: this replica"));
            let ready = said.iter().all(|s| s.starts_with("ok"));
            match leads.position(|l| l).filter(|_| ready) {
                Some(place) => Ok(place),
                None => Err(format!("{said:?}")),
            }
        }
    })
    .await
    .unwrap()
}

/// Calls of a connection that stays open; only the first version may answer.
async fn thrift(at: SocketAddr, book: Arc<Book>, stop: CancellationToken) {
    let mut caller = peers::client("thrift_client.py", at, &[]);
    let (carriers, calls) = (["productpage"], 5);
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    while !stop.is_cancelled() {
        ticks.tick().await;
        let before = book.before(&carriers);
        let answers = caller.ask(json!({"method": "say", "calls": calls})).await;
        book.count(THRIFT, |c| c.sent += calls);
        for (answer, number) in answers {
            match answer.as_str() {
                "v1" => {}
                "v2" => {
                    book.count(THRIFT, |c| c.misrouted += number);
                    book.show(THRIFT, "answered by v2");
                }
                error => {
                    for _ in 0..number {
                        book.failed(THRIFT, &carriers, before, error);
                    }
                }
            }
        }
    }
}

/// Calls of hosts that no scope has, each once.
async fn first_calls(
    mesh: Vec<flow::Flow>,
    every: Duration,
    book: Arc<Book>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(every);
    for flow in mesh {
        if stop.run_until_cancelled(ticks.tick()).await.is_none() {
            return;
        }
        flow.once(&book).await;
    }
}

/// Samples the replicas until a moment.
async fn rest(until: Instant, mesh: &Mesh, book: &Book, usage: &mut Usage) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    while Instant::now() < until {
        ticks.tick().await;
        usage.sample(book.begun.elapsed(), &mesh.replicas);
    }
}

/// Waits until what clients have called is in their scopes: a host that comes in may answer 503 until its cluster is there, as
/// istiod sends its route at the same time.
async fn learned(mesh: &Mesh) {
    for (client, server) in [
        ("productpage", "reviews"),
        ("productpage", "details"),
        ("reviews-v3", "ratings"),
    ] {
        let of_server = format!("||{server}.");
        let is_of = |c: &serde_json::Value| {
            let name = c["cluster"]["name"].as_str();
            name.is_some_and(|name| name.contains(&of_server))
        };
        let what = format!("{client} has a cluster of {server}");
        let learned = mesh.proxies[client].wait_config(&what, |dump| {
            let configs = dump["configs"].as_array().into_iter().flatten();
            let lists = configs.filter_map(|c| c["dynamic_active_clusters"].as_array());
            let found = lists.flatten().any(is_of);
            found
                .then_some(())
                .ok_or_else(|| "it is not active".to_owned())
        });
        learned.await.unwrap();
    }
}

/// Runs the load, and kills the next part at the beginning of each slice.
async fn soak(rounds: usize, slice: Duration) {
    let mut mesh = Mesh::start().await;
    leader(&mut mesh.replicas).await;
    mesh.scoped().await;
    mesh.settled().await;
    learned(&mesh).await;
    mesh.settled().await;
    let (book, stop, mut usage) = (
        Book::new(&CARRIERS),
        CancellationToken::new(),
        Usage::default(),
    );
    let mut clients = JoinSet::new();
    for flow in mesh.flows() {
        clients.spawn(flow.run(book.clone(), stop.clone()));
    }
    clients.spawn(thrift(mesh.thrift.address(), book.clone(), stop.clone()));
    let calls: Vec<_> = (0..OTHERS).map(|i| mesh.first_call(i)).collect();
    let slices = rounds * ALL.len();
    let every = slice * u32::try_from(slices).unwrap() / u32::try_from(OTHERS).unwrap();
    clients.spawn(first_calls(calls, every, book.clone(), stop.clone()));

    let (begun, mut names) = (Instant::now(), Vec::new());
    for disturbance in ALL.iter().cycle().take(slices) {
        book.turn(names.len());
        let until = Instant::now() + slice;
        let took = disturbance.strike(&mut mesh, &book).await;
        println!(
            "{:.0?} {} ready again after {took:.1?}",
            begun.elapsed(),
            disturbance.name()
        );
        names.push((disturbance.name(), took));
        rest(until, &mesh, &book, &mut usage).await;
    }
    stop.cancel();
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    println!(
        "load for {:.0?}\n\n{}",
        begun.elapsed(),
        report::counted(&book, &names)
    );
    println!("{}", report::used(&usage));
    println!("{}", book.shown().join("\n"));
    for (_, counts) in book.counts() {
        assert_eq!(counts.wrong(), 0, "{:#?}", book.shown());
    }
    // Nobody else writes here: no replica takes its own writes or those of the other one for somebody else's.
    for log in ["replica-0.log", "replica-1.log"] {
        let text = std::fs::read_to_string(mesh.cluster.dir().join(log)).unwrap();
        let contested = text.lines().find(|l| l.contains("another field manager"));
        assert_eq!(contested, None, "{log}");
    }
    // What it learned and wrote stands: all limits, scopes and routes are as at first.
    mesh.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mesh_survives_one_death_of_each_kind() {
    soak(1, Duration::from_secs(4)).await;
}

/// The figure: `make bench-soak FOR=15m`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as TRIMTAB_SOAK_FOR says"]
async fn the_mesh_survives_for_long() {
    let length = std::env::var("TRIMTAB_SOAK_FOR").unwrap_or_else(|_| "15m".to_owned());
    let length: trimtab_crds::Duration = serde_json::from_value(json!(length)).unwrap();
    let length: Duration = length.into();
    soak(2, length / u32::try_from(2 * ALL.len()).unwrap()).await;
}

/// No test: the process that the tests start, kill and stop.
#[test]
#[ignore = "started by the tests"]
fn a_replica() {
    replica::run();
}
