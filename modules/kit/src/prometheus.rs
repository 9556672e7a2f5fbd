//! The client of Prometheus and of what speaks its API, for metric sources and modules.

mod access;
mod answer;
mod client;

pub use access::{Access, KeyError, Section};
pub use answer::{Answer, Row};
pub use client::{AskError, Client, Connection};
