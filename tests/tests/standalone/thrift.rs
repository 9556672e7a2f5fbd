//! Thrift through a proxy that gets everything from Trimtab: calls of a real client move with the MetaRouter.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use trimtab_dataplane::Served;
use trimtab_lab::ports::{free_port, loopback};
use trimtab_lab::process::cache_dir;
use trimtab_xds::{EDS, LDS, Scope, TRDS};

use crate::cases::Case;
use crate::http::{case, endpoints};
use crate::lab::{BOUND, Fixture};

const HOST: &str = "orders.shop.svc.cluster.local";

/// A client or a server, asked line by line; it dies with the test.
pub(crate) struct Peer {
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    pub(crate) fn start(script: &str, args: &[String]) -> Self {
        let python = cache_dir().join("thriftpy2/bin/python");
        assert!(
            python.is_file(),
            "{} is missing: run make deps",
            python.display()
        );
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/metaprotocol/clients")
            .join(script);
        let mut child = Command::new(python)
            .arg(file)
            .args(args)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("a program");
        Self {
            stdin: child.stdin.take().expect("stdin"),
            lines: BufReader::new(child.stdout.take().expect("stdout")).lines(),
            _child: child,
        }
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(BOUND, self.lines.next_line()).await;
        line.expect("an answer").expect("a line").expect("it runs")
    }

    /// Makes calls on one connection; how often each answer came.
    pub(crate) async fn calls(&mut self, method: &str, n: u32) -> Value {
        let line = format!("{}\n", json!({"method": method, "calls": n}));
        self.stdin
            .write_all(line.as_bytes())
            .await
            .expect("it listens");
        serde_json::from_str(&self.line().await).expect("counts")
    }
}

pub(crate) async fn server(name: &str) -> (Peer, SocketAddr) {
    let mut peer = Peer::start("thrift_server.py", &[name.to_owned()]);
    let port = peer.line().await.parse().expect("a port");
    (peer, loopback(port))
}

pub(crate) fn to(subset: &str) -> Value {
    json!([{"destination": {"host": HOST, "subset": subset}}])
}

pub(crate) fn orders(port: u16, v1: SocketAddr, v2: SocketAddr, routes: &Value) -> Case {
    case(vec![
        json!({"kind": "Service", "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {"selector": {"app": "orders"}, "ports": [{"name": "tcp-thrift", "port": port}]}}),
        endpoints("orders", "tcp-thrift", "v1", &[v1]),
        endpoints("orders", "tcp-thrift", "v2", &[v2]),
        json!({"kind": "DestinationRule", "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {"host": "orders", "subsets": [
                {"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]}}),
        json!({"kind": "MetaRouter", "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {"hosts": [HOST], "routes": routes}}),
    ])
}

#[tokio::test]
async fn calls_of_an_open_connection_move_with_the_router() {
    let (_one, v1) = server("v1").await;
    let (_two, v2) = server("v2").await;
    let port = free_port().expect("a port");
    let at = |routes: Value| orders(port, v1, v2, &routes);
    let mut fixture =
        Fixture::start("thrift", &at(json!([{"route": to("v1")}])).served(None)).await;
    for name in fixture.served().names(TRDS) {
        fixture.until_held(TRDS, name).await;
    }
    let args = ["127.0.0.1".to_owned(), port.to_string()];
    let mut client = Peer::start("thrift_client.py", &args);
    assert_eq!(client.calls("say", 20).await, json!({"v1": 20}));
    let by_method = json!([
        {"match": {"attributes": {"method": {"exact": "bye"}}}, "route": to("v1")},
        {"route": to("v2")},
    ]);
    let next = at(by_method).served(Some(fixture.served()));
    fixture.publish(next).await;
    assert_eq!(client.calls("say", 20).await, json!({"v2": 20}));
    assert_eq!(client.calls("bye", 20).await, json!({"v1": 20}));
    let changed = fixture
        .envoy
        .stat("listener_manager.listener_modified")
        .await
        .expect("a number");
    let stats = fixture.envoy.stats("").await.expect("numbers");
    let ours = |name: &str| {
        name.contains(&port.to_string())
            && name.ends_with(".downstream_cx_total")
            && !name.contains("worker")
    };
    let opened: u64 = stats
        .iter()
        .filter(|(name, _)| ours(name))
        .map(|(_, n)| n)
        .sum();
    assert_eq!((changed, opened), (0, 1));
}

/// What changes is only where servers are.
fn only_endpoints_change(before: &Served, after: &Served) {
    for update in after.updates(Some(before), &Scope::All) {
        let set: Vec<&str> = update
            .set
            .iter()
            .map(|s| s.resource.name.as_str())
            .collect();
        assert!(update.remove.is_empty(), "{:?}", update.remove);
        assert_eq!(set.is_empty(), update.type_url != EDS, "{set:?}");
    }
}

#[test]
fn a_router_with_a_mistake_leaves_the_routes_in_force() {
    let (at, moved) = (loopback(1), loopback(2));
    let good = orders(19090, at, at, &json!([{"route": to("v1")}])).served(None);
    assert!(good.refusals.is_empty());
    let bad = orders(19090, moved, moved, &json!([{"route": to("gone")}])).served(Some(&good));
    assert!(!bad.refusals.is_empty());
    only_endpoints_change(&good, &bad);
    // And once more, from what was kept.
    let again = orders(19090, at, at, &json!([{"route": to("gone")}])).served(Some(&bad));
    only_endpoints_change(&bad, &again);
}

#[test]
fn a_redis_service_with_a_mistake_leaves_the_listener_in_force() {
    let at = |to: SocketAddr, prefix: &str| {
        let routes: Vec<Value> = [prefix, "a:"]
            .iter()
            .map(|p| json!({"match": {"key": {"prefix": p}}, "route": {"host": "cache.shop.svc.cluster.local"}}))
            .collect();
        case(vec![
            json!({"kind": "Service", "metadata": {"name": "cache", "namespace": "shop"},
                "spec": {"ports": [{"name": "tcp-redis", "port": 16379}]}}),
            endpoints("cache", "tcp-redis", "v1", &[to]),
            json!({"kind": "RedisService", "metadata": {"name": "cache", "namespace": "shop"},
                "spec": {"host": ["cache.shop.svc.cluster.local"], "redis": routes}}),
        ])
    };
    let good = at(loopback(1), "b:").served(None);
    assert_eq!(good.names(LDS).count(), 1);
    // Two routes with one prefix.
    let bad = at(loopback(2), "a:").served(Some(&good));
    assert!(
        bad.refusals.iter().any(|r| r.blocks_routes),
        "{:?}",
        bad.refusals
    );
    only_endpoints_change(&good, &bad);
    assert_eq!(
        at(loopback(1), "a:").served(None).names(LDS).count(),
        0,
        "nothing is known to put there"
    );
}
