//! A pod whose proxy sees a part of the services, and the fallback proxy that carries the rest.
//!
//! Proxies and pods have addresses of 127.0.0.0/8, all on this machine.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trimtab::lab::envoy::Envoy;
use trimtab::lab::http::{KeepAlive, Request, send};
use trimtab::lab::ports::{free_port, loopback};
use trimtab_metaprotocol::standalone::{FallbackInput, World, bootstrap};
use trimtab_xds::{CDS, LDS, RDS, ServerOptions, SnapshotCache};

use crate::cases::{Case, Pod};
use crate::http::{case, endpoints, pod};
use crate::lab::{BOUND, Stand, folder, options, server, until};
use crate::logs::Receiver;

/// The services, their ports and where they are.
struct Mesh {
    http: u16,
    tcp: u16,
    servers: Vec<(&'static str, SocketAddr)>,
    bytes: SocketAddr,
    pod: IpAddr,
    fallbacks: Vec<IpAddr>,
    log: Option<SocketAddr>,
}

fn host(name: &str) -> String {
    format!("{name}.shop.svc.cluster.local")
}

impl Mesh {
    /// The mesh where the pod sees these hosts.
    fn seeing(&self, hosts: &[&str]) -> Case {
        let service = |name: &str, port_name: &str, port: u16| {
            json!({"kind": "Service", "metadata": {"name": name, "namespace": "shop"},
                "spec": {"ports": [{"name": port_name, "port": port}]}})
        };
        let mut objects = Vec::new();
        for (name, at) in &self.servers {
            objects.push(service(name, "http", self.http));
            objects.push(endpoints(name, "http", "v1", &[*at]));
        }
        objects.push(service("bytes", "tcp", self.tcp));
        objects.push(endpoints("bytes", "tcp", "v1", &[self.bytes]));
        let hosts: Vec<String> = hosts.iter().map(|h| format!("./{}", host(h))).collect();
        let hosts = if hosts.is_empty() {
            vec!["~/*".to_owned()]
        } else {
            hosts
        };
        objects.push(json!({"kind": "Sidecar", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"workloadSelector": {"labels": {"app": "web"}}, "egress": [{"hosts": hosts}]}}));
        let mut out = case(objects);
        out.pod_labels = vec![Pod {
            namespace: "shop".into(),
            name: "web-1".into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            address: Some(self.pod),
        }];
        out.fallback = Some(FallbackInput {
            addresses: self.fallbacks.clone(),
            access_log: self.log.map(|a| a.to_string().parse().expect("an address")),
        });
        out
    }
}

/// The server, with the proxies of a pod and of the fallback addresses.
struct Lab {
    mesh: Mesh,
    cache: SnapshotCache,
    world: World,
    pod: Envoy,
    fallbacks: Vec<Envoy>,
    _stop: tokio_util::sync::DropGuard,
}

impl Lab {
    async fn start(name: &str, mesh: Mesh, seen: &[&str]) -> Self {
        let cache = SnapshotCache::new();
        let world = mesh.seeing(seen).world(None);
        cache.update_all(world.updates(None));
        cache.mark_ready();
        let (address, stop) = server(&cache, ServerOptions::default()).await;
        let mut all = Vec::new();
        let groups = mesh
            .fallbacks
            .iter()
            .map(|a| format!("trimtab/fallback/{a}"));
        for (i, group) in ["shop/web-1".to_owned()]
            .into_iter()
            .chain(groups)
            .enumerate()
        {
            let mut options = options(address);
            options.node = format!("proxy-{i}");
            options.group = Some(group);
            let folder = folder(&format!("scoped-{name}-{i}"));
            let envoy = Envoy::start(&bootstrap(&options), &folder).await;
            all.push(envoy.unwrap_or_else(|e| panic!("{name} {i}: {e}")));
        }
        let fallbacks = all.split_off(1);
        let pod = all.pop().expect("the pod's proxy");
        let out = Self {
            mesh,
            cache,
            world,
            pod,
            fallbacks,
            _stop: stop,
        };
        out.settled().await;
        out
    }

    /// Lets the pod see these hosts from now on.
    async fn see(&mut self, hosts: &[&str]) {
        let next = self.mesh.seeing(hosts).world(Some(&self.world));
        self.cache.update_all(next.updates(Some(&self.world)));
        self.world = next;
        self.settled().await;
    }

    /// Waits until all proxies hold all that they are served.
    async fn settled(&self) {
        let groups = self
            .mesh
            .fallbacks
            .iter()
            .map(|a| format!("trimtab/fallback/{a}"));
        for (i, group) in ["shop/web-1".to_owned()]
            .into_iter()
            .chain(groups)
            .enumerate()
        {
            let served = self.world.of_group(&group).expect("what it is served");
            let node = format!("proxy-{i}");
            until(&format!("{group} has all"), || {
                let Some(info) = self.cache.node(&node) else {
                    return false;
                };
                [CDS, LDS, RDS].iter().all(|type_url| {
                    let of = info
                        .subscriptions
                        .iter()
                        .filter(|s| s.type_url == *type_url);
                    let all: Vec<_> = of.flat_map(|s| &s.resources).collect();
                    if let Some(refused) = all.iter().find_map(|r| r.refused.as_ref()) {
                        panic!("{group} refused: {}", refused.message);
                    }
                    let held: BTreeSet<&str> = all
                        .iter()
                        .filter(|r| r.current.is_some() && r.acked.is_some())
                        .map(|r| r.name.as_str())
                        .collect();
                    all.iter().all(|r| r.in_step())
                        && served.names(type_url).all(|n| held.contains(n))
                })
            })
            .await;
        }
    }

    fn http(&self) -> SocketAddr {
        SocketAddr::new(self.mesh.pod, self.mesh.http)
    }

    fn tcp(&self) -> SocketAddr {
        SocketAddr::new(self.mesh.pod, self.mesh.tcp)
    }

    /// Calls of HTTP that came through the fallback proxies.
    async fn detours(&self) -> u64 {
        let mut sum = 0;
        for (envoy, address) in self.fallbacks.iter().zip(&self.mesh.fallbacks) {
            let name = format!("http.{address}_{}.downstream_rq_total", self.mesh.http);
            sum += envoy.stat(&name).await.expect("a number");
        }
        sum
    }

    /// Connections of TCP that came through the fallback proxies.
    async fn tcp_detours(&self) -> u64 {
        let name = format!(
            "tcp.outbound|{}||{}.downstream_cx_total",
            self.mesh.tcp,
            host("bytes")
        );
        let mut sum = 0;
        for envoy in &self.fallbacks {
            sum += envoy.stat(&name).await.expect("a number");
        }
        sum
    }

    /// Fallback proxies that the pod's proxy does not use for a while.
    async fn put_aside(&self) -> u64 {
        let stats = self.pod.stats("cluster.").await.expect("numbers");
        let of = |(name, _): &(&String, &u64)| name.ends_with("outlier_detection.ejections_active");
        stats.iter().filter(of).map(|(_, n)| n).sum()
    }

    async fn call(&self, connection: &mut KeepAlive, name: &str) -> String {
        let request = Request::get("/").header("host", &host(name));
        let answer = connection.send(&request).await.expect("an answer");
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        answer.body.trim().to_owned()
    }

    /// Listeners that changed in the pod's proxy.
    async fn changed_listeners(&self) -> u64 {
        let name = "listener_manager.listener_modified";
        let in_place = "listener_manager.listener_in_place_updated";
        let modified = self.pod.stat(name).await.expect("a number");
        modified + self.pod.stat(in_place).await.expect("a number")
    }
}

/// A server that sends back what it gets.
async fn echo() -> SocketAddr {
    let at = loopback(free_port().expect("a port"));
    let listener = TcpListener::bind(at).await.expect("the port");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                // It ends with the connection, however that ends.
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    at
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("it is sent");
    let mut back = vec![0; text.len()];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut back));
    read.await.expect("in time").expect("an answer");
    assert_eq!(String::from_utf8_lossy(&back), text);
}

/// A mesh of `a` and `b` (HTTP) and `bytes` (TCP), whose pod has an address of its own in each test.
async fn mesh(index: u8, servers: Vec<(&'static str, SocketAddr)>, fallbacks: u8) -> Mesh {
    let of = |last| IpAddr::from([127, 79, index, last]);
    Mesh {
        http: free_port().expect("a port"),
        tcp: free_port().expect("a port"),
        servers,
        bytes: echo().await,
        pod: of(1),
        fallbacks: (0..fallbacks).map(|i| of(10 + i)).collect(),
        log: None,
    }
}

#[tokio::test]
async fn what_a_pod_does_not_see_goes_through_the_fallback_until_it_sees_it() {
    let (a, b) = (pod("a").await, pod("b").await);
    let servers = vec![("a", a.address()), ("b", b.address())];
    let mut lab = Lab::start("grow", mesh(1, servers, 1).await, &["a"]).await;
    let mut held = KeepAlive::connect(lab.http()).await.expect("the proxy");
    assert_eq!(lab.call(&mut held, "a").await, "a");
    assert_eq!(lab.detours().await, 0, "what it sees it calls itself");
    assert_eq!(lab.call(&mut held, "b").await, "b");
    assert_eq!(lab.detours().await, 1);
    let mut bytes = TcpStream::connect(lab.tcp()).await.expect("the proxy");
    say(&mut bytes, "one").await;
    assert_eq!(lab.tcp_detours().await, 1);
    let other = Request::get("/").header("host", "nobody.shop");
    let answer = held.send(&other).await.expect("an answer");
    assert_eq!(
        answer.status, 404,
        "the fallback proxy does not know it either"
    );

    lab.see(&["a", "b", "bytes"]).await;
    let before = lab.detours().await;
    assert_eq!(lab.call(&mut held, "b").await, "b");
    assert_eq!(lab.detours().await, before, "now it sees it");
    say(&mut bytes, "two").await;
    let mut direct = TcpStream::connect(lab.tcp()).await.expect("the proxy");
    say(&mut direct, "three").await;
    assert_eq!(lab.tcp_detours().await, 1);

    lab.see(&[]).await;
    assert_eq!(lab.call(&mut held, "a").await, "a");
    assert_eq!(lab.detours().await, before + 1);
    say(&mut bytes, "four").await;
    say(&mut direct, "five").await;
    let mut back = TcpStream::connect(lab.tcp()).await.expect("the proxy");
    say(&mut back, "six").await;
    assert_eq!(lab.tcp_detours().await, 2);
    assert!(held.survived().await);
    assert_eq!(lab.changed_listeners().await, 0);
}

#[tokio::test]
async fn no_call_is_lost_while_the_scope_grows_and_shrinks() {
    let (a, b) = (pod("a").await, pod("b").await);
    let servers = vec![("a", a.address()), ("b", b.address())];
    let mut lab = Lab::start("lossless", mesh(2, servers, 1).await, &[]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (http, tcp) = (lab.http(), lab.tcp());
    let callers: Vec<_> = (0..4)
        .map(|i| {
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let name = if i % 2 == 0 { "a" } else { "b" };
                let request = Request::get("/").header("host", &host(name));
                let mut connection = KeepAlive::connect(http).await.expect("the proxy");
                let (mut good, mut bad) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    match connection.send(&request).await {
                        Ok(answer) if answer.status == 200 && answer.body.trim() == name => {
                            good += 1
                        }
                        other => bad.push(format!("{other:?}")),
                    }
                    if bad.len() > 5 {
                        break;
                    }
                }
                (good, bad)
            })
        })
        .collect();
    let connecting = {
        let stop = Arc::clone(&stop);
        tokio::spawn(async move {
            let mut good = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut stream = TcpStream::connect(tcp).await.expect("the proxy");
                say(&mut stream, "hello").await;
                good += 1;
            }
            good
        })
    };
    for round in 0..12_u64 {
        let seen: &[&str] = match round % 4 {
            0 => &["a"],
            1 => &["a", "b", "bytes"],
            2 => &["b", "bytes"],
            _ => &[],
        };
        lab.see(seen).await;
        let (before, wanted) = (a.requests(), 100);
        until("calls go on", || a.requests() > before + wanted).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut sum = 0;
    for caller in callers {
        let (good, bad) = caller.await.expect("no panic");
        assert!(bad.is_empty(), "{bad:?}");
        sum += good;
    }
    assert!(sum > 2000, "{sum} calls");
    assert!(connecting.await.expect("no lost connection") > 20);
    assert!(lab.detours().await > 100);
    assert_eq!(lab.changed_listeners().await, 0);
}

#[tokio::test]
async fn the_loss_of_one_of_two_fallback_proxies_loses_no_new_call() {
    let (a, b) = (pod("a").await, pod("b").await);
    let servers = vec![("a", a.address()), ("b", b.address())];
    let mut lab = Lab::start("two", mesh(3, servers, 2).await, &[]).await;
    for round in 0..2 {
        lab.fallbacks[round].kill();
        for _ in 0..50 {
            let request = Request::get("/").header("host", &host("a"));
            let answer = send(lab.http(), &request).await.expect("an answer");
            assert_eq!(answer.status, 200, "{round}: {}", answer.body);
            let mut stream = TcpStream::connect(lab.tcp()).await.expect("the proxy");
            say(&mut stream, "hello").await;
        }
        lab.fallbacks[round].restart().await.expect("it starts");
        lab.settled().await;
        let started = Instant::now();
        while lab.put_aside().await > 0 {
            assert!(started.elapsed() < BOUND, "it is not used again");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn access_logs_tell_which_pod_called_what_before_the_call_has_ended() {
    let (a, b) = (pod("a").await, pod("b").await);
    let servers = vec![("a", a.address()), ("b", b.address())];
    let receiver = Receiver::start().await;
    let mut mesh = mesh(4, servers, 1).await;
    mesh.log = Some(receiver.address());
    let lab = Lab::start("logs", mesh, &["a"]).await;
    let mut held = KeepAlive::connect(lab.http()).await.expect("the proxy");
    assert_eq!(lab.call(&mut held, "a").await, "a");
    assert_eq!(lab.call(&mut held, "b").await, "b");
    let mut bytes = TcpStream::connect(lab.tcp()).await.expect("the proxy");
    say(&mut bytes, "one").await;
    until("both are told", || {
        let seen = receiver.seen();
        let of = |what: &str| seen.iter().any(|s| s.what == what);
        of(&host("b")) && of(&format!("{}:{}", host("bytes"), lab.mesh.tcp))
    })
    .await;
    for entry in receiver.seen() {
        assert_eq!(entry.from, lab.mesh.pod.to_string(), "{entry:?}");
        assert_eq!(entry.log, "trimtab");
        assert_ne!(entry.what, host("a"), "it is called directly");
    }
    // The connection is still open.
    say(&mut bytes, "two").await;
}

#[tokio::test]
async fn other_proxies_see_all_and_nothing_that_is_for_pods_or_the_fallback() {
    let (a, b) = (pod("a").await, pod("b").await);
    let servers = vec![("a", a.address()), ("b", b.address())];
    let mut mesh = mesh(5, servers, 1).await;
    mesh.log = Some(loopback(1));
    let world = mesh.seeing(&["a"]).world(None);
    let updates = world.updates(None);
    let stand = Stand::start_with("other", |cache| {
        cache.update_all(updates);
    })
    .await;
    for type_url in [CDS, LDS, RDS] {
        for name in world.everyone().names(type_url) {
            stand.until_held(type_url, name).await;
        }
    }
    let node = stand.cache.node(crate::lab::NODE).expect("the proxy");
    let held = node.subscriptions.iter().flat_map(|s| &s.resources);
    let names: Vec<&str> = held
        .filter(|r| r.current.is_some())
        .map(|r| r.name.as_str())
        .collect();
    assert!(names.len() > 6, "{names:?}");
    let own = mesh.pod.to_string();
    let foreign = |n: &&str| n.contains("trimtab") || n.contains(&own);
    assert_eq!(names.iter().find(|n| foreign(n)), None);
    let at = loopback(mesh.http);
    for name in ["a", "b"] {
        let answer = send(at, &Request::get("/").header("host", &host(name))).await;
        assert_eq!(answer.expect("an answer").body.trim(), name);
    }
}
