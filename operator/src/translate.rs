//! `trimtab translate`: the operator on files, once, with metric values from the command line.
//!
//! The same modules run as in a cluster, on the embedded API, until nothing is left to write; so what is printed is what
//! the operator writes.

mod invented;
mod nowhere;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kube::api::{DynamicObject, ListParams};
use kube::core::ApiResource;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL, NAMESPACE};
use trimtab_embedded::Embedded;
use trimtab_kit::clock::{Clock, SystemClock};
use trimtab_kit::host::{Context, Host, Parts};
use trimtab_kit::module::Installed;
use trimtab_kit::prometheus::AnswerBudget;
use trimtab_kit::sources::{
    FixedSource, MetricSource, MetricsServerConfig, NamesOf, PrometheusConfig,
};
use trimtab_mesh::Mesh;

use crate::config::Config;
use crate::manifests::{self, Document};
use crate::standalone::{self, Loaded};
use crate::{identity, modules, operator};

/// Address of the xDS server without `--config`: as the chart installs it.
pub fn xds_address() -> String {
    format!("trimtab.{NAMESPACE}.svc:15010")
}

/// What came out.
#[derive(Debug, Default)]
pub struct Output {
    /// Generated objects, sorted by kind, namespace and name, in the form of [`output_form`].
    pub objects: Vec<Value>,
    /// What the xDS server would have, sorted by type and name.
    pub resources: Vec<Value>,
    /// Refusals: object, field, fix.
    pub refused: Vec<String>,
    /// Decisions, a line each.
    pub notes: Vec<String>,
    /// Objects that the input does not have and that are taken as given; `notes` name them.
    pub assumed: Vec<Value>,
}

/// Parses `NAME=VALUE`.
pub fn metric(text: &str) -> Result<(String, f64), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("\"{text}\" is not NAME=VALUE: write for example cpu=0.85"))?;
    let number: f64 = value
        .parse()
        .map_err(|_| format!("\"{value}\" is not a number: write for example {name}=0.85"))?;
    if !number.is_finite() {
        return Err(format!("{name}: the value must be finite"));
    }
    Ok((name.to_owned(), number))
}

/// The configuration of a file, or as the chart installs it.
pub fn configuration(file: Option<&std::path::Path>) -> anyhow::Result<Config> {
    file.map_or_else(
        || {
            let mut config = Config::default();
            config.xds.advertise = xds_address();
            // Neither is asked. With them, limiters may have queries of their own and name what metrics-server measures;
            // without `--metric` these have no value.
            config.metrics.metrics_server = Some(MetricsServerConfig::default());
            let prometheus = format!("http://prometheus.{NAMESPACE}:9090");
            config.metrics.prometheus = Some(PrometheusConfig::new(prometheus));
            Ok(config)
        },
        Config::load,
    )
}

/// Translates files and folders. The objects pass the same checks as at an API server. `namespace`: of objects that name
/// none.
pub async fn run(
    paths: &[PathBuf],
    namespace: &str,
    metrics: &BTreeMap<String, f64>,
    config: &Config,
) -> anyhow::Result<Output> {
    let mut input = manifests::read(paths)?;
    input.place(namespace);
    let (pass, mut output) = pass(&input.documents, metrics, config).await?;
    output.refused.splice(0..0, input.refused);
    output.notes.splice(0..0, input.remarks);
    let invented = invented::remarks(&pass.embedded, &input.documents, config, &output);
    output.notes.extend(invented.await?);
    output.notes.extend(nowhere::remarks(&pass.embedded).await?);
    let Output {
        objects,
        refused,
        notes,
        resources,
        ..
    } = &output;
    if objects.is_empty() && refused.is_empty() && notes.is_empty() && resources.is_empty() {
        bail!(
            "there is no SmartLimiter, no ServiceFence and no service with a layer-7 port in the input: give a file or folder with one"
        );
    }
    output.notes.extend(pass.passed_over());
    output.notes.extend(pass.remarks);
    Ok(output)
}

/// Modules that have worked all objects off.
#[derive(Debug)]
pub struct Pass {
    embedded: Embedded,
    host: Host,
    not_loaded: Vec<String>,
    passed_over: BTreeMap<String, usize>,
    remarks: Vec<String>,
}

impl Pass {
    /// The modules that ran.
    pub fn modules(&self) -> &[Arc<Installed>] {
        self.host.modules()
    }

    /// Objects that were refused before any module saw them.
    pub fn not_loaded(&self) -> &[String] {
        &self.not_loaded
    }

    /// A line that counts the objects of kinds that nobody reads.
    fn passed_over(&self) -> Option<String> {
        let count: usize = self.passed_over.values().sum();
        let kinds: Vec<&str> = self.passed_over.keys().map(String::as_str).collect();
        let noun = if count == 1 { "object" } else { "objects" };
        let kinds = manifests::brief(&kinds.join(", "));
        let line = "passed over, as Trimtab does not read them";
        (count > 0).then(|| format!("{line}: {kinds} ({count} {noun})"))
    }

    /// Parts that modules have exposed.
    pub fn parts(&self) -> Parts {
        self.host.parts()
    }
}

/// Loads the objects into an embedded API and runs the modules on it until nothing is left to do.
pub async fn pass(
    documents: &[Document],
    metrics: &BTreeMap<String, f64>,
    config: &Config,
) -> anyhow::Result<(Pass, Output)> {
    config.check()?;
    let embedded = standalone::embedded_for_files()?;
    standalone::ensure_roots(&embedded, config)?;
    let split = standalone::split(&embedded, documents.to_vec(), |_| false);
    let mut not_loaded: Vec<String> = split.refused.into_iter().map(|(_, e)| e).collect();
    let (mut passed_over, mut remarks) = (BTreeMap::new(), Vec::new());
    for document in &split.taken {
        match standalone::load(&embedded, document) {
            Ok(Loaded::Taken) => remarks.extend(standalone::remarks(document)),
            Ok(Loaded::PassedOver) => {
                let word = |field: &str| document.object[field].as_str().unwrap_or_default();
                let kind = format!("{} of {}", word("kind"), word("apiVersion"));
                *passed_over.entry(kind).or_default() += 1;
            }
            Err(error) => not_loaded.push(format!("{error:#}")),
        }
    }
    for document in documents {
        assume_namespaces(&embedded, document);
    }
    let mut out = Output {
        refused: not_loaded.clone(),
        ..Output::default()
    };
    let client = embedded.client();
    let mut host = Host::new(context(&client, metrics, config).await?);
    operator::set_up(config, &mut host)?;
    let mut pass = Pass {
        embedded,
        host,
        not_loaded,
        passed_over,
        remarks,
    };
    pass.host.run_once().await?;
    pass.assume(config, &mut out).await?;
    pass.collect(&client, &mut out).await?;
    Ok((pass, out))
}

/// Namespaces that an object is exported to count as there: nothing could be written into them otherwise.
fn assume_namespaces(embedded: &Embedded, document: &Document) {
    let exports = document.object.pointer("/spec/exportTo");
    let names = exports.and_then(Value::as_array).into_iter().flatten();
    let annotation = &document.object["metadata"]["annotations"]["networking.istio.io/exportTo"];
    let more = annotation.as_str().unwrap_or_default().split(',');
    for name in names.filter_map(Value::as_str).chain(more.map(str::trim)) {
        if !["", "*", ".", "~"].contains(&name) {
            // A name that is none is told by the module.
            let _ = embedded.ensure_namespace(name);
        }
    }
}

async fn context(
    client: &Client,
    metrics: &BTreeMap<String, f64>,
    config: &Config,
) -> anyhow::Result<Context> {
    let mut sources: Vec<Arc<dyn MetricSource>> = vec![Arc::new(FixedSource::new(metrics.clone()))];
    for source in operator::configured_sources(config, client, &AnswerBudget::default())? {
        sources.push(Arc::new(NamesOf(source)));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Ok(Context {
        mesh: Mesh::new(&config.mesh.domain),
        xds_endpoint: identity::offline(config, client, &clock).await,
        sources,
        mesh_config: config.mesh.config_map().map_err(anyhow::Error::msg)?,
        offline: true,
        ..Context::new(client.clone(), clock, CancellationToken::new())
    })
}

impl Pass {
    /// Where there are ServiceFences, what they rely on counts as installed: a review is about the end of the rollout.
    async fn assume(&mut self, config: &Config, out: &mut Output) -> anyhow::Result<()> {
        let fences = ApiResource::erase::<trimtab_crds::fence::ServiceFence>(&());
        let fences: Api<DynamicObject> = Api::all_with(self.embedded.client(), &fences);
        if fences.list(&ListParams::default()).await?.items.is_empty() {
            return Ok(());
        }
        for object in modules::assumed_objects(config) {
            let document = Document::new("assumed", object.clone());
            if standalone::exists(&self.embedded, &document).await {
                continue;
            }
            standalone::load(&self.embedded, &document)?;
            out.notes
                .push(format!("assumed: {} is installed", document.title()));
            out.assumed.push(object);
        }
        self.host.run_once().await?;
        Ok(())
    }

    async fn collect(&self, client: &Client, out: &mut Output) -> anyhow::Result<()> {
        let outputs = self.modules().iter().flat_map(|m| m.outputs.clone());
        out.objects = generated(client, outputs).await?;
        for module in self.modules() {
            out.resources.extend(module.resources());
            for finding in module.findings() {
                let list = if finding.refused {
                    &mut out.refused
                } else {
                    &mut out.notes
                };
                if !list.contains(&finding.message) {
                    list.push(finding.message);
                }
            }
        }
        Ok(())
    }
}

/// Generated objects of the kinds `outputs`, in the form of [`output_form`], sorted by kind, namespace and name.
pub async fn generated(
    client: &Client,
    outputs: impl IntoIterator<Item = ApiResource>,
) -> anyhow::Result<Vec<Value>> {
    let kinds: BTreeMap<String, ApiResource> =
        outputs.into_iter().map(|r| (r.kind.clone(), r)).collect();
    let mut out = Vec::new();
    for resource in kinds.values() {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
        let list = api.list(&ListParams::default()).await;
        let mut items = list
            .with_context(|| format!("list of {}", resource.plural))?
            .items;
        let name = |o: &DynamicObject| (o.metadata.namespace.clone(), o.metadata.name.clone());
        items.retain(is_generated);
        items.sort_by_key(name);
        for object in items {
            out.push(output_form(&object, resource)?);
        }
    }
    Ok(out)
}

/// Whether a module has made the object: by its label, or, where others decide on the labels, by its field manager.
fn is_generated(object: &DynamicObject) -> bool {
    let managers = object.metadata.managed_fields.iter().flatten();
    let mut managers = managers.filter_map(|m| m.manager.as_deref());
    let applied = managers.any(|m| m.starts_with("trimtab/") && !m.ends_with("-status"));
    applied || object.labels().get(MANAGED_BY_LABEL).map(String::as_str) == Some(MANAGED_BY)
}

/// A generated object without what the API server adds and without references to UIDs: as `translate` and `--out` show
/// it.
pub fn output_form(object: &DynamicObject, resource: &ApiResource) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(object)?;
    let mut metadata = value["metadata"].take();
    if let Some(fields) = metadata.as_object_mut() {
        let kept = ["name", "namespace", "labels", "annotations"];
        fields.retain(|name, _| kept.contains(&name.as_str()));
    }
    let mut out = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
    });
    if let Some(fields) = value.as_object_mut() {
        for (name, field) in std::mem::take(fields) {
            if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status") {
                out[name] = field;
            }
        }
    }
    Ok(out)
}

/// Prints the objects as one YAML stream or one JSON list. `xds`: also what the xDS server would have, as documents of the
/// kind `XdsResource` that no API server takes.
pub fn print(output: &Output, json: bool, xds: bool) -> anyhow::Result<String> {
    let resources = output.resources.iter().filter(|_| xds);
    let values: Vec<&Value> = output.objects.iter().chain(resources).collect();
    if json {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": values});
        return Ok(format!("{}\n", serde_json::to_string_pretty(&list)?));
    }
    let mut out = String::new();
    for value in values {
        out.push_str("---\n");
        out.push_str(&manifests::yaml(value)?);
    }
    Ok(out)
}
