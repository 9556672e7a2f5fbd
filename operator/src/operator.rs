//! The running operator: everything is wired here, top to bottom.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_kit::apply::Applier;
use trimtab_kit::clock::{Clock, SystemClock};
use trimtab_kit::host::{Context, Host};
use trimtab_kit::readiness::Readiness;
use trimtab_kit::sources::{
    MdsSource, MdsStore, MetricSource, MetricsServerSource, PrometheusSource, mds_service,
};
use trimtab_lazyload::controller::{Appliers as LazyloadAppliers, Lazyload, LazyloadModule};
use trimtab_lazyload::engine::Engine as LazyloadEngine;
use trimtab_limiter::controller::LimiterModule;
use trimtab_limiter::engine::Engine;
use trimtab_metaprotocol::controller::{Appliers, Metaprotocol, MetaprotocolModule};
use trimtab_metaprotocol::engine::Engine as MetaprotocolEngine;
use trimtab_xds::ResourceCache;

use crate::config::Config;
use crate::http;
use crate::reload;
use crate::xds_series::XdsCollector;

/// How often it is looked at whether the xDS server can be opened.
const OPEN_POLL: Duration = Duration::from_millis(10);

/// A running operator.
#[derive(Debug)]
pub struct Operator {
    /// Where the HTTP endpoints listen.
    pub http: SocketAddr,
    /// Where the xDS server listens.
    pub xds: SocketAddr,
    /// Where metrics are pushed to.
    pub mds: Option<SocketAddr>,
    /// Decisions and views of the limiter.
    pub limiter: Arc<Engine>,
    /// Writer of EnvoyFilters, with its counts.
    pub applier: Arc<Applier<EnvoyFilter>>,
    /// What the MetaProtocol module makes of each host, with its writers; `None`: it is switched off.
    pub metaprotocol: Option<(Arc<MetaprotocolEngine>, Appliers)>,
    /// What the lazyload module makes of each fence, with its writers; `None`: it is switched off.
    pub lazyload: Option<(Arc<LazyloadEngine>, LazyloadAppliers)>,
    /// Where access logs arrive.
    pub access_logs: Option<SocketAddr>,
    /// Named blockers of readiness.
    pub readiness: Readiness,
    /// The xDS cache.
    pub cache: ResourceCache,
    shutdown: CancellationToken,
    host: JoinHandle<Result<(), trimtab_kit::host::HostError>>,
    servers: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Operator {
    /// Starts with the sources of the configuration.
    pub async fn start(
        config: Config,
        client: Client,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        Self::start_with(config, client, Vec::new(), shutdown).await
    }

    /// Starts with `extra` sources in front of those of the configuration.
    pub async fn start_with(
        config: Config,
        client: Client,
        extra: Vec<Arc<dyn MetricSource>>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let clock = Arc::new(SystemClock::new());
        Self::start_at(config, client, extra, clock, shutdown).await
    }

    /// Starts with another clock too.
    pub async fn start_at(
        config: Config,
        client: Client,
        extra: Vec<Arc<dyn MetricSource>>,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        config.check()?;
        let context = Context {
            client: client.clone(),
            clock,
            shutdown: shutdown.clone(),
            readiness: Readiness::new(),
            registry: Arc::new(Mutex::new(Registry::default())),
        };
        let http_listener = bind("http.address", config.http.address).await?;
        let xds_listener = listen("xds.address", config.xds.address)?;
        let (http_address, xds_address) = (http_listener.local_addr()?, xds_listener.local_addr()?);
        let mut servers = Vec::new();
        let mut sources = extra;
        let mds = add_sources(&config, &client, &mut sources, &mut servers, &shutdown).await?;

        let cache = ResourceCache::new();
        let mut host = Host::new(context.clone());
        let (engine, applier) = add_limiter(&config, sources, &cache, xds_address, &mut host);
        let metaprotocol = add_metaprotocol(&config, &cache, xds_address, &mut host);
        let (lazyload, access_logs) = add_lazyload(&config, &mut host).await?;
        add_opening(&config, &cache, xds_address, &mut host);
        let collector = Box::new(XdsCollector(cache.clone()));
        context.registry.lock().register_collector(collector);

        servers.push(tokio::spawn(http::serve(
            http_listener,
            http::State {
                registry: context.registry.clone(),
                readiness: context.readiness.clone(),
                limiter: engine.clone(),
                metaprotocol: metaprotocol.as_ref().map(|(engine, _)| engine.clone()),
                lazyload: lazyload.as_ref().map(|(engine, _)| engine.clone()),
                cache: cache.clone(),
            },
            shutdown.clone(),
        )));
        let options = config.xds.options();
        let xds = trimtab_xds::serve_with(cache.clone(), xds_listener, options, shutdown.clone());
        servers.push(tokio::spawn(async move { Ok(xds.await?) }));
        let mds_text = mds.map_or_else(|| "off".to_owned(), |address| address.to_string());
        tracing::info!(http = %http_address, xds = %xds_address, mds = mds_text, "trimtab is up");
        Ok(Self {
            http: http_address,
            xds: xds_address,
            mds,
            limiter: engine,
            applier,
            metaprotocol,
            lazyload,
            access_logs,
            readiness: context.readiness,
            cache,
            shutdown,
            host: tokio::spawn(host.run()),
            servers,
        })
    }

    /// Waits until shutdown, or until a part ends that should not.
    pub async fn wait(self) -> anyhow::Result<()> {
        let mut parts: JoinSet<anyhow::Result<()>> = JoinSet::new();
        let host = self.host;
        parts.spawn(async move {
            host.await.context("the module host panicked")??;
            Ok(())
        });
        for server in self.servers {
            parts.spawn(async move { server.await.context("a server panicked")? });
        }
        let mut first = Ok(());
        while let Some(ended) = parts.join_next().await {
            // Whatever ends, ends all: an operator without its xDS or HTTP server is worse than a restarted one.
            self.shutdown.cancel();
            let result = ended.context("a part panicked").and_then(|r| r);
            first = first.and(result);
        }
        first
    }

    /// Stops and waits.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.wait().await
    }
}

fn add_metaprotocol(
    config: &Config,
    cache: &ResourceCache,
    xds_address: SocketAddr,
    host: &mut Host,
) -> Option<(Arc<MetaprotocolEngine>, Appliers)> {
    if !config.metaprotocol.enabled {
        return None;
    }
    let module: Metaprotocol = MetaprotocolModule {
        config: config.metaprotocol.clone(),
        xds_address: advertised(config, xds_address),
        xds: cache.clone(),
    }
    .build(host);
    let handles = (module.engine.clone(), module.appliers.clone());
    host.add(module);
    Some(handles)
}

type LazyloadHandles = Option<(Arc<LazyloadEngine>, LazyloadAppliers)>;

fn add_limiter(
    config: &Config,
    sources: Vec<Arc<dyn MetricSource>>,
    cache: &ResourceCache,
    xds_address: SocketAddr,
    host: &mut Host,
) -> (Arc<Engine>, Arc<Applier<EnvoyFilter>>) {
    let limiter = LimiterModule {
        config: config.limiter.clone(),
        xds_address: advertised(config, xds_address),
        sources,
        xds: cache.clone(),
    }
    .build(host);
    let handles = (limiter.engine.clone(), limiter.applier.clone());
    host.add(limiter);
    handles
}

/// The module, and where it takes access logs.
async fn add_lazyload(
    config: &Config,
    host: &mut Host,
) -> anyhow::Result<(LazyloadHandles, Option<SocketAddr>)> {
    if !config.lazyload.enabled {
        return Ok((None, None));
    }
    let listener = match &config.lazyload.learn.access_log {
        Some(logs) => Some(bind("lazyload.learn.accessLog.address", logs.address).await?),
        None => None,
    };
    let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
    let module: Lazyload = LazyloadModule {
        config: Arc::new(config.lazyload.clone()),
        access_logs: listener,
    }
    .build(host);
    let handles = (module.engine.clone(), module.appliers.clone());
    host.add(module);
    if let Some(file) = config.file.clone() {
        let (engine, shutdown) = (handles.0.clone(), host.context().shutdown.clone());
        let following = reload::follow(file, config.clone(), engine, shutdown);
        host.spawn("configuration file", following);
    }
    Ok((Some(handles), address))
}

/// What is served to plain Envoys in standalone mode, and the task that opens the xDS server.
fn add_opening(config: &Config, cache: &ResourceCache, xds_address: SocketAddr, host: &mut Host) {
    if let (Some(proxies), false) = (&config.data_plane, config.in_cluster) {
        let address = advertised(config, xds_address);
        trimtab_dataplane::controller::add(
            &config.metaprotocol,
            proxies.clone(),
            &address,
            cache,
            host,
        );
    }
    let context = host.context().clone();
    host.spawn("xds: open", open(cache.clone(), context));
}

/// Opens the xDS server once nothing blocks: every module has put in what it had to. A proxy that reconnects to half a
/// world would take it for the whole.
async fn open(cache: ResourceCache, context: Context) {
    while !context.readiness.missing().is_empty() {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(OPEN_POLL) => {}
        }
    }
    cache.mark_ready();
    context.shutdown.cancelled().await;
}

/// `host:port` of the xDS server for generated objects.
fn advertised(config: &Config, listening: SocketAddr) -> String {
    if !config.xds.advertise.is_empty() {
        config.xds.advertise.clone()
    } else if config.in_cluster {
        // Loopback would lead every proxy to itself: without an address ECDS is refused, with a condition that says why.
        String::new()
    } else {
        listening.to_string()
    }
}

async fn bind(field: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    bound(field, address, TcpListener::bind(address).await)
}

/// For the xDS server: all proxies may come at once.
fn listen(field: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    bound(field, address, trimtab_xds::listen(address))
}

fn bound(
    field: &str,
    address: SocketAddr,
    listener: std::io::Result<TcpListener>,
) -> anyhow::Result<TcpListener> {
    listener.with_context(|| {
        format!(
            "cannot listen on {address}: is the port in use? Change {field} in the configuration"
        )
    })
}

async fn add_sources(
    config: &Config,
    client: &Client,
    sources: &mut Vec<Arc<dyn MetricSource>>,
    servers: &mut Vec<JoinHandle<anyhow::Result<()>>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<SocketAddr>> {
    if let Some(prometheus) = &config.metrics.prometheus {
        sources.push(Arc::new(PrometheusSource::new(prometheus.clone())?));
    }
    if let Some(metrics_server) = &config.metrics.metrics_server {
        sources.push(Arc::new(MetricsServerSource::new(
            client.clone(),
            metrics_server.clone(),
        )?));
    }
    let Some(mds) = &config.metrics.mds else {
        return Ok(None);
    };
    let listener = bind("metrics.mds.address", mds.address).await?;
    let address = listener.local_addr()?;
    let store = MdsStore::new(mds.store.clone(), Arc::new(SystemClock::new()));
    sources.push(Arc::new(MdsSource::new(store.clone())));
    let shutdown = shutdown.clone();
    servers.push(tokio::spawn(async move {
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tonic::transport::Server::builder()
            .add_service(mds_service(store))
            .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
            .await
            .context("the metric discovery server failed")
    }));
    Ok(Some(address))
}
