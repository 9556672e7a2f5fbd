//! The whole server over loopback: all services, visibility, limits, mutual TLS.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

#[path = "../common/certs.rs"]
mod certs;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod limits;
mod order;
mod services;
mod tls;
mod views;
