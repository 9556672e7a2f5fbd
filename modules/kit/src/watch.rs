//! Watches: one task for each kind, fanned out to the feeds that asked for it.

mod health;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

pub(crate) use health::not_installed;
pub use health::{Watch, WatchState};

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
    /// A feed that takes a list object by object, so that no list of whole objects is held in memory. [`Self::reset`]
    /// is then not called.
    fn paged(&self) -> Option<&dyn PagedFeed<K>> {
        None
    }
}

/// Takes a list as its pages arrive.
pub trait PagedFeed<K>: Send + Sync {
    /// A list begins; one that was under way is void.
    fn begin(&self);
    /// One object of the list.
    fn item(&self, object: &K);
    /// The list is complete: what was not in it is gone, but for what is `unreadable`.
    fn end(&self, unreadable: &[(String, String)]);
}

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct WatchConfig {
    /// Label selector; empty = all.
    pub labels: String,
}

/// How long to wait before an absent API is tried again.
const ABSENT_RETRY: Duration = Duration::from_secs(30);

/// Runs a watch until `shutdown`.
pub async fn run<K>(
    client: Client,
    config: WatchConfig,
    feeds: Vec<Arc<dyn Feed<K>>>,
    watch: Arc<Watch>,
    shutdown: CancellationToken,
) where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    let api: Api<DeserializeGuard<K>> = Api::all(client);
    while !shutdown.is_cancelled() {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = follow(&api, &config, &feeds, &watch) => {}
        }
        // The API is absent. What is known stays: a 404 may pass, and an API that is removed deletes its objects first.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(ABSENT_RETRY) => {}
        }
    }
}

/// Lists once and hands the list to the feeds.
pub async fn list_once<K>(
    client: &Client,
    config: &WatchConfig,
    feeds: &[Arc<dyn Feed<K>>],
) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    let api: Api<DeserializeGuard<K>> = Api::all(client.clone());
    let params = kube::api::ListParams::default().labels(&config.labels);
    let list = api.list(&params).await?;
    let mut listed = Listed::default();
    dispatch(watcher::Event::Init, feeds, &mut listed);
    for object in list.items {
        dispatch(watcher::Event::InitApply(object), feeds, &mut listed);
    }
    dispatch(watcher::Event::InitDone, feeds, &mut listed);
    Ok(())
}

/// Follows the stream until the API is absent.
async fn follow<K>(
    api: &Api<DeserializeGuard<K>>,
    config: &WatchConfig,
    feeds: &[Arc<dyn Feed<K>>],
    watch: &Watch,
) where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    let stream = watcher(
        api.clone(),
        watcher::Config::default().labels(&config.labels),
    )
    .default_backoff();
    futures::pin_mut!(stream);
    let mut listed = Listed::default();
    loop {
        match stream.try_next().await {
            Ok(Some(event)) => {
                let complete =
                    !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_));
                dispatch(event, feeds, &mut listed);
                if complete {
                    watch.set(WatchState::Synced);
                }
            }
            Ok(None) => return,
            Err(error) => {
                let state = health::classify::<K>(&error);
                let absent = state == WatchState::Absent;
                watch.set(state);
                if absent {
                    return;
                }
            }
        }
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
) where
    K: Resource<DynamicType = ()>,
{
    match event {
        watcher::Event::Init => {
            *listed = Listed::default();
            let paged = feeds.iter().filter_map(|f| f.paged());
            paged.for_each(PagedFeed::begin);
        }
        watcher::Event::InitApply(guard) => match decoded(guard) {
            Ok(object) => add_listed(object, feeds, listed),
            Err(bad) => listed.unreadable.push(report::<K>(feeds, bad)),
        },
        watcher::Event::InitDone => {
            let all = std::mem::take(listed);
            for feed in feeds {
                match feed.paged() {
                    Some(paged) => paged.end(&all.unreadable),
                    None => feed.reset(all.objects.clone(), &all.unreadable),
                }
            }
        }
        watcher::Event::Apply(guard) => match decoded(guard) {
            Ok(object) => feeds.iter().for_each(|feed| feed.apply(object.clone())),
            Err(bad) => drop(report::<K>(feeds, bad)),
        },
        watcher::Event::Delete(guard) => match decoded(guard) {
            Ok(object) => feeds.iter().for_each(|feed| feed.delete(object.clone())),
            Err(bad) => drop(report::<K>(feeds, bad)),
        },
    }
}

fn add_listed<K>(object: Arc<K>, feeds: &[Arc<dyn Feed<K>>], listed: &mut Listed<K>) {
    let mut whole = false;
    for feed in feeds {
        match feed.paged() {
            Some(paged) => paged.item(&object),
            None => whole = true,
        }
    }
    if whole {
        listed.objects.push(object);
    }
}

fn report<K>(
    feeds: &[Arc<dyn Feed<K>>],
    (namespace, name, error): (String, String, String),
) -> (String, String)
where
    K: Resource<DynamicType = ()>,
{
    tracing::warn!(kind = %K::kind(&()), %namespace, %name, %error, "object cannot be decoded; what was known of it is kept");
    for feed in feeds {
        feed.undecodable(&namespace, &name, &error);
    }
    (namespace, name)
}
