//! Trimtab's API types, and the Istio types that it reads and writes.
//!
//! This crate holds data only: no client, no clock, no I/O. The CRD manifests in
//! `crds/manifests/` are generated from it (`trimtab crds`); a test fails when they are stale.

pub mod dubbo;
pub mod duration;
pub mod fence;
pub mod gateway_api;
pub mod istio;
pub mod limiter;
pub mod manifests;
pub mod metaprotocol;
mod number;
pub mod redis;
mod schema;
pub mod status;

pub use duration::Duration;

/// The namespace in which Trimtab is installed unless somebody says otherwise: Istio's root namespace, where objects for the
/// whole mesh are made.
pub const NAMESPACE: &str = "istio-system";
/// Value of `app.kubernetes.io/managed-by` on every object that Trimtab generates.
pub const MANAGED_BY: &str = "trimtab";
/// Label key of [`MANAGED_BY`].
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Label on generated objects: kind and API group of the owner, e.g. `SmartLimiter.microservice.slime.io`.
pub const OWNER_KIND_LABEL: &str = "trimtab.io/owner-kind";
/// Label on generated objects: name of the owner (same namespace).
pub const OWNER_NAME_LABEL: &str = "trimtab.io/owner-name";
/// Label of a namespace: with `"false"` nothing is written into it for services of other namespaces.
pub const ACCEPT_OBJECTS_LABEL: &str = "trimtab.io/accept-objects";
