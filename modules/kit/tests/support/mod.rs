//! A real Prometheus and something for it to scrape.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that cannot go on ends its test"
)]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use parking_lot::Mutex;

/// How long a condition may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Waits until `probe` gives something. `what` is what the failure message says.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Serves a text of metrics that the test can change.
pub struct Exporter {
    pub address: SocketAddr,
    text: Arc<Mutex<String>>,
    server: tokio::task::JoinHandle<()>,
}

impl Exporter {
    pub async fn start(text: &str) -> Self {
        let text = Arc::new(Mutex::new(text.to_owned()));
        let shown = Arc::clone(&text);
        let app = Router::new().route("/metrics", get(move || async move { shown.lock().clone() }));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            text,
            server,
        }
    }

    pub fn set(&self, text: &str) {
        text.clone_into(&mut self.text.lock());
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A Prometheus process with its own data directory and port.
pub struct Prometheus {
    pub port: u16,
    dir: PathBuf,
    child: Option<Child>,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes `target` five times a second and waits until it answers.
    pub async fn start(target: SocketAddr) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("prometheus-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let config = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\n\
             scrape_configs: [{{job_name: t, static_configs: [{{targets: [\"{target}\"]}}], honor_labels: true, \
             metric_relabel_configs: [{{regex: \"instance|job\", action: labeldrop}}]}}]\n"
        );
        std::fs::write(dir.join("prometheus.yml"), config).unwrap();
        let mut prometheus = Self {
            port: free_port(),
            dir,
            child: None,
        };
        prometheus.restart().await;
        prometheus
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts again after [`Self::kill`] on the same data and port.
    pub async fn restart(&mut self) {
        assert!(self.child.is_none(), "still running");
        let binary = binary();
        let log = std::fs::File::create(self.dir.join("log")).unwrap();
        let child = Command::new(&binary)
            .arg(format!(
                "--config.file={}",
                self.dir.join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                self.dir.join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| {
                panic!("{} does not start: {e}; run `make deps`", binary.display())
            });
        self.child = Some(child);
        let url = format!("{}/-/ready", self.url());
        let start = Instant::now();
        while !ready(&url).await {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().unwrap());
            let log = || std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(ended.is_none(), "Prometheus ended: {}", log());
            assert!(
                start.elapsed() < PATIENCE,
                "Prometheus is not ready: {}",
                log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the process without warning, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn ready(url: &str) -> bool {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client
        .get(url)
        .send()
        .await
        .is_ok_and(|r| r.status().is_success())
}

/// `PROMETHEUS_BIN`, or the first `prometheus` of PATH.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("PROMETHEUS_BIN") {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("prometheus"))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!("no `prometheus` in PATH and PROMETHEUS_BIN is not set; run `make deps`")
        })
}
