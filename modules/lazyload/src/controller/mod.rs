//! The effects: watches into the index, learners, timers, writers.

mod learn;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Client, Resource, ResourceExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trimtab_crds::fence::ServiceFence;
use trimtab_crds::istio::{
    AuthorizationPolicy, DestinationRule, EnvoyFilter, ServiceEntry, Sidecar, VirtualService,
};
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL, OWNER_KIND_LABEL, OWNER_NAME_LABEL};
use trimtab_kit::apply::{Applier, Key, MODULE_LABEL};
use trimtab_kit::host::{Context, Host, Module};
use trimtab_kit::readiness::Blocker;
use trimtab_kit::retry::Budget;
use trimtab_kit::watch::WatchConfig;

use crate::config::{LazyloadConfig, time};
use crate::engine::{Engine, Work};
use crate::fallback::MODULE;
use crate::metrics::LazyloadCollector;
use crate::object::FenceKey;

pub use learn::Learned;

/// Field manager of generated objects.
pub const FIELD_MANAGER: &str = "trimtab/lazyload";
/// Field manager of status.
pub const STATUS_MANAGER: &str = "trimtab/lazyload-status";
/// Blocker of readiness until the first scopes are worked out.
pub const FIRST_SCOPES: &str = "lazyload: first scopes";
/// Concurrent writes of Sidecars, and of everything else.
const WRITERS: usize = 8;
/// How often it is looked at whether all watches have listed.
const START_POLL: Duration = Duration::from_millis(20);

/// The lazyload module.
#[derive(Debug)]
pub struct LazyloadModule {
    /// Configuration, checked.
    pub config: Arc<LazyloadConfig>,
    /// Where access logs arrive; `None`: nowhere.
    pub access_logs: Option<TcpListener>,
}

/// The writers of generated objects.
#[derive(Clone, Debug)]
pub struct Appliers {
    /// Of Sidecars.
    pub sidecars: Arc<Applier<Sidecar>>,
    /// Of the fallback's EnvoyFilters.
    pub filters: Arc<Applier<EnvoyFilter>>,
}

/// A module that is set up: its engine serves the JSON API.
#[derive(Debug)]
pub struct Lazyload {
    /// What was made of each fence.
    pub engine: Arc<Engine>,
    /// Writers.
    pub appliers: Appliers,
    /// What was learned from where.
    pub learned: Arc<Learned>,
    config: Arc<LazyloadConfig>,
    access_logs: Option<TcpListener>,
}

/// Labels that are repaired.
const OWNED_LABELS: &[&str] = &[
    MANAGED_BY_LABEL,
    MODULE_LABEL,
    OWNER_KIND_LABEL,
    OWNER_NAME_LABEL,
    "istio.io/rev",
];

/// The fence of a Sidecar.
fn owner(sidecar: &Sidecar) -> Option<Key> {
    let references = sidecar.owner_references();
    let fence = references
        .iter()
        .find(|r| r.controller == Some(true) && r.kind == "ServiceFence")?;
    Some((sidecar.namespace().unwrap_or_default(), fence.name.clone()))
}

/// All EnvoyFilters of the module belong together.
pub(crate) const WIRING: (&str, &str) = ("", "fallback");

#[expect(
    clippy::unnecessary_wraps,
    reason = "an applier asks for the owner of any object, and some have none"
)]
fn wiring<K: Resource>(_: &K) -> Option<Key> {
    Some((WIRING.0.to_owned(), WIRING.1.to_owned()))
}

impl LazyloadModule {
    /// Connects the parts. Nothing runs yet.
    pub fn build(self, host: &Host) -> Lazyload {
        let Context { client, clock, .. } = host.context().clone();
        let engine = Engine::new(self.config.clone(), clock);
        let touched = engine.clone();
        let sidecars = Applier::of_module(
            client.clone(),
            FIELD_MANAGER,
            MODULE,
            owner,
            OWNED_LABELS,
            Arc::new(move |namespace: &str, name: &str| {
                let key = FenceKey {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                };
                touched.queue.push(Work::Fence(key), ());
            }),
        );
        let touched = engine.clone();
        let filters = Applier::of_module(
            client,
            FIELD_MANAGER,
            MODULE,
            wiring,
            OWNED_LABELS,
            Arc::new(move |_: &str, _: &str| touched.queue.push(Work::Wiring, ())),
        );
        Lazyload {
            engine,
            appliers: Appliers { sidecars, filters },
            learned: Arc::new(Learned::default()),
            config: self.config,
            access_logs: self.access_logs,
        }
    }
}

impl Module for Lazyload {
    const NAME: &'static str = "lazyload";

    fn register(self, host: &mut Host) {
        self.watches(host);
        self.tasks(host);
    }
}

impl Lazyload {
    fn watches(&self, host: &mut Host) {
        let engine = &self.engine;
        // Declared as the other modules declare them: one watch a kind serves all.
        let present = WatchConfig::default();
        let optional = WatchConfig {
            optional: true,
            ..WatchConfig::default()
        };
        host.watch::<ServiceFence>(optional.clone(), engine.index.clone());
        host.watch::<ServiceFence>(optional.clone(), engine.auto.clone());
        host.watch::<Service>(present.clone(), engine.index.clone());
        host.watch::<Service>(present.clone(), engine.auto.clone());
        host.watch::<Service>(present.clone(), engine.ports.clone());
        host.watch::<Namespace>(present.clone(), engine.auto.clone());
        host.watch::<Pod>(present.clone(), engine.index.clone());
        host.watch::<Pod>(present.clone(), engine.auto.clone());
        host.watch::<EndpointSlice>(present.clone(), engine.index.clone());
        host.watch::<ServiceEntry>(optional.clone(), engine.index.clone());
        host.watch::<ServiceEntry>(optional.clone(), engine.ports.clone());
        host.watch::<VirtualService>(optional.clone(), engine.index.clone());
        host.watch::<DestinationRule>(optional.clone(), engine.index.clone());
        host.watch::<Sidecar>(optional.clone(), engine.index.clone());
        host.watch::<Sidecar>(optional.clone(), engine.clone());
        host.watch::<Sidecar>(optional.clone(), self.appliers.sidecars.clone());
        if self.config.learn.hints {
            // After the index, in which names are looked up.
            host.watch::<Pod>(present.clone(), engine.hints.clone());
            host.watch::<Service>(present.clone(), engine.hints.clone());
            host.watch::<ServiceEntry>(optional.clone(), engine.hints.clone());
            host.watch::<AuthorizationPolicy>(optional, engine.hints.clone());
        }
        let generated = WatchConfig {
            labels: format!("{MANAGED_BY_LABEL}={MANAGED_BY}"),
            ..present
        };
        host.watch::<EnvoyFilter>(generated, self.appliers.filters.clone());
    }

    fn tasks(self, host: &mut Host) {
        let context = host.context().clone();
        let collector = LazyloadCollector::new(
            self.engine.clone(),
            self.appliers.clone(),
            self.learned.clone(),
            self.config.export_fences,
        );
        context
            .registry
            .lock()
            .register_collector(Box::new(collector));
        let started = CancellationToken::new();
        learn::declare(
            host,
            &self.config,
            self.access_logs,
            &self.engine,
            &self.learned,
            &started,
        );
        let runtime = Runtime {
            budget: Arc::new(Budget::new(
                self.config.writes.per_minute,
                context.clock.monotonic(),
            )),
            engine: self.engine,
            appliers: self.appliers,
            context: context.clone(),
            started,
            asleep: Arc::new(AtomicBool::new(false)),
        };
        let blocker = context.readiness.block(FIRST_SCOPES);
        host.spawn("lazyload: events", runtime.clone().events(blocker));
        for i in 0..WRITERS {
            let writer = runtime.clone().writer(false);
            host.spawn(format!("lazyload: writer {i}"), writer);
            let writer = runtime.clone().writer(true);
            host.spawn(format!("lazyload: writer of sidecars {i}"), writer);
        }
    }
}

/// What the tasks share.
#[derive(Clone)]
struct Runtime {
    engine: Arc<Engine>,
    appliers: Appliers,
    context: Context,
    budget: Arc<Budget>,
    /// Cancelled once the first scopes are there.
    started: CancellationToken,
    /// A log line about the budget was written.
    asleep: Arc<AtomicBool>,
}

impl Runtime {
    fn client(&self) -> Client {
        self.context.client.clone()
    }

    /// Takes events over. Waits for the first complete lists: a scope of half a mesh would cut calls off.
    async fn events(self, blocker: Blocker) {
        let shutdown = self.context.shutdown.clone();
        let waiting = |name: &String| name.starts_with("watch of ");
        while self.context.readiness.missing().iter().any(waiting) {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(START_POLL) => {}
            }
        }
        self.engine.absorb();
        self.engine.begin();
        blocker.release();
        self.started.cancel();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.engine.changed() => {}
            }
            tokio::time::sleep(time(&self.engine.config().writes.gather)).await;
            self.engine.absorb();
        }
    }

    /// Waits until the first scopes are there; false: the process stops.
    async fn start(&self) -> bool {
        tokio::select! {
            () = self.context.shutdown.cancelled() => false,
            () = self.started.cancelled() => true,
        }
    }

    /// Waits until a Sidecar may be written.
    async fn spend(&self) {
        let per_minute = self.engine.config().writes.per_minute;
        while let Some(pause) = self.budget.take(per_minute, self.context.clock.monotonic()) {
            if !self.asleep.swap(true, Ordering::Relaxed) {
                tracing::info!(
                    per_minute,
                    "the budget of Sidecar writes is used up: the rest waits (lazyload.writes.perMinute)"
                );
            }
            tokio::select! {
                () = self.context.shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}
