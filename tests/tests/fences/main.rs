//! Lazy scoping end to end: an operator in this process on the embedded API, access logs over gRPC, and every version of
//! every Sidecar that was ever stored.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail the test"
)]

mod answers;
mod auto;
mod bounds;
mod budget;
mod cases;
mod compatibility;
mod counted;
mod defects;
mod exclude;
mod files;
mod fixture;
mod gate;
mod hints;
mod history;
mod learning;
mod logs;
mod mesh_config;
mod modes;
mod needs;
mod prometheus;
mod reload;
mod replicas;
mod rivals;
mod robust;
