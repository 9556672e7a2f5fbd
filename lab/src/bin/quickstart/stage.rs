//! The real parts of the scenario: pods with an upstream and an Envoy each, Prometheus, load.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use trimtab_embedded::Embedded;

use crate::play::{envoy_filter, start_operator};
use crate::report::Traffic;
use crate::scenario::{CAPACITY, Scenario};
use trimtab::operator::Operator;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::Request;
use trimtab_lab::load::{Load, Running, Targets};
use trimtab_lab::merge::{ProxyFacts, apply};
use trimtab_lab::mesh::{Listener, Proxy, Telemetry};
use trimtab_lab::ports::free_address;
use trimtab_lab::prometheus::{ENVOY_METRICS_PATH, Prometheus, Target};
use trimtab_lab::upstream::{Clock, METRICS_PATH, PodSpec, Upstream};

/// The workload's port.
const PORT: u16 = 9080;

/// Addresses of one pod.
#[derive(Clone, Debug)]
struct PodPlan {
    name: String,
    upstream: SocketAddr,
    listen: SocketAddr,
    admin: SocketAddr,
}

/// One running pod.
struct RunningPod {
    _upstream: Upstream,
    _envoy: Envoy,
}

pub(super) struct Real {
    plans: Vec<PodPlan>,
    pods: Vec<RunningPod>,
    filter: Value,
    targets: Targets,
    load: Option<Running>,
    prometheus: Prometheus,
    dir: PathBuf,
}

impl Real {
    /// Starts everything with two pods; the third is planned, so that Prometheus knows its address in time.
    pub async fn start(
        _: &Scenario,
        embedded: &Embedded,
        dir: &Path,
        shutdown: CancellationToken,
    ) -> anyhow::Result<(Self, Operator)> {
        let plans: Vec<PodPlan> = (0..3)
            .map(|i| {
                Ok(PodPlan {
                    name: format!("a-{i}"),
                    upstream: free_address()?,
                    listen: free_address()?,
                    admin: free_address()?,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        let scraped: Vec<Target> = plans
            .iter()
            .flat_map(|p| {
                [
                    Target::new(p.upstream, METRICS_PATH),
                    Target::new(p.admin, ENVOY_METRICS_PATH),
                ]
            })
            .collect();
        let prometheus =
            Prometheus::start(&dir.join("prometheus"), Duration::from_secs(1), &scraped).await?;
        let operator =
            start_operator(embedded, Some(prometheus.url()), Vec::new(), shutdown).await?;
        let filter = envoy_filter(embedded.client()).await?;
        let mut real = Self {
            plans,
            pods: Vec::new(),
            filter,
            targets: Targets::new(Vec::new()),
            load: None,
            prometheus,
            dir: dir.to_owned(),
        };
        real.start_pod(0).await?;
        real.start_pod(1).await?;
        real.aim();
        real.prometheus
            .wait_value("count(workload_cpu_ratio)", Duration::from_secs(30), |n| {
                n >= 2.0
            })
            .await?;
        Ok((real, operator))
    }

    /// An upstream and the Envoy in front of it, with the generated EnvoyFilter in its configuration.
    async fn start_pod(&mut self, index: usize) -> anyhow::Result<()> {
        let Some(plan) = self.plans.get(index).cloned() else {
            bail!("there is no plan for pod {index}")
        };
        let spec = PodSpec {
            namespace: "default".to_owned(),
            pod: plan.name.clone(),
            capacity: CAPACITY,
        };
        let upstream = Upstream::start(plan.upstream, spec, Clock::real()).await?;
        let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
        let telemetry = Telemetry {
            reporter: "destination".to_owned(),
            destination_service: "a.default.svc.cluster.local".to_owned(),
            namespace: "default".to_owned(),
            pod: plan.name.clone(),
        };
        let listener = Listener::inbound(PORT, plan.listen, plan.upstream).counting(telemetry);
        let mut config = Proxy::new(&plan.name, "default", &labels, plan.admin)
            .listener(listener)
            .bootstrap();
        let report = apply(
            &mut config,
            std::slice::from_ref(&self.filter),
            &ProxyFacts::new("default", labels),
        )?;
        if !report.unmatched.is_empty() {
            bail!(
                "patches without a place in the proxy: {}",
                report.unmatched.join(", ")
            );
        }
        let envoy = Envoy::start(&config, &self.dir.join(&plan.name)).await?;
        self.pods.push(RunningPod {
            _upstream: upstream,
            _envoy: envoy,
        });
        Ok(())
    }

    fn aim(&self) {
        self.targets.set(
            self.plans
                .iter()
                .take(self.pods.len())
                .map(|p| p.listen)
                .collect(),
        );
    }

    pub fn start_load(&mut self, scenario: Scenario) {
        let load = Load {
            targets: self.targets.clone(),
            request: Request::get("/"),
            max_in_flight: 256,
        };
        self.load = Some(load.start(move |elapsed| scenario.rate(elapsed)));
    }

    /// Starts the third pod and sends it its share.
    pub async fn scale_up(&mut self) -> anyhow::Result<()> {
        self.start_pod(2).await?;
        self.aim();
        Ok(())
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
