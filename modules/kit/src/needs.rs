//! What objects of users ask of the mesh, releases of istiod and of the proxies, and what modules ask outside of it:
//! `trimtab check` compares them with what runs.

use kube::Resource;
use kube::core::ApiResource;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::istiod::Release;

/// Who must be of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// The control plane.
    Istiod,
    /// The proxies of the object's namespace.
    Proxies,
}

/// A release that a field of an object needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Who must be of it.
    pub party: Party,
    /// The first release that will do.
    pub since: Release,
    /// Path of the field.
    pub field: String,
    /// What the release is needed for.
    pub what: String,
    /// What to do without it.
    pub instead: String,
}

type Asked = Box<dyn Fn(&Value) -> Vec<Need> + Send + Sync>;

/// What objects of one kind need.
pub struct Needs {
    /// The kind.
    pub resource: ApiResource,
    asked: Asked,
}

impl std::fmt::Debug for Needs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Needs").field(&self.resource.kind).finish()
    }
}

impl Needs {
    /// Of the kind `K`, as `asked` says.
    pub fn on<K: Resource<DynamicType = ()> + DeserializeOwned>(
        asked: impl Fn(&K) -> Vec<Need> + Send + Sync + 'static,
    ) -> Self {
        Self {
            resource: ApiResource::erase::<K>(&()),
            asked: Box::new(move |object| {
                K::deserialize(object).map_or_else(|_| Vec::new(), |k| asked(&k))
            }),
        }
    }

    /// What an object needs; nothing if it cannot be read, which its status says.
    pub fn of(&self, object: &Value) -> Vec<Need> {
        (self.asked)(object)
    }
}

type Problem = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// What a module asks outside of the API server.
pub struct Dependency {
    /// Path of the key that names it.
    pub key: &'static str,
    problem: Problem,
}

impl std::fmt::Debug for Dependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Dependency").field(&self.key).finish()
    }
}

impl Dependency {
    /// What the key names, and why it does not answer.
    pub fn new(
        key: &'static str,
        problem: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            key,
            problem: Box::new(problem),
        }
    }

    /// Why it does not answer now.
    pub fn problem(&self) -> Option<String> {
        (self.problem)()
    }
}
