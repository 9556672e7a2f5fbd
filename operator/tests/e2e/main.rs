//! End to end: the program as a user runs it, with the real kubectl, Prometheus and Envoy.

mod chain;
mod cli;
mod crash;
mod kubectl;
mod outage;
mod quickstart;
mod repair;
mod support;
