//! What modules get from the host: shared watches, metric sources, apply and report, an EnvoyFilter builder.
//!
//! ```text
//!  kube watch ─> Feed (index of a module) ─┐
//!  MetricSource (Prometheus, MDS, ...) ────┼─> module: resolve, decide, translate ─> Applier (server-side apply)
//!  Clock ──────────────────────────────────┘                                      └> LatestQueue ─> writers
//! ```

pub mod answers;
pub mod api;
pub mod apply;
pub mod budget;
pub mod clock;
pub mod condition;
mod context;
pub mod describe;
mod driver;
pub mod engine;
pub mod envoy;
pub mod envoyfilter;
pub mod events;
pub mod generated;
pub mod host;
pub mod identity;
pub mod istiod;
pub mod lease;
pub mod module;
pub mod needs;
pub mod problem;
pub mod prometheus;
pub mod queue;
pub mod readiness;
pub mod rights;
pub mod series;
pub mod sources;
pub mod watch;
pub mod write;

pub use trimtab_xds::accept as listen;
