//! A pod whose proxy sees a part of the services, and the fallback proxy that carries the rest.
//!
//! Proxies and pods have addresses of 127.0.0.0/8, all on this machine.

mod calls;
mod losses;
mod operator;
mod protocols;
mod streams;
mod views;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trimtab_dataplane::{FallbackInput, HttpLimit, Snapshot, bootstrap};
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{KeepAlive, Request};
use trimtab_lab::ports::{free_port, loopback};
use trimtab_xds::{CDS, LDS, RDS, ResourceCache, ServerOptions};

use crate::cases::{Case, Pod};
use crate::http::{case, endpoints};
use crate::lab::{folder, options, server, until};

/// The services, their ports and where they are.
pub(super) struct Mesh {
    pub(super) http: u16,
    pub(super) tcp: u16,
    pub(super) servers: Vec<(&'static str, SocketAddr)>,
    pub(super) bytes: SocketAddr,
    /// A service of gRPC, at its port.
    pub(super) calls: Option<(u16, SocketAddr)>,
    pub(super) limits: Vec<HttpLimit>,
    /// Other objects.
    pub(super) more: Vec<Value>,
    pub(super) pod: IpAddr,
    pub(super) fallbacks: Vec<IpAddr>,
    pub(super) log: Option<SocketAddr>,
}

pub(super) fn host(name: &str) -> String {
    format!("{name}.shop.svc.cluster.local")
}

impl Mesh {
    /// The mesh where the pod sees these hosts.
    pub(super) fn seeing(&self, hosts: &[&str]) -> Case {
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
        if let Some((port, at)) = self.calls {
            objects.push(service("calls", "grpc", port));
            objects.push(endpoints("calls", "grpc", "v1", &[at]));
        }
        objects.extend(self.more.iter().cloned());
        let hosts: Vec<String> = hosts.iter().map(|h| format!("./{}", host(h))).collect();
        let hosts = if hosts.is_empty() {
            vec!["~/*".to_owned()]
        } else {
            hosts
        };
        objects.push(json!({"kind": "Sidecar", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"workloadSelector": {"labels": {"app": "web"}}, "egress": [{"hosts": hosts}]}}));
        let mut out = case(objects);
        out.limits.clone_from(&self.limits);
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
pub(super) struct Lab {
    pub(super) mesh: Mesh,
    pub(super) cache: ResourceCache,
    pub(super) snapshot: Snapshot,
    pub(super) pod: Envoy,
    pub(super) fallbacks: Vec<Envoy>,
    _stop: tokio_util::sync::DropGuard,
}

impl Lab {
    pub(super) async fn start(name: &str, mesh: Mesh, seen: &[&str]) -> Self {
        let cache = ResourceCache::new();
        let snapshot = mesh.seeing(seen).snapshot(None);
        cache.update_all(snapshot.updates(None));
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
            snapshot,
            pod,
            fallbacks,
            _stop: stop,
        };
        out.settled().await;
        out
    }

    /// Lets the pod see these hosts from now on.
    pub(super) async fn see(&mut self, hosts: &[&str]) {
        let next = self.mesh.seeing(hosts).snapshot(Some(&self.snapshot));
        self.cache.update_all(next.updates(Some(&self.snapshot)));
        self.snapshot = next;
        self.settled().await;
    }

    /// Waits until all proxies hold all that they are served.
    pub(super) async fn settled(&self) {
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
            let served = self.snapshot.of_group(&group).expect("what it is served");
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
                    all.iter().all(|r| r.is_synced())
                        && served.names(type_url).all(|n| held.contains(n))
                })
            })
            .await;
        }
    }

    pub(super) fn http(&self) -> SocketAddr {
        SocketAddr::new(self.mesh.pod, self.mesh.http)
    }

    pub(super) fn tcp(&self) -> SocketAddr {
        SocketAddr::new(self.mesh.pod, self.mesh.tcp)
    }

    /// Calls of HTTP that came through the fallback proxies.
    pub(super) async fn detours(&self) -> u64 {
        let mut sum = 0;
        for (envoy, address) in self.fallbacks.iter().zip(&self.mesh.fallbacks) {
            let name = format!("http.{address}_{}.downstream_rq_total", self.mesh.http);
            sum += envoy.stat(&name).await.expect("a number");
        }
        sum
    }

    /// Connections of TCP that came through the fallback proxies.
    pub(super) async fn tcp_detours(&self) -> u64 {
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
    pub(super) async fn put_aside(&self) -> u64 {
        let stats = self.pod.stats("cluster.").await.expect("numbers");
        let of = |(name, _): &(&String, &u64)| name.ends_with("outlier_detection.ejections_active");
        stats.iter().filter(of).map(|(_, n)| n).sum()
    }

    pub(super) async fn call(&self, connection: &mut KeepAlive, name: &str) -> String {
        let request = Request::get("/").header("host", &host(name));
        let answer = connection.send(&request).await.expect("an answer");
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        answer.body.trim().to_owned()
    }

    /// Listeners that changed in the pod's proxy.
    pub(super) async fn changed_listeners(&self) -> u64 {
        let name = "listener_manager.listener_modified";
        let in_place = "listener_manager.listener_in_place_updated";
        let modified = self.pod.stat(name).await.expect("a number");
        modified + self.pod.stat(in_place).await.expect("a number")
    }
}

/// A server that sends back what it gets.
pub(super) async fn echo() -> SocketAddr {
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

pub(super) async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("it is sent");
    let mut back = vec![0; text.len()];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut back));
    read.await.expect("in time").expect("an answer");
    assert_eq!(String::from_utf8_lossy(&back), text);
}

/// A mesh of `a` and `b` (HTTP) and `bytes` (TCP), whose pod has an address of its own in each test.
pub(super) async fn mesh(
    index: u8,
    servers: Vec<(&'static str, SocketAddr)>,
    fallbacks: u8,
) -> Mesh {
    let of = |last| IpAddr::from([127, 79, index, last]);
    Mesh {
        http: free_port().expect("a port"),
        tcp: free_port().expect("a port"),
        servers,
        bytes: echo().await,
        calls: None,
        limits: Vec::new(),
        more: Vec::new(),
        pod: of(1),
        fallbacks: (0..fallbacks).map(|i| of(10 + i)).collect(),
        log: None,
    }
}
