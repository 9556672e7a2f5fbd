//! Server-side apply with a time limit, skipped when nothing changed.
//!
//! A live object is remembered as a hash of the fields that we own; an object whose hash is the desired one is not written,
//! so a restart writes nothing. A hand edit changes the hash and is repaired.

mod call;
mod error;
mod objects;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL};
use xxhash_rust::xxh3::xxh3_64;

use crate::clock::Clock;
use crate::context::Context;
use crate::generated::{LABELS, MODULE_LABEL};
use crate::lease::WriteAdmission;
use crate::watch::{Feed, not_installed};
use call::is_unknown_kind;
pub use call::{call, read};
pub use error::ApplyError;
use objects::{Live, Objects, is_ours, replacement};

/// Namespace and name.
pub type Key = (String, String);

/// How a module knows its generated objects.
#[derive(Debug)]
pub struct Ownership<K> {
    /// Value of [`MODULE_LABEL`]; `None`: the objects have no such label.
    pub module: Option<&'static str>,
    /// Namespace and name of the owner as the module reads them; the owner may be in another namespace.
    pub owner: fn(&K) -> Option<Key>,
    /// Label and value of what a predecessor made under the names that are ours now: it is taken over in place, so that
    /// nothing stops being in force meanwhile.
    pub predecessor: Option<(&'static str, &'static str)>,
}

/// A kind of generated objects.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Serialize
    + DeserializeOwned
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static
{
}

/// Called with the namespace and the name of the owner when a generated object changes, so that drift is repaired.
pub type OnChange = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// Counts of writes, for metrics and tests.
#[derive(Debug, Default)]
pub struct ApplyCounts {
    /// Objects created or changed.
    pub applied: AtomicU64,
    /// Objects that were as desired.
    pub unchanged: AtomicU64,
    /// Objects deleted.
    pub deleted: AtomicU64,
    /// Failed calls.
    pub failed: AtomicU64,
}

/// Applies generated objects of one kind.
pub struct Applier<K> {
    client: Client,
    admission: WriteAdmission,
    clock: Arc<dyn Clock>,
    manager: String,
    ownership: Ownership<K>,
    objects: Mutex<Objects>,
    /// The list that is under way: hashes only, no objects.
    listing: Mutex<HashMap<Key, Live>>,
    on_change: OnChange,
    /// What was written.
    pub counts: ApplyCounts,
}

impl<K> Debug for Applier<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applier")
            .field("manager", &self.manager)
            .finish_non_exhaustive()
    }
}

impl<K: Kind> Applier<K> {
    /// An applier with `manager` as field manager.
    pub fn new(
        context: &Context,
        manager: String,
        ownership: Ownership<K>,
        on_change: OnChange,
    ) -> Arc<Self> {
        Arc::new(Self {
            client: context.client.clone(),
            admission: context.admission.clone(),
            clock: context.clock.clone(),
            manager,
            ownership,
            objects: Mutex::default(),
            listing: Mutex::default(),
            on_change,
            counts: ApplyCounts::default(),
        })
    }

    /// Whether an object is of this applier's module: modules share the watch, which may have objects of others too.
    fn is_ours(&self, object: &K) -> bool {
        let label = |name: &str| object.labels().get(name).map(String::as_str);
        label(MANAGED_BY_LABEL) == Some(MANAGED_BY) && label(MODULE_LABEL) == self.ownership.module
    }

    /// Hash of what we own: labels of ours, owner references, everything but metadata and status.
    fn hash(object: &K) -> Result<u64, serde_json::Error> {
        let mut value = serde_json::to_value(object)?;
        if let Some(map) = value.as_object_mut() {
            map.remove("metadata");
            map.remove("status");
        }
        let labels: BTreeMap<&str, &String> = LABELS
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

    fn live(&self, object: &K) -> Option<Live> {
        Some(Live {
            hash: Self::hash(object).ok()?,
            uid: object.uid().unwrap_or_default(),
            owner: (self.ownership.owner)(object),
        })
    }

    /// What the API server has made of a write.
    fn remember_written(&self, object: &K) -> Option<u64> {
        let hash = self.remember(object)?;
        self.objects.lock().written(&Self::key(object), hash);
        Some(hash)
    }

    fn remember(&self, object: &K) -> Option<u64> {
        let live = self.live(object)?;
        let hash = live.hash;
        self.objects.lock().put(Self::key(object), live);
        Some(hash)
    }

    /// Makes the generated objects of `owner` be exactly `desired`: applies what differs, deletes what is not desired
    /// unless `keep` holds for it.
    ///
    /// Returns the number of writes. One object that fails does not stop the others; the first failure is returned.
    pub async fn converge(
        &self,
        owner: &Key,
        desired: &[K],
        keep: impl Fn(&Key) -> bool + Send,
    ) -> Result<usize, ApplyError> {
        let mut writes = 0;
        let mut failed = None;
        for object in desired {
            match self.apply(object).await {
                Ok(written) => writes += usize::from(written),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let names: HashSet<Key> = desired.iter().map(Self::key).collect();
        let mut surplus = self.objects.lock().of_owner(owner);
        surplus.retain(|key| !names.contains(key) && !keep(key));
        for (namespace, name) in surplus {
            match self.delete(&namespace, &name).await {
                Ok(()) => writes += 1,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(writes), Err)
    }

    /// Whether the live object is as `object` says, as far as the watch has reported: it would not be written.
    pub fn is_as_desired(&self, object: &K) -> bool {
        Self::hash(object).is_ok_and(|desired| self.matches(&Self::key(object), desired))
    }

    fn matches(&self, key: &Key, desired: u64) -> bool {
        let objects = self.objects.lock();
        let live = objects.live.get(key).map(|l| l.hash);
        let rewritten = objects.rewritten.get(key);
        live == Some(desired) || live.is_some_and(|l| rewritten == Some(&(desired, l)))
    }

    /// Applies one object unless it is as desired. Returns whether it was written.
    async fn apply(&self, object: &K) -> Result<bool, ApplyError> {
        let key = Self::key(object);
        let what = || format!("apply {} {}/{}", K::kind(&()), key.0, key.1);
        let encode = |source| ApplyError::Encode {
            what: what(),
            source,
        };
        let desired = Self::hash(object).map_err(encode)?;
        if self.matches(&key, desired) {
            self.counts.unchanged.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        }
        let mut body = serde_json::to_value(object).map_err(encode)?;
        body["apiVersion"] = K::api_version(&()).into();
        body["kind"] = K::kind(&()).into();
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.0);
        if !self.objects.lock().live.contains_key(&key) {
            self.not_foreign(&api, object).await?;
        }
        self.objects.lock().written(&key, desired);
        let params = PatchParams::apply(&self.manager).force();
        let mut answer = self.counted(
            self.call(what, api.patch(&key.1, &params, &Patch::Apply(&body)))
                .await,
        )?;
        if self.remember_written(&answer) != Some(desired) {
            // Somebody else's manager owns a field more: apply cannot take it away, a replacement can.
            let whole = replacement(&answer, &body).map_err(encode)?;
            let params = PostParams {
                field_manager: Some(self.manager.clone()),
                ..PostParams::default()
            };
            answer = self.counted(self.call(what, api.replace(&key.1, &params, &whole)).await)?;
        }
        if let Some(observed) = self.remember_written(&answer)
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

    /// An object that we have not made is not ours to overwrite.
    async fn not_foreign(&self, api: &Api<K>, object: &K) -> Result<(), ApplyError> {
        let name = object.name_any();
        let what = || format!("apply {} {}/{name}", K::kind(&()), Self::key(object).0);
        // By a list, which the watch has the right to anyway.
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = read(what, api.list(&params)).await;
        let found = match found {
            // The apply says what is missing.
            Err(error) if error.code() == Some(404) => return Ok(()),
            found => found?,
        };
        let before = |live: &K| {
            let label = self.ownership.predecessor;
            label.is_some_and(|(key, value)| live.labels().get(key).is_some_and(|v| v == value))
        };
        let foreign = found
            .items
            .iter()
            .any(|live| !is_ours(live, object, &self.manager) && !before(live));
        if foreign {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            return Err(ApplyError::Foreign { what: what() });
        }
        Ok(())
    }

    async fn call<T>(
        &self,
        what: impl Fn() -> String,
        write: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ApplyError> {
        call(&self.admission, what, write).await
    }

    fn counted(&self, result: Result<K, ApplyError>) -> Result<K, ApplyError> {
        let counter = match &result {
            Ok(_) => &self.counts.applied,
            // It waits, which is no failure.
            Err(ApplyError::NotLeading { .. }) => return result,
            Err(_) => &self.counts.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        match result {
            // An apply creates what is not there: only the kind, or the namespace, can be missing.
            Err(ApplyError::Api { what, source }) if is_unknown_kind(&source) => {
                let resource = format!("{}.{}", K::plural(&()), K::group(&()));
                let remedy = not_installed(&K::kind(&()), &resource);
                Err(ApplyError::NotInstalled { what, remedy })
            }
            other => other,
        }
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
        match self.call(what, api.delete(name, &params)).await {
            Ok(_) => {
                self.counts.deleted.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.code() == Some(404) => {}
            Err(error @ ApplyError::NotLeading { .. }) => return Err(error),
            Err(e) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                return Err(e);
            }
        }
        self.objects.lock().forget(&key);
        Ok(())
    }

    /// Has a change by somebody else repaired: at once, but with growing pauses when it comes again and again, since two
    /// writers that revert each other would have istiod push without end.
    fn repair(&self, object: &K, owner: Option<Key>) {
        let Some(owner) = (self.ownership.owner)(object).or(owner) else {
            return;
        };
        // Another replica leads: its writes are nobody's contest, and this one repairs nothing.
        let pause = self.admission.leads().then(|| {
            let now = self.clock.monotonic();
            self.objects.lock().contested(&Self::key(object), now)
        });
        let pause = pause.flatten();
        let Some((changes, pause)) = pause else {
            (self.on_change)(&owner.0, &owner.1);
            return;
        };
        let namespace = object.namespace().unwrap_or_default();
        tracing::warn!(%namespace, name = %object.name_any(), changes, backoff_s = pause.as_secs(), "another field manager keeps overwriting this object; backing off");
        let on_change = self.on_change.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            on_change(&owner.0, &owner.1);
        });
    }
}

impl<K: Kind> Feed<K> for Applier<K> {
    fn apply(&self, object: &Arc<K>) {
        let key = Self::key(object);
        let before = self.objects.lock().live.get(&key).cloned();
        if !self.is_ours(object) {
            // Its label was changed by hand: it is written again.
            if before.is_some() {
                Feed::delete(self, object);
            }
            return;
        }
        let hash = Self::hash(object).unwrap_or_default();
        let echo = self.objects.lock().echo(&key, hash);
        if let Some(last) = echo {
            if last {
                self.remember(object);
            }
            return;
        }
        if self.remember(object) != before.as_ref().map(|l| l.hash) {
            self.repair(object, before.and_then(|l| l.owner));
        }
    }

    fn delete(&self, object: &Arc<K>) {
        // An object that lost our labels by hand leaves the watch without them: whose it was is in our memory only.
        let known = self.objects.lock().forget(&Self::key(object));
        let owner = known.or_else(|| {
            let ours = self.is_ours(object);
            (self.ownership.owner)(object).filter(|_| ours)
        });
        if let Some((namespace, name)) = owner {
            (self.on_change)(&namespace, &name);
        }
    }

    fn begin(&self) {
        self.listing.lock().clear();
    }

    fn item(&self, object: &Arc<K>) {
        if self.is_ours(object)
            && let Some(live) = self.live(object)
        {
            self.listing.lock().insert(Self::key(object), live);
        }
    }

    fn end(&self, unreadable: &[Key]) {
        let listed = std::mem::take(&mut *self.listing.lock());
        let mut owners: BTreeSet<Key> = listed.values().filter_map(|l| l.owner.clone()).collect();
        // What was deleted while the watch was away concerns its owner too.
        owners.extend(self.objects.lock().replace(listed, unreadable));
        for (namespace, name) in owners {
            (self.on_change)(&namespace, &name);
        }
    }
}
