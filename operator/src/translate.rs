//! `trimtab translate`: generated objects offline, with metric values from the command line.

mod fences;
mod metaprotocol;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;
use trimtab_crds::istio::{DestinationRule, EnvoyFilter, ServiceEntry};
use trimtab_crds::limiter::{DescriptorState, first_form, v1alpha2};
use trimtab_kit::watch::Feed;
use trimtab_limiter::decide::decide;
use trimtab_limiter::index::{Index, LimiterKey};
use trimtab_limiter::input::{LimiterInput, Reading, Settings};
use trimtab_limiter::translate::translate;
use trimtab_limiter::validate::validate_for;
use trimtab_metaprotocol::output::XdsResource;

use crate::config::Config;
use crate::manifests::{self, Document};
use crate::standalone;

pub use metaprotocol::index as metaprotocol_index;

/// What came out.
#[derive(Debug, Default)]
pub struct Output {
    /// Generated EnvoyFilters, sorted by namespace and name.
    pub objects: Vec<EnvoyFilter>,
    /// Generated VirtualServices, sorted by namespace and name.
    pub virtual_services: Vec<Value>,
    /// Generated Sidecars, sorted by namespace and name.
    pub sidecars: Vec<Value>,
    /// ServiceFences that labels and annotations ask for, sorted by namespace and name.
    pub fences: Vec<Value>,
    /// What the xDS server would have, sorted by type and name.
    pub resources: Vec<XdsResource>,
    /// Refusals: object, field, fix.
    pub refused: Vec<String>,
    /// Decisions, a line each.
    pub notes: Vec<String>,
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

/// Translates files and folders. The objects pass the same checks as at an API server.
pub async fn run(
    paths: &[PathBuf],
    metrics: &BTreeMap<String, f64>,
    config: &Config,
) -> anyhow::Result<Output> {
    let documents = manifests::read(paths)?;
    run_with(&documents, metrics, config).await
}

/// Translates objects that are read already, with the default configuration.
pub async fn run_documents(
    documents: &[Document],
    metrics: &BTreeMap<String, f64>,
) -> anyhow::Result<Output> {
    run_with(documents, metrics, &Config::default()).await
}

/// Translates objects that are read already.
pub async fn run_with(
    documents: &[Document],
    metrics: &BTreeMap<String, f64>,
    config: &Config,
) -> anyhow::Result<Output> {
    let embedded = standalone::embedded()?;
    let mut out = Output::default();
    for document in documents {
        let result = standalone::load(&embedded, document);
        if let Err(error) = result {
            out.refused.push(format!("{error:#}"));
        }
    }
    let index = Index::new(&config.limiter.root_namespace);
    let client = embedded.client();
    feed::<Service>(&client, &index).await?;
    feed::<Pod>(&client, &index).await?;
    feed::<DestinationRule>(&client, &index).await?;
    feed::<ServiceEntry>(&client, &index).await?;
    feed::<v1alpha2::SmartLimiter>(&client, &index).await?;
    feed::<first_form::SmartLimiter>(&client, &index).await?;
    let (keys, _) = index.take_changes();
    let hosts = metaprotocol::translate_all(&client, config, &mut out).await?;
    let fences = fences::translate_all(&client, config, &mut out).await?;
    if keys.is_empty() && hosts == 0 && fences == 0 && out.refused.is_empty() {
        bail!(
            "there is no SmartLimiter, no ServiceFence and no service with a layer-7 port in the input: give a file or folder with one"
        );
    }
    let settings = Arc::new(Settings {
        known_metrics: metrics.keys().cloned().collect(),
        ..Settings::default()
    });
    for key in keys {
        one(&index, &key, metrics, &settings, &mut out);
    }
    out.objects.sort_by(|a, b| {
        let key = |e: &EnvoyFilter| (e.metadata.namespace.clone(), e.metadata.name.clone());
        key(a).cmp(&key(b))
    });
    Ok(out)
}

fn one(
    index: &Index,
    key: &LimiterKey,
    metrics: &BTreeMap<String, f64>,
    settings: &Arc<Settings>,
    out: &mut Output,
) {
    let Some(resolved) = index.resolve(key) else {
        return;
    };
    let owner = resolved.object.owner.clone();
    let mut readings = BTreeMap::new();
    for (set, facts) in &resolved.target.sets {
        for (name, value) in metrics {
            readings.insert(format!("{set}.{name}"), Reading::fresh(*value));
        }
        readings
            .entry(format!("{set}.pod"))
            .or_insert_with(|| Reading::fresh(facts.pods as f64));
    }
    for (name, value) in metrics {
        // `--metric _base.cpu=1` names the set too.
        readings.insert(name.clone(), Reading::fresh(*value));
    }
    let input = LimiterInput {
        owner: trimtab_limiter::error::Owner {
            uid: String::new(),
            ..owner.clone()
        },
        spec: (*resolved.object.spec).clone(),
        target: resolved.target,
        metrics: readings,
        previous: Vec::new(),
        settings: settings.clone(),
    };
    let validated = validate_for(&owner, &input.spec, &input.target.ports);
    for problem in validated.problems() {
        out.refused.push(format!("{owner}: {problem}"));
    }
    if let Some(problem) = &input.target.problem {
        out.refused.push(format!(
            "{owner}: {}",
            problem.problem(&owner, input.spec.host.as_deref().unwrap_or_default())
        ));
        return;
    }
    let decisions = decide(&input, &validated);
    for (decision, checked) in decisions.iter().zip(&validated.rules) {
        if decision.state == DescriptorState::Refused
            && checked.rule.is_ok()
            && validated.object.is_empty()
        {
            out.refused.push(format!("{owner}: {}", decision.reason));
        } else {
            let path = owner.descriptor_path(
                &decision.set,
                usize::try_from(decision.index).unwrap_or_default(),
            );
            out.notes.push(format!(
                "{owner}: {path}: {}: {}",
                decision.state.as_str(),
                decision.reason
            ));
        }
    }
    out.objects
        .extend(translate(&input, &validated, &decisions).envoy_filters);
}

async fn feed<K>(client: &Client, index: &Arc<Index>) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
    Index: Feed<K>,
{
    let list = Api::<K>::all(client.clone())
        .list(&kube::api::ListParams::default())
        .await
        .with_context(|| format!("list of {}", K::plural(&())))?;
    index.reset(list.items.into_iter().map(Arc::new).collect(), &[]);
    Ok(())
}

/// Prints the objects as one YAML stream or one JSON list. `xds`: also what the xDS server would have, as documents of the
/// kind `XdsResource` that no API server takes.
pub fn print(output: &Output, json: bool, xds: bool) -> anyhow::Result<String> {
    let mut values: Vec<Value> = output
        .objects
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?;
    values.extend(output.virtual_services.iter().cloned());
    values.extend(output.fences.iter().cloned());
    values.extend(output.sidecars.iter().cloned());
    if xds {
        values.extend(output.resources.iter().map(metaprotocol::shown));
    }
    if json {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": values});
        return Ok(format!("{}\n", serde_json::to_string_pretty(&list)?));
    }
    let mut out = String::new();
    for value in &values {
        out.push_str("---\n");
        out.push_str(&manifests::yaml(value)?);
    }
    Ok(out)
}
