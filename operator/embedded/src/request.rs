//! From a URL to what is asked: resource, name, verb and options.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;
use serde_json::Value;

use crate::error::ApiError;
use crate::kinds::{Registry, Resource, Version};
use crate::protobuf;
use crate::selectors::Selector;
use crate::store::Key;

/// Query parameters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), "true" | "1")
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name).parse().ok()
    }

    pub(crate) fn selector(&self) -> Result<Selector, ApiError> {
        Selector::parse(self.get("labelSelector"), self.get("fieldSelector"))
    }
}

/// Decodes `%XX` and `+`.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = text
            .get(i + 1..i + 3)
            .and_then(|h| u8::from_str_radix(h, 16).ok())
            .filter(|_| bytes[i] == b'%');
        match (bytes[i], hex) {
            (_, Some(byte)) => {
                out.push(byte);
                i += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The addressed resource.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) resource: Arc<Resource>,
    pub(crate) version: String,
    /// None: cluster-scoped, or all namespaces.
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) status: bool,
}

impl Target {
    pub(crate) fn served(&self) -> Result<&Version, ApiError> {
        self.resource
            .version(&self.version)
            .ok_or_else(|| ApiError::NoResource(self.resource.api_version(&self.version)))
    }

    pub(crate) fn key(&self, name: &str) -> Key {
        Key::new(self.namespace.as_deref().unwrap_or_default(), name)
    }

    pub(crate) fn api_version(&self) -> String {
        self.resource.api_version(&self.version)
    }

    pub(crate) fn named(&self) -> Result<&str, ApiError> {
        self.name.as_deref().ok_or_else(|| {
            ApiError::MethodNotAllowed(format!("{} without a name", self.resource.id.plural))
        })
    }
}

/// What is done with the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

/// Finds the resource that a path addresses; `None` for paths that are not about resources.
pub(crate) fn target(registry: &Registry, path: &str) -> Result<Option<Target>, ApiError> {
    let parts: Vec<String> = path
        .split('/')
        .filter(|p| !p.is_empty())
        .map(decode)
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return Ok(None),
    };
    let (namespace, plural, rest) = match rest {
        [] => return Ok(None),
        ["namespaces", ns, plural, rest @ ..]
            if !matches!(*plural, "status" | "finalize") || !group.is_empty() =>
        {
            (Some((*ns).to_owned()), *plural, rest)
        }
        [plural, rest @ ..] => (None, *plural, rest),
    };
    let unknown = || ApiError::NoResource(path.to_owned());
    let resource = registry.get(group, plural).ok_or_else(unknown)?;
    if resource.version(version).is_none() || (namespace.is_some() && !resource.namespaced) {
        return Err(unknown());
    }
    let (name, status) = match rest {
        [] => (None, false),
        [name] => (Some((*name).to_owned()), false),
        [name, "status"] if resource.version(version).is_some_and(|v| v.status) => {
            (Some((*name).to_owned()), true)
        }
        _ => return Err(unknown()),
    };
    if name.is_some() && resource.namespaced && namespace.is_none() {
        return Err(unknown());
    }
    Ok(Some(Target {
        resource: Arc::clone(resource),
        version: version.to_owned(),
        namespace,
        name,
        status,
    }))
}

pub(crate) fn verb(method: &Method, target: &Target, query: &Query) -> Result<Verb, ApiError> {
    let named = target.name.is_some();
    match (method, named) {
        (&Method::GET, false) if query.flag("watch") => Ok(Verb::Watch),
        (&Method::GET, true) => Ok(Verb::Get),
        (&Method::GET, false) => Ok(Verb::List),
        (&Method::POST, false) => Ok(Verb::Create),
        (&Method::PUT, true) => Ok(Verb::Update),
        (&Method::PATCH, true) => Ok(Verb::Patch),
        (&Method::DELETE, true) => Ok(Verb::Delete),
        (&Method::DELETE, false) => Ok(Verb::DeleteCollection),
        _ => Err(ApiError::MethodNotAllowed(format!(
            "{method} {}",
            target.resource.id.plural
        ))),
    }
}

fn unread_format() -> ApiError {
    ApiError::UnsupportedMediaType(
        "application/json, application/yaml; with kubectl use `apply -f` or `create -f`, which send JSON".to_owned(),
    )
}

/// Parses a JSON or YAML body, or the protobuf of a few kinds.
pub(crate) fn body(content_type: &str, bytes: &[u8]) -> Result<Value, ApiError> {
    if content_type.contains("protobuf") {
        return protobuf::object(bytes).ok_or_else(unread_format);
    }
    if content_type.contains("cbor") {
        return Err(unread_format());
    }
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| ApiError::BadRequest(format!("the body is not UTF-8: {e}")))?;
    if !content_type.contains("yaml") {
        let problem = serde_json::from_str::<Value>(text)
            .err()
            .map(|e| e.to_string());
        return Err(ApiError::BadRequest(format!(
            "the body is not JSON: {}",
            problem.unwrap_or_default()
        )));
    }
    serde_saphyr::from_str(text)
        .map_err(|e| ApiError::BadRequest(format!("the body is not YAML: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let registry = Registry::new();
        let at = |path: &str| target(&registry, path);
        let t = at("/api/v1/namespaces/a/pods/p/status").unwrap().unwrap();
        assert_eq!(
            (t.namespace.as_deref(), t.name.as_deref(), t.status),
            (Some("a"), Some("p"), true)
        );
        let t = at("/api/v1/namespaces/a").unwrap().unwrap();
        assert_eq!(&*t.resource.id.plural, "namespaces");
        assert_eq!(t.name.as_deref(), Some("a"));
        assert!(at("/api/v1/namespaces/a/status").unwrap().unwrap().status);
        let t = at("/apis/metrics.k8s.io/v1beta1/pods").unwrap().unwrap();
        assert_eq!(t.resource.kind, "PodMetrics");
        assert!(at("/api/v1").unwrap().is_none());
        assert!(at("/api/v1/nothings").is_err());
        assert!(at("/apis/apps/v2/deployments").is_err());
    }

    #[test]
    fn queries_are_decoded() {
        let q = Query::parse("labelSelector=app%20in%20(a%2Cb)&watch=true&a+b=c%");
        assert_eq!(q.get("labelSelector"), "app in (a,b)");
        assert!(q.flag("watch"));
        assert_eq!(q.get("a b"), "c%");
    }
}
