//! The module host: modules declare what they watch and run; the host starts everything after all have declared, so
//! that two modules that need one kind cost one watch.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use trimtab_mesh::table::Row;
use trimtab_xds::Stats;

use crate::answers::Changed;
pub use crate::context::Context;
use crate::driver::{AnyDriver, writers_per_lane};
use crate::module::{Installed, Setup, SetupError};
use crate::series::HostCollector;
use crate::watch::{self, AbsencesTold, Feed, Scope, Watch, WatchConfig, Watched, everywhere};

/// How often answers of proxies are flushed into statuses.
const FLUSH: Duration = Duration::from_secs(1);
/// Pause between looks at all subscriptions of the xDS server, which cost their number.
const RECOUNT: Duration = Duration::from_secs(10);
/// Passes of [`Host::run_once`] before it gives up: outputs that change each other for ever are a bug.
const MOST_PASSES: usize = 20;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A declared watch of any kind.
trait AnyWatch: Any + Send {
    fn watch(&self) -> &Arc<Watch>;
    fn run(self: Box<Self>, context: &Context) -> Task;
    fn list_once<'a>(
        &'a self,
        client: &'a Client,
    ) -> Pin<Box<dyn Future<Output = Result<(), kube::Error>> + Send + 'a>>;
}

struct Declared<K> {
    config: WatchConfig,
    scope: Scope<K>,
    feeds: Vec<Arc<dyn Feed<K>>>,
    watch: Arc<Watch>,
}

impl<K> AnyWatch for Declared<K>
where
    K: Watched,
{
    fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    fn run(self: Box<Self>, context: &Context) -> Task {
        let Self {
            config,
            scope,
            feeds,
            watch,
        } = *self;
        let shutdown = context.shutdown.clone();
        let api = scope(context.client.clone(), &config);
        Box::pin(watch::run::<K>(api, config, feeds, watch, shutdown))
    }

    fn list_once<'a>(
        &'a self,
        client: &'a Client,
    ) -> Pin<Box<dyn Future<Output = Result<(), kube::Error>> + Send + 'a>> {
        let api = (self.scope)(client.clone(), &self.config);
        Box::pin(watch::list_once::<K>(api, &self.config, &self.feeds))
    }
}

/// Parts that modules expose, by type.
#[derive(Clone, Default)]
pub struct Parts(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Parts").field(&self.0.len()).finish()
    }
}

impl Parts {
    /// The part of a type.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>())?.clone().downcast().ok()
    }
}

/// Collects declarations and runs them.
pub struct Host {
    context: Context,
    /// In the order of declaration.
    watches: Vec<Box<dyn AnyWatch>>,
    by_kind: HashMap<(TypeId, WatchConfig), usize>,
    absences_told: Arc<AbsencesTold>,
    /// Watches of tables, by row.
    tables: HashMap<TypeId, Arc<Watch>>,
    tasks: Vec<(String, Task)>,
    modules: Vec<Arc<Installed>>,
    parts: Parts,
    listeners: BTreeMap<String, SocketAddr>,
}

impl Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("watches", &self.watches.len())
            .field("modules", &self.modules)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// An empty host.
    pub fn new(context: Context) -> Self {
        Self {
            context,
            watches: Vec::new(),
            by_kind: HashMap::new(),
            absences_told: Arc::default(),
            tables: HashMap::new(),
            tasks: Vec::new(),
            modules: Vec::new(),
            parts: Parts::default(),
            listeners: BTreeMap::new(),
        }
    }

    /// The context.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Modules that are set up.
    pub fn modules(&self) -> &[Arc<Installed>] {
        &self.modules
    }

    /// Parts that modules have exposed.
    pub fn parts(&self) -> Parts {
        self.parts.clone()
    }

    /// Where modules listen, by the key of the configuration.
    pub fn listeners(&self) -> &BTreeMap<String, SocketAddr> {
        &self.listeners
    }

    /// Sets a module up.
    pub fn add(
        &mut self,
        name: &'static str,
        declare: impl FnOnce(&mut Setup<'_>) -> Result<(), SetupError>,
    ) -> Result<(), SetupError> {
        let mut setup = Setup::new(name, self);
        declare(&mut setup)?;
        setup.finish();
        Ok(())
    }

    pub(crate) fn expose<T: Any + Send + Sync>(&mut self, part: Arc<T>) {
        self.parts.0.insert(TypeId::of::<T>(), part);
    }

    pub(crate) fn listens(&mut self, key: &str, address: SocketAddr) {
        self.listeners.insert(key.to_owned(), address);
    }

    pub(crate) fn install(&mut self, module: Installed) {
        self.modules.push(Arc::new(module));
    }

    /// The watch of the table of `R`, which it fills. A table has one watch.
    pub(crate) fn table<R: Row<Object: Watched>>(
        &mut self,
        config: WatchConfig,
        scope: Scope<R::Object>,
    ) -> Arc<Watch> {
        let table = self.context.mesh.table::<R>();
        if let Some(watch) = self.tables.get(&TypeId::of::<R>()) {
            return watch.clone();
        }
        let watch = self.watch_in::<R::Object>(config, scope, table);
        self.tables.insert(TypeId::of::<R>(), watch.clone());
        watch
    }

    /// Declares that `feed` wants the events of `K`. Equal declarations share one watch.
    pub(crate) fn watch<K: Watched>(
        &mut self,
        config: WatchConfig,
        feed: Arc<dyn Feed<K>>,
    ) -> Arc<Watch> {
        self.watch_in(config, everywhere, feed)
    }

    fn watch_in<K: Watched>(
        &mut self,
        config: WatchConfig,
        scope: Scope<K>,
        feed: Arc<dyn Feed<K>>,
    ) -> Arc<Watch> {
        let key = (TypeId::of::<K>(), config.clone());
        let index = *self.by_kind.entry(key).or_insert_with(|| {
            let resource = format!("{}.{}", K::plural(&()), K::group(&()));
            let resource = resource.trim_end_matches('.');
            let blocker = self.context.readiness.block(format!("watch of {resource}"));
            self.watches.push(Box::new(Declared::<K> {
                config,
                scope,
                feeds: Vec::new(),
                watch: Watch::new(&K::kind(&()), resource, blocker, &self.absences_told),
            }));
            self.watches.len() - 1
        });
        let declared: &mut dyn Any = self.watches[index].as_mut();
        if let Some(declared) = declared.downcast_mut::<Declared<K>>() {
            declared.feeds.push(feed);
        }
        self.watches[index].watch().clone()
    }

    /// Whether a watch of `K` is declared.
    pub(crate) fn is_watched<K: 'static>(&self, config: &WatchConfig) -> bool {
        let key = (TypeId::of::<K>(), config.clone());
        self.by_kind.contains_key(&key)
    }

    /// Declares a task that runs until shutdown.
    pub fn spawn(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tasks.push((name.into(), Box::pin(task)));
    }

    /// Watches that are declared.
    pub fn watches(&self) -> Vec<Arc<Watch>> {
        self.watches.iter().map(|w| w.watch().clone()).collect()
    }

    fn drivers(&self) -> Vec<(&'static str, Arc<dyn AnyDriver>)> {
        let modules = self.modules.iter();
        modules
            .filter_map(|m| Some((m.name, m.driver.clone()?)))
            .collect()
    }

    /// Declares the tasks of the drivers.
    fn drive(&mut self) {
        let drivers = self.drivers();
        for (name, driver) in &drivers {
            let blocker = self.context.readiness.block(format!("module {name}"));
            self.spawn(format!("{name}: events"), driver.clone().follow(blocker));
            for lane in 0..driver.lanes() {
                for i in 0..writers_per_lane() {
                    let writer = driver.clone().write(lane);
                    self.spawn(format!("{name}: writer {lane}.{i}"), writer);
                }
            }
        }
        let collector = HostCollector {
            watches: self.watches(),
            drivers: drivers.clone(),
        };
        let registry = self.context.registry.clone();
        registry.lock().register_collector(Box::new(collector));
        let answers = follow_answers(drivers, self.context.clone());
        self.spawn("proxies", answers);
    }

    /// Lists everything once and lets each module decide and write, until nothing is left to do: a run without watches,
    /// timers and proxies.
    pub async fn run_once(&mut self) -> Result<(), kube::Error> {
        let drivers = self.drivers();
        for _ in 0..MOST_PASSES {
            for declared in &self.watches {
                let listed = declared.list_once(&self.context.client).await;
                // What the embedded API does not know has no objects.
                listed.or_else(|error| match error {
                    kube::Error::Api(status) if status.code == 404 => Ok(()),
                    error => Err(error),
                })?;
            }
            let mut any = false;
            for (_, driver) in &drivers {
                any |= driver.run_once().await;
            }
            if !any {
                break;
            }
        }
        Ok(())
    }

    /// Runs everything until shutdown. A task that ends or panics before is logged by name and stops the process, since a
    /// part-dead operator is worse than a restarted one.
    pub async fn run(mut self) -> Result<(), HostError> {
        self.drive();
        let Self {
            context,
            watches,
            tasks,
            ..
        } = self;
        let mut running: JoinSet<String> = JoinSet::new();
        for declared in watches {
            let name = format!("watch of {}", declared.watch().resource);
            let task = declared.run(&context);
            running.spawn(async move {
                task.await;
                name
            });
        }
        for (name, task) in tasks {
            running.spawn(async move {
                task.await;
                name
            });
        }
        while let Some(ended) = running.join_next().await {
            if context.shutdown.is_cancelled() {
                continue;
            }
            context.shutdown.cancel();
            return Err(match ended {
                Ok(name) => HostError::Ended { name },
                Err(error) => HostError::Panicked {
                    error: error.to_string(),
                },
            });
        }
        Ok(())
    }
}

/// Keeps the books of answers, and tells the engines what has changed in them. Subscriptions are counted when streams have
/// come or gone, or answers were missed.
async fn follow_answers(drivers: Vec<(&'static str, Arc<dyn AnyDriver>)>, context: Context) {
    let xds = &context.xds;
    let mut deliveries = xds.deliveries();
    let mut flush = tokio::time::interval(FLUSH);
    flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut counted = (0, 0);
    let mut next = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            answer = deliveries.recv() => match answer {
                Ok(answer) => context.answers.take(&answer),
                Err(RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "answers of proxies were missed; counting subscriptions anew");
                    counted = (0, 0);
                }
                Err(RecvError::Closed) => {
                    context.shutdown.cancelled().await;
                    return;
                }
            },
            _ = flush.tick() => {
                let stats = xds.stats();
                let now = (Stats::read(&stats.streams_opened), Stats::read(&stats.streams_active));
                if now != counted && tokio::time::Instant::now() >= next {
                    counted = now;
                    next = tokio::time::Instant::now() + RECOUNT;
                    context.answers.recount(&xds.nodes());
                }
                let changed = context.answers.changed();
                if changed != Changed::default() {
                    for (_, driver) in &drivers {
                        driver.answers_changed(&changed);
                    }
                }
            }
        }
    }
}

/// Why the host stopped before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A task returned.
    #[error("task \"{name}\" ended before shutdown: this is a bug, see the log above")]
    Ended {
        /// Its name.
        name: String,
    },
    /// A task panicked.
    #[error("a task panicked: {error}")]
    Panicked {
        /// The message.
        error: String,
    },
}
