//! Every version of an object that the API stored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use futures::TryStreamExt;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use trimtab_crds::istio::Sidecar;

type Name = (String, String);

/// Versions of the objects of one kind, the oldest first; `None`: it was deleted.
pub(crate) struct History<K> {
    versions: Arc<Mutex<BTreeMap<Name, Vec<Option<K>>>>>,
}

impl<K> History<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    /// Watches until `stop`.
    pub(crate) fn watch(client: Client, stop: &CancellationToken) -> Self {
        let versions: Arc<Mutex<BTreeMap<Name, Vec<Option<K>>>>> = Arc::default();
        let kept = versions.clone();
        let follow = async move {
            let stream = watcher(Api::<K>::all(client), watcher::Config::default());
            futures::pin_mut!(stream);
            loop {
                let (object, there) = match stream.try_next().await {
                    Ok(Some(watcher::Event::Apply(o) | watcher::Event::InitApply(o))) => (o, true),
                    Ok(Some(watcher::Event::Delete(o))) => (o, false),
                    Ok(Some(watcher::Event::Init | watcher::Event::InitDone)) | Err(_) => continue,
                    Ok(None) => return,
                };
                let name = (object.namespace().unwrap_or_default(), object.name_any());
                let mut kept = kept.lock();
                kept.entry(name).or_default().push(there.then_some(object));
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(follow));
        Self { versions }
    }

    /// Versions of an object up to now.
    pub(crate) fn of(&self, namespace: &str, name: &str) -> Vec<Option<K>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.versions.lock().get(&key).cloned().unwrap_or_default()
    }

    /// Versions of all objects of a namespace.
    pub(crate) fn count(&self, namespace: &str) -> usize {
        let versions = self.versions.lock();
        let here = versions.iter().filter(|((n, _), _)| n == namespace);
        here.map(|(_, versions)| versions.len()).sum()
    }
}

/// Hosts of a Sidecar. `~/*` is among them when there is no other.
pub(crate) fn hosts(sidecar: &Sidecar) -> BTreeSet<String> {
    let egress = sidecar.spec.egress.iter();
    egress.flat_map(|e| e.hosts.iter().cloned()).collect()
}

impl History<Sidecar> {
    /// What a Sidecar named, version by version, and what each step took away. A Sidecar that is deleted widens.
    pub(crate) fn removals(&self, namespace: &str, name: &str) -> Vec<BTreeSet<String>> {
        let all = self.of(namespace, name);
        let hosts = all.iter().map(|v| v.as_ref().map(hosts));
        let hosts: Vec<Option<BTreeSet<String>>> = hosts.collect();
        hosts
            .windows(2)
            .filter_map(|pair| match (&pair[0], &pair[1]) {
                (Some(before), Some(after)) => {
                    let gone = before.difference(after).filter(|e| *e != "~/*");
                    let gone: BTreeSet<String> = gone.cloned().collect();
                    (!gone.is_empty()).then_some(gone)
                }
                _ => None,
            })
            .collect()
    }
}
