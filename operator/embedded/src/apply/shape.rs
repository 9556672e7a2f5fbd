//! How values merge: which lists are keyed, which maps are one value.

use serde_json::Value;

use crate::schema::{ListType, Schema};

/// The merge rules of one node of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape<'a> {
    /// A node of a custom resource.
    Declared(&'a Schema, bool),
    /// A field of a built-in kind, or of metadata: its kind and its name.
    Known(&'a str, &'a str),
    /// Undeclared content: maps merge, lists are one value.
    Free,
}

impl<'a> Shape<'a> {
    pub(crate) fn root(schema: Option<&'a Schema>, kind: &'a str) -> Self {
        schema.map_or(Self::Known(kind, ""), |s| Self::Declared(s, true))
    }

    pub(crate) fn field(self, name: &'a str) -> Self {
        match self {
            Self::Declared(_, true) if name == "metadata" => Self::Known("", "metadata"),
            Self::Declared(schema, _) => schema
                .field(name)
                .map_or(Self::Free, |s| Self::Declared(s, false)),
            Self::Known(kind, _) => Self::Known(kind, name),
            Self::Free => Self::Free,
        }
    }

    pub(crate) fn item(self) -> Self {
        match self {
            Self::Declared(schema, _) => schema
                .items
                .as_deref()
                .map_or(Self::Free, |s| Self::Declared(s, false)),
            known => known,
        }
    }

    pub(crate) fn list_type(self) -> ListType {
        match self {
            Self::Declared(schema, _) => schema.list_type.clone(),
            Self::Known(kind, field) => known_list(kind, field),
            Self::Free => ListType::Atomic,
        }
    }

    pub(crate) fn is_atomic_map(self) -> bool {
        match self {
            Self::Declared(schema, _) => schema.atomic_map,
            Self::Known(kind, field) => {
                matches!(field, "selector" | "nodeSelector" | "matchLabels") && !kind.is_empty()
            }
            Self::Free => false,
        }
    }

    /// The value of a key field of a list item; absent fields take their default.
    pub(crate) fn key_value(self, item: &Value, key: &str) -> Value {
        if let Some(value) = item.get(key) {
            return value.clone();
        }
        match self.item() {
            Self::Declared(schema, _) => schema
                .properties
                .get(key)
                .and_then(|p| p.default.clone())
                .unwrap_or(Value::Null),
            _ if key == "protocol" => Value::from("TCP"),
            _ => Value::Null,
        }
    }
}

fn known_list(kind: &str, field: &str) -> ListType {
    let keyed = |keys: &[&str]| ListType::Map(keys.iter().map(|k| (*k).to_owned()).collect());
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "secrets" => keyed(&["name"]),
        "volumeMounts" => keyed(&["mountPath"]),
        "volumeDevices" => keyed(&["devicePath"]),
        "conditions" => keyed(&["type"]),
        "ownerReferences" => keyed(&["uid"]),
        "hostAliases" | "podIPs" => keyed(&["ip"]),
        "addresses" if kind == "Node" => keyed(&["type"]),
        "ports" if kind == "Service" => keyed(&["port", "protocol"]),
        "ports" if matches!(kind, "Pod" | "Deployment" | "ReplicaSet") => {
            keyed(&["containerPort", "protocol"])
        }
        "finalizers" => ListType::Set,
        _ => ListType::Atomic,
    }
}
