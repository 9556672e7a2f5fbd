//! The kinds that are served, and the built-in ones among them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::error::Subject;
use crate::schema::{Rules, Schema};
use crate::store::ResourceId;

/// A column of the table output.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: String,
}

/// One served version of a resource.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) status: bool,
    pub(crate) schema: Option<Schema>,
    pub(crate) rules: Option<Rules>,
    pub(crate) raw_schema: Option<Value>,
    pub(crate) columns: Vec<Column>,
}

/// One resource: a kind in a group, with all its versions.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) id: ResourceId,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) builtin: bool,
    pub(crate) generation: bool,
    /// The version that objects are stored in.
    pub(crate) storage: String,
    pub(crate) versions: Vec<Version>,
}

impl Resource {
    pub(crate) fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.name == name)
    }

    pub(crate) fn group(&self) -> &str {
        &self.id.group
    }

    pub(crate) fn api_version(&self, version: &str) -> String {
        if self.group().is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group())
        }
    }

    /// Names the object in "not found" and the like.
    pub(crate) fn subject(&self, name: &str) -> Subject {
        Subject {
            group: self.group().to_owned(),
            resource: self.id.plural.to_string(),
            name: name.to_owned(),
        }
    }

    /// Names the object by kind, as "is invalid" does.
    pub(crate) fn kind_subject(&self, name: &str) -> Subject {
        Subject {
            resource: self.kind.clone(),
            ..self.subject(name)
        }
    }
}

/// All resources by group and plural name.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    resources: BTreeMap<ResourceId, Arc<Resource>>,
}

/// group, version, kind, plural, short names, namespaced, has a status, counts generations
type Builtin = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    bool,
    bool,
    bool,
);

pub(crate) const CRD_GROUP: &str = "apiextensions.k8s.io";
pub(crate) const CRD_PLURAL: &str = "customresourcedefinitions";

const BUILTINS: [Builtin; 16] = [
    (
        "",
        "v1",
        "Namespace",
        "namespaces",
        "ns",
        false,
        true,
        false,
    ),
    ("", "v1", "Pod", "pods", "po", true, true, false),
    ("", "v1", "Service", "services", "svc", true, true, false),
    ("", "v1", "Endpoints", "endpoints", "ep", true, false, false),
    (
        "",
        "v1",
        "ConfigMap",
        "configmaps",
        "cm",
        true,
        false,
        false,
    ),
    ("", "v1", "Secret", "secrets", "", true, false, false),
    ("", "v1", "Event", "events", "ev", true, false, false),
    (
        "",
        "v1",
        "ServiceAccount",
        "serviceaccounts",
        "sa",
        true,
        false,
        false,
    ),
    ("", "v1", "Node", "nodes", "no", false, true, false),
    (
        "apps",
        "v1",
        "Deployment",
        "deployments",
        "deploy",
        true,
        true,
        true,
    ),
    (
        "apps",
        "v1",
        "ReplicaSet",
        "replicasets",
        "rs",
        true,
        true,
        true,
    ),
    (
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        "",
        true,
        false,
        false,
    ),
    (
        "events.k8s.io",
        "v1",
        "Event",
        "events",
        "ev",
        true,
        false,
        false,
    ),
    (
        "coordination.k8s.io",
        "v1",
        "Lease",
        "leases",
        "",
        true,
        false,
        false,
    ),
    (
        CRD_GROUP,
        "v1",
        "CustomResourceDefinition",
        CRD_PLURAL,
        "crd",
        false,
        true,
        true,
    ),
    (
        "metrics.k8s.io",
        "v1beta1",
        "PodMetrics",
        "pods",
        "",
        true,
        false,
        false,
    ),
];

impl Registry {
    pub(crate) fn new() -> Self {
        let resources = BUILTINS
            .iter()
            .map(builtin)
            .map(|r| (r.id.clone(), Arc::new(r)))
            .collect();
        Self { resources }
    }

    pub(crate) fn get(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&ResourceId::new(group, plural))
    }

    pub(crate) fn by_id(&self, id: &ResourceId) -> Option<&Arc<Resource>> {
        self.resources.get(id)
    }

    pub(crate) fn by_kind(&self, api_version: &str, kind: &str) -> Option<(Arc<Resource>, String)> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.resources
            .values()
            .find(|r| r.group() == group && r.kind == kind && r.version(version).is_some())
            .map(|r| (Arc::clone(r), version.to_owned()))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    pub(crate) fn insert(&mut self, resource: Resource) {
        self.resources
            .insert(resource.id.clone(), Arc::new(resource));
    }

    pub(crate) fn remove(&mut self, id: &ResourceId) {
        self.resources.remove(id);
    }
}

fn builtin(b: &Builtin) -> Resource {
    let (group, version, kind, plural, short, namespaced, status, generation) = *b;
    Resource {
        id: ResourceId::new(group, plural),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        singular: kind.to_lowercase(),
        short_names: short
            .split(',')
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect(),
        categories: Vec::new(),
        namespaced,
        builtin: true,
        generation,
        storage: version.to_owned(),
        versions: vec![Version {
            name: version.to_owned(),
            status,
            schema: None,
            rules: None,
            raw_schema: None,
            columns: builtin_columns(group, kind),
        }],
    }
}

pub(crate) fn column(name: &str, kind: &str, path: &str) -> Column {
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        format: String::new(),
        description: String::new(),
        priority: 0,
        path: path.to_owned(),
    }
}

fn builtin_columns(group: &str, kind: &str) -> Vec<Column> {
    let text = |name: &str, path: &str| column(name, "string", path);
    let mut columns = match (group, kind) {
        ("", "Pod") => vec![
            text("Ready", ".status.conditions[?(@.type==\"Ready\")].status"),
            text("Status", ".status.phase"),
            text("IP", ".status.podIP"),
            text("Node", ".spec.nodeName"),
        ],
        ("", "Service") => vec![
            text("Type", ".spec.type"),
            text("Cluster-IP", ".spec.clusterIP"),
            text("Ports", ".spec.ports[*].port"),
        ],
        ("", "Namespace") => vec![text("Status", ".status.phase")],
        ("", "Event") => vec![
            column("Last Seen", "date", ".lastTimestamp"),
            text("Type", ".type"),
            text("Reason", ".reason"),
            text("Object", ".involvedObject.name"),
            text("Message", ".message"),
        ],
        ("apps", _) => vec![
            column("Desired", "integer", ".spec.replicas"),
            column("Ready", "integer", ".status.readyReplicas"),
        ],
        ("coordination.k8s.io", _) => vec![text("Holder", ".spec.holderIdentity")],
        ("discovery.k8s.io", _) => vec![
            text("AddressType", ".addressType"),
            text("Ports", ".ports[*].port"),
            text("Endpoints", ".endpoints[*].addresses[0]"),
        ],
        (CRD_GROUP, _) => {
            return vec![column("Created At", "date", ".metadata.creationTimestamp")];
        }
        _ => Vec::new(),
    };
    columns.push(column("Age", "date", ".metadata.creationTimestamp"));
    columns
}
