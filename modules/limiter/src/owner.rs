//! Which SmartLimiter an input speaks of.

use std::fmt;

/// Which object an input speaks of, and whose its outputs are.
///
/// Not the `Owner` of the MetaProtocol module: there is one kind in two API versions, and UID and revision go into the
/// outputs. Inputs of both are a format of their own, which golden cases and bug reports have.
#[derive(
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Owner {
    /// `microservice.slime.io/v1alpha2` or `microservice.netease.com/v1alpha1`.
    pub api_version: String,
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
    /// Label `istio.io/rev`, copied to the outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

impl Owner {
    /// Whether the object has the first published form.
    pub fn is_first_form(&self) -> bool {
        self.api_version.starts_with("microservice.netease.com/")
    }

    /// Path of a descriptor in the object as the user wrote it.
    pub fn descriptor_path(&self, set: &str, index: usize) -> String {
        descriptor_path(self.is_first_form(), set, index)
    }
}

/// Path of a descriptor in an object of either form, as users write it.
pub(crate) fn descriptor_path(first_form: bool, set: &str, index: usize) -> String {
    if first_form {
        format!("spec.descriptors[{index}]")
    } else {
        format!("spec.sets.{set}.descriptor[{index}]")
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SmartLimiter {}/{}", self.namespace, self.name)
    }
}
