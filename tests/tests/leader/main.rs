//! Of several replicas one writes: real processes against a real API server, which records each write with its user.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail the test"
)]

mod audit;
mod proxy;
mod replica;
mod traffic;

use std::time::{Duration, Instant};

use tokio::sync::{Mutex, OnceCell};
use trimtab_cluster::{Cluster, wait_for};

use replica::{Replica, Signal};
use traffic::Traffic;

/// Bound for what takes seconds.
const BOUND: Duration = Duration::from_secs(60);
/// For as long as a process stands still: three leases.
const STANDSTILL: Duration = Duration::from_secs(30);

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
/// Replicas of two tests would write the same objects.
static TURN: Mutex<()> = Mutex::const_new(());

async fn cluster() -> &'static Cluster {
    let start = || async { Cluster::audited().await.unwrap() };
    CLUSTER.get_or_init(start).await
}

/// Waits until one of them leads; its place.
async fn leader(replicas: &mut [Replica]) -> usize {
    wait_for("a leader", BOUND, || {
        let asked = replicas.iter().map(Replica::says);
        let asked = futures::future::join_all(asked);
        async move {
            let said = asked.await;
            let led: Vec<usize> = (0..said.len())
                .filter(|i| said[*i].contains("leader: this replica"))
                .collect();
            match led.as_slice() {
                [one] => Ok(*one),
                _ => Err(format!("{said:?}")),
            }
        }
    })
    .await
    .unwrap()
}

/// Rounds of a test that repeats; the acceptance run has more.
fn rounds() -> usize {
    let rounds = std::env::var("TRIMTAB_LEADER_ROUNDS").ok();
    rounds.and_then(|n| n.parse().ok()).unwrap_or(2)
}

fn show(what: &str, times: &[Duration]) {
    let seconds: Vec<String> = times
        .iter()
        .map(|t| format!("{:.2}", t.as_secs_f64()))
        .collect();
    println!("{what}: writes resumed after {} s", seconds.join(", "));
}

/// Ends the leader, waits until another writes, and starts it again; how long nothing was written.
async fn succession(signal: Signal) -> Vec<Duration> {
    let cluster = cluster().await;
    let traffic = Traffic::start(cluster, "succession").await;
    let mut replicas = vec![
        Replica::start(cluster, 0, cluster.server()).await,
        Replica::start(cluster, 1, cluster.server()).await,
    ];
    let mut times = Vec::new();
    for _ in 0..rounds() {
        let first = leader(&mut replicas).await;
        traffic.followed().await;
        replicas[first].signal(signal);
        let begun = Instant::now();
        traffic.followed_by(replicas[1 - first].user()).await;
        times.push(begun.elapsed());
        replicas[first].restart().await;
    }
    for replica in &mut replicas {
        replica.signal(Signal::Terminate);
        replica.ended().await;
    }
    audit::hold(cluster);
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_followed_when_its_lease_ends() {
    let _turn = TURN.lock().await;
    show("killed", &succession(Signal::Kill).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_gives_its_lease_back() {
    let _turn = TURN.lock().await;
    let times = succession(Signal::Terminate).await;
    show("stopped", &times);
    let lease = Duration::from_secs(9);
    assert!(
        times.iter().all(|t| *t < lease),
        "the next waits for no lease to end: {times:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stood_still_writes_nothing() {
    let _turn = TURN.lock().await;
    let cluster = cluster().await;
    let traffic = Traffic::start(cluster, "standstill").await;
    let mut replicas = vec![
        Replica::start(cluster, 0, cluster.server()).await,
        Replica::start(cluster, 1, cluster.server()).await,
    ];
    let first = leader(&mut replicas).await;
    traffic.followed().await;
    let mut stream = replicas[1 - first].stream().await;
    replicas[first].signal(Signal::Stop);
    let stopped = Instant::now();
    traffic.followed_by(replicas[1 - first].user()).await;
    show("standing still", &[stopped.elapsed()]);
    tokio::time::sleep(STANDSTILL.saturating_sub(stopped.elapsed())).await;
    let before = audit::writes(cluster, replicas[first].user());
    replicas[first].signal(Signal::Continue);
    replicas[first].waits_for_another().await;
    // The other goes on, so there would have been something to write.
    traffic.followed().await;
    let after = audit::writes(cluster, replicas[first].user());
    assert_eq!(after, before, "writes after the standstill");
    assert!(
        stream.is_open().await,
        "xDS streams of the other replica go on"
    );
    audit::hold(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_api_server_gives_no_second_writer() {
    let _turn = TURN.lock().await;
    let cluster = cluster().await;
    let traffic = Traffic::start(cluster, "slow").await;
    let proxy = proxy::Slow::start(cluster.server()).await;
    let mut replicas = vec![Replica::start(cluster, 0, &proxy.server()).await];
    leader(&mut replicas).await;
    replicas.push(Replica::start(cluster, 1, cluster.server()).await);
    traffic.followed().await;
    proxy.delay(Duration::from_secs(5));
    let begun = Instant::now();
    traffic.followed_by(replicas[1].user()).await;
    show("behind five seconds", &[begun.elapsed()]);
    proxy.delay(Duration::ZERO);
    replicas[0].waits_for_another().await;
    traffic.followed().await;
    audit::hold(cluster);
}

/// No test: the process that the tests start, kill and stop.
#[test]
#[ignore = "started by the tests"]
fn a_replica() {
    replica::run();
}
