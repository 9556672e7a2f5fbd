//! A dependency as it is written.

use trimtab_mesh::names::normal;

use super::Labels;

/// What a text names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// Everything.
    Everything,
    /// A whole namespace.
    Namespace(String),
    /// A host, or all hosts under a wildcard.
    Host(Place, String),
}

/// Where a host is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Where the client would find it.
    Any,
    /// In any namespace: `*/` is written.
    Star,
    /// In this namespace.
    In(String),
}

/// Reads a text of a client in a namespace. `None`: it names nothing.
pub(super) fn parse(text: &str, client: &str) -> Option<Named> {
    let Some((namespace, host)) = text.split_once('/') else {
        return Some(Named::Host(Place::Any, normal(text)?));
    };
    let namespace = if namespace == "." { client } else { namespace };
    match (namespace, host) {
        ("*", "*") => Some(Named::Everything),
        ("", _) => None,
        (namespace, _) if namespace.starts_with('~') => None,
        ("*", host) => Some(Named::Host(Place::Star, normal(host)?)),
        (namespace, "*") => Some(Named::Namespace(namespace.to_owned())),
        (namespace, host) => Some(Named::Host(Place::In(namespace.to_owned()), normal(host)?)),
    }
}

/// Labels in one line.
pub(super) fn text_of(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(",")
}
