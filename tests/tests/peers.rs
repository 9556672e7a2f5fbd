//! What somebody can do who reaches a port and has no right to anything, and what a web page can do.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::data::accesslog::v3::{AccessLogCommon, HttpAccessLogEntry};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, Identifier, LogEntries,
};
use kube::Api;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab::standalone;
use trimtab_crds::fence::ServiceFence;
use trimtab_dataplane::module::Proxies;
use trimtab_embedded::Embedded;
use trimtab_lab::process::wait_until;
use trimtab_lazyload::module::Lazyload;
use trimtab_metaprotocol::module::Metaprotocol;
use trimtab_xds::{CDS, ECDS, EDS, LDS, RDS};

/// Far more than anything here takes; only a hang reaches it.
const BOUND: Duration = Duration::from_secs(60);
const HEADER: &str = "X-Trimtab-Request: 1";
const FENCE: &str = "/api/v1/lazyload/fences/stacks/desk";

fn config() -> Config {
    let mut config = Config::default();
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    config.edit::<Lazyload>(|lazyload| {
        lazyload.fallback.enabled = false;
        let logs = json!({"address": "127.0.0.1:0"});
        lazyload.learn.access_log = serde_json::from_value(logs).unwrap();
    });
    let mds = json!({"address": "127.0.0.1:0"});
    config.metrics.mds = serde_json::from_value(mds).unwrap();
    config
}

/// A pod that has called `shelf0` to `shelfN`, by what its fence's status remembers.
async fn operator(known: usize) -> (Operator, Embedded) {
    let embedded = standalone::embedded().unwrap();
    for namespace in ["stacks", "shop"] {
        embedded.ensure_namespace(namespace).unwrap();
    }
    let put = |object: Value| embedded.load(object).unwrap();
    put(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "desk-1", "namespace": "stacks", "labels": {"app": "desk"}},
        "spec": {"containers": [{"name": "c", "image": "c"}]},
        "status": {"phase": "Running", "podIP": "10.50.0.1"}}));
    let host = |i: usize| format!("shelf{i}.shop.svc.cluster.local");
    let seen = "2026-01-01T00:00:00Z";
    let dependencies: Vec<Value> = (0..known)
        .map(|i| {
            put(json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": format!("shelf{i}"), "namespace": "shop"},
                "spec": {"ports": [{"name": "http", "port": 80}]}}));
            json!({"host": host(i), "caller": "desk-1", "evidence": ["AccessLog"],
                "firstSeen": seen, "lastSeen": seen, "state": "Active"})
        })
        .collect();
    put(
        json!({"apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
        "metadata": {"name": "desk", "namespace": "stacks"},
        "spec": {"enable": true, "workloadSelector": {"labels": {"app": "desk"}}},
        "status": {"dependencies": dependencies}}),
    );
    (start(config(), &embedded).await, embedded)
}

async fn start(config: Config, embedded: &Embedded) -> Operator {
    let operator = Operator::start(config, embedded.client(), CancellationToken::new());
    let operator = operator.await.unwrap();
    wait_until("ready", BOUND, || async {
        let missing = operator.readiness.missing();
        missing.is_empty().then_some(()).ok_or(missing.join(", "))
    })
    .await
    .unwrap();
    operator
}

/// An answer as it comes.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// A request as a client may write it, and the answer.
async fn raw(address: SocketAddr, method: &str, path: &str, headers: &[&str]) -> Answer {
    let asked = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        for header in headers {
            text += header;
            text += "\r\n";
        }
        text += "Content-Length: 0\r\n\r\n";
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A connection that is closed with something unread is reset.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let text = tokio::time::timeout(BOUND, asked).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.get(9..12).and_then(|code| code.parse().ok());
    Answer {
        status: status.unwrap_or_default(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

async fn learned(operator: &Operator) -> usize {
    let answer = raw(operator.http, "GET", FENCE, &["Host: localhost"]).await;
    let from = answer.body.find('{').unwrap();
    let to = answer.body.rfind('}').unwrap();
    let view: Value = serde_json::from_str(&answer.body[from..=to]).unwrap();
    view["dependencies"].as_array().unwrap().len()
}

const PATHS: [&str; 16] = [
    "/",
    "/dependencies",
    "/status.js",
    "/status.css",
    "/dependencies.js",
    "/metrics",
    "/nothing",
    "/api/v1/limiters",
    "/api/v1/lazyload",
    "/api/v1/lazyload/edges",
    "/api/v1/xds/nodes",
    "/api/v1/xds/streams",
    "/api/v1/describe/servicefence/stacks/desk",
    FENCE,
    "/api/v1/lazyload/fences/stacks/desk/forget",
    "/lazyload/debug/svfReset?ns=stacks",
];
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

#[tokio::test]
async fn fault_t8_no_page_reads_or_changes_anything_by_any_route_or_method() {
    let (operator, _embedded) = operator(3).await;
    assert_eq!(learned(&operator).await, 3);
    let pages: [&[&str]; 7] = [
        &["Host: other.example"],
        &["Host: localhost.other.example"],
        &["Host: localhost", "Host: other.example"],
        &["Host: localhost", "Sec-Fetch-Site: cross-site"],
        &["Host: localhost", "Sec-Fetch-Site: same-site"],
        &["Host: localhost", "Origin: http://other.example"],
        &["Host: localhost", "Origin: null"],
    ];
    for path in PATHS {
        for method in METHODS {
            for page in pages {
                for headers in [page.to_vec(), [page, &[HEADER]].concat()] {
                    let answer = raw(operator.http, method, path, &headers).await;
                    assert_eq!(answer.status, 403, "{method} {path} {headers:?}");
                    for name in [
                        "content-security-policy: default-src 'none'",
                        "x-content-type-options: nosniff",
                        "x-frame-options: deny",
                    ] {
                        assert!(answer.head.contains(name), "{path}: {}", answer.head);
                    }
                }
            }
        }
    }
    // Nor by methods other than POST from here.
    for path in &PATHS[14..] {
        for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let headers = ["Host: 127.0.0.1", HEADER];
            let answer = raw(operator.http, method, path, &headers).await;
            assert_eq!(answer.status, 405, "{method} {path}");
        }
        let answer = raw(operator.http, "POST", path, &["Host: localhost"]).await;
        assert_eq!(answer.status, 403, "{path}");
    }
    let reset = raw(operator.http, "GET", PATHS[15], &["Host: localhost"]).await;
    assert!(reset.body.contains("-X POST"), "{}", reset.body);
    assert_eq!(learned(&operator).await, 3, "all is as it was");
    for probe in ["/healthz", "/readyz"] {
        let answer = raw(operator.http, "GET", probe, &["Host: other.example"]).await;
        assert_eq!(answer.status, 200, "{probe}");
    }
    let post = ["Host: localhost", HEADER];
    let answer = raw(operator.http, "POST", PATHS[15], &post).await;
    assert_eq!(answer.status, 200);
    operator.stop().await.unwrap();
}

/// Connections that say `text` and then nothing.
async fn flood(address: SocketAddr, count: usize, text: &[u8]) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The other side may be gone already.
        let _ = stream.write_all(text).await;
        open.push(stream);
    }
    open
}

#[tokio::test]
async fn fault_t13_probes_answer_while_every_port_is_flooded() {
    let (operator, _embedded) = operator(0).await;
    let logs = operator.listeners["lazyload.learn.accessLog.address"];
    // The test has one end of each connection, too: few enough for the usual limit of 1,024 files.
    let ports = [
        (operator.http, 100),
        (logs, 30),
        (operator.mds.unwrap(), 30),
    ];
    let mut open = Vec::new();
    for round in 0..3 {
        for (port, count) in ports {
            let half = b"GET /api/v1/limiters HTTP/1.1\r\nHost: localhost\r\nX-A: ";
            let text: &[u8] = if round % 2 == 0 { half } else { b"" };
            open.extend(flood(port, count, text).await);
        }
        for probe in ["/healthz", "/readyz"] {
            let answer = raw(operator.http, "GET", probe, &["Host: 10.0.0.1"]).await;
            assert_eq!(answer.status, 200, "{probe}, round {round}");
        }
    }
    // More than a port has room for were opened: some are closed again.
    let mut closed = 0;
    for stream in &mut open {
        let mut bytes = [0; 9];
        let ended = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut bytes));
        closed += usize::from(ended.await.is_ok());
    }
    assert!(closed > 30, "{closed} of {}", open.len());
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_t13_a_head_that_never_ends_is_given_up() {
    let (operator, _embedded) = operator(0).await;
    let mut stream = TcpStream::connect(operator.http).await.unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\n")
        .await
        .unwrap();
    let (mut read, mut write) = stream.into_split();
    let talking = tokio::spawn(async move {
        // A little more, again and again, so that the connection is never silent.
        while write.write_all(b"X-A: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(BOUND, read.read_to_end(&mut rest));
    let _ = ended.await.unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    talking.await.unwrap();
    operator.stop().await.unwrap();
}

/// Access logs of the desk's own proxy, in which it calls these hosts.
async fn log(operator: &Operator, hosts: &[String]) {
    let entry = |host: &String| HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            upstream_cluster: format!("outbound|80||{host}"),
            ..AccessLogCommon::default()
        }),
        ..HttpAccessLogEntry::default()
    };
    let node = Node {
        id: "sidecar~10.50.0.1~desk-1.stacks~stacks.svc.cluster.local".to_owned(),
        ..Node::default()
    };
    let message = StreamAccessLogsMessage {
        identifier: Some(Identifier {
            node: Some(node),
            log_name: "any".to_owned(),
        }),
        log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries {
            log_entry: hosts.iter().map(entry).collect(),
        })),
    };
    let address = operator.listeners["lazyload.learn.accessLog.address"];
    let client = AccessLogServiceClient::connect(format!("http://{address}"));
    let mut client = client.await.unwrap();
    let messages = futures::stream::iter([message]);
    client.stream_access_logs(messages).await.unwrap();
}

#[tokio::test]
async fn fault_t7_an_address_makes_the_sender_and_no_more_than_two_thousand_names_fit() {
    let (operator, embedded) = operator(0).await;
    let name = |i: usize| format!("shelf-{i:04}-of-the-library");
    for i in 0..2000 {
        embedded
            .load(json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name(i), "namespace": "shop"},
                "spec": {"ports": [{"name": "http", "port": 80}]}}))
            .unwrap();
    }
    let hosts: Vec<String> = (0..2000)
        .map(|i| format!("{}.shop.svc.cluster.local", name(i)))
        .collect();
    // The pod has another address than this test.
    log(&operator, &hosts).await;
    assert_eq!(learned(&operator).await, 0);
    operator.stop().await.unwrap();
    let mut trusting = config();
    trusting.edit::<Lazyload>(|lazyload| {
        let logs = json!({"address": "127.0.0.1:0", "trusted": ["127.0.0.1"]});
        lazyload.learn.access_log = serde_json::from_value(logs).unwrap();
    });
    let operator = start(trusting, &embedded).await;
    let invented: Vec<String> = (0..1000)
        .map(|i| format!("n{i:04}.{}.{}.test", "x".repeat(60), "y".repeat(60)))
        .collect();
    log(&operator, &invented).await;
    log(&operator, &hosts).await;
    let api: Api<ServiceFence> = Api::namespaced(embedded.client(), "stacks");
    wait_until("a status of all that exist", BOUND, || async {
        let fence = api.get("desk").await.map_err(|e| e.to_string())?;
        let size = serde_json::to_vec(&fence).unwrap().len();
        assert!(size < 1_000_000, "{size} bytes");
        let all = fence.status.unwrap_or_default().dependencies;
        let known = all.iter().filter(|d| d.host.contains("shelf-")).count();
        (known == 2000)
            .then_some(())
            .ok_or(format!("{known} of {} dependencies", all.len()))
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
}

/// Redis with a password for callers and one for servers, in a folder's objects.
fn redis() -> Embedded {
    let embedded = standalone::embedded().unwrap();
    embedded.ensure_namespace("stacks").unwrap();
    let host = "sessions.stacks.svc.cluster.local";
    let meta = || json!({"name": "sessions", "namespace": "stacks"});
    let auth = |secret: &str| json!({"redis": {"auth": {"secret": {"name": secret}}}});
    for object in [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(),
            "spec": {"clusterIP": "10.40.0.30", "ports": [{"name": "tcp-redis", "port": 26390}]}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta(),
            "stringData": {"password": "hush-servers"}}),
        json!({"apiVersion": "redis.aeraki.io/v1alpha1", "kind": "RedisDestination", "metadata": meta(),
            "spec": {"host": host, "trafficPolicy": {"connectionPool": auth("sessions")}}}),
        json!({"apiVersion": "redis.aeraki.io/v1alpha1", "kind": "RedisService", "metadata": meta(),
            "spec": {"host": [host], "settings": {"auth": {"plain": {"password": "hush-callers"}}},
                "redis": [{"route": {"host": host}}]}}),
    ] {
        embedded.load(object).unwrap();
    }
    embedded
}

/// The passwords in what any proxy can be served.
fn passwords(operator: &Operator) -> Vec<&'static str> {
    let types = [CDS, EDS, LDS, RDS, ECDS].into_iter();
    let all = types.flat_map(|t| {
        let names = operator.cache.names(t);
        names
            .into_iter()
            .filter_map(move |n| operator.cache.get(t, &n))
    });
    let bodies: Vec<_> = all.map(|resource| resource.body.clone()).collect();
    let there = |secret: &&str| {
        let has = |body: &[u8]| body.windows(secret.len()).any(|w| w == secret.as_bytes());
        bodies.iter().any(|body| has(body))
    };
    ["hush-callers", "hush-servers"]
        .into_iter()
        .filter(there)
        .collect()
}

#[tokio::test]
async fn fault_t8_no_password_is_served_to_whoever_asks() {
    let mut config = config();
    config.data_plane = Some(Proxies::default());
    config.edit::<Metaprotocol>(|metaprotocol| metaprotocol.read_secrets = true);
    let embedded = redis();
    let operator = start(config.clone(), &embedded).await;
    assert_eq!(passwords(&operator), [""; 0]);
    let port = |name: &String| name.contains("26390");
    assert!(
        !operator.cache.names(LDS).iter().any(port),
        "an open port in place of one with a password"
    );
    operator.stop().await.unwrap();
    // An explicit key is the way for those who had it on loopback.
    config.xds.plaintext_secrets = true;
    let operator = start(config, &embedded).await;
    wait_until("both passwords", BOUND, || async {
        let found = passwords(&operator);
        (found.len() == 2).then_some(()).ok_or(format!("{found:?}"))
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
}
