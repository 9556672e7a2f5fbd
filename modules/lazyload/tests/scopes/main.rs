//! Exact entries of scopes: what is called is in scope what it is without a Sidecar, and nothing else is in.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a broken test must stop with its reason"
)]

mod case;
#[allow(dead_code, reason = "not every test asks everything")]
#[path = "../mesh/mod.rs"]
mod mesh;

mod counted;
mod later;
mod names;
mod routes;
mod seen;
mod tcp;
