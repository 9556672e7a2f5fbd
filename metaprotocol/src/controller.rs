//! The effects: watches into the index, writers, answers of proxies.

mod addresses;
mod secrets;
mod write;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Client, Resource, ResourceExt};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::{DestinationRule, EnvoyFilter, Gateway, ServiceEntry, VirtualService};
use trimtab_crds::metaprotocol::{ApplicationProtocol, MetaRouter};
use trimtab_crds::redis::{RedisDestination, RedisService};
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL, OWNER_KIND_LABEL, OWNER_NAME_LABEL};
use trimtab_kit::apply::{Applier, Key, MODULE_LABEL};
use trimtab_kit::host::{Context, Host, Module};
use trimtab_kit::readiness::Blocker;
use trimtab_kit::watch::WatchConfig;
use trimtab_xds::{DRDS, GENERIC_RDS, RDS, ResourceCache, Stats, TRDS};

use crate::config::MetaprotocolConfig;
use crate::engine::{Engine, Work};
use crate::index::Index;
use crate::metrics::MetaprotocolCollector;
use crate::object::ServiceKey;
use crate::translate::{MODULE, OWNER_NAMESPACE_LABEL};

pub use secrets::secret;

/// Field manager of generated objects.
pub const FIELD_MANAGER: &str = "trimtab/metaprotocol";
/// Field manager of status.
pub const STATUS_MANAGER: &str = "trimtab/metaprotocol-status";
/// Blocker of readiness until the first routes are in the xDS cache.
pub const FIRST_ROUTES: &str = "metaprotocol: first routes";
/// Concurrent writes.
const WRITERS: usize = 8;
/// How often it is looked at whether all watches have listed.
const START_POLL: Duration = Duration::from_millis(20);
/// Answers of proxies are gathered for this long before statuses tell of them.
const SETTLE: Duration = Duration::from_secs(1);
/// Pause between looks into the xDS server's books, which cost all subscriptions.
const RECOUNT: Duration = Duration::from_secs(10);

/// The MetaProtocol module.
#[derive(Clone, Debug)]
pub struct MetaprotocolModule {
    /// Configuration.
    pub config: MetaprotocolConfig,
    /// Address of the xDS server as proxies reach it; empty: nothing is delivered over it to stock proxies.
    pub xds_address: String,
    /// Where routes go.
    pub xds: ResourceCache,
}

/// The writers of generated objects.
#[derive(Clone, Debug)]
pub struct Appliers {
    /// Of EnvoyFilters.
    pub filters: Arc<Applier<EnvoyFilter>>,
    /// Of VirtualServices.
    pub virtual_services: Arc<Applier<VirtualService>>,
}

/// A module that is set up: its engine serves the JSON API.
#[derive(Debug)]
pub struct Metaprotocol {
    /// What was made of each host.
    pub engine: Arc<Engine>,
    /// Writers.
    pub appliers: Appliers,
    config: MetaprotocolConfig,
    xds: ResourceCache,
}

/// Owner of a generated object, by its labels.
fn owner<K: Resource>(object: &K) -> Option<Key> {
    let label = |name: &str| object.labels().get(name).cloned();
    let key = ServiceKey {
        kind: label(OWNER_KIND_LABEL)?,
        namespace: label(OWNER_NAMESPACE_LABEL)?,
        name: label(OWNER_NAME_LABEL)?,
    };
    Some(key.to_owner())
}

/// Labels that are repaired.
const OWNED_LABELS: &[&str] = &[
    MANAGED_BY_LABEL,
    MODULE_LABEL,
    OWNER_KIND_LABEL,
    OWNER_NAME_LABEL,
    OWNER_NAMESPACE_LABEL,
    "istio.io/rev",
];

impl MetaprotocolModule {
    /// Connects the parts. Nothing runs yet.
    pub fn build(self, host: &Host) -> Metaprotocol {
        let Context { client, clock, .. } = host.context().clone();
        let settings = Arc::new(self.config.settings(&self.xds_address));
        let index = Index::new(&self.config.domain, settings);
        let engine = Engine::new(index, clock, self.xds.clone());
        let touch = |engine: Arc<Engine>| {
            Arc::new(move |namespace: &str, name: &str| {
                if let Some(owner) = ServiceKey::from_owner(namespace, name) {
                    engine.queue.push(Work::Objects(owner), ());
                }
            })
        };
        let filters = Applier::of_module(
            client.clone(),
            FIELD_MANAGER,
            MODULE,
            owner,
            OWNED_LABELS,
            touch(engine.clone()),
        );
        let virtual_services = Applier::of_module(
            client,
            FIELD_MANAGER,
            MODULE,
            owner,
            OWNED_LABELS,
            touch(engine.clone()),
        );
        for type_url in [RDS, TRDS, DRDS, GENERIC_RDS] {
            self.xds.serve_type(type_url);
        }
        Metaprotocol {
            engine,
            appliers: Appliers {
                filters,
                virtual_services,
            },
            config: self.config,
            xds: self.xds,
        }
    }
}

impl Module for Metaprotocol {
    const NAME: &'static str = "metaprotocol";

    fn register(self, host: &mut Host) {
        self.watches(host);
        self.tasks(host);
    }
}

impl Metaprotocol {
    fn watches(&self, host: &mut Host) {
        let index = &self.engine.index;
        // Declared as the limiter declares them: one watch a kind serves both.
        let present = WatchConfig::default();
        let optional = WatchConfig {
            optional: true,
            ..WatchConfig::default()
        };
        host.watch::<Service>(present.clone(), index.clone());
        host.watch::<EndpointSlice>(present.clone(), index.clone());
        host.watch::<ServiceEntry>(optional.clone(), index.clone());
        host.watch::<DestinationRule>(optional.clone(), index.clone());
        host.watch::<Gateway>(optional.clone(), index.clone());
        host.watch::<MetaRouter>(optional.clone(), index.clone());
        host.watch::<ApplicationProtocol>(optional.clone(), index.clone());
        host.watch::<RedisService>(optional.clone(), index.clone());
        host.watch::<RedisDestination>(optional.clone(), index.clone());
        host.watch::<DubboAuthorizationPolicy>(optional.clone(), index.clone());
        let generated = WatchConfig {
            labels: format!("{MANAGED_BY_LABEL}={MANAGED_BY}"),
            ..present
        };
        host.watch::<EnvoyFilter>(generated.clone(), self.appliers.filters.clone());
        let generated = WatchConfig {
            optional: true,
            ..generated
        };
        host.watch::<VirtualService>(generated, self.appliers.virtual_services.clone());
    }

    fn tasks(self, host: &mut Host) {
        let context = host.context().clone();
        let collector = MetaprotocolCollector::new(
            self.engine.clone(),
            self.appliers.clone(),
            self.config.export_routers,
        );
        context
            .registry
            .lock()
            .register_collector(Box::new(collector));
        let runtime = Runtime {
            engine: self.engine,
            appliers: self.appliers,
            client: context.client.clone(),
            config: Arc::new(self.config),
            started: CancellationToken::new(),
            shutdown: context.shutdown.clone(),
            addresses: Arc::new(Notify::new()),
        };
        let blocker = context.readiness.block(FIRST_ROUTES);
        host.spawn(
            "metaprotocol: events",
            runtime.clone().events(context, blocker),
        );
        host.spawn("metaprotocol: proxies", runtime.clone().proxies(self.xds));
        if runtime.config.read_secrets {
            host.spawn("metaprotocol: secrets", runtime.clone().secrets());
        }
        if runtime.config.vips != <_>::default() {
            host.spawn("metaprotocol: addresses", runtime.clone().addresses());
        }
        for i in 0..WRITERS {
            host.spawn(
                format!("metaprotocol: writer {i}"),
                runtime.clone().writer(),
            );
        }
    }
}

/// What the tasks share.
#[derive(Clone)]
struct Runtime {
    engine: Arc<Engine>,
    appliers: Appliers,
    client: Client,
    config: Arc<MetaprotocolConfig>,
    /// Cancelled once the first routes are there.
    started: CancellationToken,
    shutdown: CancellationToken,
    /// Addresses in the mesh may have changed.
    addresses: Arc<Notify>,
}

impl Runtime {
    /// Takes events over. Waits for the first complete lists: outputs of half a mesh would take working routes away.
    async fn events(self, context: Context, blocker: Blocker) {
        let waiting = |name: &String| name.starts_with("watch of ");
        while context.readiness.missing().iter().any(waiting) {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(START_POLL) => {}
            }
        }
        if self.config.read_secrets {
            self.read_secrets().await;
        }
        self.absorb();
        blocker.release();
        self.started.cancel();
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = self.engine.index.changed() => {}
            }
            tokio::time::sleep(self.config.gathering()).await;
            self.absorb();
        }
    }

    fn absorb(&self) {
        if self.engine.absorb_events() {
            self.addresses.notify_one();
        }
    }

    /// Waits until the first routes are there; false: the process stops.
    async fn start(&self) -> bool {
        tokio::select! {
            () = self.shutdown.cancelled() => false,
            () = self.started.cancelled() => true,
        }
    }

    /// Takes answers of proxies over. The books are looked into when streams have come or gone, or answers were missed.
    async fn proxies(self, xds: ResourceCache) {
        let mut answers = xds.deliveries();
        let mut settling = tokio::time::interval(SETTLE);
        settling.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut counted = (0, 0);
        let mut next = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                answer = answers.recv() => match answer {
                    Ok(answer) => self.engine.answered(answer),
                    Err(RecvError::Lagged(missed)) => {
                        tracing::debug!(missed, "answers of proxies came faster than they could be noted");
                        counted = (0, 0);
                    }
                    Err(RecvError::Closed) => {
                        self.shutdown.cancelled().await;
                        return;
                    }
                },
                _ = settling.tick() => {
                    let stats = xds.stats();
                    let now = (Stats::read(&stats.streams_opened), Stats::read(&stats.streams_active));
                    if now != counted && tokio::time::Instant::now() >= next {
                        counted = now;
                        next = tokio::time::Instant::now() + RECOUNT;
                        self.engine.recount(&xds.nodes());
                    }
                    self.engine.settle();
                }
            }
        }
    }
}
