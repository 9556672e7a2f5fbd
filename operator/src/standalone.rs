//! Standalone mode: the operator without a cluster, on the embedded API filled from a folder.

mod duplicates;
mod folder;
mod typed;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use jiff::Timestamp;
use kube::Api;
use kube::api::DynamicObject;
use serde_json::Value;
use trimtab_crds::istio;
use trimtab_embedded::{ApiError, Cause, Embedded, Nearest, StoppedClock, nearest};
use trimtab_mesh::model::MeshConfig;

use crate::config::Config;
use crate::manifests::{Document, brief};
use crate::modules;

pub(crate) use duplicates::split;
pub use folder::{FOLDER, Folder};

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
    let others = trimtab_crds::manifests::istio_crds().into_iter();
    for crd in ours
        .chain(others)
        .chain(trimtab_crds::manifests::gateway_api_crds())
    {
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
        let error = brief(&error.to_string());
        anyhow::anyhow!("{}", document.fails(&error))
    };
    let mut object = document.object.clone();
    let (api_version, kind) = (text(&object, "/apiVersion"), text(&object, "/kind"));
    let Some(found) = embedded.kind(api_version, kind) else {
        return unserved(embedded, api_version, kind).map_err(|e| fail(&e));
    };
    if is_own_crd(&object) {
        return Ok(Loaded::PassedOver);
    }
    typed::check(api_version, kind, &object).map_err(|e| fail(&e))?;
    if let Some(root) = root_of_mesh(&object) {
        let made = embedded.ensure_namespace(&root);
        made.map_err(|e| fail(&format!("data.mesh: rootNamespace: {e}")))?;
    }
    if let Some(namespace) = object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
    {
        let made = embedded.ensure_namespace(namespace);
        made.map_err(|e| fail(&format!("metadata.namespace: {e}")))?;
    } else if found.namespaced
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("namespace".into(), "default".into());
    }
    match embedded.load_to_stay(object) {
        Ok(_) => Ok(Loaded::Taken),
        Err(error) => anyhow::bail!("{}", document.fails(&in_brief(error))),
    }
}

/// So many mistakes of one object are told.
const TOLD: usize = 100;

/// An error of the API with each mistake cut: they have texts of the object in them, of any length.
fn in_brief(error: ApiError) -> String {
    let ApiError::Invalid { subject, causes } = error else {
        return brief(&error.to_string());
    };
    let more = causes.len().saturating_sub(TOLD);
    let cut = |cause: Cause| Cause {
        message: brief(&cause.message),
        field: brief(&cause.field),
        ..cause
    };
    let causes = causes.into_iter().take(TOLD).map(cut).collect();
    let told = ApiError::Invalid { subject, causes }.to_string();
    match more {
        0 => told,
        more => format!("{told} and {more} more mistakes"),
    }
}

/// Fields of an Istio object that Istio does not have, a line each: an API server would remove them, and so does Trimtab
/// not look at them. Newer releases than the one that is known may have them, so this is no refusal.
pub fn remarks(document: &Document) -> Vec<String> {
    let unknown = istio::unknown_fields(&document.object).into_iter();
    let line = |field: istio::UnknownField| {
        let near = nearest(&field.name, field.known.iter().map(String::as_str));
        let near = near.map_or_else(String::new, |near| format!(", did you mean {near}?"));
        let (path, release) = (field.path, istio::RELEASE);
        document.fails(&format!(
            "{path}: Istio {release} has no such field, so it has no effect{near}"
        ))
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
    let (group, kind) = (
        text(object, "/spec/group"),
        text(object, "/spec/names/kind"),
    );
    let gateway_api = || trimtab_crds::manifests::gateway_api_crds().into_iter();
    let read = || gateway_api().any(|c| c.spec.group == group && c.spec.names.kind == kind);
    text(object, "/kind") == "CustomResourceDefinition" && (own_groups().contains(group) || read())
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
