//! Learning from real senders: Envoy and Prometheus.

#[cfg(test)]
mod envoy;
#[cfg(test)]
mod process;
#[cfg(test)]
mod prometheus;
