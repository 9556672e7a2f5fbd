//! Names that all rooms share: who calls, what is called, how it is known.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who calls.
pub use trimtab_mesh::model::Workload as Caller;

/// How a dependency is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Evidence {
    /// An access log entry of an HTTP request or a TCP connection.
    AccessLog,
    /// A series of Istio's telemetry.
    Prometheus,
    /// A principal of an AuthorizationPolicy of the host.
    Policy,
    /// A host name in the environment or the arguments of the pod template.
    Template,
    /// `status.metricStatus`, as Slime learned it or as an earlier run wrote it.
    Restored,
}

impl Evidence {
    /// The name in status and series.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessLog => "AccessLog",
            Self::Prometheus => "Prometheus",
            Self::Policy => "Policy",
            Self::Template => "Template",
            Self::Restored => "Restored",
        }
    }
}

/// A ServiceFence. Shown as `namespace/name`.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct FenceKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl FenceKey {
    /// Of a namespace and name.
    pub fn of((namespace, name): &trimtab_mesh::Name) -> Self {
        Self {
            namespace: namespace.clone(),
            name: name.clone(),
        }
    }
}

impl fmt::Display for FenceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What the learners ask of the mesh: who is behind an address or a pod name, and which host a name or an address is.
///
/// Calls are on the path of every access log entry: they must be look-ups, never scans.
pub trait Directory: Send + Sync {
    /// The workload whose pod has this address, host-network pods excepted.
    fn caller_at(&self, address: IpAddr) -> Option<Caller>;

    /// The workload of a pod.
    fn caller_of_pod(&self, namespace: &str, pod: &str) -> Option<Caller>;

    /// The workload of a pod, if the pod has this address; pods on the host's network have none of their own.
    fn pod_at(&self, namespace: &str, pod: &str, address: IpAddr) -> Option<Caller> {
        let caller = self.caller_of_pod(namespace, pod)?;
        (self.caller_at(address)? == caller).then_some(caller)
    }

    /// The workload of a pod, if the pod runs as this service account.
    fn pod_as(&self, _namespace: &str, _pod: &str, _account: &str) -> Option<Caller> {
        None
    }

    /// A full host, if some object of the mesh has it.
    fn known_host(&self, host: &str) -> Option<Arc<str>> {
        self.host_of_name(host, "")
    }

    /// The full host name of `name` as a client in `namespace` means it.
    ///
    /// `name` has no port and may be short (`b`, `b.a`, `b.a.svc`), the name of a headless service's pod, an ExternalName,
    /// or a host that a wildcard of a ServiceEntry covers (the answer is the wildcard). `None`: no such service is known.
    fn host_of_name(&self, name: &str, namespace: &str) -> Option<Arc<str>>;

    /// The hosts behind an address: of a ClusterIP or a ServiceEntry's address (also in a CIDR range), or of an endpoint
    /// (headless services first, and only those when there are any). Sorted.
    fn hosts_at(&self, address: IpAddr, port: u16) -> Vec<Arc<str>>;
}
