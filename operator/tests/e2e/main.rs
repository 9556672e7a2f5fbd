//! End to end: the program as a user runs it, with the real kubectl, Prometheus and Envoy.

// Helpers outside of #[test] functions fail the test by panicking too, and a scenario reads best in one piece.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines
)]

mod authority;
mod chain;
mod check;
mod cli;
mod crash;
mod described;
mod faults;
mod folder;
mod help;
mod install;
mod kubectl;
mod metaprotocol;
mod offline;
mod outage;
mod outputs;
mod page;
mod repair;
mod scoping;
mod sources;
mod standalone;
mod state;
mod support;
mod tasks;
