//! Rules of the mesh, once for all modules and named after Istio's: what a host name means, what a port speaks.
//!
//! Pure: no client, no runtime, no clock.

pub mod names;
pub mod protocol;

pub use protocol::Protocol;

/// The cluster domain unless `mesh.domain` says another.
pub const DEFAULT_DOMAIN: &str = "cluster.local";
