//! What an engine asks to be written: a list of steps, built without I/O and carried out by the driver.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::ApiResource;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde_json::{Value, json};

pub use crate::apply::Kind;
use crate::apply::{Applier, ApplyCounts, ApplyError, Key as Name, call};

/// The writers of one module: an applier for each kind that it generates.
#[derive(Clone)]
pub struct Writers {
    client: Client,
    /// Field manager of generated objects.
    manager: String,
    appliers: HashMap<TypeId, (&'static str, Arc<dyn AnyApplier>)>,
}

trait AnyApplier: Any + Send + Sync {
    fn counts(&self) -> &ApplyCounts;
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<K: Kind> AnyApplier for Applier<K> {
    fn counts(&self) -> &ApplyCounts {
        &self.counts
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl Debug for Writers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writers")
            .field("manager", &self.manager)
            .finish_non_exhaustive()
    }
}

impl Writers {
    pub(crate) fn new(client: Client, manager: String) -> Self {
        Self {
            client,
            manager,
            appliers: HashMap::new(),
        }
    }

    pub(crate) fn add<K: Kind>(&mut self, kind: &'static str, applier: Arc<Applier<K>>) {
        self.appliers.insert(TypeId::of::<K>(), (kind, applier));
    }

    fn applier<K: Kind>(&self) -> Option<Arc<Applier<K>>> {
        let (_, applier) = self.appliers.get(&TypeId::of::<K>())?;
        applier.clone().as_any().downcast().ok()
    }

    /// Counts of writes by kind, sorted by kind.
    pub fn counts(&self) -> Vec<(&'static str, &ApplyCounts)> {
        let appliers = self.appliers.values();
        let mut out: Vec<_> = appliers.map(|(kind, a)| (*kind, a.counts())).collect();
        out.sort_unstable_by_key(|(kind, _)| *kind);
        out
    }
}

type Outcome<'a> = Pin<Box<dyn Future<Output = Result<(), ApplyError>> + Send + 'a>>;

trait Step: Send + Sync {
    /// Whether the API server would be asked to change anything, as far as the watches have reported.
    fn changes(&self, writers: &Writers) -> bool;
    fn run<'a>(&'a self, writers: &'a Writers) -> Outcome<'a>;
}

/// Steps that bring the API server to what is desired; carried out in their order, also when one fails.
#[derive(Default)]
pub struct Writes(Vec<Box<dyn Step>>);

impl Debug for Writes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Writes").field(&self.0.len()).finish()
    }
}

impl Writes {
    /// Nothing to write: what is there stays.
    pub fn none() -> Self {
        Self::default()
    }

    /// The generated objects of the kind that belong to `owner` are exactly `desired`.
    #[must_use]
    pub fn objects<K: Kind>(self, owner: Name, desired: Vec<K>) -> Self {
        self.objects_but(owner, desired, |_| false)
    }

    /// As [`Self::objects`]; what is not desired and for which `keep` holds stays.
    #[must_use]
    pub fn objects_but<K: Kind>(
        mut self,
        owner: Name,
        desired: Vec<K>,
        keep: impl Fn(&Name) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.0.push(Box::new(Objects {
            owner,
            desired,
            keep: Box::new(keep),
        }));
        self
    }

    /// Applies fields of one object that is not generated whole: another owns the rest. `object` has `apiVersion` and
    /// `kind`.
    #[must_use]
    pub fn fields<K: Kind>(mut self, namespace: &str, name: &str, object: Value) -> Self {
        self.0
            .push(Patched::<K>::boxed(namespace, name, PatchOf::Apply(object)));
        self
    }

    /// Merges fields into one object; `metadata.resourceVersion` in it is a condition.
    #[must_use]
    pub fn merge<K: Kind>(mut self, namespace: &str, name: &str, fields: Value) -> Self {
        self.0
            .push(Patched::<K>::boxed(namespace, name, PatchOf::Merge(fields)));
        self
    }

    /// Deletes one object if it still has this UID.
    #[must_use]
    pub fn delete<K: Kind>(mut self, namespace: &str, name: &str, uid: String) -> Self {
        self.0.push(Patched::<K>::boxed(
            namespace,
            name,
            PatchOf::Delete { uid },
        ));
        self
    }

    /// Whether the API server would be asked to change anything.
    pub(crate) fn changes(&self, writers: &Writers) -> bool {
        self.0.iter().any(|step| step.changes(writers))
    }

    /// Carries the steps out. The first failure is returned.
    pub(crate) async fn run(&self, writers: &Writers) -> Result<(), ApplyError> {
        let mut outcome = Ok(());
        for step in &self.0 {
            outcome = outcome.and(step.run(writers).await);
        }
        outcome
    }
}

struct Objects<K> {
    owner: Name,
    desired: Vec<K>,
    keep: Box<dyn Fn(&Name) -> bool + Send + Sync>,
}

impl<K: Kind> Step for Objects<K> {
    fn changes(&self, writers: &Writers) -> bool {
        let applier = writers.applier::<K>();
        applier.is_some_and(|a| self.desired.iter().any(|object| !a.is_as_desired(object)))
    }

    fn run<'a>(&'a self, writers: &'a Writers) -> Outcome<'a> {
        Box::pin(async move {
            let Some(applier) = writers.applier::<K>() else {
                tracing::error!(kind = %K::kind(&()), "this module does not declare that it generates the kind");
                return Ok(());
            };
            let result = applier
                .converge(&self.owner, &self.desired, &self.keep)
                .await;
            result.map(drop)
        })
    }
}

enum PatchOf {
    Apply(Value),
    Merge(Value),
    Delete { uid: String },
}

struct Patched<K> {
    namespace: String,
    name: String,
    patch: PatchOf,
    kind: std::marker::PhantomData<fn() -> K>,
}

impl<K: Kind> Patched<K> {
    fn boxed(namespace: &str, name: &str, patch: PatchOf) -> Box<dyn Step> {
        Box::new(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            patch,
            kind: std::marker::PhantomData,
        })
    }

    async fn send(&self, writers: &Writers) -> Result<(), ApplyError> {
        let Self {
            namespace, name, ..
        } = self;
        let api: Api<K> = Api::namespaced(writers.client.clone(), namespace);
        let what = |verb: &str| format!("{verb} {} {namespace}/{name}", K::kind(&()));
        match &self.patch {
            PatchOf::Apply(object) => {
                let params = PatchParams::apply(&writers.manager).force();
                let patch = Patch::Apply(object);
                let sent = api.patch(name, &params, &patch);
                call(|| what("apply"), sent).await.map(drop)
            }
            PatchOf::Merge(fields) => {
                let params = PatchParams {
                    field_manager: Some(writers.manager.clone()),
                    ..PatchParams::default()
                };
                let patch = Patch::Merge(fields);
                let sent = api.patch(name, &params, &patch);
                call(|| what("change"), sent).await.map(drop)
            }
            PatchOf::Delete { uid } => {
                let params = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid: Some(uid.clone()),
                        resource_version: None,
                    }),
                    ..DeleteParams::default()
                };
                let sent = call(|| what("delete"), api.delete(name, &params)).await;
                unless(&[404, 409], sent.map(drop))
            }
        }
    }
}

impl<K: Kind> Step for Patched<K> {
    fn changes(&self, _: &Writers) -> bool {
        true
    }

    fn run<'a>(&'a self, writers: &'a Writers) -> Outcome<'a> {
        Box::pin(self.send(writers))
    }
}

/// Answers that leave nothing to do: the object is gone, or another one has its name.
fn unless(codes: &[u16], result: Result<(), ApplyError>) -> Result<(), ApplyError> {
    match result {
        Err(error) if error.code().is_some_and(|code| codes.contains(&code)) => Ok(()),
        other => other,
    }
}

/// A status to write.
#[derive(Clone, Debug)]
pub struct StatusPatch {
    /// Kind of the object.
    pub resource: ApiResource,
    /// Namespace; empty for kinds without one.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The whole status.
    pub status: Value,
    /// Fields in which there is nothing else than the status says, whoever put it there.
    pub whole: &'static [&'static str],
}

impl StatusPatch {
    /// The status of an object of the kind `K`.
    pub fn of<K: Resource<DynamicType = ()>>(
        namespace: &str,
        name: &str,
        status: &impl Serialize,
    ) -> Self {
        Self {
            resource: ApiResource::erase::<K>(&()),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            status: serde_json::to_value(status).unwrap_or_default(),
            whole: &[],
        }
    }

    /// The same; what others have put into these fields goes. Server-side apply leaves it: a restored object and one of
    /// another version are owned by somebody else.
    #[must_use]
    pub fn whole(mut self, fields: &'static [&'static str]) -> Self {
        self.whole = fields;
        self
    }

    /// What a merge must take away from a status so that its whole fields are as they are here.
    fn surplus(&self, live: &Value) -> Option<Value> {
        let mut out = serde_json::Map::new();
        for field in self.whole {
            let Some(live) = live.get(field).filter(|live| !live.is_null()) else {
                continue;
            };
            match (self.status.get(field), live) {
                (None, _) => {
                    out.insert((*field).to_owned(), Value::Null);
                }
                (Some(Value::Object(wanted)), Value::Object(live)) => {
                    let more = live.keys().filter(|key| !wanted.contains_key(*key));
                    let more: serde_json::Map<String, Value> =
                        more.map(|key| (key.clone(), Value::Null)).collect();
                    if !more.is_empty() {
                        out.insert((*field).to_owned(), more.into());
                    }
                }
                (Some(Value::Array(wanted)), Value::Array(live)) if live.len() > wanted.len() => {
                    out.insert((*field).to_owned(), wanted.clone().into());
                }
                _ => {}
            }
        }
        (!out.is_empty()).then(|| out.into())
    }

    /// Writes it by server-side apply. An object that is gone is as good as written.
    pub(crate) async fn write(&self, writers: &Writers) -> Result<(), ApplyError> {
        let Self {
            resource,
            namespace,
            name,
            status,
            ..
        } = self;
        let client = writers.client.clone();
        let api: Api<DynamicObject> = if namespace.is_empty() {
            Api::all_with(client, resource)
        } else {
            Api::namespaced_with(client, namespace, resource)
        };
        let body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name},
            "status": status,
        });
        let manager = format!("{}-status", writers.manager);
        let params = PatchParams::apply(&manager).force();
        let what = || format!("write status of {} {namespace}/{name}", resource.kind);
        let patch = Patch::Apply(&body);
        let sent = call(what, api.patch_status(name, &params, &patch)).await;
        let live = match sent {
            Ok(live) => live,
            Err(error) => return unless(&[404], Err(error)),
        };
        let Some(surplus) = self.surplus(&live.data["status"]) else {
            return Ok(());
        };
        let params = PatchParams {
            field_manager: Some(manager),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({"status": surplus}));
        let sent = call(what, api.patch_status(name, &params, &patch)).await;
        unless(&[404], sent.map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_s22_what_others_put_into_whole_fields_is_surplus() {
        let patch = |status: Value| StatusPatch {
            resource: ApiResource::erase::<k8s_openapi::api::core::v1::ConfigMap>(&()),
            namespace: String::new(),
            name: String::new(),
            status,
            whole: &["list", "map"],
        };
        let ours = patch(json!({"list": ["a"], "map": {"a": 1}}));
        for (live, surplus) in [
            (json!({"list": ["a"], "map": {"a": 1}, "other": 1}), None),
            (json!({"list": [], "map": {}}), None),
            (json!({"list": ["a", "b"]}), Some(json!({"list": ["a"]}))),
            (
                json!({"map": {"a": 1, "b": 2, "c": 3}}),
                Some(json!({"map": {"b": null, "c": null}})),
            ),
        ] {
            assert_eq!(ours.surplus(&live), surplus, "{live}");
        }
        let none = patch(json!({"other": 1}));
        let live = json!({"list": ["a"], "map": {"b": 2}, "other": 2});
        assert_eq!(
            none.surplus(&live),
            Some(json!({"list": null, "map": null}))
        );
        assert_eq!(none.surplus(&json!({"list": null})), None);
        assert_eq!(none.surplus(&Value::Null), None);
    }
}
