//! The laboratory against the real programs: Envoy accepts and obeys what is merged, Prometheus scrapes it, and the
//! traffic is what it claims to be.

#[cfg(test)]
#[path = "lab/support.rs"]
mod support;

#[cfg(test)]
#[path = "lab/machinery.rs"]
mod machinery;

#[cfg(test)]
#[path = "lab/merged.rs"]
mod merged;
