//! The Helm charts: linted and rendered by the real helm, held against what they are made of and against the operator.
//!
//! A golden case is a folder of `golden/charts` with `values.yaml` and `out.yaml`, the chart `trimtab` rendered with these
//! values. `UPDATE_EXPECT=1 cargo test -p trimtab-tests --test charts` writes the outputs anew, and the files that the
//! charts carry as copies: the CRDs, the dashboards and the alert rules.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail the test"
)]

mod aeraki;
mod alerts;
mod copies;
mod defaults;
mod degraded;
mod documented;
mod explain;
mod fallback;
mod fences;
mod golden;
mod guard;
mod helm;
mod install;
mod mesh;
mod protocols;
mod rights;
mod tenants;
mod values;
