//! What the tests share: an operator in this process, objects, waiting.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab::{manifests, standalone};
use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::{LimiterStatus, first_form};
use trimtab_embedded::Embedded;
use trimtab_kit::sources::{
    Failure, MetricName, MetricSource, Sample, SampleRequest, Samples, SourceHealth,
};

/// Bound of every wait: generous, because two cores may be busy with other tests.
pub const BOUND: Duration = Duration::from_secs(60);

pub fn ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The program.
pub fn trimtab() -> PathBuf {
    // Another build of it, such as that of the image.
    let other = std::env::var_os("TRIMTAB_BIN").map(PathBuf::from);
    other.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_trimtab")))
}

/// A folder of this test, empty.
pub fn folder(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("trimtab-e2e-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart")
}

/// The embedded API with the example in it: Service a, pods a-0 and a-1, the limiter when asked for.
pub fn mesh(with_limiter: bool) -> Embedded {
    ring();
    let embedded = standalone::embedded().unwrap();
    for document in manifests::read(&[examples()]).unwrap().documents {
        if with_limiter || document.object["kind"] != "SmartLimiter" {
            standalone::load(&embedded, &document).unwrap();
        }
    }
    embedded
}

pub fn pod(name: &str, ready: bool) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "app", "image": "a"}, {"name": "istio-proxy", "image": "p"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
}

/// Configuration on free loopback ports.
pub fn config(text: &str) -> Config {
    let mut config: Config = serde_saphyr::from_str(text).unwrap();
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    config
}

/// A metric that the test sets.
#[derive(Clone, Default)]
pub struct Dial(Arc<parking_lot::Mutex<Option<f64>>>);

impl Dial {
    pub fn set(&self, value: impl Into<Option<f64>>) {
        *self.0.lock() = value.into();
    }
}

#[async_trait::async_trait]
impl MetricSource for Dial {
    fn name(&self) -> &'static str {
        "dial"
    }

    fn provides(&self) -> Vec<MetricName> {
        vec!["cpu".to_owned()]
    }

    async fn sample(&self, sample_requests: &[SampleRequest]) -> Samples {
        let sample: Sample = self.0.lock().ok_or(Failure::Timeout);
        let values: BTreeMap<_, _> = sample_requests
            .iter()
            .map(|d| ((d.id, "cpu".to_owned()), sample.clone()))
            .collect();
        Samples {
            values,
            queries: 1,
            ..Samples::default()
        }
    }

    fn health(&self) -> SourceHealth {
        SourceHealth::default()
    }
}

/// An operator in this process with a dial as its only source.
pub async fn operator(embedded: &Embedded, dial: &Dial, text: &str) -> Operator {
    start(embedded, dial, config(text)).await
}

/// The same with a configuration that is no text.
pub async fn start(embedded: &Embedded, dial: &Dial, config: Config) -> Operator {
    Operator::start_with(
        config,
        embedded.client(),
        vec![Arc::new(dial.clone())],
        CancellationToken::new(),
    )
    .await
    .unwrap()
}

pub async fn status(embedded: &Embedded) -> LimiterStatus {
    let api: Api<first_form::SmartLimiter> = Api::namespaced(embedded.client(), "default");
    api.get("a").await.unwrap().status.unwrap_or_default()
}

pub async fn filters(embedded: &Embedded) -> Vec<EnvoyFilter> {
    let api: Api<EnvoyFilter> = Api::all(embedded.client());
    api.list(&kube::api::ListParams::default())
        .await
        .unwrap()
        .items
}

/// Waits for a status.
pub async fn status_where(
    embedded: &Embedded,
    what: &str,
    good: impl Fn(&LimiterStatus) -> bool,
) -> LimiterStatus {
    trimtab_lab::process::wait_until(what, BOUND, || async {
        let status = status(embedded).await;
        if good(&status) {
            Ok(status)
        } else {
            Err(format!(
                "{:?} {:?} {:?}",
                status.state, status.limit, status.reason
            ))
        }
    })
    .await
    .unwrap()
}

/// Waits until the bucket of the example's EnvoyFilter holds `tokens`; `None` = no EnvoyFilter.
pub async fn bucket(embedded: &Embedded, tokens: Option<i64>) {
    trimtab_lab::process::wait_until(&format!("a bucket of {tokens:?}"), BOUND, || async {
        let found = filters(embedded).await.first().and_then(tokens_of);
        if found == tokens {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
    .unwrap();
}

/// Tokens that the first bucket gets in a second, or in its interval when that is longer, whatever the filter is called.
pub fn tokens_of(filter: &EnvoyFilter) -> Option<i64> {
    filter.spec.config_patches.iter().find_map(|p| {
        let filters = p
            .pointer("/patch/value/typed_per_filter_config")?
            .as_object()?;
        let bucket = filters
            .values()
            .next()?
            .pointer("/value/descriptors/0/tokenBucket")?;
        let tokens = bucket["maxTokens"].as_f64()?;
        let seconds: f64 = bucket["fillInterval"]
            .as_str()?
            .strip_suffix('s')?
            .parse()
            .ok()?;
        // A quota that moves is written in steps of its second.
        #[allow(clippy::cast_possible_truncation)]
        let quota = (tokens / seconds.min(1.0)).round() as i64;
        Some(quota)
    })
}
