//! Watches: one task for each kind, fanned out to the feeds that asked for it.

mod health;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use trimtab_mesh::Name;
use trimtab_mesh::table::{Row, Table, name_of};

pub(crate) use health::not_installed;
pub use health::{AbsencesTold, Watch, WatchState, is_absence};

/// Takes the events of one kind. Calls are synchronous and must be fast.
///
/// A list is taken object by object as its pages arrive: no list of whole objects is held in memory.
pub(crate) trait Feed<K>: Send + Sync {
    /// An object is new or changed.
    fn apply(&self, object: &Arc<K>);
    /// An object is gone.
    fn delete(&self, object: &Arc<K>);
    /// An object is gone that could not be decoded.
    fn gone(&self, _name: &Name) {}
    /// A list begins; one that was under way is void.
    fn begin(&self);
    /// One object of the list.
    fn item(&self, object: &Arc<K>);
    /// The list is complete: what was not in it is gone. Objects that are `unreadable` exist, but cannot be decoded: what
    /// was known of them stays.
    fn end(&self, unreadable: &[Name]);
    /// An object cannot be decoded; what was known of it stays.
    fn undecodable(&self, _name: &Name, _error: &str) {}
}

impl<R: Row> Feed<R::Object> for Table<R> {
    fn apply(&self, object: &Arc<R::Object>) {
        self.put(object);
    }

    fn delete(&self, object: &Arc<R::Object>) {
        self.remove(&name_of(object.as_ref()));
    }

    fn gone(&self, name: &Name) {
        self.remove(name);
    }

    fn begin(&self) {
        Self::begin(self);
    }

    fn item(&self, object: &Arc<R::Object>) {
        self.put(object);
    }

    fn end(&self, unreadable: &[Name]) {
        Self::end(self, unreadable);
    }

    fn undecodable(&self, name: &Name, error: &str) {
        Self::undecodable(self, name, error);
    }
}

/// A kind that can be watched.
pub trait Watched:
    Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
}

impl<K> Watched for K where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
}

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct WatchConfig {
    /// Label selector; empty = all.
    pub labels: String,
    /// The only object that is watched; `None`: all.
    pub object: Option<Name>,
}

impl WatchConfig {
    /// Field selector; empty = all.
    fn fields(&self) -> String {
        let name = self.object.as_ref().map(|(_, name)| name);
        name.map_or_else(String::new, |name| format!("metadata.name={name}"))
    }
}

/// Where the objects of a watch are asked for.
pub(crate) type Scope<K> = fn(Client, &WatchConfig) -> Api<DeserializeGuard<K>>;

/// In all namespaces.
pub(crate) fn everywhere<K: Watched>(client: Client, _: &WatchConfig) -> Api<DeserializeGuard<K>> {
    Api::all(client)
}

/// In the namespace of the only object.
pub(crate) fn its_namespace<K>(client: Client, config: &WatchConfig) -> Api<DeserializeGuard<K>>
where
    K: Watched + Resource<Scope = NamespaceResourceScope>,
{
    match &config.object {
        Some((namespace, _)) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

/// How long to wait before an absent API is tried again.
const ABSENT_RETRY: Duration = Duration::from_secs(30);

/// Runs a watch until `shutdown`.
pub(crate) async fn run<K>(
    api: Api<DeserializeGuard<K>>,
    config: WatchConfig,
    feeds: Vec<Arc<dyn Feed<K>>>,
    watch: Arc<Watch>,
    shutdown: CancellationToken,
) where
    K: Watched,
{
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
pub(crate) async fn list_once<K>(
    api: Api<DeserializeGuard<K>>,
    config: &WatchConfig,
    feeds: &[Arc<dyn Feed<K>>],
) -> Result<(), kube::Error>
where
    K: Watched,
{
    let params = kube::api::ListParams::default()
        .labels(&config.labels)
        .fields(&config.fields());
    let list = api.list(&params).await?;
    let mut unreadable = Vec::new();
    dispatch(watcher::Event::Init, feeds, &mut unreadable);
    for object in list.items {
        dispatch(watcher::Event::InitApply(object), feeds, &mut unreadable);
    }
    dispatch(watcher::Event::InitDone, feeds, &mut unreadable);
    Ok(())
}

/// Follows the stream until the API is absent.
async fn follow<K>(
    api: &Api<DeserializeGuard<K>>,
    config: &WatchConfig,
    feeds: &[Arc<dyn Feed<K>>],
    watch: &Watch,
) where
    K: Watched,
{
    let selection = watcher::Config::default()
        .labels(&config.labels)
        .fields(&config.fields());
    let stream = watcher(api.clone(), selection).default_backoff();
    futures::pin_mut!(stream);
    let mut unreadable = Vec::new();
    loop {
        match stream.try_next().await {
            Ok(Some(event)) => {
                let complete =
                    !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_));
                dispatch(event, feeds, &mut unreadable);
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

/// The object, or name and error of one that cannot be decoded.
///
/// Managed fields go at once: nobody reads them, and they are a third of many objects.
fn decoded<K: Watched>(guard: DeserializeGuard<K>) -> Result<Arc<K>, (Name, String)> {
    let pruned = guard.0.map(|mut object| {
        object.meta_mut().managed_fields = None;
        Arc::new(object)
    });
    pruned.map_err(|invalid| {
        let namespace = invalid.metadata.namespace.clone().unwrap_or_default();
        let name = invalid.metadata.name.clone().unwrap_or_default();
        ((namespace, name), invalid.error)
    })
}

fn dispatch<K: Watched>(
    event: watcher::Event<DeserializeGuard<K>>,
    feeds: &[Arc<dyn Feed<K>>],
    unreadable: &mut Vec<Name>,
) {
    match event {
        watcher::Event::Init => {
            unreadable.clear();
            for feed in feeds {
                feed.begin();
            }
        }
        watcher::Event::InitApply(guard) => {
            unreadable.extend(hand_on(guard, feeds, |feed, object| feed.item(object)));
        }
        watcher::Event::InitDone => {
            for feed in feeds {
                feed.end(unreadable);
            }
        }
        watcher::Event::Apply(guard) => {
            hand_on(guard, feeds, |feed, object| feed.apply(object));
        }
        watcher::Event::Delete(guard) => match decoded(guard) {
            Ok(object) => {
                for feed in feeds {
                    feed.delete(&object);
                }
            }
            // Its name is enough to know that it is gone.
            Err((name, _)) => {
                for feed in feeds {
                    feed.gone(&name);
                }
            }
        },
    }
}

/// Hands an object to all feeds. Gives the name of one that cannot be decoded.
fn hand_on<K: Watched>(
    guard: DeserializeGuard<K>,
    feeds: &[Arc<dyn Feed<K>>],
    take: impl Fn(&dyn Feed<K>, &Arc<K>),
) -> Option<Name> {
    match decoded(guard) {
        Ok(object) => {
            for feed in feeds {
                take(feed.as_ref(), &object);
            }
            None
        }
        Err(bad) => Some(report::<K>(feeds, bad)),
    }
}

fn report<K: Watched>(feeds: &[Arc<dyn Feed<K>>], (name, error): (Name, String)) -> Name {
    tracing::warn!(kind = %K::kind(&()), namespace = %name.0, name = %name.1, %error, "object cannot be decoded; what was known of it is kept");
    for feed in feeds {
        feed.undecodable(&name, &error);
    }
    name
}
