//! The module host: modules declare what they watch and run; the host starts everything after all have declared, so
//! that two modules that need one kind cost one watch.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use kube::{Client, Resource};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::readiness::Readiness;
use crate::watch::{self, Feed, WatchConfig};

/// What every module gets.
#[derive(Clone)]
pub struct Context {
    /// For effects only.
    pub client: Client,
    /// Injected time.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the process stops.
    pub shutdown: CancellationToken,
    /// Named blockers of `/readyz`.
    pub readiness: Readiness,
    /// Metrics of the process.
    pub registry: Arc<Mutex<Registry>>,
}

impl Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}

/// A pluggable part of the operator.
pub trait Module: Sized {
    /// Name in the configuration, metrics and logs.
    const NAME: &'static str;
    /// Declares watches and tasks. Nothing runs yet.
    fn register(self, host: &mut Host);
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
type Start = Box<dyn FnOnce(&Context, Box<dyn Any + Send>) -> Task + Send>;

struct Declared {
    kind: String,
    /// `Vec<Arc<dyn Feed<K>>>` of the watch's kind.
    feeds: Box<dyn Any + Send>,
    start: Start,
}

/// Collects declarations and runs them.
pub struct Host {
    context: Context,
    watches: HashMap<(TypeId, WatchConfig), Declared>,
    tasks: Vec<(String, Task)>,
}

impl Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("watches", &self.watches.len())
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}

impl Host {
    /// An empty host.
    pub fn new(context: Context) -> Self {
        Self {
            context,
            watches: HashMap::new(),
            tasks: Vec::new(),
        }
    }

    /// The context.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Adds a module.
    pub fn add<M: Module>(&mut self, module: M) {
        module.register(self);
    }

    /// Declares that `feed` wants the events of `K`. Equal declarations share one watch.
    pub fn watch<K>(&mut self, config: WatchConfig, feed: Arc<dyn Feed<K>>)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
    {
        let declared = self
            .watches
            .entry((TypeId::of::<K>(), config.clone()))
            .or_insert_with(|| Declared {
                kind: K::kind(&()).into_owned(),
                feeds: Box::new(Vec::<Arc<dyn Feed<K>>>::new()),
                start: Box::new(move |context, feeds| {
                    let feeds = feeds
                        .downcast::<Vec<Arc<dyn Feed<K>>>>()
                        .map(|f| *f)
                        .unwrap_or_default();
                    let name = format!("watch of {}.{}", K::plural(&()), K::group(&()));
                    let ready = context.readiness.block(name.trim_end_matches('.'));
                    Box::pin(watch::run::<K>(
                        context.client.clone(),
                        config,
                        feeds,
                        ready,
                        context.shutdown.clone(),
                    ))
                }),
            });
        if let Some(feeds) = declared.feeds.downcast_mut::<Vec<Arc<dyn Feed<K>>>>() {
            feeds.push(feed);
        }
    }

    /// Declares a task that runs until shutdown.
    pub fn spawn(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tasks.push((name.into(), Box::pin(task)));
    }

    /// Runs everything until shutdown. A task that ends or panics before is logged by name and stops the process, since a
    /// part-dead operator is worse than a restarted one.
    pub async fn run(self) -> Result<(), HostError> {
        let Self {
            context,
            watches,
            tasks,
        } = self;
        let mut running: JoinSet<String> = JoinSet::new();
        for (_, declared) in watches {
            let task = (declared.start)(&context, declared.feeds);
            let name = format!("watch {}", declared.kind);
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
