//! What a module declares: its configuration, watches, generated kinds, engine, routes, series, descriptions and rights.

mod factory;
mod legacy;
mod needs;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::events::v1;
use kube::Resource;
use kube::core::{ApiResource, NamespaceResourceScope};
use prometheus_client::collector::Collector;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::apply::{Applier, OnChange, Ownership};
use crate::budget::Budget;
use crate::driver::{AnyDriver, Driver};
use crate::engine::Engine;
use crate::events::Events;
use crate::host::{Context, Host};
use crate::needs::{Dependency, Needs};
use crate::rights::Right;
use crate::series::OfLeader;
use crate::watch::{Watch, WatchConfig, Watched, everywhere, its_namespace};
use crate::write::{Kind, Writers};
pub use factory::{Factory, read};
pub use legacy::{Became, LegacyKey, camel_case};
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL};
use trimtab_mesh::model::MeshConfig;
use trimtab_mesh::table::{Follower, Row};

/// A pluggable part of the operator.
pub trait Module: 'static {
    /// Section of the configuration; part of field managers, series, log lines and blockers of readiness.
    const NAME: &'static str;
    /// The section's type.
    type Config: ModuleConfig;

    /// Declares what the module is made of. Nothing runs yet.
    fn setup(config: Self::Config, setup: &mut Setup<'_>) -> Result<(), SetupError>;
}

/// Why a module cannot be set up: the key of the configuration and the fix.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(pub String);

/// The configuration of a module.
pub trait ModuleConfig:
    Serialize + DeserializeOwned + Default + Clone + PartialEq + Send + Sync + 'static
{
    /// Checks what types cannot say. The error names the key and the fix.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Keys that predecessors have for the same job, and where each went.
    fn legacy() -> &'static [LegacyKey] {
        &[]
    }

    /// Whether the module runs.
    fn enabled(&self) -> bool {
        true
    }

    /// Keys with the addresses that the module listens on.
    fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        Vec::new()
    }

    /// Keys that differ in `new` and cannot change while the module runs; all of them unless the module takes changes over.
    fn fixed(&self, new: &Self) -> Vec<&'static str> {
        if self == new { Vec::new() } else { vec!["*"] }
    }
}

/// What to describe.
#[derive(Clone, Debug, Default)]
pub struct DescribeRequest {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Attributes of a call, by name.
    pub attributes: BTreeMap<String, String>,
}

type DescribeText = Box<dyn Fn(&DescribeRequest) -> Result<String, String> + Send + Sync>;

/// Describes objects of one kind as text; the error says that there is no such object.
pub struct Describe {
    /// Kind in lower case, e.g. `metarouter`.
    pub kind: &'static str,
    /// Short forms.
    pub aliases: &'static [&'static str],
    text: DescribeText,
}

impl Describe {
    /// The text.
    pub fn text(&self, request: &DescribeRequest) -> Result<String, String> {
        (self.text)(request)
    }
}

/// What a module says of the objects of users: `trimtab translate` prints it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The object is refused, in whole or in part.
    pub refused: bool,
    /// Object, field, fix; or a decision.
    pub message: String,
}

type Reload = Box<dyn Fn(&Value) -> Result<(), String> + Send + Sync>;
type Resources = Box<dyn Fn() -> Vec<Value> + Send + Sync>;
type Findings = Box<dyn Fn() -> Vec<Finding> + Send + Sync>;

/// A module that is set up.
pub struct Installed {
    /// Its name.
    pub name: &'static str,
    /// HTTP routes.
    pub api: Api,
    /// What it can describe.
    pub describes: Vec<Describe>,
    /// API rights that it needs.
    pub rights: Vec<Right>,
    /// Kinds that it generates.
    pub outputs: Vec<ApiResource>,
    /// What objects of users need of the mesh.
    pub needs: Vec<Needs>,
    /// What it asks outside of the API server.
    pub dependencies: Vec<Dependency>,
    pub(crate) resources: Option<Resources>,
    pub(crate) reload: Option<Reload>,
    pub(crate) findings: Option<Findings>,
    pub(crate) driver: Option<Arc<dyn AnyDriver>>,
}

impl Debug for Installed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Installed").field(&self.name).finish()
    }
}

impl Installed {
    /// Takes a changed section over. False: the module takes no changes while it runs.
    pub fn reload(&self, section: &Value) -> Result<bool, String> {
        match &self.reload {
            Some(reload) => reload(section).map(|()| true),
            None => Ok(false),
        }
    }

    /// What it says of the objects of users.
    pub fn findings(&self) -> Vec<Finding> {
        self.findings.as_ref().map_or_else(Vec::new, |f| f())
    }

    /// Whether its writes wait for the budget.
    pub fn is_throttled(&self) -> bool {
        self.driver.as_ref().is_some_and(|d| d.is_throttled())
    }

    /// Its xDS resources as documents that people can read, sorted.
    pub fn resources(&self) -> Vec<Value> {
        self.resources.as_ref().map_or_else(Vec::new, |r| r())
    }

    /// Writers, with their counts.
    pub fn writers(&self) -> Option<&Writers> {
        self.driver.as_ref().map(|d| d.writers())
    }
}

type MakeDriver =
    Box<dyn FnOnce(Writers, Vec<Arc<Watch>>, CancellationToken) -> Arc<dyn AnyDriver>>;

/// Takes the declarations of one module.
pub struct Setup<'a> {
    host: &'a mut Host,
    name: &'static str,
    watches: Vec<Arc<Watch>>,
    writers: Writers,
    started: CancellationToken,
    driver: Option<MakeDriver>,
    installed: Installed,
}

impl Debug for Setup<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Setup").field(&self.name).finish()
    }
}

impl<'a> Setup<'a> {
    pub(crate) fn new(name: &'static str, host: &'a mut Host) -> Self {
        let Context {
            client, admission, ..
        } = host.context().clone();
        Self {
            host,
            name,
            watches: Vec::new(),
            writers: Writers::new(client, admission, format!("trimtab/{name}")),
            started: CancellationToken::new(),
            driver: None,
            installed: Installed {
                name,
                api: Api::new(),
                describes: Vec::new(),
                rights: Vec::new(),
                outputs: Vec::new(),
                needs: Vec::new(),
                dependencies: Vec::new(),
                resources: None,
                reload: None,
                findings: None,
                driver: None,
            },
        }
    }

    /// Client, clock, readiness and the rest that modules share.
    pub fn context(&self) -> &Context {
        self.host.context()
    }

    /// `follower` is told of the changes of a kind of row; one watch serves all modules. Without the CRD there are no objects.
    pub fn follow<R: Row<Object: Watched>>(&mut self, follower: &Arc<impl Follower<R> + 'static>) {
        self.follow_where(WatchConfig::default(), follower);
    }

    /// As [`Self::follow`] of a kind without which the module cannot work: its absence is reported.
    pub fn require<R: Row<Object: Watched>>(&mut self, follower: &Arc<impl Follower<R> + 'static>) {
        self.follow_where(WatchConfig::default(), follower)
            .require();
    }

    /// As [`Self::follow`] of a kind that the module can do without: nobody waits for its list, or misses the right to it.
    pub fn follow_unawaited<R: Row<Object: Watched>>(
        &mut self,
        follower: &Arc<impl Follower<R> + 'static>,
    ) {
        self.context().mesh.table::<R>().follow(follower);
        self.right(Right::on::<R::Object>(&["list", "watch"]));
        self.host.table::<R>(WatchConfig::default(), everywhere);
    }

    /// `follower` is told of the generated objects of all modules. `R` is of no other use.
    pub fn follow_generated<R: Row<Object: Watched>>(
        &mut self,
        follower: &Arc<impl Follower<R> + 'static>,
    ) {
        self.follow_where(generated(), follower);
    }

    /// `follower` is told of the MeshConfig, the only object that the table of `R` has. The module works without it too.
    pub fn follow_mesh_config<R>(&mut self, follower: &Arc<impl Follower<R> + 'static>)
    where
        R: Row<Object: Watched + Resource<Scope = NamespaceResourceScope>>,
    {
        let Some(object) = self.context().mesh_config.clone() else {
            return;
        };
        self.context().mesh.table::<R>().follow(follower);
        self.right(Right::on::<R::Object>(&["list", "watch"]).named(&object.1));
        let config = WatchConfig {
            object: Some(object),
            ..WatchConfig::default()
        };
        let watch = self.host.table::<R>(config, its_namespace);
        watch.make_optional();
        self.waits_for(watch);
    }

    /// Objects without `exportTo` are seen as the MeshConfig says.
    pub fn follow_mesh_defaults(&mut self) {
        let mesh = self.context().mesh.clone();
        self.follow_mesh_config::<MeshConfig>(&mesh);
    }

    fn follow_where<R: Row<Object: Watched>>(
        &mut self,
        config: WatchConfig,
        follower: &Arc<impl Follower<R> + 'static>,
    ) -> Arc<Watch> {
        self.context().mesh.table::<R>().follow(follower);
        self.right(Right::on::<R::Object>(&["list", "watch"]));
        let watch = self.host.table::<R>(config, everywhere);
        self.waits_for(watch.clone());
        watch
    }

    /// The module decides nothing before the list of the watch is complete.
    fn waits_for(&mut self, watch: Arc<Watch>) {
        if !self.watches.iter().any(|w| Arc::ptr_eq(w, &watch)) {
            self.watches.push(watch);
        }
    }

    /// The module generates objects of the kind. `on_change` gets the owner of one that somebody else has changed.
    pub fn generates<K: Kind>(
        &mut self,
        kind: &'static str,
        ownership: Ownership<K>,
        on_change: OnChange,
    ) {
        let manager = format!("trimtab/{}", self.name);
        let applier = Applier::new(self.context(), manager, ownership, on_change);
        // A module that follows all objects of the kind anyway needs no second watch.
        let all = WatchConfig::default();
        let config = if self.host.is_watched::<K>(&all) {
            all
        } else {
            generated()
        };
        let watch = self.host.watch::<K>(config, applier.clone());
        watch.require();
        self.right(Right::on::<K>(&["list", "watch"]));
        self.waits_for(watch);
        self.creates::<K>();
        // An update takes away fields that somebody else has added; server-side apply cannot.
        self.right(Right::on::<K>(&["update"]));
        self.writers.add(kind, applier);
    }

    /// The module makes and deletes whole objects of the kind.
    pub fn creates<K: Kind>(&mut self) {
        self.right(Right::on::<K>(&["create", "patch", "delete"]));
        self.installed.outputs.push(ApiResource::erase::<K>(&()));
    }

    /// The module writes the status of the kind.
    pub fn writes_status<K: Resource<DynamicType = ()>>(&mut self) {
        self.right(Right::on::<K>(&["patch"]).status());
    }

    /// The module tells by Events what is wrong with objects whose status it does not write.
    pub fn publishes_events(&mut self, events: &Arc<Events>) {
        self.right(Right::on::<v1::Event>(&["create", "patch"]));
        let (context, events, name) = (self.context().clone(), events.clone(), self.name);
        self.task("events", events.publish(context, name));
    }

    /// A right besides those of watches, generated kinds and statuses.
    pub fn right(&mut self, right: Right) {
        self.installed.rights.push(right);
    }

    /// What the driver drives.
    pub fn engine<E: Engine>(&mut self, engine: &Arc<E>) {
        let (context, engine, module) = (self.context().clone(), engine.clone(), self.name);
        self.driver = Some(Box::new(move |writers, watches, started| {
            Arc::new(Driver {
                module,
                engine,
                writers,
                watches,
                started,
                budget: Budget::new(u32::MAX, context.clock.monotonic()),
                admission: context.admission,
                clock: context.clock,
                shutdown: context.shutdown,
                throttled: false.into(),
                _mesh: context.mesh,
            })
        }));
    }

    /// A task that begins after the first pass and runs until shutdown.
    pub fn task(&mut self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        let (started, shutdown) = (self.started.clone(), self.context().shutdown.clone());
        let name = format!("{}: {name}", self.name);
        self.host.spawn(name, async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = started.cancelled() => task.await,
            }
        });
    }

    /// Listens on an address of the configuration. The error names its key.
    pub fn listen(&mut self, key: &str, address: SocketAddr) -> Result<TcpListener, SetupError> {
        let wanted = if self.context().offline {
            SocketAddr::from(([127, 0, 0, 1], 0))
        } else {
            address
        };
        let listener = listen(wanted).map_err(|error| {
            SetupError(format!(
                "{key}: cannot listen on {address} ({error}): is the port in use? Choose another one"
            ))
        })?;
        if let Ok(address) = listener.local_addr() {
            self.host.listens(key, address);
        }
        Ok(listener)
    }

    /// Adds HTTP routes.
    pub fn api(&mut self, api: Api) {
        let before = std::mem::take(&mut self.installed.api);
        self.installed.api = before.merge(api);
    }

    /// Adds series.
    pub fn collector(&mut self, collector: Box<dyn Collector>) {
        let Context {
            registry,
            admission,
            ..
        } = self.context().clone();
        let collector = OfLeader(collector, admission);
        registry.lock().register_collector(Box::new(collector));
    }

    /// `trimtab describe KIND` is answered by `text`.
    pub fn describe(
        &mut self,
        kind: &'static str,
        aliases: &'static [&'static str],
        text: impl Fn(&DescribeRequest) -> Result<String, String> + Send + Sync + 'static,
    ) {
        self.installed.describes.push(Describe {
            kind,
            aliases,
            text: Box::new(text),
        });
    }

    /// What `trimtab translate --xds` prints.
    pub fn resources(&mut self, resources: impl Fn() -> Vec<Value> + Send + Sync + 'static) {
        self.installed.resources = Some(Box::new(resources));
    }

    /// What `trimtab translate` prints beside the objects.
    pub fn findings(&mut self, findings: impl Fn() -> Vec<Finding> + Send + Sync + 'static) {
        self.installed.findings = Some(Box::new(findings));
    }

    /// `take` gets the section when the configuration file changes; see [`ModuleConfig::fixed`].
    pub fn on_reload<C: ModuleConfig>(&mut self, take: impl Fn(C) + Send + Sync + 'static) {
        self.installed.reload = Some(Box::new(move |section| read::<C>(section).map(&take)));
    }

    /// Lets others get at a part of the module by its type, see [`Host::parts`].
    pub fn expose<T: Any + Send + Sync>(&mut self, part: Arc<T>) {
        self.host.expose(part);
    }

    pub(crate) fn finish(self) {
        let Self {
            host,
            name,
            watches,
            writers,
            started,
            driver,
            mut installed,
        } = self;
        installed.driver = driver.map(|make| make(writers, watches, started));
        installed.rights = Right::merged(installed.rights);
        tracing::debug!(module = name, "set up");
        host.install(installed);
    }
}

fn generated() -> WatchConfig {
    WatchConfig {
        labels: format!("{MANAGED_BY_LABEL}={MANAGED_BY}"),
        ..WatchConfig::default()
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
