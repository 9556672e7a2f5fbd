//! Standalone mode: the operator without a cluster, on the embedded API filled from a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use trimtab_crds::istio;
use trimtab_embedded::{Embedded, Nearest, StoppedClock, nearest};
use trimtab_mesh::model::MeshConfig;

use crate::config::Config;
use crate::manifests::{self, Document, Input};
use crate::modules;

/// Who holds back what an unreadable folder may have had.
pub const FOLDER: &str = "folder";
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

/// What became of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// Its object is in the API.
    Taken,
    /// Trimtab does not read its kind.
    PassedOver,
}

/// Creates or updates the object of a document, with its status; its namespace comes into being by itself. An object with a
/// field that its kind does not have is refused, as by kubectl.
pub fn load(embedded: &Embedded, document: &Document) -> anyhow::Result<Loaded> {
    let fail = |error: &dyn Display| {
        anyhow::anyhow!("{}: {}: {error}", document.file.display(), document.title())
    };
    let mut object = document.object.clone();
    let (api_version, kind) = (text(&object, "/apiVersion"), text(&object, "/kind"));
    let Some(found) = embedded.kind(api_version, kind) else {
        return unserved(embedded, api_version, kind).map_err(|e| fail(&e));
    };
    if is_own_crd(&object) {
        return Ok(Loaded::PassedOver);
    }
    if let Some(root) = root_of_mesh(&object) {
        embedded.ensure_namespace(&root)?;
    }
    if let Some(namespace) = object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
    {
        embedded.ensure_namespace(namespace)?;
    } else if found.namespaced
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("namespace".into(), "default".into());
    }
    embedded.load_strict(object).map_err(|e| fail(&e))?;
    Ok(Loaded::Taken)
}

/// Fields of an Istio object that Istio does not have, a line each: an API server would remove them, and so does Trimtab
/// not look at them. Newer releases than the one that is known may have them, so this is no refusal.
pub fn remarks(document: &Document) -> Vec<String> {
    let unknown = istio::unknown_fields(&document.object).into_iter();
    let line = |field: istio::UnknownField| {
        let near = nearest(&field.name, field.known.iter().map(String::as_str));
        let near = near.map_or_else(String::new, |near| format!(", did you mean {near}?"));
        format!(
            "{}: {}: {}: Istio {} has no such field, so it has no effect{near}",
            document.file.display(),
            document.title(),
            field.path,
            istio::RELEASE
        )
    };
    unknown.map(line).collect()
}

/// Kinds of others are passed over; a kind that Trimtab or Istio has, or that may be meant for one, is a mistake.
fn unserved(embedded: &Embedded, api_version: &str, kind: &str) -> anyhow::Result<Loaded> {
    let group = group(api_version);
    let own = own_groups().contains(group);
    match embedded.nearest_kind(api_version, kind) {
        Some(Nearest::Version(version)) if own || READ_GROUPS.contains(&group) => {
            anyhow::bail!("no kind {kind:?} in {api_version:?}: write apiVersion: {version}")
        }
        Some(Nearest::Kind(meant)) => {
            anyhow::bail!("no kind {kind:?} in {api_version:?}: did you mean {meant}?")
        }
        _ if own => anyhow::bail!(
            "no kind {kind:?} in {api_version:?}: Trimtab does not know it; remove it, or correct apiVersion and kind"
        ),
        _ => Ok(Loaded::PassedOver),
    }
}

/// Built-in groups whose objects Trimtab reads: an object of another version counts there, and is missed.
const READ_GROUPS: [&str; 2] = ["", "discovery.k8s.io"];

fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// The groups of Trimtab's and Istio's kinds.
fn own_groups() -> &'static BTreeSet<String> {
    static GROUPS: OnceLock<BTreeSet<String>> = OnceLock::new();
    GROUPS.get_or_init(|| {
        let ours = trimtab_crds::manifests::trimtab_crds();
        let ours = ours.into_iter().map(|(_, crd)| crd);
        let crds = ours.chain(trimtab_crds::manifests::istio_crds());
        crds.map(|crd| crd.spec.group).collect()
    })
}

/// Whether the object is a CRD of a kind that is there from the start: folders of installations have them too, and what
/// counts here are those of this program.
fn is_own_crd(object: &Value) -> bool {
    text(object, "/kind") == "CustomResourceDefinition"
        && own_groups().contains(text(object, "/spec/group"))
}

/// The root namespace that a MeshConfig names: objects are generated there, and a mesh has it.
fn root_of_mesh(object: &Value) -> Option<String> {
    let is_map = text(object, "/kind") == "ConfigMap";
    let mesh = is_map.then(|| MeshConfig::parse(text(object, "/data/mesh")))??;
    Some(mesh.root_namespace).filter(|root| !root.is_empty())
}

/// Makes the namespaces that a configuration takes for given.
pub fn ensure_roots(embedded: &Embedded, config: &Config) -> anyhow::Result<()> {
    for namespace in modules::root_namespaces(config) {
        embedded.ensure_namespace(&namespace)?;
    }
    Ok(())
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    let found = object.pointer(pointer);
    found.and_then(Value::as_str).unwrap_or_default()
}

/// Whether the API has an object of the document's kind, namespace and name.
pub async fn exists(embedded: &Embedded, document: &Document) -> bool {
    let (_, _, namespace, name) = identity(embedded, &document.object);
    let Some(api) = api(embedded, &document.object, &namespace) else {
        return false;
    };
    api.get_opt(&name).await.is_ok_and(|found| found.is_some())
}

/// Identity of a document's object: group, kind, namespace, name. Versions of a kind are one kind.
type Identity = (String, String, String, String);

fn identity(embedded: &Embedded, object: &Value) -> Identity {
    let (api_version, kind) = (text(object, "/apiVersion"), text(object, "/kind"));
    let found = embedded.kind(api_version, kind);
    let namespace = if found.is_some_and(|k| !k.namespaced) {
        ""
    } else {
        let written = object.pointer("/metadata/namespace");
        written.and_then(Value::as_str).unwrap_or("default")
    };
    (
        group(api_version).to_owned(),
        kind.to_owned(),
        namespace.to_owned(),
        text(object, "/metadata/name").to_owned(),
    )
}

/// A document of the folder and what became of it.
#[derive(Clone, Debug)]
struct Known {
    document: Document,
    loaded: Loaded,
}

/// Follows a folder: what it holds is in the embedded API. A file that cannot be read or is refused leaves what it held before.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    embedded: Embedded,
    known: BTreeMap<Identity, Known>,
    complaint: String,
    /// Files and folders that could not be read, or were refused, when the folder was read first, and still cannot: nobody
    /// knows what an earlier process made of them. Absent: it has not been read.
    unknown: Option<BTreeSet<PathBuf>>,
}

/// What is wrong with a file or folder.
struct Complaint {
    path: PathBuf,
    text: String,
    /// It may have had a part in what proxies are served.
    served: bool,
}

/// Whether objects of an API group may have a part in what proxies are served. Files have objects of other programs, too.
fn is_served(object: &Value) -> bool {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let ours = trimtab_crds::manifests::trimtab_crds();
    ["", "discovery.k8s.io", "networking.istio.io"].contains(&group)
        || ours.iter().any(|(_, crd)| crd.spec.group == group)
}

impl Folder {
    /// Follows `dir`.
    pub fn new(dir: &Path, embedded: Embedded) -> Self {
        Self {
            dir: dir.to_owned(),
            embedded,
            known: BTreeMap::new(),
            complaint: String::new(),
            unknown: None,
        }
    }

    /// Whether all that was there when the folder was read first has been read since, or is gone.
    pub fn is_known(&self) -> bool {
        self.unknown.as_ref().is_none_or(BTreeSet::is_empty)
    }

    /// Brings the API up to date with the folder. Returns what was refused, a line each.
    pub async fn sync(&mut self) -> anyhow::Result<Vec<String>> {
        let mut refused: Vec<Complaint> = Vec::new();
        let mut seen: BTreeMap<Identity, Known> = BTreeMap::new();
        let found = manifests::look(&self.dir)?;
        for (path, error) in found.unreadable {
            self.keep(&path, &mut seen);
            refused.push(Complaint {
                path,
                text: format!("{error:#}"),
                served: true,
            });
        }
        for file in found.files {
            let input = manifests::read_file(&file).unwrap_or_else(|error| Input {
                refused: vec![format!("{error:#}")],
                ..Input::default()
            });
            let mut whole = input.refused.is_empty();
            let unreadable = input.refused.into_iter();
            refused.extend(unreadable.map(|text| Complaint {
                path: file.clone(),
                text,
                served: true,
            }));
            for document in input.documents {
                whole &= self.take(document, &mut seen, &mut refused);
            }
            if !whole {
                // Which object a part was that cannot be read, or whose name or kind is new and wrong, nobody knows: what the
                // file held before stays.
                self.keep(&file, &mut seen);
            }
        }
        for (id, known) in &self.known {
            if !seen.contains_key(id) && known.loaded == Loaded::Taken {
                delete(&self.embedded, id, &known.document.object).await?;
            }
        }
        self.known = seen;
        let bad = refused.iter().filter(|c| c.served);
        let bad: BTreeSet<PathBuf> = bad.map(|c| c.path.clone()).collect();
        match &mut self.unknown {
            Some(unknown) => unknown.retain(|path| bad.contains(path)),
            None => self.unknown = Some(bad),
        }
        Ok(refused.into_iter().map(|c| c.text).collect())
    }

    /// What was loaded from a file, or from the files of a folder, stays.
    fn keep(&self, path: &Path, seen: &mut BTreeMap<Identity, Known>) {
        let of_path = |known: &Known| known.document.file.starts_with(path);
        for (id, known) in self.known.iter().filter(|(_, k)| of_path(k)) {
            seen.entry(id.clone()).or_insert_with(|| known.clone());
        }
    }

    /// Loads one document unless it is loaded already; one that is refused leaves what it was before. False: it is refused and
    /// was not there before.
    fn take(
        &self,
        document: Document,
        seen: &mut BTreeMap<Identity, Known>,
        refused: &mut Vec<Complaint>,
    ) -> bool {
        let id = identity(&self.embedded, &document.object);
        let before = self.known.get(&id);
        if let Some(before) = before.filter(|b| b.document.object == document.object) {
            let loaded = before.loaded;
            seen.insert(id, Known { document, loaded });
            return true;
        }
        match load(&self.embedded, &document) {
            Ok(loaded) => {
                let object = document.title();
                match loaded {
                    Loaded::Taken => {
                        tracing::info!(%object, "loaded");
                        for remark in remarks(&document) {
                            tracing::warn!("{remark}");
                        }
                    }
                    Loaded::PassedOver => {
                        tracing::info!(%object, "passed over: Trimtab does not read this kind");
                    }
                }
                seen.insert(id, Known { document, loaded });
                true
            }
            Err(error) => {
                refused.push(Complaint {
                    served: is_served(&document.object),
                    path: document.file,
                    text: format!("{error:#}"),
                });
                seen.extend(before.map(|b| (id, b.clone())));
                before.is_some()
            }
        }
    }

    /// Follows until shutdown. A complaint is logged once, not twice a second. `known` is told when all is known that the
    /// folder held at first.
    pub async fn follow(mut self, known: impl Fn(), shutdown: CancellationToken) {
        let mut told = false;
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
            if !told && self.is_known() {
                told = true;
                known();
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

/// The API of the object's kind, if it is served.
fn api(embedded: &Embedded, object: &Value, namespace: &str) -> Option<Api<DynamicObject>> {
    let (api_version, kind) = (text(object, "/apiVersion"), text(object, "/kind"));
    let found = embedded.kind(api_version, kind)?;
    let client = embedded.client();
    Some(if found.namespaced {
        Api::namespaced_with(client, namespace, &found.resource)
    } else {
        Api::all_with(client, &found.resource)
    })
}

async fn delete(embedded: &Embedded, id: &Identity, object: &Value) -> anyhow::Result<()> {
    let (_, kind, namespace, name) = id;
    let Some(api) = api(embedded, object, namespace) else {
        return Ok(());
    };
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => tracing::info!(%kind, %namespace, %name, "deleted: it is no longer in the folder"),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
