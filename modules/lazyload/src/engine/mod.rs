//! State between events and writes: which fences there are, what was made of each, and what is to be written. No I/O.

mod compute;
mod contract;
mod exclude;
mod fallback_routing;
mod first_calls;
mod istiod;
mod modes;
mod needs;
mod orphans;
mod ports;
mod remarks;
mod standing;
mod steps;
mod view;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use trimtab_crds::fence::{FenceStatus, Mode};
use trimtab_crds::istio::Sidecar;
use trimtab_kit::clock::Clock;
use trimtab_kit::engine::WriteError;
use trimtab_kit::events::Events;
use trimtab_kit::queue::WorkQueue;
use trimtab_mesh::Mesh;
use trimtab_mesh::model::MeshConfig;
use trimtab_mesh::table::Table;

use crate::access::Policy;
use crate::auto::AutoFences;
use crate::config::LazyloadConfig;
use crate::edges::{EdgeStore, Limits};
use crate::exclude::KnownSince;
use crate::hints::Hints;
use crate::learn::Rules;
use crate::mesh::{Index, Inherited, Problem};
use crate::object::{Caller, FenceKey};
use crate::required::Requirements;
use crate::scope::{Claim, Scope, Settings, Union};
use crate::status::{ProgrammedState, StatusRoom};

use istiod::Istiod;
use modes::Modes;
use orphans::Orphans;

pub(crate) use contract::WIRING;
pub use fallback_routing::{FallbackRouting, FallbackRoutingState};
pub use ports::HttpPorts;
pub use steps::Turns;
pub use view::{ConditionView, DependencyView, EdgeView, FenceView, MeshView};

/// Timers are not looked at more often.
const SHORTEST_TIMER: Duration = Duration::from_millis(10);
/// Nor less often while there are any: a clock may be set forward.
const LONGEST_TIMER: Duration = Duration::from_secs(1);

/// Something to write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkItem {
    /// Status of a fence, and then its Sidecar.
    Fence(FenceKey),
    /// Sidecar of a fence.
    Sidecar(FenceKey),
    /// Whether a fence must be made or deleted.
    Auto(FenceKey),
    /// The EnvoyFilters and the Service of the fallback.
    FallbackRouting,
}

/// What must be at the API server.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Desired {
    /// This Sidecar.
    Write(Box<Sidecar>),
    /// No Sidecar of ours.
    None,
    /// Whatever is there.
    #[default]
    Keep,
}

/// What was made of one fence.
#[derive(Debug, Default)]
struct Entry {
    generation: i64,
    /// In force: of mode `Auto` the one that it has come to.
    mode: Mode,
    modes: Modes,
    callers: BTreeSet<Caller>,
    /// Service accounts of its pods.
    accounts: BTreeSet<String>,
    /// Hosts out of scope that let its pods in and not the fallback, by the entry that would import them.
    first_calls: BTreeMap<String, String>,
    claim: Option<Claim>,
    refusals: Vec<Problem>,
    warnings: Vec<String>,
    /// What its pods need and do not get.
    remarks: Vec<String>,
    /// What its Sidecar takes over from another one.
    inherits: Option<Arc<Inherited>>,
    scope: Scope,
    /// What the Sidecar has when other fences select the same pods.
    union: Union,
    /// Entries of the live Sidecar that nothing explains.
    orphans: Orphans,
    /// The live Sidecar's hosts when `desired` was worked out.
    decided_on: Option<BTreeSet<String>>,
    programmed_state: Option<ProgrammedState>,
    desired: Desired,
    /// As the API server has it.
    stored: FenceStatus,
    /// As it was written last, or is to be.
    wanted: FenceStatus,
    /// How large the status may be.
    room: StatusRoom,
    write_error: Option<WriteError>,
    /// The Sidecar was left as it was when a writer came last: nothing was tried that could have failed.
    left: bool,
}

/// What the watch has told of a Sidecar.
#[derive(Debug)]
struct LiveSidecar {
    hosts: BTreeSet<String>,
    /// `metadata.resourceVersion`; `None`: it has another name than its fence.
    version: Option<String>,
}

#[derive(Debug, Default)]
struct Inner {
    fences: BTreeMap<FenceKey, Entry>,
    timers: BTreeSet<(Timestamp, FenceKey)>,
    /// Each live Sidecar of ours, by its fence.
    live: BTreeMap<FenceKey, LiveSidecar>,
    /// Sidecars of users, by the fence that would write one of this name.
    foreign: BTreeSet<FenceKey>,
    fallback_routing: FallbackRoutingState,
    /// What is being written for the fallback.
    writing: Option<FallbackRouting>,
    /// Fences whose scope or state must be worked out again, for other reasons than events.
    again: BTreeSet<FenceKey>,
}

/// Decides; the kit's driver carries out.
pub struct Engine {
    /// The mesh.
    pub index: Arc<Index>,
    /// Who calls what.
    pub edges: Arc<EdgeStore>,
    /// What workloads declare to call.
    pub hints: Arc<Hints>,
    /// Fences that Trimtab makes.
    pub auto: Arc<AutoFences>,
    /// HTTP ports of the mesh.
    pub ports: Arc<HttpPorts>,
    /// Since when services are known.
    pub since: Arc<KnownSince>,
    /// What is told of fences.
    pub events: Arc<Events>,
    /// Steps of mode `Auto`.
    pub turns: Turns,
    /// What pods need whatever they call.
    pub required: Arc<Requirements>,
    istiod: Mutex<Istiod>,
    queue: WorkQueue<WorkItem>,
    /// The first look at the fallback is queued.
    begun: AtomicBool,
    clock: Arc<dyn Clock>,
    config: RwLock<Arc<LazyloadConfig>>,
    settings: RwLock<Arc<Settings>>,
    inner: Mutex<Inner>,
    wake: Arc<Notify>,
    /// AuthorizationPolicies.
    policies: Arc<Table<Policy>>,
    /// What the MeshConfig says.
    mesh_config: RwLock<Option<Arc<MeshConfig>>>,
    /// Policies, or what they are for, have changed.
    policies_moved: AtomicBool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("fences", &self.inner.lock().fences.len())
            .finish_non_exhaustive()
    }
}

fn warn_of_config(config: &LazyloadConfig) {
    for warn_of_config in config.warnings() {
        tracing::warn!("{warn_of_config}");
    }
}

impl Engine {
    /// An engine over a mesh.
    pub fn new(config: Arc<LazyloadConfig>, mesh: &Mesh, clock: Arc<dyn Clock>) -> Arc<Self> {
        warn_of_config(&config);
        let wake = Arc::new(Notify::new());
        let limits = Limits::new(&config.retention, config.learn.hosts_per_caller);
        let index = Index::new(&config, mesh);
        let edges = Arc::new(EdgeStore::new(limits));
        Arc::new(Self {
            since: KnownSince::new(edges.windows(), wake.clone()),
            events: Arc::default(),
            turns: Turns::default(),
            istiod: Mutex::default(),
            edges,
            hints: Hints::new(index.clone(), mesh, wake.clone()),
            index,
            auto: AutoFences::new(config.clone(), mesh, wake.clone()),
            ports: HttpPorts::new(&config.fallback, wake.clone()),
            required: Requirements::new(&config, mesh, wake.clone()),
            queue: WorkQueue::default(),
            begun: AtomicBool::new(false),
            clock,
            settings: RwLock::new(Arc::new(fallback_routing::settings(&config))),
            config: RwLock::new(config),
            inner: Mutex::default(),
            wake,
            policies: mesh.table(),
            mesh_config: RwLock::default(),
            policies_moved: AtomicBool::new(false),
        })
    }

    /// The configuration that is in force.
    pub fn config(&self) -> Arc<LazyloadConfig> {
        self.config.read().clone()
    }

    /// Takes a changed configuration over: everything is worked out again.
    pub fn reconfigure(&self, config: Arc<LazyloadConfig>) {
        warn_of_config(&config);
        self.auto.reconfigure(config.clone());
        self.ports.reconfigure(&config.fallback);
        self.required.reconfigure(&config);
        self.index.configure(&config);
        *self.settings.write() = Arc::new(fallback_routing::settings(&config));
        *self.config.write() = config;
        let mut inner = self.inner.lock();
        let all: Vec<FenceKey> = inner.fences.keys().cloned().collect();
        inner.again.extend(all);
        drop(inner);
        self.queue.push(WorkItem::FallbackRouting);
        self.wake.notify_one();
    }

    /// Until a scope changes by itself.
    fn next_timer(&self) -> Option<Duration> {
        let now = self.clock.now();
        let due = self.inner.lock().timers.first().map(|(at, _)| *at);
        let scope = due.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        let grace = self.edges.tick(self.clock.monotonic());
        let grace = grace.map(|at| at.saturating_sub(self.clock.monotonic()));
        [scope, grace]
            .into_iter()
            .flatten()
            .min()
            .map(|d| d.clamp(SHORTEST_TIMER, LONGEST_TIMER))
    }

    /// Takes declared dependencies over. What was `restored` may have brought old ones back: another replica had not seen
    /// yet that they are gone.
    fn declare(&self, restored: BTreeSet<Caller>) {
        let mut callers = self.hints.drain_changes();
        callers.extend(restored);
        if callers.is_empty() {
            return;
        }
        let rules = Rules {
            fallback_hosts: self.fallback_hosts(),
            ..Rules::default()
        };
        for caller in callers {
            let hints = self.hints.of(&caller, &rules);
            self.edges.set_hints(&caller, &hints, self.clock.now());
        }
    }
}
