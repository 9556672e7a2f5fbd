//! A module in a hundred lines, from public items of the kit only: what CONTRIBUTING.md shows.
//!
//! It turns the annotation `toy.example/greeting` of a Service into a ConfigMap `NAME-greeting`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab::{manifests, standalone, translate};
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL, OWNER_NAME_LABEL};
use trimtab_kit::api::{self, Call};
use trimtab_kit::apply::{Key as Name, Ownership};
use trimtab_kit::engine::{Engine, WriteError};
use trimtab_kit::generated::MODULE_LABEL;
use trimtab_kit::module::{Factory, Finding, Module, ModuleConfig, Setup, SetupError};
use trimtab_kit::queue::{Key, WorkQueue};
use trimtab_kit::write::{StatusPatch, Writes};
use trimtab_lab::http;
use trimtab_lab::process::wait_until;
use trimtab_mesh::table::{Change, Follower, Known, Row, Table};

const ANNOTATION: &str = "toy.example/greeting";
const BOUND: Duration = Duration::from_secs(60);

// --- the module ---

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ToyConfig {
    /// Written in front of each greeting.
    prefix: String,
}

impl ModuleConfig for ToyConfig {}

struct Toy;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct ToyKey(Name);

impl Key for ToyKey {}

impl fmt::Display for ToyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.0, self.0.1)
    }
}

struct ToyEngine {
    prefix: String,
    greetings: Arc<Table<Greeting>>,
    changed: Mutex<BTreeSet<Name>>,
    written: Mutex<BTreeSet<Name>>,
    wake: Notify,
    queue: WorkQueue<ToyKey>,
}

/// What is kept of a Service.
#[derive(Debug, PartialEq)]
struct Greeting(String);

impl Row for Greeting {
    type Object = Service;
    type Index = ();

    fn read(service: &Arc<Service>, _: &Known<'_, Self>) -> Option<Self> {
        let text = service.annotations().get(ANNOTATION)?;
        Some(Self(text.clone()))
    }
}

impl Follower<Greeting> for ToyEngine {
    fn changed(&self, change: Change<'_, Greeting>) {
        self.changed.lock().insert(change.name.clone());
        self.wake.notify_one();
    }
}

impl Engine for ToyEngine {
    type Key = ToyKey;

    fn queue(&self) -> &WorkQueue<ToyKey> {
        &self.queue
    }

    async fn changed(&self) {
        self.wake.notified().await;
    }

    fn absorb(&self) {
        for name in std::mem::take(&mut *self.changed.lock()) {
            self.queue.push(ToyKey(name));
        }
    }

    fn writes(self: &Arc<Self>, ToyKey(name): &ToyKey) -> Writes {
        let greeting = self.greetings.get(&name.0, &name.1);
        let object = |Greeting(text): &Greeting| {
            serde_json::from_value(json!({
                "metadata": {"name": format!("{}-greeting", name.1), "namespace": name.0, "labels": {
                    MANAGED_BY_LABEL: MANAGED_BY, MODULE_LABEL: Toy::NAME, OWNER_NAME_LABEL: name.1}},
                "data": {"greeting": format!("{}{text}", self.prefix)},
            }))
        };
        let desired: Vec<ConfigMap> = greeting.iter().filter_map(|g| object(g).ok()).collect();
        Writes::none().objects(name.clone(), desired)
    }

    fn written(&self, ToyKey(name): &ToyKey, error: Option<WriteError>) {
        if error.is_none() {
            self.written.lock().insert(name.clone());
        }
    }

    fn status(&self, ToyKey(name): &ToyKey) -> Option<StatusPatch> {
        self.greetings.get(&name.0, &name.1)?;
        let condition = json!({"type": "Greeted", "status": "True", "reason": "Written",
            "message": "the greeting is in the ConfigMap", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"conditions": [condition]});
        Some(StatusPatch::of::<Service>(&name.0, &name.1, &status))
    }
}

impl Module for Toy {
    const NAME: &'static str = "toy";
    type Config = ToyConfig;

    fn setup(config: ToyConfig, setup: &mut Setup<'_>) -> Result<(), SetupError> {
        let engine = Arc::new(ToyEngine {
            prefix: config.prefix,
            greetings: setup.context().mesh.table(),
            changed: Mutex::default(),
            written: Mutex::default(),
            wake: Notify::new(),
            queue: WorkQueue::default(),
        });
        setup.follow::<Greeting>(&engine);
        setup.writes_status::<Service>();
        let ownership = Ownership::<ConfigMap> {
            module: Some(Self::NAME),
            owner: |o| Some((o.namespace()?, o.labels().get(OWNER_NAME_LABEL)?.clone())),
            predecessor: None,
        };
        let touched = engine.clone();
        let on_change = Arc::new(move |namespace: &str, name: &str| {
            let name = (namespace.to_owned(), name.to_owned());
            touched.queue.push(ToyKey(name));
        });
        setup.generates("ConfigMap", ownership, on_change);
        setup.engine(&engine);
        let (shown, found) = (engine.clone(), engine);
        let count = move || shown.greetings.rows().len().to_string();
        let answer = move |_: &Call| Ok(count());
        setup.api(api::Api::new().get("/api/v1/toy", "How many greetings there are", &[], answer));
        let gauge: Gauge = Gauge::default();
        gauge.set(1);
        setup
            .context()
            .registry
            .lock()
            .register("toy_up", "1", gauge);
        setup.findings(move || {
            let greetings = found.greetings.rows();
            let message = |(name, greeting): (&Name, &Arc<Greeting>)| {
                format!("Service {}/{}: greets {}", name.0, name.1, greeting.0)
            };
            greetings
                .iter()
                .map(|g| Finding {
                    refused: false,
                    message: message(g),
                })
                .collect()
        });
        Ok(())
    }
}

#[cfg(test)]
mod what_it_gets {
    use super::*;

    const INPUT: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop, annotations: {toy.example/greeting: hello}}\nspec: {ports: [{port: 80}]}\n";

    fn config() -> Config {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config: Config = serde_saphyr::from_str("toy: {prefix: '> '}").unwrap();
        config.list.push(Factory::of::<Toy>());
        config.http.address.set_port(0);
        config.xds.address.set_port(0);
        config
    }

    #[test]
    fn its_section_is_checked_like_any_other() {
        assert!(config().check().is_ok());
        let mut wrong = config();
        wrong
            .modules
            .insert("toy".to_owned(), json!({"prefx": "x"}));
        let error = wrong.check().unwrap_err().to_string();
        assert!(
            error.contains("toy.prefx: unknown field `prefx`"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn translate_prints_its_objects_and_findings() {
        let documents = manifests::parse(std::path::Path::new("in"), INPUT).unwrap();
        let (pass, output) = translate::pass(&documents, &BTreeMap::new(), &config())
            .await
            .unwrap();
        assert_eq!(output.objects.len(), 1, "{:?}", output.objects);
        assert_eq!(output.objects[0]["data"]["greeting"], "> hello");
        assert_eq!(output.notes, ["Service shop/a: greets hello"]);
        let toy = pass.modules().iter().find(|m| m.name == "toy").unwrap();
        let rights: Vec<String> = toy
            .rights
            .iter()
            .map(|r| format!("{} {:?}", r.resource, r.verbs))
            .collect();
        assert_eq!(
            rights,
            [
                r#"configmaps {"create", "delete", "list", "patch", "update", "watch"}"#,
                r#"services {"list", "watch"}"#,
                r#"services/status {"patch"}"#,
            ]
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_runs_in_the_operator_and_repairs_its_object() {
        let embedded = standalone::embedded().unwrap();
        for document in manifests::parse(std::path::Path::new("in"), INPUT).unwrap() {
            standalone::load(&embedded, &document).unwrap();
        }
        let operator = Operator::start(config(), embedded.client(), CancellationToken::new())
            .await
            .unwrap();
        let maps: Api<ConfigMap> = Api::namespaced(embedded.client(), "shop");
        let written = |what: &'static str| {
            let maps = maps.clone();
            wait_until(what, BOUND, move || {
                let maps = maps.clone();
                async move {
                    let found = maps
                        .get_opt("a-greeting")
                        .await
                        .map_err(|e| e.to_string())?;
                    let data = found.and_then(|m| m.data).unwrap_or_default();
                    let greets = data.get("greeting").is_some_and(|g| g == "> hello");
                    greets.then_some(()).ok_or_else(|| format!("{data:?}"))
                }
            })
        };
        written("the object").await.unwrap();
        maps.delete("a-greeting", &<_>::default()).await.unwrap();
        written("the object again").await.unwrap();
        let services: Api<Service> = Api::namespaced(embedded.client(), "shop");
        wait_until("the condition", BOUND, || async {
            let status = services.get("a").await.map_err(|e| e.to_string())?.status;
            let conditions = status.and_then(|s| s.conditions).unwrap_or_default();
            conditions
                .iter()
                .any(|c| c.type_ == "Greeted")
                .then_some(())
                .ok_or("none".to_owned())
        })
        .await
        .unwrap();
        let count = http::get(operator.http, "/api/v1/toy").await.unwrap();
        assert!(count.contains('1'));
        let series = http::get(operator.http, "/metrics").await.unwrap();
        assert!(
            series.contains("toy_up 1") && series.contains("trimtab_toy_apply_total"),
            "{series}"
        );
        operator.stop().await.unwrap();
    }
}
