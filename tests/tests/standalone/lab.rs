//! The xDS server, and an Envoy that knows nothing but its bootstrap.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};
use trimtab_dataplane::{BootstrapOptions, Served, bootstrap};
use trimtab_lab::envoy::Envoy;
use trimtab_lab::ports::free_address;
use trimtab_xds::{ResourceCache, ResourceInfo, Scope, ServerOptions, serve_with};

/// Far more than anything here takes; only a hang reaches it.
pub(crate) const BOUND: Duration = Duration::from_secs(30);
pub(crate) const NODE: &str = "proxy-1";

/// A server with a proxy.
pub(crate) struct Fixture {
    pub envoy: Envoy,
    pub cache: ResourceCache,
    served: Served,
    _stop: DropGuard,
}

/// Serves a cache; where, and what ends it.
pub(crate) async fn server(
    cache: &ResourceCache,
    options: ServerOptions,
) -> (SocketAddr, DropGuard) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("its address");
    let stop = CancellationToken::new();
    tokio::spawn(serve_with(cache.clone(), listener, options, stop.clone()));
    (address, stop.drop_guard())
}

/// The options of a bootstrap for a server, with a free admin port.
pub(crate) fn options(server: SocketAddr) -> BootstrapOptions {
    let mut options = BootstrapOptions::new(NODE, server.to_string().parse().expect("an address"));
    options.admin = free_address().expect("a port");
    options
}

impl Fixture {
    /// A proxy that is served this, ready when this returns.
    pub(crate) async fn start(name: &str, served: &Served) -> Self {
        let all = served.updates(None, &Scope::All);
        let mut out = Self::start_with(name, |cache| {
            cache.update_all(all);
        })
        .await;
        out.served = served.clone();
        out
    }

    /// A proxy of a server that is filled by this.
    pub(crate) async fn start_with(name: &str, fill: impl FnOnce(&ResourceCache)) -> Self {
        Self::start_as(name, None, fill).await
    }

    /// The same with a proxy of a group.
    pub(crate) async fn start_as(
        name: &str,
        group: Option<&str>,
        fill: impl FnOnce(&ResourceCache),
    ) -> Self {
        let cache = ResourceCache::new();
        fill(&cache);
        cache.mark_ready();
        let (address, stop) = server(&cache, ServerOptions::default()).await;
        let mut options = options(address);
        options.group = group.map(str::to_owned);
        let config = bootstrap(&options);
        let envoy = Envoy::start(&config, &folder(name)).await;
        Self {
            envoy: envoy.unwrap_or_else(|e| panic!("{name}: {e}")),
            cache,
            served: Served::default(),
            _stop: stop,
        }
    }

    /// What was served last.
    pub(crate) fn served(&self) -> &Served {
        &self.served
    }

    /// Serves this from now on, and waits until the proxy holds all that it asks for.
    pub(crate) async fn publish(&mut self, served: Served) {
        let updates = served.updates(Some(&self.served), &Scope::All);
        let changed: Vec<(String, String)> = updates
            .iter()
            .flat_map(|u| {
                u.set
                    .iter()
                    .map(|s| (u.type_url.clone(), s.resource.name.clone()))
            })
            .collect();
        self.cache.update_all(updates);
        for (type_url, name) in changed {
            self.until_held(&type_url, &name).await;
        }
        self.served = served;
    }

    fn held(&self, type_url: &str, name: &str) -> Option<ResourceInfo> {
        let node = self.cache.node(NODE)?;
        let of_type = node
            .subscriptions
            .into_iter()
            .filter(|s| s.type_url == type_url);
        of_type.flat_map(|s| s.resources).find(|r| r.name == name)
    }

    /// Waits until the proxy has accepted the current content; a refusal fails the test with the proxy's reason.
    pub(crate) async fn until_held(&self, type_url: &str, name: &str) {
        let what = format!("{type_url} {name}");
        until(&what, || {
            let held = self.held(type_url, name);
            if let Some(refused) = held.as_ref().and_then(|h| h.refused.as_ref()) {
                panic!("{what}: {}", refused.message);
            }
            held.is_some_and(|h| h.current.is_some() && h.is_synced())
        })
        .await;
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < BOUND, "it never came so far: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A fresh folder.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("standalone-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}
