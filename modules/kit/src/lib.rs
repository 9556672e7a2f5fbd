//! What modules get from the host: shared watches, metric sources, apply and report, an EnvoyFilter builder.
//!
//! ```text
//!  kube watch ─> Feed (index of a module) ─┐
//!  MetricSource (Prometheus, MDS, ...) ────┼─> module: resolve, decide, translate ─> Applier (server-side apply)
//!  Clock ──────────────────────────────────┘                                      └> LatestQueue ─> writers
//! ```

pub mod apply;
pub mod clock;
pub mod envoyfilter;
pub mod host;
pub mod queue;
pub mod readiness;
pub mod retry;
pub mod sources;
pub mod watch;
