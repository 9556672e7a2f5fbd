//! Where calls are learned from: access logs, Prometheus, and what objects declare.

pub mod host;
