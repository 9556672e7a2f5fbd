//! A small laboratory: real Envoy and Prometheus processes, measured upstreams and an honest load generator, all on
//! the loopback interface.
//!
//! The quickstart runs its scenario on it, and the tests that need a real proxy use the same pieces. Nothing here is
//! shipped.
//!
//! - [`ports`], [`process`]: free ports and children that cannot be left behind;
//! - [`envoy`], [`prometheus`]: the two real programs;
//! - [`upstream`], [`workers`], [`load`]: pods with a capacity, and the traffic that meets them;
//! - [`plot`]: the picture of what happened.

pub mod envoy;
mod error;
pub mod http;
pub mod load;
pub mod plot;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod upstream;
pub mod workers;

pub use error::LabError;
