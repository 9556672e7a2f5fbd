//! What lazy scoping is made of, as the kit takes it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1;
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;
use trimtab_crds::fence::{Mode, ServiceFence};
use trimtab_crds::istio::{self, EnvoyFilter};
use trimtab_kit::apply::{Key, Ownership};
use trimtab_kit::identity::PortSecurity;
use trimtab_kit::istiod::{self, Release};
use trimtab_kit::lease::while_leading;
use trimtab_kit::listen::Tls;
use trimtab_kit::module::{LegacyKey, Module, ModuleConfig, Setup, SetupError};
use trimtab_kit::needs::{Need, Party};
use trimtab_kit::queue::WorkQueue;
use trimtab_kit::rights::Right;
use trimtab_mesh::model::{
    CustomPolicy, DestinationRule, EndpointSlice, ExtensionClusters, FilterClusters, GrpcRoute,
    HttpRoute, KeyServers, MeshConfig, Namespace, PluginClusters, Pod, Service, ServiceEntry,
    Telemetry, VirtualService,
};

use crate::access::Policy;
use crate::config::{LazyloadConfig, PrometheusLearning};
use crate::describe;
use crate::engine::{Engine, WIRING, WorkItem};
use crate::fallback::MODULE;
use crate::hints::PodTemplate;
use crate::http;
use crate::learn::hints::PolicyHint;
use crate::learn::peer::Speakers;
use crate::learn::prometheus;
use crate::learn::server::{self, ServerOptions};
use crate::learn::{Learned, Rules};
use crate::mesh::{Fence, Sidecar};
use crate::metrics::LazyloadCollector;
use crate::object::FenceKey;

/// Where access logs arrive.
const ACCESS_LOGS: &str = "lazyload.learn.accessLog.address";

/// istiod is asked for its version this often: it may be upgraded.
const ASK_ISTIOD: Duration = Duration::from_secs(15);

/// The lazyload module.
#[derive(Debug)]
pub struct Lazyload;

impl ModuleConfig for LazyloadConfig {
    fn legacy() -> &'static [LegacyKey] {
        crate::legacy::SLIME
    }

    fn check(&self) -> Result<(), String> {
        LazyloadConfig::check(self)
    }

    fn enabled(&self) -> bool {
        self.enabled
    }

    fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let logs = self.learn.access_log.iter();
        logs.map(|logs| (ACCESS_LOGS, logs.address)).collect()
    }

    fn fixed(&self, new: &Self) -> Vec<&'static str> {
        [
            ("enabled", self.enabled != new.enabled),
            ("learn", self.learn != new.learn),
            ("remoteJwks", self.remote_jwks != new.remote_jwks),
            ("retention", self.retention != new.retention),
            ("exclusions", self.exclusions != new.exclusions),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}

/// The fence of a Sidecar.
fn owner(sidecar: &istio::Sidecar) -> Option<Key> {
    let references = sidecar.owner_references();
    let fence = references
        .iter()
        .find(|r| r.controller == Some(true) && r.kind == "ServiceFence")?;
    Some((sidecar.namespace().unwrap_or_default(), fence.name.clone()))
}

/// All EnvoyFilters of the module belong together.
#[expect(
    clippy::unnecessary_wraps,
    reason = "objects of other modules may have no owner"
)]
fn fallback_routing(_: &EnvoyFilter) -> Option<Key> {
    Some((WIRING.0.to_owned(), WIRING.1.to_owned()))
}

impl Module for Lazyload {
    const NAME: &'static str = "lazyload";
    type Config = LazyloadConfig;

    fn setup(config: LazyloadConfig, setup: &mut Setup<'_>) -> Result<(), SetupError> {
        let clock = setup.context().clock.clone();
        let mesh = setup.context().mesh.clone();
        let domain = mesh.domain().to_string();
        let config = LazyloadConfig {
            domain: domain.clone(),
            ..config
        };
        let engine = Engine::new(Arc::new(config.clone()), &mesh, clock);
        watches(&config, &engine, setup);
        outputs(&engine, setup);
        setup.engine(&engine);
        let learned = Arc::new(Learned::default());
        learners(&config, &engine, &learned, setup)?;
        ask_istiod(&config, &engine, setup);
        setup.api(http::api(engine.clone()));
        let telemetry = learned.prometheus.clone();
        setup.depends("lazyload.learn.prometheus", move || telemetry.error());
        let collector = LazyloadCollector::new(engine.clone(), learned, config.export_fences);
        setup.collector(Box::new(collector));
        let of = engine.clone();
        setup.describe("servicefence", &["servicefences", "svf"], move |request| {
            describe::fence(&of, &request.namespace, &request.name)
        });
        let of = engine.clone();
        setup.describe("pod", &["pods", "po"], move |request| {
            describe::pod(&of, &request.namespace, &request.name)
        });
        let found = engine.clone();
        setup.findings(move || found.findings());
        let mode = config.mode;
        setup.needs(move |fence: &ServiceFence| exclusions(fence, mode).into_iter().collect());
        let changed = engine.clone();
        setup.on_reload(move |config: LazyloadConfig| {
            changed.reconfigure(Arc::new(LazyloadConfig {
                domain: domain.clone(),
                ..config
            }));
        });
        setup.expose(engine);
        Ok(())
    }
}

/// What a fence whose mode leaves services out needs of istiod. `usual`: the mode of those that do not say.
fn exclusions(fence: &ServiceFence, usual: Mode) -> Option<Need> {
    let mode = fence.spec.mode.unwrap_or(usual);
    (fence.spec.enable && mode == Mode::Exclude).then(|| Need {
        party: Party::Istiod,
        since: Release::EXCLUSIONS,
        field: "spec.mode".to_owned(),
        what: "mode Exclude".to_owned(),
        instead: "set mode to Observe, Enforce or Auto".to_owned(),
    })
}

fn watches(config: &LazyloadConfig, engine: &Arc<Engine>, setup: &mut Setup<'_>) {
    setup.follow::<Fence>(&engine.index);
    setup.follow::<Fence>(&engine.auto);
    setup.follow::<Service>(&engine.index);
    setup.follow::<Service>(&engine.auto);
    setup.follow::<Service>(&engine.ports);
    setup.follow::<Namespace>(&engine.index);
    setup.follow::<Namespace>(&engine.auto);
    setup.follow::<Pod>(&engine.index);
    setup.follow::<Pod>(&engine.auto);
    setup.follow::<Namespace>(&engine.index);
    setup.follow::<EndpointSlice>(&engine.index);
    setup.follow::<ServiceEntry>(&engine.index);
    setup.follow::<ServiceEntry>(&engine.ports);
    setup.follow::<VirtualService>(&engine.index);
    setup.follow::<HttpRoute>(&engine.index);
    setup.follow::<GrpcRoute>(&engine.index);
    setup.follow::<DestinationRule>(&engine.index);
    setup.follow::<Sidecar>(&engine.index);
    setup.follow::<Sidecar>(engine);
    // After the index, in which Services are looked up.
    setup.follow::<Service>(engine);
    setup.follow::<Policy>(engine);
    setup.follow::<Service>(&engine.since);
    setup.follow::<ServiceEntry>(&engine.since);
    setup.follow::<VirtualService>(&engine.since);
    setup.follow::<HttpRoute>(&engine.since);
    setup.follow::<GrpcRoute>(&engine.since);
    setup.follow_mesh_defaults();
    setup.follow_mesh_config::<MeshConfig>(engine);
    needs(config, engine, setup);
    if config.learn.hints {
        // After the index, in which names are looked up.
        setup.follow::<PodTemplate>(&engine.hints);
        setup.follow::<Service>(&engine.hints);
        setup.follow::<ServiceEntry>(&engine.hints);
        setup.follow::<PolicyHint>(&engine.hints);
    }
}

/// What pods need whatever they call.
fn needs(config: &LazyloadConfig, engine: &Arc<Engine>, setup: &mut Setup<'_>) {
    setup.follow_mesh_config::<MeshConfig>(&engine.required);
    setup.follow::<Pod>(&engine.required);
    setup.follow::<ServiceEntry>(&engine.required);
    setup.follow::<FilterClusters>(&engine.required);
    setup.follow::<PluginClusters>(&engine.required);
    setup.follow::<ExtensionClusters>(&engine.required);
    setup.follow::<CustomPolicy>(&engine.required);
    setup.follow::<Telemetry>(&engine.required);
    if config.remote_jwks {
        setup.follow::<KeyServers>(&engine.required);
    }
}

fn outputs(engine: &Arc<Engine>, setup: &mut Setup<'_>) {
    let touched = engine.clone();
    let sidecars = Ownership {
        module: Some(MODULE),
        owner,
        predecessor: None,
    };
    let on_change = Arc::new(move |namespace: &str, name: &str| {
        let key = FenceKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        queue(&touched).push(WorkItem::Fence(key));
    });
    setup.generates::<istio::Sidecar>("Sidecar", sidecars, on_change);
    let touched = engine.clone();
    let filters = Ownership {
        module: Some(MODULE),
        owner: fallback_routing,
        predecessor: None,
    };
    let on_change =
        Arc::new(move |_: &str, _: &str| queue(&touched).push(WorkItem::FallbackRouting));
    setup.generates::<EnvoyFilter>("EnvoyFilter", filters, on_change);
    setup.writes_status::<ServiceFence>();
    setup.publishes_events(&engine.events);
    // Automatic fences, and the ports of the fallback.
    setup.creates::<ServiceFence>();
    setup.right(Right::on::<v1::Service>(&["patch"]).named(crate::fallback::NAME));
}

fn queue(engine: &Engine) -> &WorkQueue<WorkItem> {
    trimtab_kit::engine::Engine::queue(engine)
}

/// The tasks that learn. They begin with the first scopes, when sources and destinations can be told.
fn learners(
    config: &LazyloadConfig,
    engine: &Arc<Engine>,
    learned: &Learned,
    setup: &mut Setup<'_>,
) -> Result<(), SetupError> {
    let (clock, shutdown) = {
        let context = setup.context();
        (context.clock.clone(), context.shutdown.clone())
    };
    let rules = Rules {
        fallback_hosts: engine.fallback_hosts(),
        speakers: Speakers::new(config),
        namespace_label: config
            .learn
            .prometheus
            .as_ref()
            .map(|telemetry| telemetry.namespace_label.clone())
            .unwrap_or_default(),
    };
    if let Some(logs) = &config.learn.access_log {
        let listener = setup.listen(ACCESS_LOGS, logs.address)?;
        let backend = server::Backend {
            directory: engine.index.clone(),
            store: engine.edges.clone(),
            clock: clock.clone(),
            stats: learned.access_logs.clone(),
        };
        let tls = mesh_tls(logs.security, setup)?;
        let options = ServerOptions {
            rules: rules.clone(),
            tls,
            ..ServerOptions::default()
        };
        // What is learned is in the memory of one replica until it is written.
        let admission = setup.context().admission.clone();
        let serving = while_leading(
            listener,
            admission,
            shutdown.clone(),
            move |listener, term| server::serve(listener, backend.clone(), options.clone(), term),
        );
        setup.task("access logs", async {
            if let Err(error) = serving.await {
                tracing::error!(%error, "access logs are not taken any more");
            }
        });
    }
    if let Some(telemetry) = &config.learn.prometheus {
        let answers = setup.context().answer_budget.clone();
        let backend = prometheus::Backend {
            directory: engine.index.clone(),
            rules,
            store: engine.edges.clone(),
            clock,
            answers,
            stats: learned.prometheus.clone(),
        };
        setup.task("telemetry", ask(telemetry.clone(), backend, shutdown));
    }
    Ok(())
}

/// Asks istiod whether it knows exclusions, as long as a fence needs to know.
fn ask_istiod(config: &LazyloadConfig, engine: &Arc<Engine>, setup: &mut Setup<'_>) {
    let context = setup.context();
    if context.offline || context.plain {
        engine.without_istiod();
        return;
    }
    let (namespace, revision) = (&config.istio_namespace, &config.revision);
    let Some(address) = config.exclusions.address(namespace, revision) else {
        return;
    };
    let (engine, shutdown) = (engine.clone(), context.shutdown.clone());
    setup.task("istiod's version", async move {
        let mut first = true;
        loop {
            // Once in any case, so that it is known when a fence needs it.
            if std::mem::take(&mut first) || engine.asks_istiod() {
                match istiod::release(&address).await {
                    Ok(release) => engine.note_release(release),
                    Err(error) => tracing::debug!(error, "istiod does not say its version"),
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(ASK_ISTIOD) => {}
            }
        }
    });
}

/// The certificates of the port. Without them it must not open in plain text.
fn mesh_tls(security: PortSecurity, setup: &Setup<'_>) -> Result<Option<Arc<Tls>>, SetupError> {
    let context = setup.context();
    match (security, &context.mesh_tls) {
        (PortSecurity::Plain, _) => Ok(None),
        (PortSecurity::Mesh, Some(tls)) => Ok(Some(tls.clone())),
        (PortSecurity::Mesh, None) if context.offline => Ok(None),
        (PortSecurity::Mesh, None) => Err(SetupError(
            "lazyload.learn.accessLog.security is Mesh, and there is no certificate: set mesh.certificate"
                .to_owned(),
        )),
    }
}

async fn ask(
    config: PrometheusLearning,
    backend: prometheus::Backend,
    shutdown: CancellationToken,
) {
    if let Err(error) = prometheus::run(&config, &backend, shutdown.clone()).await {
        tracing::error!(%error, "telemetry is not asked");
        shutdown.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> LazyloadConfig {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn keys_that_need_a_restart_are_named() {
        let old = config("{}");
        assert_eq!(old.fixed(&config("mode: Observe")), [""; 0]);
        let new = config("{enabled: false, learn: {hints: false}, retention: {min: 1h}}");
        assert_eq!(old.fixed(&new), ["enabled", "learn", "retention"]);
    }

    #[test]
    fn the_port_of_access_logs_is_open_when_it_is_asked_for() {
        assert_eq!(config("{}").addresses(), []);
        let open = config("learn: {accessLog: {address: '0.0.0.0:8082'}}").addresses();
        assert_eq!(open, [(ACCESS_LOGS, ([0, 0, 0, 0], 8082).into())]);
    }
}
