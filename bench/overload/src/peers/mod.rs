//! Laws of others, to be compared with.
//!
//! Each is tuned over a stated grid in the plant it is compared in ([`grid`]). Concurrency limits come from the crates
//! `tower-acc` and `congestion-limiter` as they are; the others are written from their published formulas.

mod none;

use serde_json::Value;
use trimtab_law::Config;

use crate::law::Law;

/// For whom a law is made.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The service; `None` at the entry of a mesh.
    pub service: Option<&'a str>,
    /// Number of its pods.
    pub pods: usize,
    /// Calls per second that the place can answer. For static limits only: a law that reads it is no law.
    pub capacity: f64,
    /// What the law is told.
    pub config: &'a Config,
    /// Seed of the run, for laws that draw lots.
    pub seed: u64,
    /// Whether the tier of a request is already the priority of its user, the same in each service.
    pub users: bool,
}

/// A law by its name, with parameters as one of [`grid`]; what they lack has the published value.
pub fn by_name(name: &str, params: &Value, place: &Place<'_>) -> Option<Box<dyn Law>> {
    Some(match name {
        "none" => Box::new(none::None),
        "static" => Box::new(none::Static::new(number(params, "share", 0.9), place)),
        _ => return None,
    })
}

/// The law that limits nothing.
pub fn none() -> Box<dyn Law> {
    Box::new(none::None)
}

/// A parameter.
fn number(params: &Value, name: &str, default: f64) -> f64 {
    params.get(name).and_then(Value::as_f64).unwrap_or(default)
}
