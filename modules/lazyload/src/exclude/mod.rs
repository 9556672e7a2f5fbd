//! Mode `Exclude`: everything but what is proven unused.
//!
//! A service is proven unused for a fence when the fence may see it, when it is not in the scope that `Enforce` would have,
//! and when for `retention.min` the telemetry of all workloads of the fence was complete, the service was known, and no call
//! to it was seen. This time is counted in the process: after a restart it begins anew.

pub mod since;
pub mod size;
pub mod unused;
pub mod watched;

pub use since::{Catching, KnownSince};
pub use unused::{Mesh, Needed, unused};
pub use watched::Watched;

/// Whether an API server refused an object because its istiod does not know exclusions: it takes `~NAMESPACE` for the name of
/// a namespace.
pub fn is_refusal(message: &str) -> bool {
    message.contains("invalid namespace value") && message.contains('~')
}

#[cfg(test)]
mod tests;
