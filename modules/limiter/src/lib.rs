//! SmartLimiter: intent and metrics to Envoy rate limits.
//!
//! ```text
//!  watches ─> index ─> resolve ─┐                    ┌─> EnvoyFilter (server-side apply)
//!  sources ─> sampler ──────────┼─> decide ─> translate ─> ECDS (xDS cache)
//!                               └────────> status ───┴─> status (server-side apply)
//! ```
//!
//! `validate`, `decide`, `translate`, `status` and `describe` are pure; `engine` keeps state and does no I/O; `module` declares it all to the kit.

pub mod config;
pub mod decide;
pub mod describe;
pub mod engine;
mod http;
pub mod index;
pub mod input;
mod legacy;
pub mod metrics;
pub mod module;
mod needs;
mod overridden;
pub mod owner;
mod programmed;
pub mod status;
mod told;
pub mod translate;
pub mod validate;
