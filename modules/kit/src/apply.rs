//! Server-side apply with a time limit, skipped when nothing changed.
//!
//! A live object is remembered as a hash of the fields that we own; an object whose hash is the desired one is not written,
//! so a restart writes nothing. A hand edit changes the hash and is repaired.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use crate::watch::Feed;

/// Time limit of one call to the API server: kube's client has none of its own and retries in silence.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// No answer in time.
    #[error("{what}: no answer from the API server within {}s", CALL_TIMEOUT.as_secs())]
    Timeout {
        /// Verb and object.
        what: String,
    },
    /// The API server refused.
    #[error("{what}: {source}")]
    Api {
        /// Verb and object.
        what: String,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The object cannot be encoded.
    #[error("{what}: {source}")]
    Encode {
        /// Verb and object.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl ApplyError {
    /// PascalCase reason for conditions and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "ApiTimeout",
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(s) if s.code == 403 => "Forbidden",
                kube::Error::Api(s) if s.code == 404 => "NotFound",
                kube::Error::Api(s) if s.code == 409 => "Conflict",
                kube::Error::Api(s) if s.code == 422 => "Invalid",
                _ => "ApiError",
            },
            Self::Encode { .. } => "EncodeError",
        }
    }
}

/// Runs a call with the time limit.
pub async fn call<T>(
    what: impl Fn() -> String,
    future: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApplyError> {
    match tokio::time::timeout(CALL_TIMEOUT, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(ApplyError::Api {
            what: what(),
            source: Box::new(source),
        }),
        Err(_) => Err(ApplyError::Timeout { what: what() }),
    }
}

/// Namespace and name.
pub type Key = (String, String);

#[derive(Clone, Debug)]
struct Live {
    hash: u64,
    uid: String,
    owner: Option<String>,
}

#[derive(Debug, Default)]
struct Objects {
    live: HashMap<Key, Live>,
    /// By owner name: what we generated for it.
    by_owner: HashMap<Key, Vec<String>>,
    /// Desired hash and what the API server made of it: a mutating webhook must not cause an endless loop.
    rewritten: HashMap<Key, (u64, u64)>,
    /// Changes by others, newest run of them.
    contested: HashMap<Key, Contest>,
}

/// How often an object was changed by somebody else lately.
#[derive(Clone, Copy, Debug)]
struct Contest {
    changes: u32,
    last: Instant,
}

/// Changes that are repaired at once.
const QUICK_REPAIRS: u32 = 5;
/// Longest pause between repairs, and the calm after which changes are counted anew.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Called with (namespace, owner name) when a generated object changes, so that drift is repaired.
pub type OnChange = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// Counts of writes, for metrics and tests.
#[derive(Debug, Default)]
pub struct ApplyCounts {
    /// Objects created or changed.
    pub applied: AtomicU64,
    /// Objects that were as wanted.
    pub unchanged: AtomicU64,
    /// Objects deleted.
    pub deleted: AtomicU64,
    /// Failed calls.
    pub failed: AtomicU64,
}

/// Applies generated objects of one kind.
pub struct Applier<K> {
    client: Client,
    manager: &'static str,
    owner_label: &'static str,
    owned_labels: &'static [&'static str],
    objects: Mutex<Objects>,
    on_change: OnChange,
    /// What was written.
    pub counts: ApplyCounts,
    kind: std::marker::PhantomData<fn() -> K>,
}

impl<K> Debug for Applier<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applier")
            .field("manager", &self.manager)
            .finish_non_exhaustive()
    }
}

impl<K> Applier<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static,
{
    /// An applier with `manager` as field manager. `owner_label` names the owner on each object; `owned_labels` are compared.
    pub fn new(
        client: Client,
        manager: &'static str,
        owner_label: &'static str,
        owned_labels: &'static [&'static str],
        on_change: OnChange,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            manager,
            owner_label,
            owned_labels,
            objects: Mutex::default(),
            on_change,
            counts: ApplyCounts::default(),
            kind: std::marker::PhantomData,
        })
    }

    /// Hash of what we own: labels of ours, owner references, everything but metadata and status.
    fn hash(&self, object: &K) -> Result<u64, serde_json::Error> {
        let mut value = serde_json::to_value(object)?;
        if let Some(map) = value.as_object_mut() {
            map.remove("metadata");
            map.remove("status");
        }
        let labels: BTreeMap<&str, &String> = self
            .owned_labels
            .iter()
            .filter_map(|l| object.labels().get(*l).map(|v| (*l, v)))
            .collect();
        let owners: Vec<(&str, &str, Option<bool>)> = object
            .owner_references()
            .iter()
            .map(|o| (o.uid.as_str(), o.name.as_str(), o.controller))
            .collect();
        let text = serde_json::to_string(&(value, labels, owners))?;
        Ok(xxh3_64(text.as_bytes()))
    }

    fn key(object: &K) -> Key {
        (object.namespace().unwrap_or_default(), object.name_any())
    }

    /// Name of the owner: of the controlling owner reference, since labels hold 63 characters; else of our label.
    fn owner_of(&self, object: &K) -> Option<String> {
        let references = object.owner_references();
        let controller = references.iter().find(|r| r.controller == Some(true));
        controller
            .map(|r| r.name.clone())
            .or_else(|| object.labels().get(self.owner_label).cloned())
    }

    fn remember(&self, object: &K) -> Option<u64> {
        let hash = self.hash(object).ok()?;
        let key = Self::key(object);
        let owner = self.owner_of(object);
        let mut objects = self.objects.lock();
        let old = objects.live.insert(
            key.clone(),
            Live {
                hash,
                uid: object.uid().unwrap_or_default(),
                owner: owner.clone(),
            },
        );
        if old.as_ref().map(|o| &o.owner) != Some(&owner) {
            objects.unlink(&key, old.and_then(|o| o.owner));
            if let Some(owner) = owner {
                objects
                    .by_owner
                    .entry((key.0, owner))
                    .or_default()
                    .push(key.1);
            }
        }
        Some(hash)
    }

    fn forget(&self, object: &K) -> Option<String> {
        let key = Self::key(object);
        let mut objects = self.objects.lock();
        let owner = objects.live.remove(&key).and_then(|o| o.owner);
        objects.rewritten.remove(&key);
        objects.contested.remove(&key);
        objects.unlink(&key, owner.clone());
        owner
    }

    /// Makes the generated objects of `owner` be exactly `desired`: applies what differs, deletes what is not wanted.
    ///
    /// Returns the number of writes. One object that fails does not stop the others; the first failure is returned.
    pub async fn converge(
        &self,
        namespace: &str,
        owner: &str,
        desired: &[K],
    ) -> Result<usize, ApplyError> {
        let mut writes = 0;
        let mut failed = None;
        for object in desired {
            match self.apply(object).await {
                Ok(written) => writes += usize::from(written),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let wanted: Vec<String> = desired.iter().map(ResourceExt::name_any).collect();
        for name in self.surplus(namespace, owner, &wanted) {
            match self.delete(namespace, &name).await {
                Ok(()) => writes += 1,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(writes), Err)
    }

    /// Names of the owner's objects that are not wanted.
    fn surplus(&self, namespace: &str, owner: &str, wanted: &[String]) -> Vec<String> {
        let objects = self.objects.lock();
        let key = (namespace.to_owned(), owner.to_owned());
        let names = objects.by_owner.get(&key).into_iter().flatten();
        names.filter(|n| !wanted.contains(n)).cloned().collect()
    }

    /// Applies one object unless it is as wanted. Returns whether it was written.
    async fn apply(&self, object: &K) -> Result<bool, ApplyError> {
        let key = Self::key(object);
        let what = || format!("apply {} {}/{}", K::kind(&()), key.0, key.1);
        let encode = |source| ApplyError::Encode {
            what: what(),
            source,
        };
        let desired = self.hash(object).map_err(encode)?;
        {
            let objects = self.objects.lock();
            let live = objects.live.get(&key).map(|l| l.hash);
            let rewritten = objects.rewritten.get(&key);
            if live == Some(desired) || live.is_some_and(|l| rewritten == Some(&(desired, l))) {
                self.counts.unchanged.fetch_add(1, Ordering::Relaxed);
                return Ok(false);
            }
        }
        let mut body = serde_json::to_value(object).map_err(encode)?;
        body["apiVersion"] = K::api_version(&()).into();
        body["kind"] = K::kind(&()).into();
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.0);
        let params = PatchParams::apply(self.manager).force();
        let mut answer =
            self.counted(call(what, api.patch(&key.1, &params, &Patch::Apply(&body))).await)?;
        if self.remember(&answer) != Some(desired) {
            // Somebody else's manager owns a field more: apply cannot take it away, a replacement can.
            let whole = replacement(&answer, &body).map_err(encode)?;
            let params = PostParams {
                field_manager: Some(self.manager.to_owned()),
                ..PostParams::default()
            };
            answer = self.counted(call(what, api.replace(&key.1, &params, &whole)).await)?;
        }
        if let Some(observed) = self.remember(&answer)
            && observed != desired
        {
            tracing::warn!(object = %what(), "the API server changes the object on its way in (a webhook?): it is left so");
            self.objects
                .lock()
                .rewritten
                .insert(key, (desired, observed));
        }
        Ok(true)
    }

    fn counted(&self, result: Result<K, ApplyError>) -> Result<K, ApplyError> {
        let counter = match &result {
            Ok(_) => &self.counts.applied,
            Err(_) => &self.counts.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }

    async fn delete(&self, namespace: &str, name: &str) -> Result<(), ApplyError> {
        let key = (namespace.to_owned(), name.to_owned());
        let uid = self.objects.lock().live.get(&key).map(|l| l.uid.clone());
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let params = DeleteParams {
            preconditions: uid.filter(|u| !u.is_empty()).map(|uid| Preconditions {
                uid: Some(uid),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let what = || format!("delete {} {namespace}/{name}", K::kind(&()));
        match call(what, api.delete(name, &params)).await {
            Ok(_) => {
                self.counts.deleted.fetch_add(1, Ordering::Relaxed);
            }
            Err(ApplyError::Api { source, .. }) if matches!(source.as_ref(), kube::Error::Api(s) if s.code == 404) =>
                {}
            Err(e) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                return Err(e);
            }
        }
        let mut objects = self.objects.lock();
        let owner = objects.live.remove(&key).and_then(|l| l.owner);
        objects.unlink(&key, owner);
        Ok(())
    }

    /// Has a change by somebody else repaired: at once, but with growing pauses when it comes again and again, since two
    /// writers that revert each other would have istiod push without end.
    fn repair(&self, object: &K) {
        let now = Instant::now();
        let changes = {
            let mut objects = self.objects.lock();
            let contest = objects
                .contested
                .entry(Self::key(object))
                .or_insert(Contest {
                    changes: 0,
                    last: now,
                });
            if now.duration_since(contest.last) > LONGEST_PAUSE {
                contest.changes = 0;
            }
            contest.changes += 1;
            contest.last = now;
            contest.changes
        };
        let Some(owner) = self.owner_of(object).filter(|_| changes > QUICK_REPAIRS) else {
            self.notify(object);
            return;
        };
        let pause = Duration::from_secs(1 << (changes - QUICK_REPAIRS).min(6)).min(LONGEST_PAUSE);
        let namespace = object.namespace().unwrap_or_default();
        tracing::warn!(%namespace, name = %object.name_any(), changes, pause_s = pause.as_secs(), "somebody else keeps changing this object; repairing it more slowly");
        let on_change = self.on_change.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            on_change(&namespace, &owner);
        });
    }

    fn notify(&self, object: &K) {
        if let Some(owner) = self.owner_of(object) {
            (self.on_change)(&object.namespace().unwrap_or_default(), &owner);
        }
    }
}

impl Objects {
    fn unlink(&mut self, key: &Key, owner: Option<String>) {
        let Some(owner) = owner else { return };
        let owner_key = (key.0.clone(), owner);
        if let Some(names) = self.by_owner.get_mut(&owner_key) {
            names.retain(|n| *n != key.1);
            if names.is_empty() {
                self.by_owner.remove(&owner_key);
            }
        }
    }
}

impl<K> Feed<K> for Applier<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static,
{
    fn apply(&self, object: Arc<K>) {
        let before = self
            .objects
            .lock()
            .live
            .get(&Self::key(&object))
            .map(|l| l.hash);
        if self.remember(&object) != before {
            self.repair(&object);
        }
    }

    fn delete(&self, object: Arc<K>) {
        // An object that lost our labels by hand leaves the watch without them: whose it was is in our memory only.
        let owner = self.forget(&object).or_else(|| self.owner_of(&object));
        if let Some(owner) = owner {
            (self.on_change)(&object.namespace().unwrap_or_default(), &owner);
        }
    }

    fn reset(&self, objects: Vec<Arc<K>>, _unreadable: &[Key]) {
        let before = std::mem::take(&mut *self.objects.lock());
        for object in &objects {
            self.remember(object);
            self.notify(object);
        }
        // Deleted while the watch was away.
        let live: HashSet<Key> = self.objects.lock().live.keys().cloned().collect();
        for (key, lost) in before.live {
            if let Some(owner) = lost.owner
                && !live.contains(&key)
            {
                (self.on_change)(&key.0, &owner);
            }
        }
    }
}

/// `body` in the place of everything but the metadata of `live`, whose labels and owners of ours it renews.
fn replacement<K>(live: &K, body: &serde_json::Value) -> Result<K, serde_json::Error>
where
    K: Serialize + DeserializeOwned,
{
    let mut whole = body.clone();
    let mut metadata = serde_json::to_value(live)?["metadata"].take();
    for field in ["labels", "ownerReferences"] {
        if let Some(wanted) = body["metadata"].get(field) {
            match (metadata.get_mut(field), wanted) {
                (Some(serde_json::Value::Object(have)), serde_json::Value::Object(wanted)) => {
                    have.extend(wanted.clone());
                }
                _ => metadata[field] = wanted.clone(),
            }
        }
    }
    whole["metadata"] = metadata;
    serde_json::from_value(whole)
}
