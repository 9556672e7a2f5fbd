//! The running operator: everything is wired here, top to bottom.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use kube::Client;
use kube::core::ApiResource;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use trimtab_kit::clock::{Clock, SystemClock};
use trimtab_kit::host::{Context, Host, Parts};
use trimtab_kit::identity::{PortSecurity, XdsEndpoint};
use trimtab_kit::lease::{Elector, Identity, Standing, WriteAdmission, while_leading};
use trimtab_kit::module::Installed;
use trimtab_kit::prometheus::AnswerBudget;
use trimtab_kit::readiness::Readiness;
use trimtab_kit::sources::{
    MdsPushers, MdsSource, MdsStore, MetricSource, MetricsServerSource, PrometheusSource, mds_serve,
};
use trimtab_kit::watch::is_absence;
use trimtab_mesh::Mesh;
use trimtab_xds::{ResourceCache, Tls, Unresolved};

use crate::config::Config;
use crate::health::Watched;
use crate::http;
use crate::identity;
use crate::modules;
use crate::process_series::ProcessCollector;
use crate::reload;
use crate::standalone::FOLDER;
use crate::xds_series::XdsCollector;

/// How often it is looked at whether the xDS server can be opened.
const OPEN_POLL: Duration = Duration::from_millis(10);
/// How often it is looked at whether degraded modules have recovered.
const PARTIAL_POLL: Duration = Duration::from_millis(200);
/// Where a pod finds its own namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Waiting for longer than this is worth a log line.
const SLOW_START: Duration = Duration::from_secs(10);

/// A part that ends with the operator.
type Server = JoinHandle<anyhow::Result<()>>;

/// A running operator.
#[derive(Debug)]
pub struct Operator {
    /// Where the HTTP endpoints listen.
    pub http: SocketAddr,
    /// Where the xDS server listens.
    pub xds: SocketAddr,
    /// How proxies reach it.
    pub xds_endpoint: XdsEndpoint,
    /// Where metrics are pushed to.
    pub mds: Option<SocketAddr>,
    /// Where modules listen, by the key of the configuration.
    pub listeners: BTreeMap<String, SocketAddr>,
    /// Modules that run.
    pub modules: Vec<Arc<Installed>>,
    /// Named blockers of readiness.
    pub readiness: Readiness,
    /// The xDS cache.
    pub cache: ResourceCache,
    parts: Parts,
    shutdown: CancellationToken,
    host: JoinHandle<Result<(), trimtab_kit::host::HostError>>,
    servers: Vec<Server>,
    extra: Vec<(String, JoinHandle<anyhow::Result<()>>)>,
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

    /// Starts with a client for the Lease alone, see [`Elector::client`].
    pub async fn start_elected(
        config: Config,
        client: Client,
        lease: Client,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let clock = Arc::new(SystemClock::new());
        Box::pin(Self::assemble(
            config,
            (client, lease),
            Vec::new(),
            clock,
            shutdown,
        ))
        .await
    }

    /// Starts with another clock too.
    pub async fn start_at(
        config: Config,
        client: Client,
        extra: Vec<Arc<dyn MetricSource>>,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let lease = client.clone();
        Box::pin(Self::assemble(
            config,
            (client, lease),
            extra,
            clock,
            shutdown,
        ))
        .await
    }

    async fn assemble(
        mut config: Config,
        (client, lease): (Client, Client),
        extra: Vec<Arc<dyn MetricSource>>,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        config.check()?;
        let as_written = modules::trust_fallbacks(&mut config);
        let http_listener = bind("http.address", config.http.address).await?;
        let xds_listener = listen("xds.address", config.xds.address)?;
        let (http_address, xds_address) = (http_listener.local_addr()?, xds_listener.local_addr()?);
        let readiness = Readiness::new();
        let names = own_names(&config);
        let candidate = elector(&config, (lease, client.clone()), &clock, &readiness);
        let (admission, standing, mut servers) = elect(candidate, &shutdown);
        let (pages, serving) = open_http(http_listener, &readiness, &standing, &names, &shutdown);
        servers.push(serving);
        let (mut sources, answers) = (extra, AnswerBudget::default());
        sources.extend(configured_sources(&config, &client, &answers)?);
        let mesh_tls = identity::mesh_tls(&config, &clock, &readiness, &shutdown).await?;
        let place = (admission.clone(), mesh_tls.clone(), &shutdown);
        let mds = add_mds(&config, place, &mut sources, &mut servers).await?;
        let writing = (&client, &admission);
        let identity =
            identity::establish(&config, xds_address, writing, &clock, &readiness, &shutdown);
        let identity = identity.await?;
        let context = Context {
            mesh: Mesh::new(&config.mesh.domain),
            xds_endpoint: identity.endpoint.clone(),
            admission,
            readiness,
            mesh_tls,
            sources,
            mesh_config: config.mesh.config_map().map_err(anyhow::Error::msg)?,
            answer_budget: answers,
            plain: config.data_plane.is_some() && !config.in_cluster,
            ..Context::new(client, clock, shutdown.clone())
        };
        let cache = context.xds.clone();
        let mut host = Host::new(context.clone());
        set_up(&config, &mut host)?;
        let modules = host.modules().to_vec();
        follow_file(as_written, &modules, &mut host, &shutdown);
        host.spawn("xds: open", open(cache.clone(), context.clone()));
        show(&context, &host, standing, (&pages, names));
        let options = config.xds.options(identity.security);
        let xds = trimtab_xds::serve_with(cache.clone(), xds_listener, options, shutdown.clone());
        servers.push(tokio::spawn(async move { Ok(xds.await?) }));
        tracing::info!(http = %http_address, xds = %xds_address, mds = ?mds, "trimtab is up");
        Ok(Self {
            http: http_address,
            xds: xds_address,
            xds_endpoint: identity.endpoint,
            mds,
            listeners: host.listeners().clone(),
            modules,
            readiness: context.readiness,
            cache,
            parts: host.parts(),
            shutdown,
            host: tokio::spawn(host.run()),
            servers,
            extra: Vec::new(),
        })
    }

    /// A part that a module exposes, by its type, for tests and tools in this process.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.parts.get()
    }

    /// Kinds that the modules generate.
    pub fn outputs(&self) -> Vec<ApiResource> {
        let modules = self.modules.iter();
        modules.flat_map(|m| m.outputs.iter().cloned()).collect()
    }

    /// Starts a task beside the operator's own. It runs until shutdown; when it ends before, the operator stops with an error.
    pub fn add_task(
        &mut self,
        name: &str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.extra.push((name.to_owned(), tokio::spawn(task)));
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
        for (name, task) in self.extra {
            let shutdown = self.shutdown.clone();
            parts.spawn(async move {
                let ended = task.await.with_context(|| format!("{name} panicked"))?;
                ended.with_context(|| format!("{name} failed"))?;
                anyhow::ensure!(
                    shutdown.is_cancelled(),
                    "{name} ended before shutdown: this is a bug, see the log above"
                );
                Ok(())
            });
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

/// Takes over changes of the file, if there is one.
fn follow_file(
    as_written: Config,
    modules: &[Arc<Installed>],
    host: &mut Host,
    shutdown: &CancellationToken,
) {
    if let Some(file) = as_written.file.clone() {
        let following = reload::follow(file, as_written, modules.to_vec(), shutdown.clone());
        host.spawn("configuration file", following);
    }
}

/// Opens the HTTP endpoints, which show whether the process lives and what it waits for, until the modules are set up and
/// their pages are sent.
fn open_http(
    listener: TcpListener,
    readiness: &Readiness,
    standing: &Standing,
    names: &Arc<http::OwnNames>,
    shutdown: &CancellationToken,
) -> (watch::Sender<Router>, JoinHandle<anyhow::Result<()>>) {
    let state = http::State {
        registry: Arc::default(),
        readiness: readiness.clone(),
        modules: Vec::new(),
        cache: ResourceCache::new(),
        standing: standing.clone(),
        watched: Watched::default(),
    };
    let (pages, shown) = watch::channel(http::pages(&state, names.clone()));
    let serving = http::serve(listener, shown, shutdown.clone());
    (pages, tokio::spawn(serving))
}

/// Shows what there is: series that are no module's, and the pages.
fn show(
    context: &Context,
    host: &Host,
    standing: Standing,
    (pages, names): (&watch::Sender<Router>, Arc<http::OwnNames>),
) {
    let mut registry = context.registry.lock();
    registry.register_collector(Box::new(XdsCollector(context.xds.clone())));
    let process = ProcessCollector(context.readiness.clone(), standing.clone());
    registry.register_collector(Box::new(process));
    drop(registry);
    let state = http::State {
        registry: context.registry.clone(),
        readiness: context.readiness.clone(),
        modules: host.modules().to_vec(),
        cache: context.xds.clone(),
        standing,
        watched: Watched::new(context.sources.clone(), host.watches()),
    };
    let _early = pages.send_replace(http::pages(&state, names));
}

/// The part of this replica in the election, if there is one. `clients`: for the Lease, and for the rest.
fn elector(
    config: &Config,
    clients: (Client, Client),
    clock: &Arc<dyn Clock>,
    readiness: &Readiness,
) -> Option<Elector> {
    let election = &config.leader_election;
    let place = (election.namespace.as_str(), election.name.as_str());
    let identity = Identity::new(config.pod.clone());
    let (clock, readiness) = (clock.clone(), readiness.clone());
    election.enabled.then(|| {
        Elector::new(
            place,
            election.timing(),
            identity,
            clients,
            clock,
            readiness,
        )
    })
}

/// Takes part in the election; without one this replica leads.
fn elect(
    candidate: Option<Elector>,
    shutdown: &CancellationToken,
) -> (WriteAdmission, Standing, Vec<Server>) {
    let Some(elector) = candidate else {
        return (WriteAdmission::always(), Standing::default(), Vec::new());
    };
    let (admission, standing) = (elector.admission(), elector.standing());
    let taking_part = Box::pin(elector.run(shutdown.clone()));
    let taking_part = tokio::spawn(async move {
        taking_part.await;
        Ok(())
    });
    (admission, standing, vec![taking_part])
}

/// Sets up the modules that the configuration switches on.
pub(crate) fn set_up(config: &Config, host: &mut Host) -> anyhow::Result<()> {
    if config.unresolved {
        let xds = &host.context().xds;
        xds.set_unresolved(FOLDER, &Unresolved::Everything);
    }
    for factory in &config.list {
        let section = config.section(factory);
        if factory.enabled(section) {
            factory.add(section, host)?;
        }
    }
    if let (Some(proxies), false) = (&config.data_plane, config.in_cluster) {
        modules::add_data_plane(config, proxies, host)?;
    }
    Ok(())
}

/// Opens the xDS server once nothing blocks: every module has put in what it had to. A proxy that reconnects to a part of
/// the resources would take it for the whole. While a module is degraded, see [`ResourceCache::set_partial`].
async fn open(cache: ResourceCache, context: Context) {
    let begun = tokio::time::Instant::now();
    let mut told = false;
    while !context.readiness.missing().is_empty() {
        if !told && begun.elapsed() > SLOW_START {
            told = true;
            let waiting_for = context.readiness.missing().join(", ");
            tracing::warn!(waiting_for, "up, not ready");
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(OPEN_POLL) => {}
        }
    }
    for (what, reason) in context.readiness.degraded() {
        if !is_absence(&reason) {
            tracing::warn!(what, reason, "degraded");
        }
    }
    tracing::info!("ready");
    let is_partial = || {
        let degraded = context.readiness.degraded();
        degraded.iter().any(|(what, _)| what.starts_with("module "))
    };
    cache.set_partial(is_partial());
    cache.mark_ready();
    while cache.is_partial() {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(PARTIAL_POLL) => cache.set_partial(is_partial()),
        }
    }
    context.shutdown.cancelled().await;
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

/// The names of the HTTP port.
fn own_names(config: &Config) -> Arc<http::OwnNames> {
    let namespace = std::fs::read_to_string(NAMESPACE_FILE).ok();
    let namespace = namespace.as_deref().map(str::trim);
    let domain = &config.mesh.domain;
    Arc::new(http::OwnNames::new(&config.http.hosts, namespace, domain))
}

/// Metric sources of the configuration that are asked.
pub(crate) fn configured_sources(
    config: &Config,
    client: &Client,
    answers: &AnswerBudget,
) -> anyhow::Result<Vec<Arc<dyn MetricSource>>> {
    let mut sources: Vec<Arc<dyn MetricSource>> = Vec::new();
    if let Some(prometheus) = &config.metrics.prometheus {
        let source = PrometheusSource::new(prometheus.clone())?;
        sources.push(Arc::new(source.with_budget(answers.clone())));
    }
    if let Some(metrics_server) = &config.metrics.metrics_server {
        let source = MetricsServerSource::new(client.clone(), metrics_server.clone())?;
        sources.push(Arc::new(source.with_budget(answers.clone())));
    }
    Ok(sources)
}

async fn add_mds(
    config: &Config,
    (admission, mesh_tls, shutdown): (WriteAdmission, Option<Arc<Tls>>, &CancellationToken),
    sources: &mut Vec<Arc<dyn MetricSource>>,
    servers: &mut Vec<Server>,
) -> anyhow::Result<Option<SocketAddr>> {
    let Some(mds) = &config.metrics.mds else {
        return Ok(None);
    };
    let tls = mesh_tls.filter(|_| mds.security == PortSecurity::Mesh);
    let trusted = mds.trusted_namespaces.iter().cloned();
    let pushers = MdsPushers {
        tls,
        for_all: trusted.chain(modules::root_namespaces(config)).collect(),
    };
    let listener = bind("metrics.mds.address", mds.address).await?;
    let address = listener.local_addr()?;
    let store = MdsStore::new(mds.store.clone(), Arc::new(SystemClock::new()));
    sources.push(Arc::new(MdsSource::new(store.clone())));
    // What is pushed is in the memory of one replica.
    let serving = while_leading(
        listener,
        admission,
        shutdown.clone(),
        move |listener, term| mds_serve(listener, store.clone(), pushers.clone(), term),
    );
    servers.push(tokio::spawn(async move {
        let served = serving.await.map_err(anyhow::Error::msg);
        served.context("the metric discovery server failed")
    }));
    Ok(Some(address))
}
