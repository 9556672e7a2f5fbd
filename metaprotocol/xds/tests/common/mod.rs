//! A server on a free port.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trimtab_xds::{ResourceCache, ServeError, ServerOptions, serve_with};

/// Far more than anything here takes; only a hang reaches it.
pub const BOUND: Duration = Duration::from_secs(10);

pub struct Server {
    pub cache: ResourceCache,
    pub addr: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub async fn start() -> Self {
        let cache = ResourceCache::new();
        cache.mark_ready();
        Self::start_with(cache).await
    }

    pub async fn start_with(cache: ResourceCache) -> Self {
        Self::start_as(cache, ServerOptions::default()).await
    }

    pub async fn start_as(cache: ResourceCache, options: ServerOptions) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve_with(
            cache.clone(),
            listener,
            options,
            shutdown.clone(),
        ));
        Self {
            cache,
            addr,
            shutdown,
            task,
        }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(BOUND, self.task)
            .await
            .expect("the server stops");
        ended.expect("no panic").expect("no error");
    }
}

pub async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < BOUND, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
