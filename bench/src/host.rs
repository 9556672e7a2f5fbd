//! Everything around the operator, in a process of its own: the embedded API over HTTP, and metrics.
//!
//! The operator then has its own memory and CPU time, and pays for HTTP and JSON as it does in a cluster.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use kube::Api;
use kube::api::ListParams;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, Command};
use tokio_util::sync::CancellationToken;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::{LimiterStatus, first_form, v1alpha2};
use trimtab_embedded::Embedded;

use crate::mesh::Mesh;

/// Where the two servers listen: the first line that the process prints.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// The Kubernetes API.
    pub api: SocketAddr,
    /// Metrics, as Prometheus answers and as it scrapes, and the control of this host.
    pub metrics: SocketAddr,
}

/// What the API has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that changed an object.
    pub writes: u64,
    /// Of these, status.
    pub status: u64,
    /// Requests to change an object, those included that changed nothing.
    pub asked: u64,
    /// Instant queries.
    pub queries: u64,
}

/// What the API holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Limiters with a limit in their status.
    pub limiting: usize,
    /// Limiters with any status.
    pub with_status: usize,
    /// Generated EnvoyFilters.
    pub filters: usize,
}

/// New values: each is kept when absent.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Control {
    value: Option<f64>,
    moving: Option<bool>,
}

struct Host {
    embedded: Embedded,
    mesh: Mesh,
    value: Mutex<f64>,
    moving: AtomicBool,
    queries: AtomicU64,
    rounds: AtomicU64,
}

/// Runs the host until standard input ends.
pub async fn serve(mesh: Mesh) -> anyhow::Result<()> {
    let embedded = trimtab::standalone::embedded()?;
    mesh.load(&embedded)?;
    // Every object changes several times in a burst; a real API server keeps minutes of history.
    embedded.set_history(mesh.limiters.max(1000) * 8);
    let host = Arc::new(Host {
        embedded: embedded.clone(),
        mesh,
        value: Mutex::new(0.9),
        moving: AtomicBool::new(false),
        queries: AtomicU64::new(0),
        rounds: AtomicU64::new(0),
    });
    let app = Router::new()
        .route("/api/v1/query", get(query).post(query))
        .route("/metrics", get(exposition))
        .route("/control", get(control))
        .route("/counts", get(counts))
        .route("/held", get(held))
        .with_state(host);
    let (api, metrics) = (bind().await?, bind().await?);
    let addresses = Addresses {
        api: api.local_addr()?,
        metrics: metrics.local_addr()?,
    };
    println!("{}", serde_json::to_string(&addresses)?);
    let shutdown = CancellationToken::new();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(end);
    });
    tokio::select! {
        ended = embedded.serve(api, shutdown) => ended.context("the API ended"),
        ended = axum::serve(metrics, app) => ended.context("the metrics endpoint ended"),
        _ = ended => Ok(()),
    }
}

async fn bind() -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("no free port on loopback")
}

impl Host {
    /// Value of a pod. Pods differ a little; moving values differ a little from answer to answer, too.
    fn value(&self, pod: usize, round: u64) -> f64 {
        let shift = if self.moving.load(Ordering::Relaxed) {
            usize::try_from(round).unwrap_or(0)
        } else {
            0
        };
        *self.value.lock() + ((pod + shift) % 10) as f64 * 0.001
    }

    /// Calls `write` for each pod with namespace, name and value.
    fn each(&self, mut write: impl FnMut(&str, &str, f64)) {
        let round = self.rounds.fetch_add(1, Ordering::Relaxed);
        for pod in 0..self.mesh.pods {
            let (namespace, name) = self.mesh.pod_name(pod);
            write(&namespace, &name, self.value(pod, round));
        }
    }
}

/// Answers any query with one series for each pod.
async fn query(State(host): State<Arc<Host>>) -> impl IntoResponse {
    host.queries.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    let mut body = String::from(r#"{"status":"success","data":{"resultType":"vector","result":["#);
    host.each(|namespace, name, value| {
        let comma = if body.ends_with('[') { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(body, r#"{comma}{{"metric":{{"namespace":"{namespace}","pod":"{name}"}},"value":[{now:.3},"{value:.3}"]}}"#);
    });
    body.push_str("]}}");
    ([(header::CONTENT_TYPE, "application/json")], body)
}

/// The same values for a Prometheus to scrape.
async fn exposition(State(host): State<Arc<Host>>) -> String {
    let mut text = String::from("# TYPE workload_cpu_ratio gauge\n");
    host.each(|namespace, name, value| {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "workload_cpu_ratio{{namespace=\"{namespace}\",pod=\"{name}\"}} {value:.3}"
        );
    });
    text
}

async fn control(State(host): State<Arc<Host>>, Query(new): Query<Control>) -> &'static str {
    if let Some(value) = new.value {
        *host.value.lock() = value;
    }
    if let Some(moving) = new.moving {
        host.moving.store(moving, Ordering::Relaxed);
    }
    "ok\n"
}

async fn counts(State(host): State<Arc<Host>>) -> Json<Counts> {
    let requests = |verb: &str| -> u64 {
        let kinds = ["smartlimiters", "smartlimiters/status", "envoyfilters"];
        kinds
            .into_iter()
            .map(|kind| host.embedded.requests(kind, verb))
            .sum()
    };
    Json(Counts {
        writes: host.embedded.write_count(),
        status: host.embedded.writes("smartlimiters/status", "apply"),
        asked: ["create", "update", "patch", "delete", "deletecollection"]
            .into_iter()
            .map(requests)
            .sum(),
        queries: host.queries.load(Ordering::Relaxed),
    })
}

async fn held(State(host): State<Arc<Host>>) -> Result<Json<Held>, String> {
    let client = host.embedded.client();
    let all = ListParams::default();
    let first = Api::<first_form::SmartLimiter>::all(client.clone())
        .list(&all)
        .await
        .map_err(|e| e.to_string())?;
    let newer = Api::<v1alpha2::SmartLimiter>::all(client.clone())
        .list(&all)
        .await
        .map_err(|e| e.to_string())?;
    let filters = Api::<EnvoyFilter>::all(client)
        .list(&all)
        .await
        .map_err(|e| e.to_string())?;
    let statuses: Vec<LimiterStatus> = first
        .into_iter()
        .filter_map(|l| l.status)
        .chain(newer.into_iter().filter_map(|l| l.status))
        .collect();
    Ok(Json(Held {
        limiting: statuses
            .iter()
            .filter(|s| s.descriptors.iter().any(|d| d.quota.is_some()))
            .count(),
        with_status: statuses.len(),
        filters: filters.items.len(),
    }))
}

/// A host in another process; ends with it.
#[derive(Debug)]
pub struct Remote {
    /// Where it listens.
    pub addresses: Addresses,
    child: Child,
    /// Its end is the sign to stop.
    input: Option<ChildStdin>,
}

impl Remote {
    /// Starts this program again with `--host`.
    pub async fn start(mesh: Mesh) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([
                "--host",
                "--limiters",
                &mesh.limiters.to_string(),
                "--pods",
                &mesh.pods.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the host cannot be started")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("the host has no output")?;
        let line = BufReader::new(output)
            .lines()
            .next_line()
            .await?
            .context("the host ended before it was ready")?;
        Ok(Self {
            addresses: serde_json::from_str(&line)?,
            child,
            input,
        })
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        Ok(trimtab_lab::http::get(self.addresses.metrics, path).await?)
    }

    /// Sets the value of all pods.
    pub async fn set_value(&self, value: f64) -> anyhow::Result<()> {
        self.get(&format!("/control?value={value}")).await.map(drop)
    }

    /// Whether values move from answer to answer.
    pub async fn set_moving(&self, moving: bool) -> anyhow::Result<()> {
        self.get(&format!("/control?moving={moving}"))
            .await
            .map(drop)
    }

    /// What the API has seen.
    pub async fn counts(&self) -> anyhow::Result<Counts> {
        Ok(serde_json::from_str(&self.get("/counts").await?)?)
    }

    /// What the API holds.
    pub async fn held(&self) -> anyhow::Result<Held> {
        let text = self.get("/held").await?;
        serde_json::from_str(&text).with_context(|| text)
    }

    /// Stops it and waits.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.input.take());
        self.child.wait().await?;
        Ok(())
    }
}
