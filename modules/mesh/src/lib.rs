//! The mesh, once for all modules: what its objects say, and the rules of names, ports, visibility and selection, which are
//! Istio's.
//!
//! Pure: no client, no runtime, no clock.

pub mod addressed;
pub mod host_map;
pub mod model;
pub mod names;
pub mod owners;
pub mod protocol;
pub mod quantity;
pub mod table;
pub mod visibility;

pub use owners::Trust;
pub use protocol::{Protocol, layer7_kinds};
pub use table::Mesh;
pub use visibility::{ExportDefaults, Exports};

/// Namespace and name of an object; the namespace of what has none is empty.
pub type Name = (String, String);

/// The cluster domain unless `mesh.domain` says another.
pub const DEFAULT_DOMAIN: &str = "cluster.local";
