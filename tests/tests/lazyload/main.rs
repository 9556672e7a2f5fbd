//! The fallback of lazy scoping on real Envoys: a caller's proxy with the generated EnvoyFilters, the fallback with its
//! generated bootstrap, and servers that see what arrives.
//!
//! A golden case is a folder of `golden/lazyload-fallback` with `in.yaml` (a `FallbackInput`) and `out.yaml` (all that is made
//! of it). `UPDATE_EXPECT=1 cargo test -p trimtab-tests --test lazyload golden` writes the outputs anew.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail the test"
)]

mod caller;
mod collector;
mod fallback;
mod golden;
mod learned;
mod servers;
mod streams;
mod whole;
