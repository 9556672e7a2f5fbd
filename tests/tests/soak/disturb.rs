//! What is killed, in turn.

use std::time::{Duration, Instant};

use trimtab_cluster::{Part, wait_for};

use crate::flow::Book;
use crate::mesh::Mesh;
use crate::replica::Signal;
use crate::{BOUND, leader};

/// How long something stays away that does not carry requests.
const AWAY: Duration = Duration::from_secs(3);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Nothing.
    None,
    /// `SIGKILL` of the replica that writes.
    LeaderKilled,
    /// `SIGTERM` of the replica that writes, as in a rollout.
    LeaderStopped,
    /// `SIGKILL` of the other one.
    StandbyKilled,
    /// Both at once.
    BothKilled,
    Istiod,
    ApiServer,
    Etcd,
    Prometheus,
    /// A proxy that carries requests.
    Proxy(&'static str),
    /// A proxy that has to start while no replica answers.
    ProxyAlone(&'static str),
    Fallback,
}

/// One of each kind.
pub const ALL: [Disturbance; 14] = [
    Disturbance::None,
    Disturbance::LeaderKilled,
    Disturbance::Istiod,
    Disturbance::Proxy("reviews-v1"),
    Disturbance::ApiServer,
    Disturbance::LeaderStopped,
    Disturbance::Prometheus,
    Disturbance::Proxy("productpage"),
    Disturbance::Etcd,
    Disturbance::StandbyKilled,
    Disturbance::Proxy("edge"),
    Disturbance::BothKilled,
    Disturbance::ProxyAlone("details"),
    Disturbance::Fallback,
];

impl Disturbance {
    /// For the table.
    pub fn name(self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::LeaderKilled => "leading replica, SIGKILL".to_owned(),
            Self::LeaderStopped => "leading replica, SIGTERM".to_owned(),
            Self::StandbyKilled => "standby replica, SIGKILL".to_owned(),
            Self::BothKilled => "both replicas, SIGKILL".to_owned(),
            Self::Istiod => "istiod, SIGKILL".to_owned(),
            Self::ApiServer => "kube-apiserver, SIGKILL".to_owned(),
            Self::Etcd => "etcd, SIGKILL".to_owned(),
            Self::Prometheus => "Prometheus, SIGKILL".to_owned(),
            Self::Proxy(name) => format!("proxy of {name}, SIGKILL"),
            Self::ProxyAlone(name) => format!("proxy of {name}, SIGKILL, started without replicas"),
            Self::Fallback => "fallback, SIGKILL".to_owned(),
        }
    }

    /// Does it and undoes it; how long it took until everything that was killed was ready and a replica led.
    pub async fn strike(self, mesh: &mut Mesh, book: &Book) -> Duration {
        let begun = Instant::now();
        match self {
            Self::None => {}
            Self::LeaderKilled => replica(mesh, true, Signal::Kill).await,
            Self::LeaderStopped => replica(mesh, true, Signal::Terminate).await,
            Self::StandbyKilled => replica(mesh, false, Signal::Kill).await,
            Self::BothKilled => {
                end_replicas(mesh).await;
                tokio::time::sleep(AWAY).await;
                start_replicas(mesh).await;
            }
            Self::Istiod => {
                mesh.istiod.kill();
                tokio::time::sleep(AWAY).await;
                mesh.istiod.restart().await.unwrap();
            }
            Self::ApiServer => part(mesh, Part::ApiServer).await,
            Self::Etcd => part(mesh, Part::Etcd).await,
            Self::Prometheus => {
                mesh.prometheus.kill();
                tokio::time::sleep(AWAY).await;
                mesh.prometheus.restart().await.unwrap();
            }
            Self::Proxy(name) => proxy(mesh, book, name).await,
            Self::ProxyAlone(name) => {
                end_replicas(mesh).await;
                proxy(mesh, book, name).await;
                // Its clients meet the limit while nobody answers the proxy.
                tokio::time::sleep(AWAY).await;
                // The first answer takes the place of the default, with a bucket of its own.
                book.fills(name);
                start_replicas(mesh).await;
            }
            Self::Fallback => {
                book.change("fallback");
                mesh.fallback.kill();
                mesh.fallback.restart().await.unwrap();
                book.change("fallback");
            }
        }
        leader(&mut mesh.replicas).await;
        begun.elapsed()
    }
}

async fn replica(mesh: &mut Mesh, leads: bool, signal: Signal) {
    let leading = leader(&mut mesh.replicas).await;
    let number = if leads { leading } else { 1 - leading };
    let replica = &mut mesh.replicas[number];
    replica.signal(signal);
    replica.ended().await;
    replica.restart().await;
}

async fn end_replicas(mesh: &mut Mesh) {
    for replica in &mut mesh.replicas {
        replica.signal(Signal::Kill);
        replica.ended().await;
    }
}

async fn start_replicas(mesh: &mut Mesh) {
    let started = mesh
        .replicas
        .iter_mut()
        .map(crate::replica::Replica::restart);
    futures::future::join_all(started).await;
}

async fn part(mesh: &Mesh, part: Part) {
    mesh.cluster.kill(part);
    tokio::time::sleep(AWAY).await;
    mesh.cluster.restart(part).await.unwrap();
}

async fn proxy(mesh: &mut Mesh, book: &Book, name: &str) {
    let proxy = mesh.proxies.get_mut(name).unwrap();
    book.change(name);
    proxy.kill();
    proxy.restart().await.unwrap();
    // Ready is not yet listening everywhere.
    let port = if name == "edge" { 8080 } else { 15001 };
    let at = proxy.pod().address(port);
    wait_for("its listener", BOUND, || async {
        let opened = tokio::net::TcpStream::connect(at).await;
        opened.map(drop).map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    book.change(name);
}
