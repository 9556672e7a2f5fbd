//! Lazy scoping: sidecars that know only what their workload calls.
//!
//! ```text
//!  watches ───────────────> mesh ──┐
//!  access logs ─┐                  ├─> scope ─> translate ─> Sidecar (server-side apply)
//!  Prometheus ──┼─> learn ─> edges ┘      └───> status ────> ServiceFence status
//!  hints ───────┘
//!  fallback: EnvoyFilters and a stock Envoy that carry the first call
//! ```
//!
//! `mesh`, `edges`, `predict`, `scope`, `translate`, `fallback`, `status` and the parsers of `learn` are pure: time comes in as an
//! argument. `engine` and `hints` keep state and do no I/O; the servers of `learn` have effects; `module` declares it all to the
//! kit, which writes.

pub mod access;
pub mod auto;
pub mod config;
mod describe;
pub mod edges;
pub mod engine;
pub mod exclude;
pub mod fallback;
pub mod hints;
mod http;
pub mod learn;
mod legacy;
pub mod mesh;
pub mod metrics;
pub mod module;
pub mod object;
pub mod predict;
pub mod required;
pub mod scope;
pub mod status;
pub mod tighten;
pub mod translate;
