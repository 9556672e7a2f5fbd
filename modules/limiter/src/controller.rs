//! The effects: watches into the index, sampling loops, writers, answers of proxies.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use trimtab_crds::istio::{DestinationRule, EnvoyFilter, ServiceEntry};
use trimtab_crds::limiter::{LimiterStatus, duration_millis, first_form, v1alpha2};
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL, OWNER_KIND_LABEL, OWNER_NAME_LABEL};
use trimtab_kit::apply::{Applier, ApplyError, call};
use trimtab_kit::host::{Host, Module};
use trimtab_kit::sources::MetricSource;
use trimtab_kit::watch::WatchConfig;
use trimtab_xds::{Delivery as XdsDelivery, ResourceCache};

use crate::config::LimiterConfig;
use crate::engine::{Engine, FIRST_SAMPLE};
use crate::index::{Form, Index, LimiterKey};
use crate::input::Settings;
use crate::metrics::LimiterCollector;

/// Field manager of generated objects.
pub const FIELD_MANAGER: &str = "trimtab/limiter";
/// Field manager of status.
pub const STATUS_MANAGER: &str = "trimtab/limiter-status";
/// Concurrent writes.
const WRITERS: usize = 16;
/// How often limiters are looked at that no sample may ever come for.
const SETTLE: Duration = Duration::from_secs(1);
/// Events are gathered for this long: a relist or a roll-out is then one pass.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// The limiter module.
pub struct LimiterModule {
    /// Configuration.
    pub config: LimiterConfig,
    /// Address of the xDS server as proxies reach it; empty = ECDS is refused.
    pub xds_address: String,
    /// Metric sources, the first that provides a name wins.
    pub sources: Vec<Arc<dyn MetricSource>>,
    /// Where hot values go.
    pub xds: ResourceCache,
}

impl std::fmt::Debug for LimiterModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LimiterModule")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A module that is set up: its engine serves the JSON API.
#[derive(Debug)]
pub struct Limiter {
    /// Decisions and views.
    pub engine: Arc<Engine>,
    /// Writer of EnvoyFilters.
    pub applier: Arc<Applier<EnvoyFilter>>,
    refresh: Duration,
    export: usize,
    xds: ResourceCache,
    watches_ready: trimtab_kit::readiness::Readiness,
}

impl LimiterModule {
    /// Connects the parts. Nothing runs yet.
    pub fn build(self, host: &Host) -> Limiter {
        let context = host.context();
        let index = Index::new(&self.config.root_namespace);
        let settings = Settings {
            delivery: self.config.delivery,
            hold_for: self.config.hold_for.clone(),
            insert_local_rate_limit: !self.config.disable_insert_local_rate_limit,
            proxy_version: self.config.proxy_version.clone(),
            xds_address: self.xds_address,
            prometheus: self.sources.iter().any(|s| s.name() == "prometheus"),
            known_metrics: self.sources.iter().flat_map(|s| s.provides()).collect(),
        };
        let engine = Engine::new(
            index.clone(),
            self.sources,
            settings,
            context.clock.clone(),
            self.xds.clone(),
        );
        let applier = Applier::new(
            context.client.clone(),
            FIELD_MANAGER,
            OWNER_NAME_LABEL,
            &[
                MANAGED_BY_LABEL,
                OWNER_KIND_LABEL,
                OWNER_NAME_LABEL,
                "istio.io/rev",
            ],
            Arc::new(move |namespace, owner| index.touch(namespace, owner)),
        );
        Limiter {
            engine,
            applier,
            refresh: duration_millis(&self.config.refresh)
                .map_or(Duration::from_secs(5), Duration::from_millis),
            export: self.config.export_limiters,
            xds: self.xds,
            watches_ready: context.readiness.clone(),
        }
    }
}

impl Module for Limiter {
    const NAME: &'static str = "limiter";

    fn register(self, host: &mut Host) {
        self.watches(host);
        self.tasks(host);
    }
}

impl Limiter {
    fn watches(&self, host: &mut Host) {
        let index = self.engine.index.clone();
        let ours = WatchConfig::default();
        let optional = WatchConfig {
            optional: true,
            ..WatchConfig::default()
        };
        host.watch::<v1alpha2::SmartLimiter>(ours.clone(), index.clone());
        host.watch::<first_form::SmartLimiter>(optional.clone(), index.clone());
        host.watch::<Service>(ours.clone(), index.clone());
        host.watch::<Pod>(ours, index.clone());
        host.watch::<DestinationRule>(optional.clone(), index.clone());
        host.watch::<ServiceEntry>(optional, index);
        let generated = WatchConfig {
            labels: format!("{MANAGED_BY_LABEL}={MANAGED_BY}"),
            ..WatchConfig::default()
        };
        host.watch::<EnvoyFilter>(generated, self.applier.clone());
    }

    fn tasks(self, host: &mut Host) {
        let context = host.context().clone();
        context
            .registry
            .lock()
            .register_collector(Box::new(LimiterCollector::new(
                self.engine.clone(),
                self.applier.clone(),
                self.export,
            )));
        let kick = Arc::new(Notify::new());
        let started = CancellationToken::new();
        let blocker = context.readiness.block("limiter: first decisions");
        host.spawn(
            "limiter: events",
            events(
                self.engine.clone(),
                self.watches_ready,
                kick.clone(),
                started.clone(),
                blocker,
                context.shutdown.clone(),
            ),
        );
        for source in 0..self.engine.sources.len() {
            host.spawn(
                format!("limiter: source {source}"),
                sample(
                    self.engine.clone(),
                    source,
                    self.refresh,
                    kick.clone(),
                    started.clone(),
                    context.shutdown.clone(),
                ),
            );
        }
        host.spawn(
            "limiter: proxies",
            deliveries(self.engine.clone(), self.xds, context.shutdown.clone()),
        );
        for i in 0..WRITERS {
            host.spawn(
                format!("limiter: writer {i}"),
                writer(
                    self.engine.clone(),
                    self.applier.clone(),
                    context.client.clone(),
                    started.clone(),
                    context.shutdown.clone(),
                ),
            );
        }
    }
}

/// Takes events over. Waits for the first complete lists: decisions on half a mesh would take working limits away.
async fn events(
    engine: Arc<Engine>,
    readiness: trimtab_kit::readiness::Readiness,
    kick: Arc<Notify>,
    started: CancellationToken,
    blocker: trimtab_kit::readiness::Blocker,
    shutdown: CancellationToken,
) {
    while readiness
        .missing()
        .iter()
        .any(|n| n.starts_with("watch of "))
    {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(DEBOUNCE) => {}
        }
    }
    engine.absorb_events();
    started.cancel();
    kick.notify_waiters();
    let deadline = tokio::time::Instant::now() + FIRST_SAMPLE;
    let mut settling = tokio::time::interval(SETTLE);
    let mut waiting = true;
    loop {
        // Proxies that reconnect keep what they have until the first decisions are there, since the xDS server opens when
        // nothing blocks: a value that rests on nothing would open a limit that is in force.
        if waiting && (!engine.any_pending() || tokio::time::Instant::now() >= deadline) {
            waiting = false;
            blocker.release();
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = engine.index.changed() => {}
            () = tokio::time::sleep(DEBOUNCE), if waiting => continue,
            _ = settling.tick() => {
                engine.settle();
                continue;
            }
        }
        tokio::time::sleep(DEBOUNCE).await;
        if engine.absorb_events() {
            kick.notify_waiters();
        }
    }
}

/// Samples one source on its own ticker: a slow source delays nobody.
async fn sample(
    engine: Arc<Engine>,
    source: usize,
    refresh: Duration,
    kick: Arc<Notify>,
    started: CancellationToken,
    shutdown: CancellationToken,
) {
    let Some(handle) = engine.sources.get(source).cloned() else {
        return;
    };
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = started.cancelled() => {}
    }
    let mut ticker = tokio::time::interval(refresh);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // A new limiter need not wait for the ticker; the floor keeps a storm of events from becoming a storm of queries.
        let kicked = async {
            kick.notified().await;
            tokio::time::sleep(refresh.min(Duration::from_millis(250))).await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticker.tick() => {}
            () = kicked => {}
        }
        let book = engine.demands(source);
        if book.demands.is_empty() {
            continue;
        }
        let harvest = handle.harvest(&book.demands).await;
        tracing::debug!(
            source = handle.name(),
            queries = harvest.queries,
            elapsed_ms = harvest.elapsed.as_millis(),
            "sampled"
        );
        engine.absorb_harvest(&book, harvest);
    }
}

/// Answers of proxies to ECDS pushes.
async fn deliveries(engine: Arc<Engine>, xds: ResourceCache, shutdown: CancellationToken) {
    let mut answers = xds.deliveries();
    loop {
        let answer = tokio::select! {
            () = shutdown.cancelled() => return,
            answer = answers.recv() => answer,
        };
        match answer {
            Ok(XdsDelivery::Acked {
                node,
                type_url,
                name,
                version,
                ..
            }) => {
                // A node that refused the present value acknowledges the one before when it reconnects.
                let resource = xds.get(&type_url, &name);
                if let Some(resource) = resource.filter(|r| r.version == version) {
                    engine.delivered(&resource.origin, &node, None);
                }
            }
            Ok(XdsDelivery::Nacked {
                node,
                origin,
                message,
                ..
            }) => {
                tracing::warn!(%node, limiter = %origin, %message, "a proxy refused a limit and keeps the last good one");
                engine.delivered(&origin, &node, Some(&message));
            }
            Err(tokio::sync::broadcast::error::RecvError::Lagged(n)) => {
                tracing::debug!(
                    missed = n,
                    "answers of proxies came faster than they could be noted"
                );
            }
            Err(tokio::sync::broadcast::error::RecvError::Closed) => {
                shutdown.cancelled().await;
                return;
            }
        }
    }
}

async fn writer(
    engine: Arc<Engine>,
    applier: Arc<Applier<EnvoyFilter>>,
    client: Client,
    started: CancellationToken,
    shutdown: CancellationToken,
) {
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = started.cancelled() => {}
    }
    loop {
        let (key, ()) = tokio::select! {
            () = shutdown.cancelled() => return,
            item = engine.queue.pop() => item,
        };
        let result = write(&engine, &applier, &client, &key).await;
        engine.queue.done(&key);
        match result {
            Ok(()) => engine.note_success(&key),
            Err(error) => retry(&engine, key, &error, &shutdown),
        }
    }
}

/// Writes a limiter as it is now: its objects, then its status, which also tells of objects that could not be written.
async fn write(
    engine: &Engine,
    applier: &Applier<EnvoyFilter>,
    client: &Client,
    key: &LimiterKey,
) -> Result<(), ApplyError> {
    let outcome = match engine.desired(key) {
        Some(desired) => applier
            .converge(&key.namespace, &key.name, &desired)
            .await
            .map(drop),
        None => Ok(()),
    };
    let error = outcome.as_ref().err().map(|e| (e.reason(), e.to_string()));
    engine.note_apply(key, error);
    if let Some(status) = engine.status_to_write(key) {
        write_status(client, key, &status).await?;
        engine.note_status(key, status);
    }
    outcome
}

async fn write_status(
    client: &Client,
    key: &LimiterKey,
    status: &LimiterStatus,
) -> Result<(), ApplyError> {
    let body = json!({"apiVersion": key.form.api_version(), "kind": trimtab_crds::limiter::KIND, "metadata": {"name": key.name}, "status": status});
    let params = PatchParams::apply(STATUS_MANAGER).force();
    let what = || {
        format!(
            "write status of SmartLimiter {}/{}",
            key.namespace, key.name
        )
    };
    let patch = Patch::Apply(&body);
    let result = match key.form {
        Form::V1alpha2 => {
            let api: Api<v1alpha2::SmartLimiter> = Api::namespaced(client.clone(), &key.namespace);
            call(what, api.patch_status(&key.name, &params, &patch))
                .await
                .map(drop)
        }
        Form::First => {
            let api: Api<first_form::SmartLimiter> =
                Api::namespaced(client.clone(), &key.namespace);
            call(what, api.patch_status(&key.name, &params, &patch))
                .await
                .map(drop)
        }
    };
    match result {
        // The limiter was deleted meanwhile.
        Err(ApplyError::Api { source, .. }) if matches!(source.as_ref(), kube::Error::Api(s) if s.code == 404) => {
            Ok(())
        }
        other => other,
    }
}

/// Has the limiter written again after a pause.
fn retry(engine: &Arc<Engine>, key: LimiterKey, error: &ApplyError, shutdown: &CancellationToken) {
    let Some(pause) = engine.retry_after(&key) else {
        return;
    };
    tracing::warn!(namespace = %key.namespace, name = %key.name, %error, pause_ms = pause.as_millis(), "write failed; trying again");
    let (engine, shutdown) = (engine.clone(), shutdown.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => engine.retry_now(key),
        }
    });
}
