//! The engine on a clock and a metric source that the test holds, without a cluster: real index, decisions, cache.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::lab::folder;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::LimiterStatus;
use trimtab_kit::answers::Answers;
use trimtab_kit::clock::ManualClock;
use trimtab_kit::engine::Engine as _;
use trimtab_kit::lease::{Leadership, Timing, WriteAdmission};
use trimtab_kit::sources::{
    Failure, Handler, HandlerType, MetricSource, PrometheusConfig, PrometheusSource, Row as Series,
    Sample, SampleRequest, Samples, SourceHealth,
};
use trimtab_lab::prometheus::Prometheus;
use trimtab_limiter::engine::{Engine, LimiterView};
use trimtab_limiter::index::{Index, LimiterKey, V1alpha2};
use trimtab_limiter::input::Settings;
use trimtab_mesh::Mesh;
use trimtab_mesh::model::{Pod, Service};
use trimtab_mesh::table::{Row, name_of};
use trimtab_xds::ResourceCache;

/// Answers what it was told to, for every demand.
#[derive(Debug, Default)]
pub(crate) struct FakeSource {
    values: Mutex<BTreeMap<String, Sample>>,
    rows: Mutex<BTreeMap<String, Vec<Series>>>,
}

impl FakeSource {
    pub(crate) fn set(&self, name: &str, value: f64) {
        self.values
            .lock()
            .expect("a lock")
            .insert(name.to_owned(), Ok(value));
    }

    /// Series of a name, with their sum as its value.
    pub(crate) fn set_rows(&self, name: &str, rows: Vec<Series>) {
        self.set(name, rows.iter().map(|row| row.value).sum());
        let mut all = self.rows.lock().expect("a lock");
        all.insert(name.to_owned(), rows);
    }

    pub(crate) fn fail(&self, name: &str, failure: Failure) {
        self.values
            .lock()
            .expect("a lock")
            .insert(name.to_owned(), Err(failure));
    }
}

#[async_trait::async_trait]
impl MetricSource for FakeSource {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn provides(&self) -> Vec<String> {
        self.values
            .lock()
            .expect("a lock")
            .keys()
            .cloned()
            .collect()
    }

    async fn sample(&self, sample_requests: &[SampleRequest]) -> Samples {
        let values = self.values.lock().expect("a lock");
        let mut samples = Samples::default();
        for sample_request in sample_requests {
            for name in &sample_request.metrics {
                let rows = self.rows.lock().expect("a lock").get(name).cloned();
                if let Some(rows) = rows.filter(|_| sample_request.rows) {
                    samples.rows.insert((sample_request.id, name.clone()), rows);
                }
                if let Some(sample) = values.get(name) {
                    samples
                        .values
                        .insert((sample_request.id, name.clone()), sample.clone());
                }
            }
        }
        samples
    }

    fn health(&self) -> SourceHealth {
        SourceHealth::default()
    }
}

/// What a writer would write for one limiter.
pub(crate) struct Job {
    /// Objects that must exist; `None` = leave them as they are.
    pub desired: Option<Vec<EnvoyFilter>>,
    pub status: Option<Arc<LimiterStatus>>,
}

pub(crate) struct Fixture {
    pub mesh: Arc<Mesh>,
    pub engine: Arc<Engine>,
    pub clock: ManualClock,
    pub source: Arc<FakeSource>,
    pub cache: ResourceCache,
    pub answers: Arc<Answers>,
}

impl Fixture {
    /// A stand whose source knows `cpu`.
    pub(crate) fn new() -> Self {
        let source = Arc::new(FakeSource::default());
        source.set("cpu", 0.0);
        let fake: Arc<dyn MetricSource> = source.clone();
        Self::with_sources(vec![fake], source)
    }

    pub(crate) fn with_sources(
        sources: Vec<Arc<dyn MetricSource>>,
        source: Arc<FakeSource>,
    ) -> Self {
        let always = |_: &ManualClock| WriteAdmission::always();
        Self::admitted(sources, source, always)
    }

    /// One of several replicas, whose source knows `cpu`; it does not lead before the sender says so.
    pub(crate) fn elected() -> (Self, watch::Sender<Option<Leadership>>) {
        let (sender, leadership) = watch::channel(None);
        let source = Arc::new(FakeSource::default());
        source.set("cpu", 0.0);
        let fake: Arc<dyn MetricSource> = source.clone();
        let elected = |clock: &ManualClock| {
            WriteAdmission::elected(leadership, &Timing::default(), Arc::new(clock.clone()))
        };
        (Self::admitted(vec![fake], source, elected), sender)
    }

    fn admitted(
        sources: Vec<Arc<dyn MetricSource>>,
        source: Arc<FakeSource>,
        admission: impl FnOnce(&ManualClock) -> WriteAdmission,
    ) -> Self {
        let mesh = Mesh::new("cluster.local");
        let (index, clock, cache) = (
            Index::new("istio-system", &mesh),
            ManualClock::default(),
            ResourceCache::new(),
        );
        let admission = admission(&clock);
        index.attach(&mesh);
        let known_metrics = sources.iter().flat_map(|s| s.provides()).collect();
        let settings = Settings {
            known_metrics,
            ..Settings::default()
        };
        let answers = Arc::new(Answers::default());
        let engine = Engine::elected(
            index,
            sources,
            settings,
            Arc::new(clock.clone()),
            cache.clone(),
            (answers.clone(), admission),
        );
        Self {
            mesh,
            engine,
            clock,
            source,
            cache,
            answers,
        }
    }

    /// An object is new or changed.
    pub(crate) fn put<R: Row<Object: DeserializeOwned>>(&self, object: Value) {
        let object: R::Object = serde_json::from_value(object).expect("an object");
        self.mesh.table::<R>().put(&Arc::new(object));
    }

    /// An object is gone.
    pub(crate) fn delete<R: Row<Object: DeserializeOwned>>(&self, object: Value) {
        let object: R::Object = serde_json::from_value(object).expect("an object");
        self.mesh.table::<R>().remove(&name_of(&object));
    }

    /// A Service with `pods` Ready pods.
    pub(crate) fn service(&self, name: &str, pods: usize) {
        self.put::<Service>(json!({"metadata": {"namespace": "default", "name": name}, "spec": {"selector": {"app": name}}}));
        for i in 0..pods {
            self.put::<Pod>(pod(name, i, &json!({}), "True"));
        }
    }

    /// A v1alpha2 SmartLimiter.
    pub(crate) fn limiter(&self, name: &str, generation: i64, spec: &Value) {
        self.put::<V1alpha2>(limiter(name, generation, spec));
    }

    /// Events and one sample of every source, `seconds` after the last.
    pub(crate) async fn tick(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.engine.absorb();
        self.engine.sample_once().await;
    }

    /// Does what the writers would do now, and gives it.
    pub(crate) fn jobs(&self) -> BTreeMap<LimiterKey, Job> {
        let mut out = BTreeMap::new();
        while let Some(key) = self.engine.queue().try_pop(0) {
            let patch = self.engine.status(&key);
            let status = patch.map(|patch| {
                let status = serde_json::from_value(patch.status.clone()).expect("a status");
                self.engine.status_written(&key, patch);
                Arc::new(status)
            });
            let desired = self.engine.desired(&key);
            self.engine.queue().done(&key, true);
            out.insert(key, Job { desired, status });
        }
        out
    }

    /// How the limiter of a name is doing.
    pub(crate) fn view(&self, name: &str) -> LimiterView {
        self.engine
            .views()
            .into_iter()
            .find(|v| v.name == name)
            .expect("a limiter of the name")
    }

    /// Quotas by descriptor.
    pub(crate) fn quotas(&self, name: &str) -> Vec<Option<i64>> {
        self.view(name)
            .descriptors
            .iter()
            .map(|d| d.quota)
            .collect()
    }
}

pub(crate) fn limiter(name: &str, generation: i64, spec: &Value) -> Value {
    json!({"apiVersion": "microservice.slime.io/v1alpha2", "kind": "SmartLimiter",
        "metadata": {"namespace": "default", "name": name, "generation": generation, "uid": name}, "spec": spec})
}

pub(crate) fn pod(service: &str, i: usize, labels: &Value, ready: &str) -> Value {
    let mut all = json!({"app": service});
    for (key, value) in labels.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    json!({"metadata": {"namespace": "default", "name": format!("{service}-{i}"), "labels": all},
        "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}]},
        "status": {"conditions": [{"type": "Ready", "status": ready}]}})
}

/// A spec with one descriptor in `_base`.
pub(crate) fn one(condition: &str, quota: &str) -> Value {
    base(&[
        json!({"condition": condition, "action": {"quota": quota, "fill_interval": {"seconds": 60}}}),
    ])
}

/// A spec with these descriptors in `_base`, whose decisions come into force at once.
pub(crate) fn base(descriptors: &[Value]) -> Value {
    json!({"sets": {"_base": {"descriptor": descriptors}}, "stabilization": {"window": "0s", "deadBand": 0}})
}

/// A spec with every documented field, in snake_case or lowerCamelCase.
pub(crate) fn every_field(camel: bool) -> Value {
    let k = |snake: &str| -> String {
        let mut words = snake.split('_');
        let first = words.next().unwrap_or_default().to_owned();
        if !camel {
            return snake.to_owned();
        }
        words.fold(first, |out, word| {
            let (head, tail) = word.split_at(1);
            format!("{out}{}{tail}", head.to_uppercase())
        })
    };
    let matches = json!([
        {"name": "a", k("exact_match"): "b"},
        {"name": "a", k("regex_match"): "b", k("invert_match"): true},
        {"name": "a", k("prefix_match"): "b"},
        {"name": "a", k("suffix_match"): "b"},
        {"name": "a", k("is_exact_match_empty"): true},
        {"name": "a", k("present_match"): true},
        {"name": "a", k("present_match_separate"): true},
        {"name": "a", "useQueryMatch": true, k("exact_match"): "b"},
        {"name": "a", "matchSource": "QueryMatch", k("exact_match"): "b"},
        {"name": "a", "matchSource": "JsonBodyMatch", k("exact_match"): "b"},
        {"matchSource": "SourceIpMatch", k("exact_match"): "10.0.0.1"},
    ]);
    json!({
        "sets": {"_base": {"descriptor": [
            {"condition": "true", "match": matches, "target": {"direction": "outbound", "port": 80, "route": ["a/b"], "host": ["a"]},
             "action": {"quota": "1", k("fill_interval"): {"seconds": 1, "nanos": 5}, "strategy": "single", k("headers_to_add"): [{"key": "a", "value": "b"}]}},
            {"condition": "true", k("custom_key"): "a", k("custom_value"): "b", "action": {"quota": "1", k("fill_interval"): {"seconds": 1}}},
        ]}},
        "rls": "rls.default", "workloadSelector": {"app": "a"}, "gateway": true, "host": "a.example.com",
        "target": {"direction": "inbound", "port": 9080},
    })
}

/// A stand on a real Prometheus with these handlers.
pub(crate) async fn on_prometheus(test: &str, handlers: &[(&str, &str)]) -> (Fixture, Prometheus) {
    let prometheus = Prometheus::start(&folder(test), Duration::from_secs(1), &[])
        .await
        .unwrap();
    let mut config = PrometheusConfig::new(prometheus.url());
    for (name, query) in handlers {
        config
            .handlers
            .insert((*name).to_owned(), Handler::new(*query, HandlerType::Value));
    }
    let source: Arc<dyn MetricSource> = Arc::new(PrometheusSource::new(config).unwrap());
    (
        Fixture::with_sources(vec![source], Arc::new(FakeSource::default())),
        prometheus,
    )
}
