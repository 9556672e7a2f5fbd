//! Laws of others, to be compared with.
//!
//! Each is tuned over a stated grid ([`grid::of`]) in the plant it is compared in. Concurrency limits come from the crates
//! `tower-acc` and `congestion-limiter` as they are; the others are written from their published formulas.

mod acc;
mod bbr;
mod breakwater;
mod congestion;
mod dagor;
pub mod gradient;
pub mod grid;
mod none;
mod rates;

use serde_json::Value;
use trimtab_law::Config;

use crate::law::Law;
use crate::trimtab::Trimtab;

/// For whom a law is made.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The service; `None` at the entry of a mesh.
    pub service: Option<&'a str>,
    /// Number of its pods.
    pub pods: usize,
    /// Calls per second that the place can answer. For fixed limits only: a law that reads it is no law.
    pub capacity: f64,
    /// What the law is told.
    pub config: &'a Config,
    /// Seed of the run, for laws that draw lots.
    pub seed: u64,
    /// Whether the tier of a request is already the priority of its user, the same in each service.
    pub users: bool,
}

/// All laws of this module.
pub const NAMES: [&str; 19] = [
    "trimtab",
    "trimtab-entry",
    "none",
    "static",
    "bang-bang",
    "aimd",
    "gradient2",
    "vegas",
    "aimd-tick",
    "gradient2-tick",
    "vegas-tick",
    "cl-aimd",
    "cl-vegas",
    "breakwater",
    "dagor",
    "aperture",
    "bbr",
    "mimd",
    "mimd-fast",
];

/// A law by its name, with parameters as one of its grid; what they lack has the published value.
pub fn by_name(name: &str, params: &Value, place: &Place<'_>) -> Option<Box<dyn Law>> {
    use acc::{AtTicks, Concurrency, Name};
    use congestion::{Congestion, Name as Crate};
    let gates = |name| Box::new(Concurrency::new(name, params)) as Box<dyn Law>;
    let ticks = |name| Box::new(AtTicks::new(name, params, place.config.slo_s)) as Box<dyn Law>;
    let timed = |name| Congestion::new(name, params).map(|law| Box::new(law) as Box<dyn Law>);
    Some(match name {
        "trimtab" | "trimtab-entry" => {
            Box::new(Trimtab::new(place.config, params["trace"] == true))
        }
        "none" => none(),
        "static" => Box::new(none::Static::new(number(params, "share", 0.9), place)),
        "bang-bang" => Box::new(rates::BangBang::new(params, place)),
        "aimd" => gates(Name::Aimd),
        "gradient2" => gates(Name::Gradient2),
        "vegas" => gates(Name::Vegas),
        "aimd-tick" => ticks(Name::Aimd),
        "gradient2-tick" => ticks(Name::Gradient2),
        "vegas-tick" => ticks(Name::Vegas),
        "cl-aimd" => timed(Crate::Aimd)?,
        "cl-vegas" => timed(Crate::Vegas)?,
        "breakwater" => Box::new(breakwater::Breakwater::new(params, place)),
        "dagor" => Box::new(dagor::Dagor::new(params, place)),
        "aperture" => Box::new(rates::Aperture::new(params, place)),
        "bbr" => Box::new(bbr::Bbr::new(params)),
        "mimd" | "mimd-fast" => Box::new(rates::Mimd::new(params, place)),
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
