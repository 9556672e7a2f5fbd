//! What scoping saves, on real programs: istiod with a proxy for each Service of a mesh, and one Envoy, without fences, with
//! fences of mode `Exclude` and of mode `Enforce`; and whether Trimtab's prediction of it is right.
//!
//! Prometheus is played: it says who calls whom. Everything else is real: API server, istiod, Envoy, the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Service;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab_bench::savings::Proxies;
use trimtab_bench::synthetic::{Kind, Synthetic, synthetic};
use trimtab_cluster::{Cluster, Istiod, Minor, Namespace, Pod, Proxy};
use trimtab_crds::fence::{ScopeSize, ServiceFence};
use trimtab_crds::istio::Sidecar;
use trimtab_lab::http::get;

/// Longest wait for Sidecars.
const BOUND: Duration = Duration::from_secs(300);
/// A push is over when nothing came for so long.
const QUIET: Duration = Duration::from_secs(2);
const PORT: u16 = 8080;

/// Measures what scoping saves.
#[derive(Debug, Parser)]
struct Args {
    /// Services, each with a pod.
    #[arg(long, default_value_t = 400)]
    services: usize,
    /// Mean number of services that each calls.
    #[arg(long, default_value_t = 5)]
    degree: usize,
    /// Services that are changed, one after the other.
    #[arg(long, default_value_t = 20)]
    changes: usize,
    /// Seed of the mesh.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Who calls whom: caller's pod and namespace, host.
type Calls = BTreeSet<(String, String, String)>;

/// The mesh in the API server.
struct World {
    args: Args,
    client: Client,
    services: Vec<(String, String)>,
    pods: Vec<Pod>,
    calls: Calls,
}

/// What one way of scoping costs.
#[derive(Debug, Default)]
struct Figures {
    istiod_rss: f64,
    connect_cpu: f64,
    config: u64,
    change_cpu: f64,
    change_bytes: u64,
    envoy_bytes: u64,
    by_type: Vec<u64>,
    envoy_allocated: u64,
    envoy_physical: u64,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new();
    let done = runtime
        .context("no runtime")
        .and_then(|runtime| runtime.block_on(run(Args::parse())));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "savings: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let world = World::create(&cluster, args).await?;
    let (telemetry, _guard) = play_prometheus(world.calls.clone()).await?;
    let mut table = Vec::new();
    table.push(("no fences", world.measure(&cluster).await?, None));
    for mode in ["Exclude", "Enforce"] {
        let sizes = world.fence(&cluster, telemetry, mode).await?;
        table.push((mode, world.measure(&cluster).await?, Some(sizes)));
    }
    report(&world, &table)
}

impl World {
    /// Services with one ready pod each, in namespaces of twenty.
    async fn create(cluster: &Cluster, args: Args) -> anyhow::Result<Self> {
        let mesh = synthetic(args.services, args.degree, args.seed);
        let client = cluster.client().await?;
        let plain = |s: &&trimtab_bench::synthetic::Service| {
            matches!(s.kind, Kind::Plain | Kind::Redirect(_))
        };
        let services: Vec<_> = mesh.services.iter().filter(plain).collect();
        let names: BTreeSet<&str> = services.iter().map(|s| &*s.namespace).collect();
        let mut namespaces = BTreeMap::new();
        for name in names {
            namespaces.insert(name, Namespace::named(cluster, name).await?);
        }
        let make = futures::stream::iter(services.iter().enumerate()).map(|(n, s)| {
            let (namespace, client) = (&namespaces[&*s.namespace], client.clone());
            async move {
                let api: Api<Service> = Api::namespaced(client, &s.namespace);
                let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": s.name},
                    "spec": {"selector": {"app": s.name}, "ports": [port_of(n)]}});
                api.create(&kube::api::PostParams::default(), &serde_json::from_value(object)?)
                    .await?;
                let (name, labels) = (format!("{}-0", s.name), [("app", &*s.name)]);
                // An Envoy stands for the first.
                let pod = match n.checked_sub(1) {
                    None => namespace.pod(&name, &labels).await?,
                    Some(n) => namespace.pod_at(address(n)?, &name, &labels).await?,
                };
                anyhow::Ok(pod)
            }
        });
        let pods: Vec<Pod> = make.buffered(16).try_collect().await?;
        let services = services
            .iter()
            .map(|s| (s.namespace.clone(), s.name.clone()))
            .collect();
        Ok(Self {
            calls: calls(&mesh),
            args,
            client,
            services,
            pods,
        })
    }

    /// Puts a fence on each Service and waits until each has the Sidecar that it will keep. The sizes that Trimtab says.
    async fn fence(
        &self,
        cluster: &Cluster,
        telemetry: SocketAddr,
        mode: &str,
    ) -> anyhow::Result<BTreeMap<String, ScopeSize>> {
        let istiod = Istiod::start(cluster).await?;
        let operator = operator(cluster, telemetry, istiod.monitoring()).await?;
        for (namespace, name) in &self.services {
            let api: Api<ServiceFence> = Api::namespaced(self.client.clone(), namespace);
            let fence = json!({"apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
                "metadata": {"name": name}, "spec": {"enable": true, "mode": mode}});
            api.patch(
                name,
                &PatchParams::apply("savings").force(),
                &Patch::Apply(fence),
            )
            .await?;
        }
        let sidecars: Api<Sidecar> = Api::all(self.client.clone());
        let entries = || async {
            let all = sidecars.list(&ListParams::default()).await?;
            let entries = all.items.into_iter().map(|s| {
                let hosts = s.spec.egress.iter().flat_map(|e| e.hosts.clone());
                (
                    format!("{}/{}", s.namespace().unwrap_or_default(), s.name_any()),
                    hosts.collect::<Vec<_>>(),
                )
            });
            anyhow::Ok(entries.collect::<BTreeMap<_, _>>())
        };
        let start = Instant::now();
        let (mut last, mut since) = (BTreeMap::new(), Instant::now());
        loop {
            let now = entries().await?;
            let right = |hosts: &Vec<String>| {
                hosts.iter().any(|h| h.starts_with('~')) == (mode == "Exclude")
            };
            if now != last || now.len() < self.services.len() || !now.values().all(right) {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > Duration::from_secs(15) {
                break;
            }
            ensure!(
                start.elapsed() < BOUND,
                "{} of {} Sidecars of mode {mode} in {BOUND:?}, {} of them as they should be",
                last.len(),
                self.services.len(),
                last.values().filter(|hosts| right(hosts)).count()
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let fences: Api<ServiceFence> = Api::all(self.client.clone());
        let fences = fences.list(&ListParams::default()).await?.items.into_iter();
        let sizes = fences.filter_map(|f| {
            let name = format!("{}/{}", f.namespace()?, f.name_any());
            Some((name, f.status?.scope?))
        });
        let sizes = sizes.collect();
        operator.stop().await?;
        Ok(sizes)
    }

    /// A new istiod with a proxy for each pod, and changes of Services; then one Envoy.
    async fn measure(&self, cluster: &Cluster) -> anyhow::Result<Figures> {
        let mut figures = self.measure_istiod(cluster).await?;
        // Envoys of this machine have no certificates: this istiod configures none.
        let istiod = Istiod::start(cluster).await?;
        let envoy = Proxy::start(cluster, &istiod, &self.pods[0]).await?;
        figures.envoy_allocated = envoy.envoy().stat("server.memory_allocated").await?;
        figures.envoy_physical = envoy.envoy().stat("server.memory_physical_size").await?;
        Ok(figures)
    }

    /// With automatic mutual TLS, which is Istio's default.
    async fn measure_istiod(&self, cluster: &Cluster) -> anyhow::Result<Figures> {
        let mtls = json!({"enableAutoMtls": true});
        let istiod = Istiod::start_with(cluster, Minor::Newest, &mtls).await?;
        let policy = [
            "-n",
            "istio-system",
            "delete",
            "peerauthentication",
            "default",
        ];
        cluster.kubectl(&policy, "").await?;
        let cpu = || async { metric(istiod.monitoring(), "process_cpu_seconds_total").await };
        let before = cpu().await?;
        let proxies = Proxies::connect(&istiod, &self.pods).await?;
        proxies.settle(QUIET).await;
        ensure!(
            proxies.held().all(|bytes| bytes > 0),
            "istiod refused a proxy"
        );
        let mut figures = Figures {
            connect_cpu: cpu().await? - before,
            config: proxies.held().sum(),
            envoy_bytes: proxies.held().next().unwrap_or_default(),
            by_type: proxies.by_type(),
            ..Figures::default()
        };
        let (before, received) = (cpu().await?, proxies.pushed());
        for n in 0..self.args.changes {
            self.change(n).await?;
            proxies.settle(QUIET).await;
        }
        let changes = self.args.changes as f64;
        figures.change_cpu = (cpu().await? - before) / changes;
        figures.change_bytes = (proxies.pushed() - received) / self.args.changes as u64;
        figures.istiod_rss = metric(istiod.monitoring(), "process_resident_memory_bytes").await?;
        Ok(figures)
    }

    /// Gives one Service another target port, and later the old one again.
    async fn change(&self, n: usize) -> anyhow::Result<()> {
        let at = n / 2 * 37 % self.services.len();
        let (namespace, name) = &self.services[at];
        let api: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let mut ports = vec![port_of(at)];
        if n.is_multiple_of(2) {
            ports.push(json!({"name": "http-more", "port": 9090}));
        }
        let patch = json!({"spec": {"ports": ports}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }
}

/// The port of a Service: every tenth speaks a protocol that istiod does not know.
fn port_of(n: usize) -> Value {
    if n % 10 == 9 {
        json!({"name": "tcp", "port": 5432})
    } else {
        json!({"name": "http", "port": PORT})
    }
}

/// An address that no process has.
fn address(n: usize) -> anyhow::Result<Ipv4Addr> {
    let (block, host) = (u8::try_from(n / 250)?, u8::try_from(n % 250)?);
    Ok(Ipv4Addr::new(198, 19, block, host + 1))
}

fn calls(mesh: &Synthetic) -> Calls {
    let known: BTreeSet<String> = mesh
        .services
        .iter()
        .filter(|s| matches!(s.kind, Kind::Plain | Kind::Redirect(_)))
        .map(trimtab_bench::synthetic::Service::host)
        .collect();
    let edges = mesh.edges.iter().flat_map(|edge| {
        let (caller, _) = &mesh.callers[edge.caller];
        let hosts = edge.needs.iter().filter(|host| known.contains(*host));
        hosts.map(|h| {
            (
                format!("{}-0", caller.workload),
                caller.namespace.to_string(),
                h.clone(),
            )
        })
    });
    let mut calls: Calls = edges.collect();
    // A workload without calls has no series, so nothing is known of it: each calls the first Service at least.
    let first = mesh
        .services
        .first()
        .map(trimtab_bench::synthetic::Service::host);
    for (caller, host) in mesh
        .callers
        .iter()
        .filter_map(|(c, _)| Some((c, first.clone()?)))
    {
        calls.insert((
            format!("{}-0", caller.workload),
            caller.namespace.to_string(),
            host,
        ));
    }
    calls
}

async fn operator(
    cluster: &Cluster,
    telemetry: SocketAddr,
    istiod: SocketAddr,
) -> anyhow::Result<Operator> {
    let text = json!({
        "retention": {"min": "8s", "grace": "10s"},
        "learn": {"prometheus": {"address": format!("http://{telemetry}"), "interval": "1s", "timeout": "30s"}},
        "writes": {"gather": "20ms", "perMinute": 100_000},
        "fallback": {"enabled": false},
        "exclusions": {"istiod": format!("http://{istiod}")},
    });
    let mut config = Config::default();
    let lazyload = serde_json::from_value(text)?;
    config.modules.insert("lazyload".to_owned(), lazyload);
    let off = serde_json::from_value(json!({"enabled": false}))?;
    config.modules.insert("metaprotocol".to_owned(), off);
    config.check()?;
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    // It exists when another mode made it.
    let _ = cluster
        .kubectl(&["create", "namespace", "trimtab-system"], "")
        .await;
    let client = cluster.client().await?;
    let operator = Operator::start(config, client, CancellationToken::new()).await;
    operator.context("the operator")
}

struct Telemetry {
    calls: Calls,
    asked: AtomicU64,
}

async fn play_prometheus(calls: Calls) -> anyhow::Result<(SocketAddr, DropGuard)> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let state = Arc::new(Telemetry {
        calls,
        asked: AtomicU64::new(0),
    });
    let app = Router::new()
        .route("/api/v1/query", post(answer))
        .with_state(state);
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    tokio::spawn(stop.run_until_cancelled_owned(async move { axum::serve(listener, app).await }));
    Ok((address, guard))
}

/// Counters that rise with each query.
async fn answer(State(state): State<Arc<Telemetry>>, query: String) -> Json<Value> {
    let count = state.asked.fetch_add(1, Ordering::Relaxed) + 1;
    let row = |(workload, namespace, host): &(String, String, String)| {
        json!({"metric": {
            "source_workload": workload, "source_workload_namespace": namespace, "destination_service": host,
            "destination_service_namespace": host.split('.').nth(1), "reporter": "source",
        }, "value": [0.0, count.to_string()]})
    };
    let rows: Vec<Value> = if query.contains("tcp") {
        Vec::new()
    } else {
        state.calls.iter().map(row).collect()
    };
    Json(json!({"status": "success", "data": {"resultType": "vector", "result": rows}}))
}

async fn metric(address: SocketAddr, name: &str) -> anyhow::Result<f64> {
    let text = get(address, "/metrics").await?;
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    let value = line.with_context(|| format!("istiod has no series {name}"))?;
    Ok(value.trim().parse()?)
}

type Row = (&'static str, Figures, Option<BTreeMap<String, ScopeSize>>);

fn report(world: &World, table: &[Row]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    writeln!(
        out,
        "{} Services and proxies, {} calls among them\n\n| | istiod RSS | istiod CPU to connect all | all configuration | CPU of a changed Service | pushed for it | configuration of one proxy | its Envoy: allocated | physical |\n|---|---|---|---|---|---|---|---|---|",
        world.services.len(),
        world.calls.len(),
    )?;
    for (mode, f, _) in table {
        writeln!(
            out,
            "| {mode} | {:.0} MiB | {:.1} s | {:.1} MiB | {:.0} ms | {:.1} KiB | {:.1} KiB | {:.1} MiB | {:.1} MiB |",
            mib(f.istiod_rss),
            f.connect_cpu,
            mib(f.config as f64),
            f.change_cpu * 1e3,
            f.change_bytes as f64 / 1024.0,
            f.envoy_bytes as f64 / 1024.0,
            mib(f.envoy_allocated as f64),
            mib(f.envoy_physical as f64),
        )?;
    }
    for (mode, f, _) in table {
        writeln!(
            out,
            "{mode}: clusters, endpoints, listeners and routes of one proxy {:?} bytes",
            f.by_type
        )?;
    }
    let Some((_, whole, _)) = table.first() else {
        bail!("nothing was measured");
    };
    let first = world
        .services
        .first()
        .map(|(ns, name)| format!("{ns}/{name}"));
    for (mode, f, sizes) in table {
        let Some(sizes) = sizes else { continue };
        let Some(size) = first.as_ref().and_then(|name| sizes.get(name)) else {
            bail!("the fence of the Envoy has no size");
        };
        let all: i64 = sizes.values().map(|s| s.bytes).sum();
        let error = |said: i64, is: u64| 100.0 * (said as f64 / is as f64 - 1.0);
        writeln!(
            out,
            "\nmode {mode}, what Trimtab says against what is: {} of {} services; one proxy {} of {} bytes ({:+.0} %, {:+.0} %); all proxies {} ({:+.0} %)",
            size.services,
            size.mesh_services,
            size.bytes,
            size.mesh_bytes,
            error(size.bytes, f.envoy_bytes),
            error(size.mesh_bytes, whole.envoy_bytes),
            all,
            error(all, f.config),
        )?;
    }
    Ok(())
}
