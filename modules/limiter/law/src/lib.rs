//! The control law of strategy `adaptive`: which limit keeps a service at its capacity.
//!
//! The law is a pure function: it has no clock, no randomness and no I/O. It takes the measurements of one tick and answers the
//! limits that should be in force; all that it remembers is in its state, which can be stored and restored at any tick without
//! a change of its decisions.

mod capacity;
mod config;
mod context;
mod controller;
mod decision;
mod entry;
mod group;
pub mod lenient;
mod measurement;
mod service;
mod signal;
mod tiers;
mod tuning;

pub use config::Config;
pub use controller::State;
pub use decision::{Decision, Outputs};
pub use measurement::{Api, Pod, Tick};
