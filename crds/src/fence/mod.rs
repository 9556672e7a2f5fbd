//! `microservice.slime.io/v1alpha1` ServiceFence: what a workload's proxy sees of the mesh.

mod schema;
mod spec;
mod status;

pub use spec::{
    AutoStrategy, Deadline, LabelSelector, Mode, ProtoTime, ServiceFence, ServiceFenceSpec, Stable,
    Strategy, WorkloadSelector,
};
pub use status::{
    AutoStatus, DEPENDENCIES_MAX, Dependency, DependencyState, Domain, DomainState, FenceStatus,
    ScopeSize,
};

/// Label of Services and Namespaces that says whether they are fenced: `true` or `false`.
pub const FENCED_LABEL: &str = "slime.io/serviceFenced";
/// Annotation of Services and Namespaces with the same meaning, as lazyxds has it: `true` in any case.
pub const LAZY_XDS_ANNOTATION: &str = "lazy-xds";
/// Label of ServiceFences that were not made by a user.
pub const CREATED_BY_LABEL: &str = "app.kubernetes.io/created-by";
/// Value of [`CREATED_BY_LABEL`].
pub const CREATED_BY: &str = "fence-controller";
