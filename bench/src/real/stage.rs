//! The real parts: pods with a pool of workers and an Envoy each, and a Prometheus.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use trimtab_lab::envoy::{Envoy, istio_runtime};
use trimtab_lab::http::{Request, send};
use trimtab_lab::ports::free_address;
use trimtab_lab::process::wait_until;
use trimtab_lab::prometheus::{ENVOY_METRICS_PATH, Prometheus, Target};
use trimtab_lab::upstream::METRICS_PATH;
use trimtab_lab::workers::{Pool, PoolSpec};
use trimtab_limiter::translate::actuator::Filter;

use super::operator::{Managed, Patches};
use super::variant::{HOT, Variant};
use super::{INTERVAL, NAMESPACE, PODS, SERVICE, SERVICE_NAME, WORKERS, pod_name};

/// Longest wait for a part to start.
const BOUND: Duration = Duration::from_secs(60);
/// Name of the cluster that leads to the workers.
pub const CLUSTER: &str = "workload";

const HCM: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const STATS_LOGGER: &str = "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config";

struct Pod {
    pool: Arc<Pool>,
    _envoy: Envoy,
    listen: SocketAddr,
    hot: PathBuf,
}

/// Everything that runs for one variant; dropping it ends it.
pub struct Stage {
    pods: Vec<Pod>,
    prometheus: Prometheus,
    operator: Option<Managed>,
    version: u64,
}

impl Stage {
    /// Starts everything in `dir`; ready, and seen by Prometheus, when this returns.
    pub async fn start(variant: Variant, dir: &Path) -> anyhow::Result<Self> {
        let mut pools = Vec::new();
        let mut targets = Vec::new();
        for name in (0..PODS).map(pod_name) {
            let spec = PoolSpec {
                pod: name.clone(),
                workers: WORKERS,
                service: SERVICE,
            };
            let pool = Pool::start(free_address()?, spec).await?;
            let admin = free_address()?;
            let labelled =
                |target: Target| target.label("pod", &name).label("namespace", NAMESPACE);
            targets.push(labelled(Target::new(admin, ENVOY_METRICS_PATH)));
            targets.push(labelled(Target::new(pool.address(), METRICS_PATH)));
            pools.push((name, Arc::new(pool), admin));
        }
        let prometheus = Prometheus::start(&dir.join("prometheus"), INTERVAL, &targets).await?;
        let operator = match variant {
            Variant::Operator(objects) => Some(Managed::start(&objects, &prometheus.url()).await?),
            _ => None,
        };
        let patches = operator
            .as_ref()
            .map(|operator| operator.patches.clone())
            .unwrap_or_default();
        let mut pods = Vec::new();
        for (name, pool, admin) in pools {
            let dir = dir.join(&name);
            fs::create_dir_all(&dir)?;
            let hot = dir.canonicalize()?.join("hot.json");
            write_hot(&hot, None, 0)?;
            let listen = free_address()?;
            let at = At {
                name: &name,
                admin,
                listen,
                pool: pool.address(),
                hot: &hot,
            };
            let envoy = Envoy::start(&bootstrap(variant, &at, &patches), &dir)
                .await
                .with_context(|| format!("the Envoy of {name}"))?;
            pods.push(Pod {
                pool,
                _envoy: envoy,
                listen,
                hot,
            });
        }
        let stage = Self {
            pods,
            prometheus,
            operator,
            version: 0,
        };
        stage.wait().await?;
        Ok(stage)
    }

    async fn wait(&self) -> anyhow::Result<()> {
        for pod in &self.pods {
            let what = format!("the Envoy at {} to serve", pod.listen);
            let request = Request::get("/");
            wait_until(&what, BOUND, || async {
                let answer = send(pod.listen, &request).await;
                match answer.map_err(|e| e.to_string())?.status {
                    200 => Ok(()),
                    status => Err(format!("status {status}")),
                }
            })
            .await?;
        }
        let all = (2 * PODS) as f64;
        self.prometheus
            .wait_value("count(up == 1)", BOUND, |up| up >= all)
            .await?;
        Ok(())
    }

    /// Where the Envoys listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.pods.iter().map(|pod| pod.listen).collect()
    }

    /// The Prometheus.
    pub fn prometheus(&self) -> &Prometheus {
        &self.prometheus
    }

    /// The operator, where one runs.
    pub fn operator(&self) -> Option<&Managed> {
        self.operator.as_ref()
    }

    /// Ends everything; the operator in order.
    pub async fn stop(self) -> anyhow::Result<()> {
        match self.operator {
            Some(operator) => operator.stop().await,
            None => Ok(()),
        }
    }

    /// Sets how fast workers are, 1 is normal.
    pub fn speed(&self) -> impl Fn(f64) + Send + use<> {
        let pools: Vec<Arc<Pool>> = self.pods.iter().map(|pod| Arc::clone(&pod.pool)).collect();
        move |speed| {
            for pool in &pools {
                pool.set_service(SERVICE.div_f64(speed));
            }
        }
    }

    /// Gives the proxy of a pod another configuration of its filter.
    pub fn configure(&mut self, pod: usize, filter: &Filter) -> anyhow::Result<()> {
        self.version += 1;
        write_hot(&self.pods[pod].hot, Some(filter), self.version)
    }
}

/// What the proxy reads as if an xDS server had said it. Envoy notices that a file is moved there.
fn write_hot(file: &Path, filter: Option<&Filter>, version: u64) -> anyhow::Result<()> {
    let config = filter.map_or_else(
        || {
            json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
                "stat_prefix": "http_local_rate_limiter",
            })
        },
        Filter::typed,
    );
    let response = json!({
        "version_info": version.to_string(),
        "resources": [{
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": HOT,
            "typed_config": config,
        }],
    });
    let temporary = file.with_extension("tmp");
    fs::write(&temporary, response.to_string())?;
    fs::rename(&temporary, file).with_context(|| file.display().to_string())
}

/// Where the parts of a pod are.
struct At<'a> {
    name: &'a str,
    admin: SocketAddr,
    listen: SocketAddr,
    pool: SocketAddr,
    hot: &'a Path,
}

fn bootstrap(variant: Variant, at: &At<'_>, patches: &Patches) -> Value {
    let mut filters = variant.filters(&at.hot.to_string_lossy());
    filters.extend(patches.filters.iter().cloned());
    filters.push(json!({"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}));
    let unbounded = json!({"priority": "DEFAULT", "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000});
    json!({
        // As Istio's agent names a proxy, so that the operator knows whose it is.
        "node": {
            "id": format!("sidecar~127.0.0.1~{}.{NAMESPACE}~{NAMESPACE}.svc.cluster.local", at.name),
            "cluster": format!("{SERVICE_NAME}.{NAMESPACE}"),
            "metadata": {"NAMESPACE": NAMESPACE, "LABELS": {"app": SERVICE_NAME}, "ISTIO_VERSION": "1.31.0"},
        },
        "admin": {"address": address(at.admin)},
        "layered_runtime": istio_runtime(),
        "static_resources": {
            "clusters": [{
                "name": CLUSTER, "type": "STATIC", "connect_timeout": "1s",
                "load_assignment": {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(at.pool)}}]}]},
                // As Istio has it: its defaults are no limits.
                "circuit_breakers": {"thresholds": [unbounded]},
            }],
            "listeners": [{
                "name": "inbound", "address": address(at.listen), "traffic_direction": "INBOUND",
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": HCM,
                        "stat_prefix": "inbound",
                        "route_config": {"name": "inbound", "virtual_hosts": [{
                            "name": "inbound", "domains": ["*"], "rate_limits": patches.rate_limits,
                            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": CLUSTER, "timeout": variant.route_timeout()}}],
                        }]},
                        "http_filters": filters,
                        "access_log": [istio_series()],
                    },
                }]}],
            }],
        },
    })
}

/// Envoy's own stats logger with the names and labels of Istio's series.
fn istio_series() -> Value {
    let tags = json!([
        {"name": "reporter", "value_format": "destination"},
        {"name": "destination_service", "value_format": format!("{SERVICE_NAME}.{NAMESPACE}.svc.cluster.local")},
        {"name": "destination_service_name", "value_format": SERVICE_NAME},
        {"name": "destination_service_namespace", "value_format": NAMESPACE},
        {"name": "destination_workload", "value_format": SERVICE_NAME},
        {"name": "destination_workload_namespace", "value_format": NAMESPACE},
        {"name": "response_code", "value_format": "%RESPONSE_CODE%"},
        {"name": "response_flags", "value_format": "%RESPONSE_FLAGS%"},
    ]);
    json!({
        "name": "envoy.access_loggers.stats",
        "typed_config": {
            "@type": STATS_LOGGER,
            "stat_prefix": "istio",
            "counters": [{"stat": {"name": "istio_requests_total", "tags": tags}, "value_fixed": 1}],
            "histograms": [{
                "stat": {"name": "istio_request_duration_milliseconds", "tags": tags},
                "unit": "Milliseconds",
                "value_format": "%DURATION%",
            }],
        },
    })
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
