//! The real parts of the scenario: pods with an upstream and an Envoy each, Prometheus, load.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use kube::Api;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trimtab::operator::Operator;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_dataplane::module::Proxies;
use trimtab_dataplane::{BootstrapOptions, FallbackInput, Listen, bootstrap};
use trimtab_embedded::Embedded;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{Request, send};
use trimtab_lab::load::{Load, Running, Targets};
use trimtab_lab::ports::{free_address, free_port};
use trimtab_lab::process::wait_until;
use trimtab_lab::prometheus::{ENVOY_METRICS_PATH, Prometheus, Target};
use trimtab_lab::upstream::{Clock, METRICS_PATH, PodSpec, Upstream};

use crate::play::{config, pod};
use crate::report::Traffic;
use crate::scenario::{CAPACITY, Scenario};

/// Longest wait for a part to start.
const BOUND: Duration = Duration::from_secs(30);
/// The Service's port.
const PORT: u16 = 80;
/// Addresses of the three pods: Linux has all of 127.0.0.0/8 on the loopback interface.
const PODS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(127, 0, 0, 11),
    Ipv4Addr::new(127, 0, 0, 12),
    Ipv4Addr::new(127, 0, 0, 13),
];
/// A plain Envoy listens on the address of its pod when a Sidecar is for the pod, which needs a fallback proxy for what the
/// Sidecar leaves out. This one leaves out nothing, so that nobody calls the address.
const FALLBACK: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 10);

/// One running pod.
struct RunningPod {
    _upstream: Upstream,
    _envoy: Envoy,
}

pub(super) struct Real {
    embedded: Embedded,
    xds: SocketAddr,
    /// Where the workload listens, on the address of each pod.
    workload: u16,
    /// Where the Envoys listen, on the address of each pod.
    listen: u16,
    admins: [SocketAddr; 3],
    pods: Vec<RunningPod>,
    targets: Targets,
    load: Option<Running>,
    prometheus: Prometheus,
    dir: PathBuf,
}

impl Real {
    /// Starts everything with two pods; the addresses of the third are known, so that Prometheus scrapes it in time.
    pub async fn start(
        embedded: &Embedded,
        dir: &Path,
        shutdown: CancellationToken,
    ) -> anyhow::Result<(Self, Operator)> {
        let (workload, listen) = (free_port()?, free_port()?);
        let admins = [free_address()?, free_address()?, free_address()?];
        let scraped: Vec<Target> = PODS
            .iter()
            .map(|ip| Target::new((*ip, workload).into(), METRICS_PATH))
            .chain(admins.map(|admin| Target::new(admin, ENVOY_METRICS_PATH)))
            .collect();
        let prometheus =
            Prometheus::start(&dir.join("prometheus"), Duration::from_secs(1), &scraped).await?;
        embedded.load(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
            "metadata": {"name": "default", "namespace": "default"},
            "spec": {"egress": [{"hosts": ["./*"]}]},
        }))?;
        let operator = operator(embedded, &prometheus.url(), listen, shutdown).await?;
        let mut real = Self {
            embedded: embedded.clone(),
            xds: operator.xds,
            workload,
            listen,
            admins,
            pods: Vec::new(),
            targets: Targets::new(Vec::new()),
            load: None,
            prometheus,
            dir: dir.to_owned(),
        };
        real.start_pod().await?;
        real.start_pod().await?;
        real.prometheus
            .wait_value("count(workload_cpu_ratio)", BOUND, |n| n >= 2.0)
            .await?;
        Ok((real, operator))
    }

    /// An upstream and the Envoy in front of it, which gets all of its configuration from Trimtab.
    async fn start_pod(&mut self) -> anyhow::Result<()> {
        let index = self.pods.len();
        let (Some(ip), Some(admin)) = (PODS.get(index), self.admins.get(index)) else {
            bail!("there is no address for pod {index}")
        };
        let name = format!("a-{index}");
        let spec = PodSpec {
            namespace: "default".to_owned(),
            pod: name.clone(),
            capacity: CAPACITY,
        };
        let upstream = Upstream::start((*ip, self.workload).into(), spec, Clock::real()).await?;
        let mut object = pod(index)?;
        object["status"]["podIP"] = json!(ip);
        self.embedded.load(object)?;
        self.embedded.load(endpoints(index + 1, self.workload))?;
        let options = BootstrapOptions {
            group: Some(format!("default/{name}")),
            admin: *admin,
            ..BootstrapOptions::new(&name, self.xds.to_string().parse()?)
        };
        let envoy = Envoy::start(&bootstrap(&options), &self.dir.join(&name)).await?;
        let address = SocketAddr::from((*ip, self.listen));
        wait_until(&format!("the Envoy of {name} to serve"), BOUND, || async {
            let answer = send(address, &request()).await.map_err(|e| e.to_string())?;
            Some(())
                .filter(|()| answer.status == 200)
                .ok_or_else(|| format!("status {}", answer.status))
        })
        .await?;
        self.pods.push(RunningPod {
            _upstream: upstream,
            _envoy: envoy,
        });
        let running = PODS.iter().take(self.pods.len());
        self.targets
            .set(running.map(|ip| (*ip, self.listen).into()).collect());
        Ok(())
    }

    pub fn start_load(&mut self, scenario: Scenario) {
        let load = Load {
            targets: self.targets.clone(),
            request: request(),
            max_in_flight: 256,
        };
        self.load = Some(load.start(move |elapsed| scenario.rate(elapsed)));
    }

    /// Starts the third pod and sends it its share.
    pub async fn scale_up(&mut self) -> anyhow::Result<()> {
        self.start_pod().await
    }

    pub fn second(&self, second: u64) -> Traffic {
        let seconds = self.load.as_ref().map(Running::seconds).unwrap_or_default();
        let index = usize::try_from(second).unwrap_or(usize::MAX);
        seconds
            .get(index)
            .map(|s| Traffic {
                offered: s.offered,
                accepted: s.status(200),
                limited: s.status(429),
                failed: s.failed + s.unsent,
            })
            .unwrap_or_default()
    }

    pub async fn stop(mut self) {
        if let Some(load) = self.load.take() {
            load.stop().await;
        }
    }
}

/// The operator with its own data plane, once the limiter's object is there: a proxy that starts earlier gets its listener
/// twice.
async fn operator(
    embedded: &Embedded,
    prometheus: &str,
    listen: u16,
    shutdown: CancellationToken,
) -> anyhow::Result<Operator> {
    let mut config = config();
    let text = format!(
        "{{address: '{prometheus}', timeout: 2s, handlers: {{cpu: {{query: 'workload_cpu_ratio', type: PerPod, aggregate: avg}}}}}}"
    );
    config.metrics.prometheus = Some(serde_saphyr::from_str(&text)?);
    config.data_plane = Some(Proxies {
        listen: Listen::Address {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port_offset: listen - PORT,
        },
        fallback: Some(FallbackInput {
            addresses: vec![FALLBACK.into()],
            access_log: None,
        }),
    });
    let operator = Operator::start(config, embedded.client(), shutdown).await?;
    let api: Api<EnvoyFilter> = Api::namespaced(embedded.client(), "default");
    wait_until("the generated EnvoyFilter", BOUND, || async {
        api.get("a.default.ratelimit")
            .await
            .map_err(|e| e.to_string())
    })
    .await?;
    Ok(operator)
}

/// What Kubernetes would write for the first pods.
fn endpoints(pods: usize, port: u16) -> Value {
    let endpoints: Vec<Value> = PODS
        .iter()
        .take(pods)
        .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "a", "namespace": "default", "labels": {"kubernetes.io/service-name": "a"}},
        "ports": [{"name": "http", "port": port}], "endpoints": endpoints,
    })
}

fn request() -> Request {
    Request::get("/").header("host", "a")
}
