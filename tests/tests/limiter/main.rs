//! The limiter from its input to a real Envoy: golden cases, requests that are counted, hot values over xDS, and the
//! defects of its predecessor that it must not have.
//!
//! A golden case is a folder of `golden/limiter` with `in.yaml` (a resolved input) and `out.yaml` (everything that the
//! limiter makes of it). `UPDATE_EXPECT=1 cargo test -p trimtab-tests --test limiter golden` writes the outputs anew.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail the test"
)]

mod actuators;
mod adaptive;
mod adaptive_real;
mod answers;
mod cases;
mod compatibility;
mod decisions;
mod defaults;
mod defects;
mod described;
mod ecds;
mod events;
mod fixture;
mod golden;
mod lab;
mod leader;
mod matches;
mod migrated;
mod programmed;
mod protocols;
mod proxies;
mod refill;
mod targets;
mod truth;
