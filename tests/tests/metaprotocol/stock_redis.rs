//! Redis on a real Envoy with real servers: prefix routes, mirrors, faults, passwords, clusters.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trimtab_lab::ports::free_address;
use trimtab_lab::process::{Process, Spec};
use trimtab_metaprotocol::input::{Delivery, ServicePortInput};
use trimtab_metaprotocol::translate::translate;

use crate::lab::{BOUND, Fixture, Mesh, VIP, folder, read};

const HOST: &str = "cache.shop.svc.cluster.local";
const OTHER: &str = "users.shop.svc.cluster.local";
const PORT: u16 = 6379;

fn input(redis: Value, destination: Value) -> ServicePortInput {
    let mut out = json!({
        "host": HOST, "namespace": "shop", "service": "cache",
        "port": {"number": PORT, "name": "tcp-redis"},
        "protocol": {"kind": "redis"},
        "vips": [VIP],
        "workloadSelector": {"app": "cache"},
        "hosts": {
            HOST: {"ports": {"6379": "tcp-redis"}},
            OTHER: {"ports": {"6379": "tcp-redis"}},
        },
        "settings": {"dataPlanes": ["envoy"]},
    });
    if !redis.is_null() {
        out["redis"] = redis;
        out["redis"]["owner"] =
            json!({"kind": "RedisService", "namespace": "shop", "name": "cache"});
    }
    if !destination.is_null() {
        out["redisDestinations"][HOST] = destination;
        out["redisDestinations"][HOST]["owner"] =
            json!({"kind": "RedisDestination", "namespace": "shop", "name": "cache"});
    }
    read(out)
}

fn program() -> PathBuf {
    let cached = trimtab_lab::process::cache_dir().join("redis/usr/bin/redis-server");
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(cached)
        .chain(std::env::split_paths(&on_path).map(|d| d.join("redis-server")))
        .find(|p| p.is_file())
        .expect("redis-server is missing: run make deps")
}

/// A real server; `more` are its arguments.
async fn redis(name: &str, more: &[&str]) -> (Process, SocketAddr) {
    let at = free_address().expect("a port");
    let folder = folder(&format!("redis-server-{name}"));
    let port = at.port().to_string();
    let mut args = vec![
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ];
    args.extend(more);
    let dir = folder.to_string_lossy().into_owned();
    args.extend(["--dir", &dir]);
    let mut process = Process::start(Spec {
        name: format!("redis {name}"),
        program: program(),
        args: args.into_iter().map(Into::into).collect(),
        log: folder.join("log"),
    })
    .expect("redis-server starts");
    process
        .wait_ready(BOUND, || async move {
            TcpStream::connect(at)
                .await
                .map(drop)
                .map_err(|e| e.to_string())
        })
        .await
        .expect("redis-server listens");
    (process, at)
}

/// A connection that speaks Redis.
struct Client(TcpStream, Vec<u8>);

impl Client {
    async fn open(at: SocketAddr) -> Self {
        Self(
            TcpStream::connect(at).await.expect("a connection"),
            Vec::new(),
        )
    }

    /// The first line of the answer, or the text of a bulk answer.
    async fn send(&mut self, command: &str) -> String {
        let answer = self.try_send(command).await;
        answer.expect("the connection is open")
    }

    /// The same; `None` when the connection is closed.
    async fn try_send(&mut self, command: &str) -> Option<String> {
        let words: Vec<&str> = command.split(' ').collect();
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            let _ = write!(text, "${}\r\n{word}\r\n", word.len());
        }
        self.0.write_all(text.as_bytes()).await.ok()?;
        let line = self.line().await?;
        match line.strip_prefix('$') {
            Some("-1") => Some("nil".to_owned()),
            Some(_) => self.line().await,
            None => Some(line),
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.1.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.1.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            let mut buffer = [0; 1024];
            let size = tokio::time::timeout(BOUND, self.0.read(&mut buffer))
                .await
                .expect("an answer in time")
                .unwrap_or(0);
            if size == 0 {
                return None;
            }
            self.1.extend_from_slice(&buffer[..size]);
        }
    }
}

struct Lab {
    _fixture: Fixture,
    at: SocketAddr,
    own: SocketAddr,
    other: SocketAddr,
    _servers: [Process; 2],
}

async fn lab(name: &str, delivery: Delivery, first: &ServicePortInput, more: &[&str]) -> Lab {
    let (a, own) = redis(&format!("{name}-own"), more).await;
    let (b, other) = redis(&format!("{name}-other"), &[]).await;
    let mut mesh = Mesh::default();
    let cluster = format!("outbound|{PORT}||{HOST}");
    let at = mesh.outbound(PORT, &cluster);
    mesh.cluster(&cluster, own);
    mesh.cluster(&format!("outbound|{PORT}||{OTHER}"), other);
    let fixture = Fixture::start(&format!("redis-{name}"), &mesh, delivery, first).await;
    Lab {
        _fixture: fixture,
        at,
        own,
        other,
        _servers: [a, b],
    }
}

fn prefix(prefix: &str, remove: bool, host: &str) -> Value {
    json!({"prefix": prefix, "removePrefix": remove, "destination": {"host": host}})
}

#[tokio::test]
async fn keys_go_where_their_prefix_says() {
    let rest = json!({"destination": {"host": HOST}});
    let routes = json!({"routes": [prefix("user:", true, OTHER), rest]});
    let lab = lab("prefix", Delivery::Inline, &input(routes, Value::Null), &[]).await;
    let mut old = Client::open(lab.at).await;
    assert_eq!(old.send("SET user:1 a").await, "+OK");
    assert_eq!(old.send("SET item:1 b").await, "+OK");
    let (mut own, mut other) = (Client::open(lab.own).await, Client::open(lab.other).await);
    assert_eq!(other.send("GET 1").await, "a", "without its prefix");
    assert_eq!(own.send("GET item:1").await, "b");
    assert_eq!(own.send("DBSIZE").await, ":1");
}

/// istiod replaces the listener: new connections follow, and the proxy lives on with the old ones.
#[tokio::test]
async fn a_change_reaches_new_connections() {
    let rest = json!({"destination": {"host": HOST}});
    let first = input(json!({"routes": [rest]}), Value::Null);
    let turned = json!({"settings": {"caseInsensitive": true}, "routes": [prefix("ITEM:", false, OTHER), rest]});
    let turned = input(turned, Value::Null);
    let (_a, own) = redis("change-own", &[]).await;
    let (_b, other) = redis("change-other", &[]).await;
    let mut mesh = Mesh::default();
    let cluster = format!("outbound|{PORT}||{HOST}");
    let at = mesh.outbound(PORT, &cluster);
    mesh.cluster(&cluster, own);
    mesh.cluster(&format!("outbound|{PORT}||{OTHER}"), other);
    let folder = folder("redis-change");
    let listeners = |of: &ServicePortInput| {
        let mut config = mesh.bootstrap(&crate::lab::filters(&translate(of)), None);
        let mut list = config["static_resources"]["listeners"].take();
        for one in list.as_array_mut().expect("listeners") {
            one["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
        }
        std::fs::write(folder.join("next"), json!({"resources": list}).to_string())
            .expect("a file");
        std::fs::rename(folder.join("next"), folder.join("listeners.json")).expect("a file");
        config["static_resources"]["listeners"] = json!([]);
        config
    };
    let mut config = listeners(&first);
    let path = folder.join("listeners.json");
    config["dynamic_resources"] = json!({"lds_config": {"path_config_source": {"path": path}}});
    let mut envoy = trimtab_lab::envoy::Envoy::start(&config, &folder)
        .await
        .expect("Envoy");
    let mut old = Client::open(at).await;
    assert_eq!(old.send("SET item:1 b").await, "+OK");
    listeners(&turned);
    let begin = Instant::now();
    while envoy
        .stat("listener_manager.listener_modified")
        .await
        .expect("stats")
        == 0
    {
        assert!(begin.elapsed() < BOUND, "the listener is not replaced");
    }
    let kept = old.try_send("GET item:1").await;
    assert!(kept.is_none() || kept.as_deref() == Some("b"), "{kept:?}");
    let begin = Instant::now();
    loop {
        let mut new = Client::open(at).await;
        if new.try_send("SET item:2 c").await.as_deref() == Some("+OK")
            && Client::open(other).await.send("GET item:2").await == "c"
        {
            break;
        }
        assert!(begin.elapsed() < BOUND, "new connections do not follow");
    }
    assert!(envoy.process().is_running());
}

#[tokio::test]
async fn mirrors_get_writes() {
    let routes = json!({"routes": [{
        "destination": {"host": HOST},
        "mirrors": [{"destination": {"host": OTHER}, "excludeReadCommands": true}],
    }]});
    let lab = lab("mirror", Delivery::Inline, &input(routes, Value::Null), &[]).await;
    let mut caller = Client::open(lab.at).await;
    assert_eq!(caller.send("SET k v").await, "+OK");
    let mut other = Client::open(lab.other).await;
    let begin = Instant::now();
    while other.send("GET k").await != "v" {
        assert!(begin.elapsed() < BOUND, "the copy never came");
    }
    assert_eq!(Client::open(lab.own).await.send("GET k").await, "v");
}

#[tokio::test]
async fn faults_are_injected() {
    let faults = json!({"faults": [
        {"type": "ERROR", "commands": ["GET"]},
        {"type": "DELAY", "delay": "300ms", "commands": ["SET"]},
    ]});
    let lab = lab("faults", Delivery::Inline, &input(faults, Value::Null), &[]).await;
    let mut caller = Client::open(lab.at).await;
    let answer = caller.send("GET k").await;
    assert!(answer.starts_with('-'), "{answer}");
    let begin = Instant::now();
    assert_eq!(caller.send("SET k v").await, "+OK");
    assert!(
        begin.elapsed() >= Duration::from_millis(250),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(caller.send("STRLEN k").await, ":1");
}

#[tokio::test]
async fn callers_and_servers_have_passwords_of_their_own() {
    let folder = folder("redis-secrets");
    std::fs::write(folder.join("shop.server.token"), "s3rver").expect("a file");
    std::fs::write(folder.join("shop.server.user"), "default").expect("a file");
    let secret = json!({"kind": "secret", "namespace": "shop", "name": "server",
        "passwordField": "token", "usernameField": "user"});
    let asked =
        json!({"settings": {"auth": {"kind": "plain", "credentials": {"password": "callers"}}}});
    let mut first = input(asked, json!({"auth": secret}));
    let mut settings = first.settings.as_ref().clone();
    settings.secret_path = format!("{}/{{namespace}}.{{name}}.{{field}}", folder.display());
    first.settings = settings.into();
    let made = translate(&first);
    assert!(!format!("{:?}", made.envoy_filters).contains("s3rver"));

    let lab = lab(
        "auth",
        Delivery::Inline,
        &first,
        &["--requirepass", "s3rver"],
    )
    .await;
    let mut caller = Client::open(lab.at).await;
    assert!(caller.send("GET k").await.starts_with("-NOAUTH"));
    assert!(caller.send("AUTH wrong").await.starts_with('-'));
    assert_eq!(caller.send("AUTH callers").await, "+OK");
    assert_eq!(
        caller.send("SET k v").await,
        "+OK",
        "the server took the proxy's password"
    );
    assert!(
        Client::open(lab.own)
            .await
            .send("GET k")
            .await
            .starts_with("-NOAUTH")
    );
    assert!(made.envoy_filters.iter().all(|f| {
        !f.metadata
            .name
            .as_deref()
            .unwrap_or_default()
            .contains("inbound")
    }));
}

#[tokio::test]
async fn a_secret_is_not_written_into_objects_of_the_cluster() {
    let secret = json!({"kind": "secret", "namespace": "shop", "name": "pass",
        "resolved": {"password": "s3cret"}});
    let upstream = input(Value::Null, json!({"auth": secret}));
    let made = translate(&upstream);
    assert!(made.retained && made.envoy_filters.is_empty() && made.resources.is_empty());
    assert_eq!(made.refusals[0].problem.reason, "SecretNotMounted");

    let mut downstream = input(json!({"settings": {"auth": secret}}), Value::Null);
    let made = translate(&downstream);
    assert!(made.retained && made.envoy_filters.is_empty());

    // Where the operator allows it, it is.
    let mut settings = downstream.settings.as_ref().clone();
    settings.secrets_inline = true;
    downstream.settings = settings.into();
    let made = translate(&downstream);
    assert_eq!(made.refusals, Vec::new());
    assert!(format!("{:?}", made.envoy_filters).contains("s3cret"));
}

/// The nodes that the proxy finds itself, by asking the one it is told of.
#[tokio::test]
async fn a_redis_cluster_is_found_from_its_endpoint() {
    // Its default, 10000 above the port, may be taken or no port at all.
    let bus = free_address().expect("a port").port().to_string();
    let cluster = [
        "--cluster-enabled",
        "yes",
        "--cluster-announce-ip",
        "127.0.0.1",
        "--cluster-port",
        &bus,
    ];
    let (_node, at) = redis("cluster", &cluster).await;
    let mut admin = Client::open(at).await;
    assert_eq!(admin.send("CLUSTER ADDSLOTSRANGE 0 16383").await, "+OK");
    let begin = Instant::now();
    while admin.send("SET ready 1").await != "+OK" {
        assert!(begin.elapsed() < BOUND, "the cluster is not ready");
    }
    let input = input(
        json!({"settings": {"enableRedirection": true, "readPolicy": "PREFER_REPLICA"}}),
        json!({"mode": "CLUSTER", "discoveryEndpoints": [at.to_string()]}),
    );
    let mut mesh = Mesh::default();
    let own = format!("outbound|{PORT}||{HOST}");
    let listen = mesh.outbound(PORT, &own);
    mesh.cluster(&own, free_address().expect("nobody"));
    let fixture = Fixture::start("redis-cluster", &mesh, Delivery::Inline, &input).await;
    let mut caller = Client::open(listen).await;
    let begin = Instant::now();
    loop {
        let answer = caller.send("SET k v").await;
        if answer == "+OK" {
            break;
        }
        assert!(begin.elapsed() < BOUND, "{answer}");
    }
    assert_eq!(admin.send("GET k").await, "v");
    let made = fixture.translated(&input);
    assert!(format!("{:?}", made.envoy_filters).contains("PREFER_REPLICA"));
}

#[tokio::test]
async fn the_default_is_the_service_itself_and_its_own_side_lets_through() {
    let (_server, pod) = redis("inbound", &[]).await;
    let made = translate(&input(Value::Null, Value::Null));
    assert_eq!(made.refusals, Vec::new());
    let mut mesh = Mesh::default();
    let at = mesh.inbound(PORT);
    mesh.cluster(&format!("inbound|{PORT}||"), pod);
    let config = mesh.bootstrap(&crate::lab::filters(&made), None);
    let folder = folder("redis-inbound");
    let _envoy = trimtab_lab::envoy::Envoy::start(&config, &folder)
        .await
        .expect("Envoy");
    assert_eq!(Client::open(at).await.send("SET k v").await, "+OK");
}

#[tokio::test]
async fn mistakes_freeze_the_port() {
    for (redis, reason) in [
        (
            json!({"routes": [prefix("a", false, HOST), prefix("a", false, OTHER)]}),
            "DuplicatePrefix",
        ),
        (
            json!({"settings": {"opTimeout": "soon"}}),
            "InvalidDuration",
        ),
        (json!({"faults": [{"type": "DELAY"}]}), "NoDelay"),
        (
            json!({"faults": [{"type": "ERROR", "percent": 101.0}]}),
            "InvalidPercentage",
        ),
        (
            json!({"settings": {"auth": {"kind": "plain", "credentials": {}}}}),
            "PasswordMissing",
        ),
    ] {
        let made = translate(&input(redis.clone(), Value::Null));
        assert!(made.retained && made.envoy_filters.is_empty(), "{redis}");
        assert_eq!(made.refusals[0].problem.reason, reason, "{redis}");
    }
}
