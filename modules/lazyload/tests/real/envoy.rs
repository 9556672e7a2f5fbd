//! Access logs of a real Envoy: as the fallback sends them and as a sidecar does.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use trimtab_kit::clock::SystemClock;
use trimtab_lazyload::config::Retention;
use trimtab_lazyload::edges::{EdgeStore, Limits};
use trimtab_lazyload::learn::Rules;
use trimtab_lazyload::learn::peer::Speakers;
use trimtab_lazyload::learn::server::{Backend, ServerOptions, serve};
use trimtab_lazyload::object::{Caller, Directory};

use crate::process::{self, BOUND, Process, free_port};

const A: &str = "a.shop.svc.cluster.local";
const REDIS: &str = "redis.data.svc.cluster.local";

/// `front` is on this machine, `back` is known by its pod, and `redis` is behind one port.
struct Mesh {
    redis: u16,
}

impl Directory for Mesh {
    fn caller_at(&self, address: IpAddr) -> Option<Caller> {
        address.is_loopback().then(|| Caller::new("shop", "front"))
    }

    fn caller_of_pod(&self, namespace: &str, pod: &str) -> Option<Caller> {
        let workload = pod.strip_suffix("-1")?;
        Some(Caller::new(namespace, workload))
    }

    fn host_of_name(&self, name: &str, namespace: &str) -> Option<Arc<str>> {
        ((name, namespace) == ("a", "shop") || name == A).then(|| A.into())
    }

    fn hosts_at(&self, _: IpAddr, port: u16) -> Vec<Arc<str>> {
        Vec::from_iter((port == self.redis).then(|| REDIS.into()))
    }
}

/// An Envoy that runs this configuration.
fn start(name: &str, config: &Value) -> Process {
    let libraries = fs::read_dir(process::cache().join("envoy/lib"));
    let cached: Vec<PathBuf> = libraries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("site-packages/envoy/_bin/envoy"))
        .collect();
    let program = process::find("ENVOY_BIN", &cached, "envoy");
    let files = [("envoy.json", config.to_string())];
    let args = [
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "-l",
        "warning",
        "-c",
        "{folder}/envoy.json",
    ];
    Process::start(program, name, &files, &args)
}

/// Sends text until there is an answer; Envoy needs a moment to listen.
async fn answer(envoy: &mut Process, port: u16, text: &str) -> String {
    let begin = std::time::Instant::now();
    loop {
        if let Ok(answer) = ask(port, text).await
            && !answer.is_empty()
        {
            return answer;
        }
        envoy.check();
        assert!(begin.elapsed() < Duration::from_secs(60), "no answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn ask(port: u16, text: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(text.as_bytes()).await?;
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(5), reading).await??;
    Ok(answer)
}

fn socket(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn cluster(name: &str, port: u16) -> Value {
    json!({
        "name": name, "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": socket(port)}}]},
        ]},
    })
}

fn access_log(kind: &str, message: &str) -> Value {
    json!([{
        "name": format!("envoy.access_loggers.{kind}_grpc"),
        "typed_config": {
            "@type": format!("type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.{message}"),
            "common_config": {
                "log_name": "calls", "transport_api_version": "V3", "buffer_flush_interval": "0.05s",
                "grpc_service": {"envoy_grpc": {"cluster_name": "trimtab-access-log"}},
            },
        },
    }])
}

/// An HTTP connection manager that sends everything on to `action`.
fn http(filters: &[Value], action: &Value) -> Value {
    let mut route = json!({"match": {"prefix": "/"}});
    for (key, value) in action.as_object().unwrap() {
        route[key] = value.clone();
    }
    let mut all = filters.to_vec();
    all.push(
        json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}),
    );
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http", "http_filters": all, "access_log": access_log("http", "HttpGrpcAccessLogConfig"),
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }})
}

fn bootstrap(
    id: &str,
    server: SocketAddr,
    listeners: &[(u16, Value)],
    clusters: &[Value],
) -> Value {
    let mut all = clusters.to_vec();
    let mut log = cluster("trimtab-access-log", server.port());
    log["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        },
    });
    all.push(log);
    let listener = |(port, filter): &(u16, Value)| json!({"name": port.to_string(), "address": socket(*port), "filter_chains": [{"filters": [filter]}]});
    let listeners: Vec<Value> = listeners.iter().map(listener).collect();
    json!({
        "node": {"id": id, "cluster": "test"},
        "static_resources": {"listeners": listeners, "clusters": all},
    })
}

struct Learning {
    address: SocketAddr,
    backend: Backend,
    _stop: tokio_util::sync::DropGuard,
}

async fn learning(redis: u16) -> Learning {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let backend = Backend {
        directory: Arc::new(Mesh { redis }),
        store: Arc::new(EdgeStore::new(Limits::new(&Retention::default(), 100))),
        clock: Arc::new(SystemClock::new()),
        stats: Arc::default(),
    };
    let stop = CancellationToken::new();
    let server = serve(
        listener,
        backend.clone(),
        ServerOptions {
            rules: Rules {
                speakers: Speakers::trusting(["127.0.0.0/8".parse().unwrap()]),
                ..Rules::default()
            },
            ..ServerOptions::default()
        },
        stop.clone(),
    );
    tokio::spawn(server);
    Learning {
        address,
        backend,
        _stop: stop.drop_guard(),
    }
}

impl Learning {
    /// Waits for exactly these edges, `CALLER HOST`.
    async fn edges(&self, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|e| (*e).to_owned()).collect();
        let store = &self.backend.store;
        let edges = || -> BTreeSet<String> {
            let callers = store.callers().into_iter();
            callers
                .flat_map(|c| {
                    store
                        .of(&c)
                        .into_iter()
                        .map(move |e| format!("{c} {}", e.host))
                })
                .collect()
        };
        let wait = async {
            while edges() != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let done = tokio::time::timeout(BOUND, wait).await;
        assert!(done.is_ok(), "{:?}, {:?}", edges(), self.backend.stats);
    }
}

const GET: &str = "GET / HTTP/1.1\r\nconnection: close\r\nhost: ";

#[tokio::test]
async fn the_fallback_tells_who_calls_what() {
    let (plain, marked, redis) = (free_port(), free_port(), free_port());
    let learning = learning(redis).await;
    let set = json!({"name": "envoy.filters.http.set_metadata", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config",
        "metadata": [{"metadata_namespace": "trimtab", "value": {
            "source_namespace": "shop", "source_pod": "back-1"}}],
    }});
    let ok = json!({"direct_response": {"status": 200, "body": {"inline_string": "ok"}}});
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp", "cluster": "redis", "access_log": access_log("tcp", "TcpGrpcAccessLogConfig"),
    }});
    let upstream = cluster("redis", echo.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = echo.accept().await {
            let _ = stream.write_all(b"+PONG").await;
        }
    });
    let listeners = [
        (plain, http(&[], &ok)),
        (marked, http(&[set], &ok)),
        (redis, tcp),
    ];
    let config = bootstrap("fallback-1", learning.address, &listeners, &[upstream]);
    let mut envoy = start("fallback", &config);
    answer(&mut envoy, plain, &format!("{GET}A:8080\r\n\r\n")).await;
    learning.edges(&[&format!("shop/front {A}")]).await;
    answer(&mut envoy, marked, &format!("{GET}api.example.com\r\n\r\n")).await;
    answer(&mut envoy, redis, "PING").await;
    learning
        .edges(&[
            &format!("shop/front {A}"),
            &format!("shop/front {REDIS}"),
            "shop/back api.example.com",
        ])
        .await;
    assert_eq!(
        learning.backend.stats.entries(),
        learning.backend.stats.observed_calls()
    );
}

#[tokio::test]
async fn a_sidecar_tells_which_service_it_called() {
    let (port, upstream) = (free_port(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let learning = learning(0).await;
    let name = format!("outbound|80||{A}");
    let cluster = cluster(&name, upstream.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = upstream.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            let _ = stream.write_all(answer).await;
        }
    });
    let to = http(&[], &json!({"route": {"cluster": name}}));
    let id = "sidecar~127.0.0.1~back-1.shop~shop.svc.cluster.local";
    let config = bootstrap(id, learning.address, &[(port, to)], &[cluster]);
    let mut envoy = start("sidecar", &config);
    // The name that the client used does not matter: the proxy knows where the call went.
    let text = answer(&mut envoy, port, &format!("{GET}whatever\r\n\r\n")).await;
    assert!(text.ends_with("ok"), "{text}");
    learning.edges(&[&format!("shop/back {A}")]).await;
}
