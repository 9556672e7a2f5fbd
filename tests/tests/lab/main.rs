//! The laboratory against the real programs: Envoy accepts and obeys what is merged, Prometheus scrapes it, and the
//! traffic is what it claims to be.

#[cfg(test)]
mod machinery;
#[cfg(test)]
mod merged;
#[cfg(test)]
mod support;
