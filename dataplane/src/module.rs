//! Follows all that plain Envoys are configured by, and serves them.
//!
//! There is no cluster here, so that objects are few: everything is read anew after each change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::Notify;
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::{EnvoyFilter, Gateway, Sidecar, VirtualService};
use trimtab_crds::metaprotocol::{ApplicationProtocol, MetaRouter};
use trimtab_crds::redis::{RedisDestination, RedisService};
use trimtab_crds::{OWNER_KIND_LABEL, OWNER_NAME_LABEL};
use trimtab_kit::engine::{Engine, WriteError};
use trimtab_kit::module::Setup;
use trimtab_kit::queue::{NoKey, WorkQueue};
use trimtab_kit::watch::Watched;
use trimtab_kit::write::{StatusPatch, Writes};
use trimtab_mesh::Name;
use trimtab_mesh::model::{DestinationRule, EndpointSlice, Pod, Service, ServiceEntry};
use trimtab_mesh::table::{Change, Follower, Row, Table, Whole};
use trimtab_metaprotocol::config::MetaprotocolConfig;
use trimtab_metaprotocol::input::Settings;
use trimtab_metaprotocol::resolve::Mesh;
use trimtab_metaprotocol::secrets::secret;
use trimtab_xds::ResourceCache;

use crate::{
    FallbackInput, HttpLimit, Listen, Opened, PodInput, Snapshot, StandaloneInput,
    StandaloneObjects, discover, limits, snapshot,
};

/// Events of one edit are gathered for this long.
const GATHERING: Duration = Duration::from_millis(50);

/// How the owner label of a limiter's objects begins; its API group follows.
const LIMITER: &str = "SmartLimiter.";

/// Wakes the data plane at any change.
struct Wake(Notify);

impl<R> Follower<R> for Wake {
    fn changed(&self, _: Change<'_, R>) {
        self.0.notify_one();
    }
}

/// Declares the watch of a kind.
fn followed<R: Row<Object: Watched>>(setup: &mut Setup<'_>, wake: &Arc<Wake>) -> Arc<Table<R>> {
    setup.follow::<R>(wake);
    setup.context().mesh.table()
}

fn all<R: Row>(table: &Table<R>) -> Vec<Arc<R>> {
    table.rows().iter().map(|(_, row)| row.clone()).collect()
}

fn objects<K: Resource + Send + Sync + 'static>(table: &Table<Whole<K>>) -> Vec<Arc<K>> {
    table.rows().iter().map(|(_, row)| row.0.clone()).collect()
}

struct Objects {
    services: Arc<Table<Service>>,
    slices: Arc<Table<EndpointSlice>>,
    pods: Arc<Table<Pod>>,
    entries: Arc<Table<ServiceEntry>>,
    rules: Arc<Table<DestinationRule>>,
    virtual_services: Arc<Table<Whole<VirtualService>>>,
    filters: Arc<Table<Whole<EnvoyFilter>>>,
    sidecars: Arc<Table<Whole<Sidecar>>>,
    gateways: Arc<Table<Whole<Gateway>>>,
    routers: Arc<Table<Whole<MetaRouter>>>,
    protocols: Arc<Table<Whole<ApplicationProtocol>>>,
    redis_services: Arc<Table<Whole<RedisService>>>,
    redis_destinations: Arc<Table<Whole<RedisDestination>>>,
    policies: Arc<Table<Whole<DubboAuthorizationPolicy>>>,
    /// Only when the configuration lets Trimtab read Secrets.
    secrets: Option<Arc<Table<Whole<Secret>>>>,
}

impl Objects {
    fn declare(setup: &mut Setup<'_>, read_secrets: bool, wake: &Arc<Wake>) -> Self {
        setup.follow_generated::<Whole<EnvoyFilter>>(wake);
        Self {
            services: followed(setup, wake),
            slices: followed(setup, wake),
            pods: followed(setup, wake),
            entries: followed(setup, wake),
            rules: followed(setup, wake),
            virtual_services: followed(setup, wake),
            filters: setup.context().mesh.table(),
            sidecars: followed(setup, wake),
            gateways: followed(setup, wake),
            routers: followed(setup, wake),
            protocols: followed(setup, wake),
            redis_services: followed(setup, wake),
            redis_destinations: followed(setup, wake),
            policies: followed(setup, wake),
            secrets: read_secrets.then(|| followed(setup, wake)),
        }
    }

    fn mesh(&self, settings: &Arc<Settings>, domain: &str) -> Mesh {
        let secrets = self.secrets.iter().flat_map(|s| objects(s));
        Mesh {
            domain: domain.into(),
            services: all(&self.services),
            endpoint_slices: all(&self.slices),
            service_entries: all(&self.entries),
            destination_rules: all(&self.rules),
            gateways: objects(&self.gateways),
            virtual_services: objects(&self.virtual_services),
            routers: objects(&self.routers),
            protocols: objects(&self.protocols),
            redis_services: objects(&self.redis_services),
            redis_destinations: objects(&self.redis_destinations),
            dubbo_policies: objects(&self.policies),
            secrets: secrets.map(|s| secret(s.as_ref().clone())).collect(),
            last_good: BTreeMap::new(),
            // Objects are for proxies of all namespaces.
            closed_namespaces: Arc::default(),
            only: None,
            settings: settings.clone(),
        }
    }

    fn pod_labels(&self) -> BTreeMap<Name, BTreeMap<String, String>> {
        let pods = self.pods.rows();
        pods.iter()
            .map(|(name, pod)| (name.clone(), pod.group.labels.clone()))
            .collect()
    }

    /// Addresses of the pods that have one of their own and have not ended.
    fn pod_addresses(&self) -> BTreeMap<Name, IpAddr> {
        let pods = self.pods.rows();
        pods.iter()
            .filter_map(|(name, pod)| Some((name.clone(), *pod.addresses.first()?)))
            .collect()
    }

    /// Limits of SmartLimiters, with what of them is not done.
    fn limits(&self, notes: &mut BTreeSet<String>) -> Vec<HttpLimit> {
        let mut out = Vec::new();
        for filter in objects(&self.filters) {
            let label = |name: &str| filter.labels().get(name).cloned().unwrap_or_default();
            if !label(OWNER_KIND_LABEL).starts_with(LIMITER) {
                continue;
            }
            let (namespace, owner) = (
                filter.namespace().unwrap_or_default(),
                label(OWNER_NAME_LABEL),
            );
            let Some(service) = self.services.get(&namespace, &owner) else {
                notes.insert(format!(
                    "SmartLimiter {namespace}/{owner}: metadata.name: plain proxies limit calls to a Service of the limiter's name, and there is none: name the limiter as its Service"
                ));
                continue;
            };
            let (found, problems) = limits(&service.host, &filter);
            out.extend(found);
            notes.extend(
                problems
                    .iter()
                    .map(|p| format!("SmartLimiter {namespace}/{owner}: {p}")),
            );
        }
        out
    }
}

/// What proxies are told of themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Where plain Envoys listen.
    pub listen: Listen,
    /// The fallback proxies; absent: there are none, and nobody's view is limited.
    pub fallback: Option<FallbackInput>,
}

/// The data plane of plain Envoys.
struct DataPlane {
    objects: Objects,
    proxies: Proxies,
    domain: String,
    settings: Arc<Settings>,
    xds: ResourceCache,
    wake: Arc<Wake>,
    served: Mutex<Served>,
    queue: WorkQueue<NoKey>,
}

/// What was served last.
#[derive(Default)]
struct Served {
    snapshot: Option<Snapshot>,
    /// Pods whose proxies see a part.
    pods: Vec<PodInput>,
    /// Warnings that were logged.
    notes: BTreeSet<String>,
}

/// Declares the data plane: nothing is served before its first configuration is in the xDS cache.
///
/// `withhold_secrets`: whoever reaches the xDS server may ask it, so that nothing with a password is served.
pub fn setup(
    config: &MetaprotocolConfig,
    proxies: Proxies,
    withhold_secrets: bool,
    setup: &mut Setup<'_>,
) {
    let wake = Arc::new(Wake(Notify::new()));
    let domain = setup.context().mesh.domain().to_string();
    let plane = Arc::new(DataPlane {
        objects: Objects::declare(setup, config.read_secrets, &wake),
        proxies,
        domain,
        settings: Arc::new(Settings {
            withhold_secrets,
            ..config.settings(&setup.context().xds_endpoint)
        }),
        xds: setup.context().xds.clone(),
        wake,
        served: Mutex::default(),
        queue: WorkQueue::default(),
    });
    setup.engine(&plane);
}

impl Engine for DataPlane {
    type Key = NoKey;

    fn queue(&self) -> &WorkQueue<NoKey> {
        &self.queue
    }

    async fn changed(&self) {
        let due = self.served.lock().snapshot.as_ref().and_then(Snapshot::due);
        tokio::select! {
            () = self.wake.0.notified() => {}
            () = until(due) => {}
        }
    }

    fn gather(&self) -> Duration {
        GATHERING
    }

    fn absorb(&self) {
        let mut notes = BTreeSet::new();
        let around = StandaloneObjects {
            domain: self.domain.clone(),
            listen: self.proxies.listen.clone(),
            fallback: self.proxies.fallback.clone(),
            pod_labels: self.objects.pod_labels(),
            pod_addresses: self.objects.pod_addresses(),
            sidecars: objects(&self.objects.sidecars),
            virtual_services: objects(&self.objects.virtual_services),
            limits: self.objects.limits(&mut notes),
        };
        let found = discover(&self.objects.mesh(&self.settings, &self.domain), &around);
        let mut served = self.served.lock();
        let snapshot = snapshot(&found.input, served.snapshot.as_ref(), Instant::now());
        self.xds
            .update_all(snapshot.updates(served.snapshot.as_ref()));
        let problems = found.problems.into_iter().chain(snapshot.problems());
        notes.extend(problems.map(|p| p.to_string()));
        let refusals = snapshot.everyone().refusals.iter();
        notes.extend(refusals.map(|r| r.problem.to_string()));
        served.log(&snapshot, &found.input, &notes);
        *served = Served {
            snapshot: Some(snapshot),
            pods: found.input.pods,
            notes,
        };
    }

    fn writes(self: &Arc<Self>, key: &NoKey) -> Writes {
        match *key {}
    }

    fn written(&self, key: &NoKey, _: Option<WriteError>) {
        match *key {}
    }

    fn status(&self, key: &NoKey) -> Option<StatusPatch> {
        match *key {}
    }
}

impl Served {
    /// Logs what is new in `world`.
    fn log(&self, snapshot: &Snapshot, input: &StandaloneInput, notes: &BTreeSet<String>) {
        for note in notes.difference(&self.notes) {
            tracing::warn!("{note}");
        }
        let before = self.snapshot.as_ref();
        let before = before.map_or(&[][..], |w| &w.everyone().opened);
        let opened = snapshot.everyone().opened.iter();
        for Opened {
            host,
            port,
            addresses,
        } in opened.filter(|o| !before.contains(o))
        {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let addresses = addresses.join(", ");
            tracing::info!(%host, port, addresses, "proxies listen");
        }
        for pod in input.pods.iter().filter(|p| !self.pods.contains(p)) {
            let (visible, total) = (pod.hosts.len(), input.services.len());
            tracing::info!(namespace = pod.namespace, pod = pod.name, address = %pod.address, visible, total, "serving scoped configuration");
        }
    }
}

/// Waits for a time, or for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
