//! Proxies without Istio: golden cases that a real Envoy takes, and real Envoys that get everything from Trimtab.
//!
//! A golden case is a folder of `golden/standalone` with `in.yaml` (objects and where proxies listen) and `out.yaml`
//! (everything that is served). `UPDATE_EXPECT=1 cargo test -p trimtab-tests --test standalone golden` writes the outputs
//! anew.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail the test"
)]

mod boot;
mod cases;
mod golden;
mod http;
mod isolated;
mod lab;
mod logs;
mod offline;
mod restart;
mod scoped;
mod thrift;
