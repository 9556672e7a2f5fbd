//! Applies `EnvoyFilter` objects to a bootstrap of [`crate::mesh`], so that what the operator generates can be run on
//! a real Envoy without Istio.
//!
//! This is ours, for tests; it is not Istio's code. It follows Istio's documentation of matches and
//! operations and protobuf's merge rules, and it shows that Envoy accepts and obeys the result. It does not show that
//! istiod's merge gives the same result. Unlike istiod it is strict: an unknown match field or operation is an error,
//! and a patch that matches nothing is reported.
//!
//! Order: `spec.priority`, then the order of the slice. `match.proxy.proxyVersion` is noted and ignored.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::mesh::METADATA;
use crate::proto_merge::{merge, merge_any, snake_case};

mod filters;
mod routes;

/// The `match.context` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// A sidecar's listener for its own workload.
    SidecarInbound,
    /// A sidecar's listener for calls to others.
    SidecarOutbound,
    /// A gateway's listener.
    Gateway,
}

impl Context {
    /// Istio's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SidecarInbound => "SIDECAR_INBOUND",
            Self::SidecarOutbound => "SIDECAR_OUTBOUND",
            Self::Gateway => "GATEWAY",
        }
    }
}

/// What decides whether an `EnvoyFilter` is for this proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyFacts {
    /// Labels of the workload.
    pub labels: BTreeMap<String, String>,
    /// Namespace of the workload.
    pub namespace: String,
    /// Objects of this namespace are for proxies of every namespace; Istio's default is `istio-system`.
    pub root_namespace: String,
}

impl ProxyFacts {
    /// Facts with Istio's default root namespace.
    pub fn new(namespace: &str, labels: BTreeMap<String, String>) -> Self {
        Self {
            labels,
            namespace: namespace.to_owned(),
            root_namespace: "istio-system".to_owned(),
        }
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ApplyReport {
    /// Number of places that were patched.
    pub applied: usize,
    /// Objects that are for other proxies.
    pub skipped: Vec<String>,
    /// Patches for this proxy that matched nothing: nearly always a mistake.
    pub unmatched: Vec<String>,
    /// What was ignored.
    pub notes: Vec<String>,
    /// The resources of `EXTENSION_CONFIG` patches by name; see [`inline_extension_configs`].
    pub extension_configs: BTreeMap<String, Value>,
}

/// A patch that cannot be applied; names the object, the patch and the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{patch}: {reason}")]
pub struct MergeError {
    /// The object and the patch.
    pub patch: String,
    /// What is wrong.
    pub reason: String,
}

/// Applies the objects to the bootstrap in place.
pub fn apply(
    base: &mut Value,
    envoy_filters: &[Value],
    proxy: &ProxyFacts,
) -> Result<ApplyReport, MergeError> {
    let mut report = ApplyReport::default();
    let mut ordered: Vec<&Value> = envoy_filters.iter().collect();
    ordered.sort_by_key(|filter| filter["spec"]["priority"].as_i64().unwrap_or(0));
    for filter in ordered {
        let name = object_name(filter);
        if !is_for(filter, &name, proxy)? {
            report.skipped.push(name);
            continue;
        }
        let patches = filter["spec"]["configPatches"]
            .as_array()
            .ok_or_else(|| MergeError {
                patch: name.clone(),
                reason: "spec.configPatches is not a list".to_owned(),
            })?;
        for (index, patch) in patches.iter().enumerate() {
            let patch = Patch::parse(&name, index, patch)?;
            if patch.is_version_bound() {
                report.notes.push(format!(
                    "{}: match.proxy.proxyVersion is ignored",
                    patch.label
                ));
            }
            let places = patch.apply(base, &mut report)?;
            report.applied += places;
            if places == 0 {
                report.unmatched.push(patch.label);
            }
        }
    }
    Ok(report)
}

/// Puts collected `EXTENSION_CONFIG` resources where filters ask for them with `config_discovery`, as istiod's
/// extension discovery would deliver them; returns the names that were asked for.
pub fn inline_extension_configs(
    base: &mut Value,
    resources: &BTreeMap<String, Value>,
) -> Vec<String> {
    let mut used = Vec::new();
    for listener in listeners(base) {
        for manager in filters::connection_managers(listener) {
            for filter in
                items(manager, "/typed_config/http_filters").filter_map(Value::as_object_mut)
            {
                let name = filter
                    .get("name")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned();
                if let (true, Some(resource)) = (
                    filter.contains_key("config_discovery"),
                    resources.get(&name),
                ) {
                    filter.remove("config_discovery");
                    filter.insert("typed_config".to_owned(), resource["typed_config"].clone());
                    used.push(name);
                }
            }
        }
    }
    used
}

/// One entry of `configPatches`, its value with snake_case names.
#[derive(Debug)]
struct Patch {
    label: String,
    apply_to: String,
    operation: String,
    conditions: Value,
    value: Value,
}

impl Patch {
    fn parse(object: &str, index: usize, patch: &Value) -> Result<Self, MergeError> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (apply_to, operation) = (text(&patch["applyTo"]), text(&patch["patch"]["operation"]));
        let parsed = Self {
            label: format!("EnvoyFilter {object} configPatches[{index}] ({apply_to} {operation})"),
            apply_to,
            operation,
            conditions: patch.get("match").cloned().unwrap_or_else(|| json!({})),
            value: snake_case(&patch["patch"]["value"]),
        };
        parsed.known_fields(patch, &["applyTo", "match", "patch"])?;
        parsed.known_fields(&patch["patch"], &["operation", "value"])?;
        parsed.known_fields(
            &parsed.conditions,
            &[
                "context",
                "proxy",
                "listener",
                "routeConfiguration",
                "cluster",
            ],
        )?;
        parsed.known_fields(&parsed.conditions["proxy"], &["proxyVersion"])?;
        Ok(parsed)
    }

    /// Refuses a field that this applier does not know: ignoring it would patch more places than asked for.
    fn known_fields(&self, object: &Value, known: &[&str]) -> Result<(), MergeError> {
        let unknown = object
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .find(|key| !known.contains(&key.as_str()));
        match unknown {
            Some(key) => {
                Err(self.error(&format!("field {key} is not one of {}", known.join(", "))))
            }
            None => Ok(()),
        }
    }

    fn error(&self, reason: &str) -> MergeError {
        MergeError {
            patch: self.label.clone(),
            reason: reason.to_owned(),
        }
    }

    fn unsupported(&self) -> MergeError {
        self.error(&format!(
            "operation {} on {} is not supported here",
            self.operation, self.apply_to
        ))
    }

    fn is_version_bound(&self) -> bool {
        self.conditions["proxy"]["proxyVersion"].is_string()
    }

    /// Whether `match.context` is for this listener; `ANY` and no context are for all.
    fn wants_context(&self, listener: &Value) -> bool {
        match self.conditions["context"].as_str() {
            None | Some("" | "ANY") => true,
            Some(context) => {
                listener["metadata"]["filter_metadata"][METADATA]["context"] == context
            }
        }
    }

    /// Applies it and returns the number of places.
    fn apply(&self, base: &mut Value, report: &mut ApplyReport) -> Result<usize, MergeError> {
        match self.apply_to.as_str() {
            "HTTP_FILTER" => self.patch_http_filters(base),
            "NETWORK_FILTER" => self.patch_network_filters(base),
            "ROUTE_CONFIGURATION" | "VIRTUAL_HOST" | "HTTP_ROUTE" => self.patch_routes(base),
            "CLUSTER" => self.patch_clusters(base),
            "EXTENSION_CONFIG" => self.add_extension_config(report),
            "BOOTSTRAP" if self.operation == "MERGE" => {
                merge(base, &self.value);
                Ok(1)
            }
            _ => Err(self.unsupported()),
        }
    }

    fn patch_clusters(&self, base: &mut Value) -> Result<usize, MergeError> {
        self.known_fields(
            &self.conditions["cluster"],
            &["name", "portNumber", "service", "subset"],
        )?;
        let Some(clusters) = list(base, "/static_resources/clusters") else {
            return Err(self.error("the bootstrap has no list static_resources.clusters"));
        };
        match self.operation.as_str() {
            "ADD" => {
                clusters.push(self.value.clone());
                Ok(1)
            }
            "MERGE" => {
                let wanted = self.conditions["cluster"]["name"].as_str();
                let matching = clusters
                    .iter_mut()
                    .filter(|cluster| wanted.is_none_or(|name| cluster["name"] == name));
                Ok(matching.map(|cluster| merge(cluster, &self.value)).count())
            }
            _ => Err(self.unsupported()),
        }
    }

    fn add_extension_config(&self, report: &mut ApplyReport) -> Result<usize, MergeError> {
        if self.operation != "ADD" {
            return Err(self.unsupported());
        }
        let name = self.value["name"]
            .as_str()
            .ok_or_else(|| self.error("value.name is missing"))?;
        if !self.value["typed_config"].is_object() {
            return Err(self.error("value.typed_config is missing"));
        }
        report
            .extension_configs
            .insert(name.to_owned(), self.value.clone());
        Ok(1)
    }
}

fn listeners(base: &mut Value) -> impl Iterator<Item = &mut Value> {
    items(base, "/static_resources/listeners")
}

/// The items of a list; none when there is no such list. Indexing would write a null where nothing was.
fn items<'a>(value: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    list(value, pointer).into_iter().flatten()
}

fn list<'a>(value: &'a mut Value, pointer: &str) -> Option<&'a mut Vec<Value>> {
    value.pointer_mut(pointer).and_then(Value::as_array_mut)
}

/// The mesh's port of a listener, which is not the port it listens on here.
fn mesh_port(listener: &Value) -> Option<u64> {
    listener["metadata"]["filter_metadata"][METADATA]["port"].as_u64()
}

/// An absent condition is met; 0 is how a port number is left out in JSON written from protobuf.
fn port_wanted(condition: &Value, port: Option<u64>) -> bool {
    condition
        .as_u64()
        .is_none_or(|wanted| wanted == 0 || Some(wanted) == port)
}

fn name_wanted(condition: &Value, name: &Value) -> bool {
    condition
        .as_str()
        .is_none_or(|wanted| wanted.is_empty() || name == wanted)
}

fn object_name(filter: &Value) -> String {
    let part = |field: &str| {
        filter["metadata"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    format!("{}/{}", part("namespace"), part("name"))
}

fn is_for(filter: &Value, name: &str, proxy: &ProxyFacts) -> Result<bool, MergeError> {
    let spec = &filter["spec"];
    if !spec["targetRefs"].is_null() {
        return Err(MergeError {
            patch: format!("EnvoyFilter {name}"),
            reason: "spec.targetRefs is not supported here; use spec.workloadSelector".to_owned(),
        });
    }
    let namespace = filter["metadata"]["namespace"].as_str().unwrap_or_default();
    if namespace != proxy.namespace && namespace != proxy.root_namespace {
        return Ok(false);
    }
    let wanted = spec["workloadSelector"]["labels"].as_object();
    Ok(wanted
        .into_iter()
        .flatten()
        .all(|(key, value)| proxy.labels.get(key).map(String::as_str) == value.as_str()))
}

/// Merges a patch's filter into a filter: `typed_config` by its type, the rest as fields.
fn merge_filter(patch: &Patch, filter: &mut Value) -> Result<(), MergeError> {
    let mut rest = patch.value.clone();
    let config = rest
        .as_object_mut()
        .and_then(|fields| fields.remove("typed_config"));
    merge(filter, &rest);
    let Some(config) = config else { return Ok(()) };
    if filter["typed_config"].is_null() {
        filter["typed_config"] = config;
        return Ok(());
    }
    merge_any(&mut filter["typed_config"], &config).map_err(|mismatch| {
        patch.error(&format!(
            "value.typed_config is a {} but the filter's is a {}; both must be the same type",
            mismatch.patch, mismatch.base
        ))
    })
}
