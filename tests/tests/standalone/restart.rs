//! Trimtab starts again while there is a mistake in its folder: proxies lose nothing.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kube::Api;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab::standalone::{self, FOLDER, Folder};
use trimtab_crds::metaprotocol::MetaRouter;
use trimtab_dataplane::bootstrap;
use trimtab_dataplane::module::Proxies;
use trimtab_embedded::Embedded;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{KeepAlive, Request};
use trimtab_lab::ports::{free_address, free_port};
use trimtab_xds::{LDS, Unresolved};

use crate::http::pod;
use crate::lab::{BOUND, NODE, folder, options, until};

/// A process of Trimtab on a folder, as `run --standalone` wires it.
struct Process {
    embedded: Embedded,
    operator: Operator,
    stop: CancellationToken,
}

impl Process {
    async fn start(dir: &Path, xds: SocketAddr) -> Self {
        let embedded = standalone::embedded().expect("an API");
        let mut folder = Folder::new(dir, embedded.clone());
        folder.sync().await.expect("a folder");
        let mut config = Config::default();
        config.http.address.set_port(0);
        config.xds.address = xds;
        config.data_plane = Some(Proxies::default());
        config.unresolved = !folder.is_known();
        let stop = CancellationToken::new();
        let operator = Operator::start(config, embedded.client(), stop.clone()).await;
        let operator = operator.expect("an operator");
        let cache = operator.cache.clone();
        let known = move || cache.set_unresolved(FOLDER, &Unresolved::Nothing);
        tokio::spawn(folder.follow(known, stop.clone()));
        until("it is ready", || operator.cache.is_ready()).await;
        Self {
            embedded,
            operator,
            stop,
        }
    }

    async fn router(&self) -> Value {
        let api: Api<MetaRouter> = Api::namespaced(self.embedded.client(), "shop");
        let router = api.get("lending").await.expect("the router");
        serde_json::to_value(router.status).expect("a status")
    }

    /// The proxy has asked for listeners, and there is nothing left to send.
    async fn until_connected(&self) {
        until("the proxy is here", || {
            let node = self.operator.cache.node(NODE);
            let subscriptions = node.into_iter().flat_map(|n| n.subscriptions);
            subscriptions.into_iter().any(|s| s.type_url == LDS)
        })
        .await;
        let streams = || self.operator.cache.streams();
        until("nothing is in flight", || {
            streams().iter().all(|s| s.pending_since.is_none())
        })
        .await;
    }

    async fn end(self) {
        self.stop.cancel();
        self.operator.stop().await.expect("it stops");
    }
}

fn service(name: &str, port: u16, at: SocketAddr) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: http, port: {}}}]
endpoints: [{{addresses: [\"127.0.0.1\"]}}]
",
        at.port()
    )
}

fn thrift(port: u16, method: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: lending, namespace: shop}}
spec:
  hosts: [lending.example]
  ports: [{{name: tcp-metaprotocol-thrift, number: {port}, protocol: TCP}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{tcp-metaprotocol-thrift: {port}}}}}]
---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: lending, namespace: shop}}
spec:
  hosts: [lending.example]
  routes:
  - match: {{attributes: {{method: {{{method}}}}}}}
    route: [{{destination: {{host: lending.example}}}}]
"
    )
}

async fn call(port: u16) -> u16 {
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    match KeepAlive::connect(at).await {
        Ok(mut connection) => {
            let sent = connection.send(&Request::get("/")).await;
            sent.map_or(0, |r| r.status)
        }
        Err(_) => 0,
    }
}

async fn until_answered(port: u16, status: u16) {
    let started = Instant::now();
    while call(port).await != status {
        assert!(started.elapsed() < BOUND, "{port} never answers {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A folder with two HTTP services and one of Thrift, and what spoils it.
struct Case {
    dir: PathBuf,
    ports: [u16; 3],
    at: SocketAddr,
}

impl Case {
    fn new(name: &str, at: SocketAddr) -> Self {
        let dir = folder(&format!("{name}-objects"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("more")).expect("a folder");
        let ports = [0; 3].map(|_| free_port().expect("a port"));
        let case = Self { dir, ports, at };
        case.write("a.yaml", &service("a", ports[0], at));
        case.write("more/b.yaml", &service("b", ports[1], at));
        case.write("thrift.yaml", &thrift(ports[2], "exact: renewLoan"));
        case
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.join(name), text).expect("a file");
    }
}

async fn removed(envoy: &Envoy) -> u64 {
    let stat = envoy.stat("listener_manager.listener_removed");
    stat.await.expect("a number")
}

/// Runs a proxy over a restart with a mistake, in which nothing is lost, and over its correction.
async fn over_a_restart(name: &str, spoil: impl Fn(&Case), mend: impl Fn(&Case)) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let upstream = pod("all").await;
    let case = Case::new(name, upstream.address());
    let xds = free_address().expect("a port");
    let process = Process::start(&case.dir, xds).await;
    let envoy = Envoy::start(&bootstrap(&options(xds)), &folder(name)).await;
    let envoy = envoy.expect("a proxy");
    for port in &case.ports[..2] {
        until_answered(*port, 200).await;
    }
    process.end().await;

    spoil(&case);
    let process = Process::start(&case.dir, xds).await;
    process.until_connected().await;
    for port in &case.ports[..2] {
        assert_eq!(call(*port).await, 200, "{name}: {port}");
    }
    let thrift = SocketAddr::from(([127, 0, 0, 1], case.ports[2]));
    assert!(
        tokio::net::TcpStream::connect(thrift).await.is_ok(),
        "{name}"
    );
    assert_eq!(removed(&envoy).await, 0, "{name}");
    // What is new gets through.
    let more = free_port().expect("a port");
    case.write("new.yaml", &service("new", more, case.at));
    until_answered(more, 200).await;

    mend(&case);
    fs::remove_file(case.dir.join("new.yaml")).expect("it is there");
    let started = Instant::now();
    while removed(&envoy).await != 1 {
        assert!(started.elapsed() < BOUND, "{name}: it never goes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_m2_a_restart_with_a_router_that_is_refused_takes_nothing_away() {
    let good = |case: &Case| thrift(case.ports[2], "exact: renewLoan");
    let bad = |case: &Case| thrift(case.ports[2], "regex: '('");
    let spoil = |case: &Case| case.write("thrift.yaml", &bad(case));
    let mend = |case: &Case| case.write("thrift.yaml", &good(case));
    over_a_restart("restart-refused", spoil, mend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_m2_a_restart_with_a_file_that_is_no_yaml_takes_nothing_away() {
    let good = |case: &Case| service("b", case.ports[1], case.at);
    let spoil = |case: &Case| {
        case.write(
            "more/b.yaml",
            &good(case).replace("http, port", "http, [port"),
        );
    };
    let mend = |case: &Case| case.write("more/b.yaml", &good(case));
    over_a_restart("restart-yaml", spoil, mend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_m2_a_restart_with_endpoints_that_cannot_be_read_takes_nothing_away() {
    let good = |case: &Case| service("a", case.ports[0], case.at);
    let spoil = |case: &Case| {
        case.write(
            "a.yaml",
            &good(case).replace("addressType: IPv4", "addressType: [IPv4]"),
        );
    };
    let mend = |case: &Case| case.write("a.yaml", &good(case));
    over_a_restart("restart-endpoints", spoil, mend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_m15_and_fault_o20_a_router_says_which_proxies_have_it() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let upstream = pod("all").await;
    let case = Case::new("router-status", upstream.address());
    let xds = free_address().expect("a port");
    let process = Process::start(&case.dir, xds).await;
    let reason = |status: &Value, kind: &str| {
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let of = conditions.into_iter().find(|c| c["type"] == kind);
        of.map(|c| format!("{} {}", c["status"], c["reason"]).replace('"', ""))
    };
    let until_proxies = async |subscribed: i32, acknowledged: i32, programmed: &str| {
        let started = Instant::now();
        loop {
            let status = process.router().await;
            let proxies = &status["proxies"];
            if proxies["subscribed"] == subscribed
                && proxies["acknowledged"] == acknowledged
                && reason(&status, "Programmed").as_deref() == Some(programmed)
            {
                assert_eq!(
                    reason(&status, "Accepted").as_deref(),
                    Some("True Accepted")
                );
                return;
            }
            assert!(started.elapsed() < BOUND, "{status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    until_proxies(0, 0, "True NoProxies").await;
    let mut envoy = Envoy::start(&bootstrap(&options(xds)), &folder("router-status"))
        .await
        .expect("a proxy");
    until_proxies(1, 1, "True Programmed").await;
    // A listener of nobody else refers to the router's filter, and it cannot be opened there.
    envoy.kill();
    until_proxies(0, 0, "True NoProxies").await;
    let taken = SocketAddr::from(([127, 0, 0, 1], case.ports[2]));
    let taken = std::net::TcpListener::bind(taken).expect("it is free");
    envoy.restart().await.expect("a proxy");
    until_proxies(1, 0, "False Rejected").await;
    drop(taken);
    process.end().await;
}

/// A link that leads nowhere is as unreadable for root as for others.
#[tokio::test(flavor = "multi_thread")]
async fn fault_m2_a_restart_with_a_part_of_the_folder_missing_takes_nothing_away() {
    let away = |case: &Case| case.dir.with_extension("away");
    let more = |case: &Case| case.dir.join("more");
    let spoil = |case: &Case| {
        let _ = fs::remove_dir_all(away(case));
        fs::rename(more(case), away(case)).expect("it is there");
        let nowhere = case.dir.join("nowhere");
        std::os::unix::fs::symlink(nowhere, more(case)).expect("a link");
    };
    let mend = |case: &Case| {
        fs::remove_file(more(case)).expect("it is there");
        fs::rename(away(case), more(case)).expect("it is there");
    };
    over_a_restart("restart-folder", spoil, mend).await;
}
