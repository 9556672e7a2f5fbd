//! Watches: one task for each kind, fanned out to the indexes that asked for it.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::readiness::Blocker;

/// An index that takes the events of one kind. Calls are synchronous and must be fast.
pub trait Feed<K>: Send + Sync {
    /// An object is new or changed.
    fn apply(&self, object: Arc<K>);
    /// An object is gone.
    fn delete(&self, object: Arc<K>);
    /// The complete list after a (re)list: what is not in it is gone.
    /// Objects named in `unreadable` (namespace, name) exist too, but cannot be decoded: what was known of them stays.
    fn reset(&self, objects: Vec<Arc<K>>, unreadable: &[(String, String)]);
    /// An object cannot be decoded; what was known of it stays.
    fn undecodable(&self, _namespace: &str, _name: &str, _error: &str) {}
}

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct WatchConfig {
    /// Label selector; empty = all.
    pub labels: String,
    /// An API that the cluster may not have: its absence is an empty list.
    pub optional: bool,
}

/// How long to wait before an absent optional API is tried again.
const ABSENT_RETRY: Duration = Duration::from_secs(30);

/// Runs a watch until `shutdown`; releases `ready` after the first complete list.
pub async fn run<K>(
    client: Client,
    config: WatchConfig,
    feeds: Vec<Arc<dyn Feed<K>>>,
    ready: Blocker,
    shutdown: CancellationToken,
) where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    let api: Api<DeserializeGuard<K>> = Api::all(client);
    while !shutdown.is_cancelled() {
        let absent = tokio::select! {
            () = shutdown.cancelled() => return,
            absent = follow(&api, &config, &feeds, &ready) => absent,
        };
        if absent {
            // What is known stays: a 404 may pass, and an API that is removed deletes its objects first.
            ready.release();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(ABSENT_RETRY) => {}
            }
        }
    }
}

/// Follows the stream. Returns true when the API is absent and optional.
async fn follow<K>(
    api: &Api<DeserializeGuard<K>>,
    config: &WatchConfig,
    feeds: &[Arc<dyn Feed<K>>],
    ready: &Blocker,
) -> bool
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    let kind = K::kind(&());
    let stream = watcher(
        api.clone(),
        watcher::Config::default().labels(&config.labels),
    )
    .default_backoff();
    futures::pin_mut!(stream);
    let mut listed = Listed::default();
    loop {
        match stream.try_next().await {
            Ok(Some(event)) => dispatch(event, feeds, &mut listed, ready),
            Ok(None) => return false,
            Err(error) => {
                if config.optional && is_absent(&error) {
                    tracing::info!(%kind, "this API is not installed: treated as empty");
                    return true;
                }
                tracing::warn!(%kind, %error, "watch failed; retrying, known objects are kept");
            }
        }
    }
}

fn is_absent(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(e) | watcher::Error::WatchStartFailed(e) => {
            matches!(e, kube::Error::Api(status) if status.code == 404)
        }
        _ => false,
    }
}

/// A list that is under way.
struct Listed<K> {
    objects: Vec<Arc<K>>,
    unreadable: Vec<(String, String)>,
}

impl<K> Default for Listed<K> {
    fn default() -> Self {
        Self {
            objects: Vec::new(),
            unreadable: Vec::new(),
        }
    }
}

/// The object, or namespace, name and error of one that cannot be decoded.
///
/// Managed fields go at once: nobody reads them, and they are a third of many objects.
fn decoded<K>(guard: DeserializeGuard<K>) -> Result<Arc<K>, (String, String, String)>
where
    K: Resource<DynamicType = ()>,
{
    let pruned = guard.0.map(|mut object| {
        object.meta_mut().managed_fields = None;
        Arc::new(object)
    });
    pruned.map_err(|invalid| {
        let namespace = invalid.metadata.namespace.clone().unwrap_or_default();
        let name = invalid.metadata.name.clone().unwrap_or_default();
        (namespace, name, invalid.error)
    })
}

fn dispatch<K>(
    event: watcher::Event<DeserializeGuard<K>>,
    feeds: &[Arc<dyn Feed<K>>],
    listed: &mut Listed<K>,
    ready: &Blocker,
) where
    K: Resource<DynamicType = ()>,
{
    let complain = |(namespace, name, error): (String, String, String)| {
        tracing::warn!(kind = %K::kind(&()), %namespace, %name, %error, "object cannot be decoded; what was known of it is kept");
        for feed in feeds {
            feed.undecodable(&namespace, &name, &error);
        }
        (namespace, name)
    };
    match event {
        watcher::Event::Init => *listed = Listed::default(),
        watcher::Event::InitApply(guard) => match decoded(guard) {
            Ok(object) => listed.objects.push(object),
            Err(bad) => listed.unreadable.push(complain(bad)),
        },
        watcher::Event::InitDone => {
            let all = std::mem::take(listed);
            for feed in feeds {
                feed.reset(all.objects.clone(), &all.unreadable);
            }
            ready.release();
        }
        watcher::Event::Apply(guard) => match decoded(guard) {
            Ok(object) => {
                for feed in feeds {
                    feed.apply(object.clone());
                }
            }
            Err(bad) => {
                complain(bad);
            }
        },
        watcher::Event::Delete(guard) => match decoded(guard) {
            Ok(object) => {
                for feed in feeds {
                    feed.delete(object.clone());
                }
            }
            Err(bad) => {
                complain(bad);
            }
        },
    }
}
