//! Which user's object an input or a problem speaks of.

use std::fmt;

use kube::Resource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trimtab_mesh::model::Identity;

/// Which user's object an input speaks of.
///
/// Not the `Owner` of the limiter: it may be of any kind, and no output is its own. Outputs belong to the Service or
/// ServiceEntry, see [`crate::object::ServiceKey`].
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Owner {
    /// Kind, e.g. `MetaRouter`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID; empty offline.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// `metadata.generation`.
    #[serde(default)]
    pub generation: i64,
}

impl Owner {
    /// Of an object.
    pub fn of<K: Resource>(kind: &str, object: &K) -> Self {
        Self::of_row(kind, &Identity::of(object))
    }

    /// Of an object by its row.
    pub fn of_row(kind: &str, id: &Identity) -> Self {
        Self {
            kind: kind.to_owned(),
            namespace: id.namespace.to_string(),
            name: id.name.to_string(),
            uid: id.uid.to_string(),
            generation: id.generation,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}
