//! Plants, laws and the judge of `make bench-limiter`: overloaded services in virtual time.
//!
//! A plant is a model of a service with clients, queues, proxies and metrics. A law sees what Prometheus would show and sets
//! limits, which act through Envoy's token buckets. Everything follows from one seed.

pub mod bucket;
pub mod law;
pub mod peers;
pub mod plant_a;
pub mod plant_b;
pub mod plant_c;
pub mod random;
pub mod trimtab;
