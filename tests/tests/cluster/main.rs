//! Trimtab against a real control plane: kube-apiserver, kube-controller-manager, istiod, Envoy, helm.
//!
//! All tests share one cluster and have a namespace each.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail the test"
)]

#[path = "../../../operator/embedded/tests/conformance/mod.rs"]
mod conformance;

#[path = "../lazyload/collector.rs"]
mod collector;
#[path = "../metaprotocol/peers.rs"]
mod peers;

mod against_real;
mod charts;
mod check;
mod described;
mod exclude;
mod exports;
mod facts;
mod fallback;
mod fixture;
mod forward;
mod from_aeraki;
mod identity;
mod istio_fields;
mod lazyload;
mod limits;
mod mesh_client;
mod mesh_tls;
mod owners;
mod protocols;
mod revisions;
mod rotation;
mod sidecars;
mod truth;
