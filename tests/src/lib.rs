//! What tests of `EnvoyFilter` objects share: a bootstrap like Istio's, and an applier of the objects to it.
//!
//! - [`mesh`]: bootstrap configurations that look to an `EnvoyFilter` like a proxy configured by Istio;
//! - [`fields`]: objects with fields that their kinds do not have;
//! - [`merge`]: applies `EnvoyFilter` objects to such a configuration.
//!
//! What they say counts only as far as the tests with a real istiod say the same.

pub mod fields;
pub mod merge;
pub mod mesh;
mod proto_merge;
