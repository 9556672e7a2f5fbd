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

pub(crate) const CRD_GROUP: &str = "apiextensions.k8s.io";

impl Registry {
    pub(crate) fn new() -> Self {
        let mut registry = Self {
            resources: BTreeMap::new(),
        };
        crate::builtin_kinds::resources().for_each(|resource| registry.insert(resource));
        registry
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

    /// The resource of a kind in a group, whatever its versions.
    pub(crate) fn of_group(&self, group: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.resources
            .values()
            .find(|r| r.group() == group && r.kind == kind)
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
