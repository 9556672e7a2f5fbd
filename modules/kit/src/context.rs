//! What every module gets from the process.

use std::fmt::Debug;
use std::sync::Arc;

use kube::Client;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use trimtab_mesh::{DEFAULT_DOMAIN, Mesh, Name};
use trimtab_xds::{ResourceCache, Tls};

use crate::answers::Answers;
use crate::clock::Clock;
use crate::identity::XdsEndpoint;
use crate::lease::WriteAdmission;
use crate::prometheus::AnswerBudget;
use crate::readiness::Readiness;
use crate::sources::MetricSource;

/// What every module gets.
#[derive(Clone)]
pub struct Context {
    /// For effects only.
    pub client: Client,
    /// What each write must pass.
    pub admission: WriteAdmission,
    /// Injected time.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the process stops.
    pub shutdown: CancellationToken,
    /// Named blockers of `/readyz`.
    pub readiness: Readiness,
    /// Metrics of the process.
    pub registry: Arc<Mutex<Registry>>,
    /// Resources of the xDS server.
    pub xds: ResourceCache,
    /// What proxies say to them.
    pub answers: Arc<Answers>,
    /// The mesh as all modules see it, with the cluster domain.
    pub mesh: Arc<Mesh>,
    /// How proxies reach the xDS server.
    pub xds_endpoint: XdsEndpoint,
    /// Certificates of the mesh, for ports that want them; `None`: there are none.
    pub mesh_tls: Option<Arc<Tls>>,
    /// Metric sources; the first that provides a name gives its value.
    pub sources: Vec<Arc<dyn MetricSource>>,
    /// Memory for the answers of Prometheus, for all that ask.
    pub answer_budget: AnswerBudget,
    /// A single pass over files: nothing listens on addresses of the configuration.
    pub offline: bool,
    /// Namespace and name of the ConfigMap with Istio's MeshConfig; `None`: it is not read.
    pub mesh_config: Option<Name>,
    /// All proxies are plain Envoys without Istio, which listen where they are told.
    pub plain: bool,
}

impl Context {
    /// A context without metric sources and without an xDS server that proxies reach.
    pub fn new(client: Client, clock: Arc<dyn Clock>, shutdown: CancellationToken) -> Self {
        Self {
            client,
            admission: WriteAdmission::always(),
            clock,
            shutdown,
            readiness: Readiness::new(),
            registry: Arc::default(),
            xds: ResourceCache::new(),
            answers: Arc::default(),
            mesh: Mesh::new(DEFAULT_DOMAIN),
            xds_endpoint: XdsEndpoint::default(),
            mesh_tls: None,
            sources: Vec::new(),
            answer_budget: AnswerBudget::default(),
            offline: false,
            mesh_config: None,
            plain: false,
        }
    }
}

impl Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}
