//! The operator in the run: a SmartLimiter in its embedded API, the metrics of the stage's Prometheus, and limits by ECDS.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use kube::Api;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab::{manifests, standalone};
use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::Delivery;
use trimtab_embedded::Embedded;
use trimtab_lab::process::wait_until;
use trimtab_limiter::engine::Engine;
use trimtab_limiter::module::Limiter;

use super::control::Decision;
use super::{INTERVAL, NAMESPACE, PODS, SERVICE_NAME, WINDOW, WORKERS, pod_name};

/// Longest wait for the generated object.
const BOUND: Duration = Duration::from_secs(30);

/// What the operator is given, as YAML texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objects {
    /// A SmartLimiter, which must be named like the Service.
    pub limiter: &'static str,
    /// The configuration of the operator; addresses, period, delivery and Prometheus are set by the bench.
    pub config: &'static str,
}

/// A running operator; dropping it ends it.
pub struct Managed {
    operator: Operator,
    /// Filters and actions that istiod would put into the listener.
    pub patches: Patches,
    _stop: DropGuard,
}

/// What the generated object adds to a listener.
#[derive(Clone, Debug, Default)]
pub struct Patches {
    /// HTTP filters, in front of the router.
    pub filters: Vec<Value>,
    /// `rate_limits` of the virtual host.
    pub rate_limits: Vec<Value>,
}

impl Managed {
    /// Starts it and waits for the object of its SmartLimiter.
    pub async fn start(objects: &Objects, prometheus: &str) -> anyhow::Result<Self> {
        let embedded = standalone::embedded()?;
        load(&embedded, objects.limiter)?;
        let config = config(objects.config, prometheus)?;
        let shutdown = CancellationToken::new();
        let operator = Operator::start(config, embedded.client(), shutdown.clone()).await?;
        let api: Api<EnvoyFilter> = Api::namespaced(embedded.client(), NAMESPACE);
        let name = format!("{SERVICE_NAME}.{NAMESPACE}.ratelimit");
        let object = wait_until("the generated EnvoyFilter", BOUND, || async {
            api.get(&name).await.map_err(|error| error.to_string())
        })
        .await?;
        Ok(Self {
            operator,
            patches: Patches::of(&object),
            _stop: shutdown.drop_guard(),
        })
    }

    /// What is decided at `t` seconds.
    pub fn decision(&self, t: f64) -> Option<Decision> {
        let view = self.operator.get::<Engine>()?.views().into_iter().next()?;
        let descriptor = view.descriptors.first()?;
        let in_force = view.limits.first();
        Some(Decision {
            t,
            limit: in_force.map(|limit| limit.per_second * view.pods as f64),
            state: format!("{:?}", descriptor.state),
            reason: descriptor.reason.clone(),
            writes: 0,
        })
    }

    /// Ends it in order.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.operator.stop().await
    }
}

impl Patches {
    fn of(object: &EnvoyFilter) -> Self {
        let mut out = Self::default();
        for patch in &object.spec.config_patches {
            let value = &patch["patch"]["value"];
            if patch["applyTo"] == "HTTP_FILTER" {
                out.filters.push(value.clone());
            }
            for limits in [&value["rate_limits"], &value["route"]["rate_limits"]] {
                out.rate_limits
                    .extend(limits.as_array().into_iter().flatten().cloned());
            }
        }
        out
    }
}

fn config(text: &str, prometheus: &str) -> anyhow::Result<Config> {
    let mut config = Config::parse(text)?;
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    config.edit::<Limiter>(|limiter| {
        limiter.refresh = trimtab_crds::Duration::from_secs(INTERVAL.as_secs());
        limiter.delivery = Delivery::Ecds;
    });
    let window = WINDOW.as_secs();
    let cpu = format!(
        "sum by (namespace, pod) (rate(container_cpu_usage_seconds_total[{window}s])) / sum by (namespace, pod) (workload_workers)"
    );
    let text = format!(
        "{{address: '{prometheus}', timeout: 2s, handlers: {{cpu: {{query: '{cpu}', type: PerPod, aggregate: avg}}}}}}"
    );
    config.metrics.prometheus = Some(serde_saphyr::from_str(&text)?);
    Ok(config)
}

fn load(embedded: &Embedded, limiter: &str) -> anyhow::Result<()> {
    embedded.load(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": SERVICE_NAME, "namespace": NAMESPACE},
        "spec": {"selector": {"app": SERVICE_NAME}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    }))?;
    let mut endpoints = Vec::new();
    for index in 0..PODS {
        let ip = Ipv4Addr::new(127, 0, 0, 11 + u8::try_from(index).unwrap_or(0));
        embedded.load(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod_name(index), "namespace": NAMESPACE, "labels": {"app": SERVICE_NAME}},
            "spec": {"containers": [
                {"name": "app", "image": "a", "resources": {"limits": {"cpu": WORKERS.to_string()}}},
                {"name": "istio-proxy", "image": "proxy"},
            ]},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
        }))?;
        endpoints.push(json!({"addresses": [ip], "conditions": {"ready": true}}));
    }
    embedded.load(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": SERVICE_NAME, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": SERVICE_NAME}},
        "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints,
    }))?;
    for document in manifests::parse(Path::new("limiter.yaml"), limiter)? {
        standalone::load(embedded, &document).context("the SmartLimiter")?;
    }
    Ok(())
}
