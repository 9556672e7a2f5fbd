//! The client of Prometheus and of what speaks its API, for metric sources and modules.

mod access;
mod answer;
mod ask;
mod budget;
mod client;

pub use access::{Access, BasicAuth, KeyError, MAX_BYTES, MAX_SERIES, Section};
pub use answer::{Answer, Row};
pub use ask::{Bounds, Connection};
pub use budget::{AnswerBudget, Held};
pub use client::{AskError, Client};
