//! Standalone mode: the operator without a cluster, on the embedded API filled from a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use trimtab_embedded::{Embedded, StoppedClock};

use crate::manifests::{self, Document};

/// How often the folder is looked at.
const POLL: Duration = Duration::from_millis(500);

/// An embedded API that knows Trimtab's and Istio's kinds.
pub fn embedded() -> anyhow::Result<Embedded> {
    with_kinds(Embedded::new())
}

/// The same for a look at files: of two objects for one thing the older counts, and how long it took to read them must not
/// decide which that is.
pub fn embedded_for_files() -> anyhow::Result<Embedded> {
    let clock = StoppedClock(Timestamp::now());
    with_kinds(Embedded::with_clock(Arc::new(clock)))
}

fn with_kinds(embedded: Embedded) -> anyhow::Result<Embedded> {
    let ours = trimtab_crds::manifests::trimtab_crds()
        .into_iter()
        .map(|(_, crd)| crd);
    for crd in ours.chain(trimtab_crds::manifests::istio_crds()) {
        let name = crd.metadata.name.clone().unwrap_or_default();
        embedded
            .install_crd(&crd)
            .with_context(|| format!("CRD {name}"))?;
    }
    Ok(embedded)
}

/// Creates or updates the object of a document, with its status; its namespace comes into being by itself.
pub fn load(embedded: &Embedded, document: &Document) -> anyhow::Result<()> {
    let mut object = document.object.clone();
    if let Some(namespace) = object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
    {
        embedded.ensure_namespace(namespace)?;
    } else if !cluster_scoped(&object)
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("namespace".into(), "default".into());
    }
    embedded
        .load(object)
        .map_err(|e| anyhow::anyhow!("{}: {}: {e}", document.file.display(), document.title()))?;
    Ok(())
}

/// Whether the API has an object of the document's kind, namespace and name.
pub async fn exists(embedded: &Embedded, document: &Document) -> bool {
    let (api_version, kind, namespace, name) = identity(&document.object);
    let api = api(embedded.client(), &api_version, &kind, &namespace);
    api.get_opt(&name).await.is_ok_and(|found| found.is_some())
}

fn cluster_scoped(object: &Value) -> bool {
    matches!(
        object["kind"].as_str(),
        Some("Namespace" | "Node" | "CustomResourceDefinition" | "ApplicationProtocol")
    )
}

/// Identity of a document's object.
type Identity = (String, String, String, String);

fn identity(object: &Value) -> Identity {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let default = if cluster_scoped(object) {
        ""
    } else {
        "default"
    };
    let namespace = object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
        .unwrap_or(default)
        .to_owned();
    (
        text("/apiVersion"),
        text("/kind"),
        namespace,
        text("/metadata/name"),
    )
}

/// Follows a folder: what it holds is in the embedded API. A file that cannot be read or is refused leaves what it held before.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    embedded: Embedded,
    known: BTreeMap<Identity, Document>,
    complaint: String,
}

impl Folder {
    /// Follows `dir`.
    pub fn new(dir: &Path, embedded: Embedded) -> Self {
        Self {
            dir: dir.to_owned(),
            embedded,
            known: BTreeMap::new(),
            complaint: String::new(),
        }
    }

    /// Brings the API up to date with the folder. Returns what was refused, a line each.
    pub async fn sync(&mut self) -> anyhow::Result<Vec<String>> {
        let mut refused = Vec::new();
        let mut seen: BTreeMap<Identity, Document> = BTreeMap::new();
        for file in manifests::files(std::slice::from_ref(&self.dir))? {
            match manifests::read_file(&file) {
                Ok(documents) => {
                    for document in documents {
                        self.take(document, &mut seen, &mut refused);
                    }
                }
                Err(error) => {
                    refused.push(format!("{error:#}"));
                    let before = self.known.iter().filter(|(_, d)| d.file == file);
                    seen.extend(before.map(|(id, d)| (id.clone(), d.clone())));
                }
            }
        }
        let gone: Vec<Identity> = self
            .known
            .keys()
            .filter(|k| !seen.contains_key(*k))
            .cloned()
            .collect();
        for id in gone {
            delete(self.embedded.client(), &id).await?;
        }
        self.known = seen;
        Ok(refused)
    }

    /// Loads one document unless it is loaded already; one that is refused leaves what it was before.
    fn take(
        &self,
        document: Document,
        seen: &mut BTreeMap<Identity, Document>,
        refused: &mut Vec<String>,
    ) {
        let id = identity(&document.object);
        let before = self.known.get(&id);
        if before.is_none_or(|b| b.object != document.object) {
            if let Err(error) = load(&self.embedded, &document) {
                refused.push(format!("{error:#}"));
                seen.extend(before.map(|b| (id, b.clone())));
                return;
            }
            tracing::info!(object = %document.title(), "loaded");
        }
        seen.insert(id, document);
    }

    /// Follows until shutdown. A complaint is logged once, not twice a second.
    pub async fn follow(mut self, shutdown: CancellationToken) {
        loop {
            let complaint = match self.sync().await {
                Ok(refused) => refused.join("\n"),
                Err(error) => format!("{error:#}"),
            };
            if complaint != self.complaint {
                if !complaint.is_empty() {
                    tracing::error!("{complaint}; what was loaded before stays in force");
                }
                self.complaint = complaint;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

fn api(client: Client, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(group, version, kind),
        &plural(kind),
    );
    if namespace.is_empty() {
        Api::all_with(client, &resource)
    } else {
        Api::namespaced_with(client, namespace, &resource)
    }
}

async fn delete(client: Client, id: &Identity) -> anyhow::Result<()> {
    let (api_version, kind, namespace, name) = id;
    let api = api(client, api_version, kind, namespace);
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => tracing::info!(%kind, %namespace, %name, "deleted: it is no longer in the folder"),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Plural of the kinds that the embedded API knows.
fn plural(kind: &str) -> String {
    let lower = kind.to_lowercase();
    match lower.as_str() {
        "endpoints" => lower,
        "serviceentry" => "serviceentries".to_owned(),
        "authorizationpolicy" => "authorizationpolicies".to_owned(),
        "dubboauthorizationpolicy" => "dubboauthorizationpolicies".to_owned(),
        "podmetrics" => "pods".to_owned(),
        _ => format!("{lower}s"),
    }
}
