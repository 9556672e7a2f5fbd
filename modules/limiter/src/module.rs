//! What the limiter is made of, as the kit takes it.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use tokio_util::sync::CancellationToken;
use trimtab_crds::OWNER_NAME_LABEL;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::{first_form, v1alpha2};
use trimtab_kit::apply::{Key, Ownership};
use trimtab_kit::envoy::re2;
use trimtab_kit::module::{LegacyKey, Module, ModuleConfig, Setup, SetupError};
use trimtab_mesh::model::{
    DestinationRule, LimitPatches, Namespace, Pod, Service, ServiceEntry, VirtualService,
};

use crate::config::LimiterConfig;
use crate::engine::Engine;
use crate::index::{DefaultLimits, FirstForm, Index, V1alpha2};
use crate::input::{Proxies, Settings};
use crate::metrics::LimiterCollector;
use crate::needs::needs;
use crate::{describe, http};

/// A limiter that waits for its first sample need not wait for the ticker; this keeps a storm of events from becoming a
/// storm of queries.
const SHORTEST_PERIOD: Duration = Duration::from_millis(250);

/// Shortest `refresh` and `holdFor`.
const SHORTEST: trimtab_crds::Duration = trimtab_crds::Duration::from_millis(100);

/// The limiter module.
#[derive(Debug)]
pub struct Limiter;

impl ModuleConfig for LimiterConfig {
    fn legacy() -> &'static [LegacyKey] {
        crate::legacy::SLIME
    }

    fn check(&self) -> Result<(), String> {
        for (key, value) in [
            ("limiter.refresh", self.refresh),
            ("limiter.holdFor", self.hold_for),
        ] {
            if value < SHORTEST {
                return Err(format!(
                    "{key}: {value} is shorter than 100ms: write for example 5s"
                ));
            }
        }
        self.adaptive.check()?;
        re2::check_key(
            "limiter.proxyVersion",
            &self.proxy_version,
            re2::Engine::Istiod,
        )
    }
}

/// The limiter of a generated object, which is in its namespace: the controlling reference, since labels hold 63
/// characters; else the label.
fn owner(object: &EnvoyFilter) -> Option<Key> {
    let references = object.owner_references();
    let controller = references.iter().find(|r| r.controller == Some(true));
    let name = controller
        .map(|r| r.name.clone())
        .or_else(|| object.labels().get(OWNER_NAME_LABEL).cloned())?;
    Some((object.namespace().unwrap_or_default(), name))
}

impl Module for Limiter {
    const NAME: &'static str = "limiter";
    type Config = LimiterConfig;

    fn setup(config: LimiterConfig, setup: &mut Setup<'_>) -> Result<(), SetupError> {
        let context = setup.context().clone();
        let index = Index::new(&config.root_namespace, &context.mesh);
        let mut settings = Settings::new(&config, &context.xds_endpoint, &context.sources);
        settings.proxies = match (context.plain, context.offline) {
            (true, _) => Proxies::Plain,
            (false, true) => Proxies::Offline,
            (false, false) => Proxies::Istio,
        };
        let engine = Engine::elected(
            index.clone(),
            context.sources,
            settings,
            context.clock,
            context.xds,
            (context.answers, context.admission),
        );
        setup.require::<V1alpha2>(&index);
        setup.follow::<FirstForm>(&index);
        setup.follow::<Service>(&index);
        setup.follow::<Pod>(&index);
        // It only says why a pod has no proxy.
        setup.follow_unawaited::<Namespace>(&index);
        setup.follow::<DestinationRule>(&index);
        setup.follow::<ServiceEntry>(&index);
        setup.follow::<VirtualService>(&index);
        setup.follow::<LimitPatches>(&index);
        setup.follow::<DefaultLimits>(&index);
        setup.writes_status::<v1alpha2::SmartLimiter>();
        setup.writes_status::<first_form::SmartLimiter>();
        let ownership = Ownership {
            module: None,
            owner,
            predecessor: None,
        };
        let on_change = Arc::new(move |namespace: &str, owner: &str| index.touch(namespace, owner));
        setup.generates::<EnvoyFilter>("EnvoyFilter", ownership, on_change);
        setup.publishes_events(&engine.events);
        setup.engine(&engine);
        let refresh = config.refresh.into();
        for source in 0..engine.sources.len() {
            let sampling = sample(engine.clone(), source, refresh, context.shutdown.clone());
            setup.task(&format!("source {source}"), sampling);
        }
        setup.api(http::api(engine.clone()));
        let collector = LimiterCollector::new(engine.clone(), config.export_limiters);
        setup.collector(Box::new(collector));
        let described = engine.clone();
        setup.describe("smartlimiter", &["smartlimiters", "sml"], move |request| {
            let (namespace, name) = (&request.namespace, &request.name);
            match described.description(namespace, name) {
                Some(description) => Ok(describe::text(&description)),
                None => Err(described.missing(namespace, name)),
            }
        });
        let found = engine.clone();
        setup.findings(move || found.findings());
        setup.needs(|limiter: &v1alpha2::SmartLimiter| needs(&(&limiter.spec).into(), false));
        setup.needs(|limiter: &first_form::SmartLimiter| needs(&(&limiter.spec).into(), true));
        setup.expose(engine);
        Ok(())
    }
}

/// Samples one source on its own ticker: a slow source delays nobody.
async fn sample(
    engine: Arc<Engine>,
    source: usize,
    refresh: Duration,
    shutdown: CancellationToken,
) {
    let mut ticker = tokio::time::interval(refresh);
    let mut was_up = true;
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let wanted = async {
            engine.samples_wanted().await;
            tokio::time::sleep(refresh.min(SHORTEST_PERIOD)).await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticker.tick() => {}
            () = wanted => {}
        }
        engine.sample(source).await;
        was_up = tell(&engine, source, was_up);
    }
}

/// Logs that a source has gone down or come back. Returns whether it is up.
fn tell(engine: &Engine, source: usize, was_up: bool) -> bool {
    let Some(source) = engine.sources.get(source) else {
        return was_up;
    };
    let (health, name) = (source.health(), source.name());
    let is_up = health.ok();
    match (was_up, is_up) {
        (true, false) => {
            let error = health.last_error.unwrap_or_default();
            tracing::warn!(source = name, %error, "a metric source is down: limiters hold their last value, then fall back");
        }
        (false, true) => tracing::info!(source = name, "the metric source is up again"),
        _ => {}
    }
    is_up
}
