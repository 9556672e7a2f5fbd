//! Watches all that plain Envoys are configured by, and serves them.
//!
//! It keeps all objects of its own rather than reading the index of the MetaProtocol module, which drops what no
//! sidecar needs, and which a user may switch off. There is no cluster here, so the objects are few.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::{
    DestinationRule, EnvoyFilter, Gateway, ServiceEntry, Sidecar, VirtualService,
};
use trimtab_crds::metaprotocol::{ApplicationProtocol, MetaRouter};
use trimtab_crds::redis::{RedisDestination, RedisService};
use trimtab_crds::{OWNER_KIND_LABEL, OWNER_NAME_LABEL};
use trimtab_kit::engine::{Engine, WriteError};
use trimtab_kit::module::Setup;
use trimtab_kit::queue::{NoKey, WorkQueue};
use trimtab_kit::watch::Feed;
use trimtab_kit::write::{StatusPatch, Writes};
use trimtab_mesh::names::service_host;
use trimtab_metaprotocol::config::MetaprotocolConfig;
use trimtab_metaprotocol::input::Settings;
use trimtab_metaprotocol::resolve::Mesh;
use trimtab_metaprotocol::secrets::secret;
use trimtab_xds::ResourceCache;

use crate::{
    FallbackInput, HttpLimit, Listen, Opened, PodInput, StandaloneInput, Surroundings, World,
    discover, limits, world,
};

/// Events of one edit are gathered for this long.
const GATHERING: Duration = Duration::from_millis(50);

/// How the owner label of a limiter's objects begins; its API group follows.
const LIMITER: &str = "SmartLimiter.";

/// Namespace and name.
type Name = (String, String);

/// All objects of a kind, by namespace and name.
struct Mirror<K> {
    objects: Mutex<BTreeMap<Name, Arc<K>>>,
    wake: Arc<Notify>,
}

fn name_of<K: ResourceExt>(object: &K) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}

impl<K: ResourceExt + Send + Sync> Feed<K> for Mirror<K> {
    fn apply(&self, object: Arc<K>) {
        self.objects.lock().insert(name_of(object.as_ref()), object);
        self.wake.notify_one();
    }

    fn delete(&self, object: Arc<K>) {
        self.objects.lock().remove(&name_of(object.as_ref()));
        self.wake.notify_one();
    }

    fn reset(&self, objects: Vec<Arc<K>>, unreadable: &[Name]) {
        let mut known = self.objects.lock();
        known.retain(|name, _| unreadable.contains(name));
        known.extend(objects.into_iter().map(|o| (name_of(o.as_ref()), o)));
        drop(known);
        self.wake.notify_one();
    }
}

impl<K: Clone> Mirror<K> {
    fn all(&self) -> Vec<K> {
        let objects = self.objects.lock();
        objects.values().map(|o| o.as_ref().clone()).collect()
    }
}

fn mirror<K>(wake: &Arc<Notify>) -> Arc<Mirror<K>> {
    Arc::new(Mirror {
        objects: Mutex::default(),
        wake: wake.clone(),
    })
}

/// Declares the watch of a kind.
fn watched<K>(setup: &mut Setup<'_>, wake: &Arc<Notify>) -> Arc<Mirror<K>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    let mirror = mirror(wake);
    setup.watch::<K>(&mirror);
    mirror
}

struct Objects {
    services: Arc<Mirror<Service>>,
    slices: Arc<Mirror<EndpointSlice>>,
    pods: Arc<Mirror<Pod>>,
    entries: Arc<Mirror<ServiceEntry>>,
    rules: Arc<Mirror<DestinationRule>>,
    virtual_services: Arc<Mirror<VirtualService>>,
    filters: Arc<Mirror<EnvoyFilter>>,
    sidecars: Arc<Mirror<Sidecar>>,
    gateways: Arc<Mirror<Gateway>>,
    routers: Arc<Mirror<MetaRouter>>,
    protocols: Arc<Mirror<ApplicationProtocol>>,
    redis_services: Arc<Mirror<RedisService>>,
    redis_destinations: Arc<Mirror<RedisDestination>>,
    policies: Arc<Mirror<DubboAuthorizationPolicy>>,
    /// Only when the configuration lets Trimtab read Secrets.
    secrets: Option<Arc<Mirror<Secret>>>,
}

impl Objects {
    fn declare(setup: &mut Setup<'_>, read_secrets: bool, wake: &Arc<Notify>) -> Self {
        let filters = mirror(wake);
        setup.watch_generated::<EnvoyFilter>(&filters);
        Self {
            services: watched(setup, wake),
            slices: watched(setup, wake),
            pods: watched(setup, wake),
            entries: watched(setup, wake),
            rules: watched(setup, wake),
            virtual_services: watched(setup, wake),
            filters,
            sidecars: watched(setup, wake),
            gateways: watched(setup, wake),
            routers: watched(setup, wake),
            protocols: watched(setup, wake),
            redis_services: watched(setup, wake),
            redis_destinations: watched(setup, wake),
            policies: watched(setup, wake),
            secrets: read_secrets.then(|| watched(setup, wake)),
        }
    }

    fn mesh(&self, domain: &str, settings: &Arc<Settings>) -> Mesh {
        let secrets = self.secrets.iter().flat_map(|s| s.all());
        Mesh {
            services: self.services.all(),
            endpoint_slices: self.slices.all(),
            service_entries: self.entries.all(),
            destination_rules: self.rules.all(),
            gateways: self.gateways.all(),
            routers: self.routers.all(),
            protocols: self.protocols.all(),
            redis_services: self.redis_services.all(),
            redis_destinations: self.redis_destinations.all(),
            dubbo_policies: self.policies.all(),
            secrets: secrets.map(secret).collect(),
            last_good: BTreeMap::new(),
            domain: domain.to_owned(),
            settings: settings.clone(),
        }
    }

    fn pod_labels(&self) -> BTreeMap<Name, BTreeMap<String, String>> {
        let pods = self.pods.objects.lock();
        pods.iter()
            .map(|(name, pod)| (name.clone(), pod.labels().clone()))
            .collect()
    }

    /// Addresses of the pods that have one and have not ended.
    fn pod_addresses(&self) -> BTreeMap<Name, IpAddr> {
        let pods = self.pods.objects.lock();
        let address = |pod: &Pod| {
            let status = pod.status.as_ref()?;
            let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
            status.pod_ip.as_ref().filter(|_| !ended)?.parse().ok()
        };
        let all = pods.iter();
        all.filter_map(|(name, pod)| Some((name.clone(), address(pod)?)))
            .collect()
    }

    /// Limits of SmartLimiters, with what of them is not done.
    fn limits(&self, domain: &str, notes: &mut BTreeSet<String>) -> Vec<HttpLimit> {
        let services = self.services.objects.lock();
        let mut out = Vec::new();
        for filter in self.filters.all() {
            let label = |name: &str| filter.labels().get(name).cloned().unwrap_or_default();
            if !label(OWNER_KIND_LABEL).starts_with(LIMITER) {
                continue;
            }
            let (namespace, owner) = (
                filter.namespace().unwrap_or_default(),
                label(OWNER_NAME_LABEL),
            );
            if !services.contains_key(&(namespace.clone(), owner.clone())) {
                notes.insert(format!(
                    "SmartLimiter {namespace}/{owner}: metadata.name: plain proxies limit calls to a Service of the limiter's name, and there is none: name the limiter as its Service"
                ));
                continue;
            }
            let (found, problems) = limits(&service_host(&owner, &namespace, domain), &filter);
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
    wake: Arc<Notify>,
    served: Mutex<Served>,
    queue: WorkQueue<NoKey>,
}

/// What was served last.
#[derive(Default)]
struct Served {
    world: Option<World>,
    /// Pods whose proxies see a part.
    pods: Vec<PodInput>,
    /// Warnings that were logged.
    notes: BTreeSet<String>,
}

/// Declares the data plane: nothing is served before its first configuration is in the xDS cache.
pub fn setup(config: &MetaprotocolConfig, proxies: Proxies, setup: &mut Setup<'_>) {
    let wake = Arc::new(Notify::new());
    let domain = setup.context().domain.clone();
    let plane = Arc::new(DataPlane {
        objects: Objects::declare(setup, config.read_secrets, &wake),
        proxies,
        domain,
        settings: Arc::new(config.settings(&setup.context().xds_address)),
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
        let due = self.served.lock().world.as_ref().and_then(World::due);
        tokio::select! {
            () = self.wake.notified() => {}
            () = until(due) => {}
        }
    }

    fn gather(&self) -> Duration {
        GATHERING
    }

    fn absorb(&self) {
        let mut notes = BTreeSet::new();
        let around = Surroundings {
            listen: self.proxies.listen.clone(),
            fallback: self.proxies.fallback.clone(),
            pod_labels: self.objects.pod_labels(),
            pod_addresses: self.objects.pod_addresses(),
            sidecars: self.objects.sidecars.all(),
            virtual_services: self.objects.virtual_services.all(),
            limits: self.objects.limits(&self.domain, &mut notes),
        };
        let found = discover(&self.objects.mesh(&self.domain, &self.settings), &around);
        let mut served = self.served.lock();
        let world = world(&found.input, served.world.as_ref(), Instant::now());
        self.xds.update_all(world.updates(served.world.as_ref()));
        let problems = found.problems.into_iter().chain(world.problems());
        notes.extend(problems.map(|p| p.to_string()));
        let refusals = world.everyone().refusals.iter();
        notes.extend(refusals.map(|r| r.problem.to_string()));
        served.log(&world, &found.input, &notes);
        *served = Served {
            world: Some(world),
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
    fn log(&self, world: &World, input: &StandaloneInput, notes: &BTreeSet<String>) {
        for note in notes.difference(&self.notes) {
            tracing::warn!("{note}");
        }
        let before = self.world.as_ref();
        let before = before.map_or(&[][..], |w| &w.everyone().opened);
        let opened = world.everyone().opened.iter();
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
