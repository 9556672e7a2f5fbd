//! The xDS server with a real Envoy: everything over one aggregated stream, and routes from an authority beside it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

mod aggregated;
mod authority;
mod lab;
