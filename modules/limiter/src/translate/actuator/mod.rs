//! What holds a limit that was decided, in the proxy of one pod. Pure: what is decided and learned becomes the configuration of a
//! filter.
//!
//! | actuator | what it holds | what a change costs |
//! |---|---|---|
//! | ECDS bucket | requests per second | the bucket is full again |
//! | EnvoyFilter bucket | requests per second | every bucket of the listener is full again, and a write to the API server |
//! | concurrency bounds | requests in the pod, by Envoy's `adaptive_concurrency` | the filter begins anew at its lower bound |

mod bucket;
mod choice;
mod concurrency;
mod learned;

use serde_json::{Value, json};

pub use bucket::{EcdsBucket, EnvoyFilterBucket};
pub use choice::{Choice, Facilities, choose};
pub use concurrency::ConcurrencyBounds;
pub use learned::{Learned, Seen};

/// Which actuator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A token bucket that Trimtab's xDS server delivers.
    EcdsBucket,
    /// A token bucket that istiod delivers.
    EnvoyFilterBucket,
    /// Bounds for Envoy's own control of concurrency.
    ConcurrencyBounds,
}

impl Kind {
    /// Its name in statuses.
    pub fn name(self) -> &'static str {
        match self {
            Self::EcdsBucket => "ECDS bucket",
            Self::EnvoyFilterBucket => "EnvoyFilter bucket",
            Self::ConcurrencyBounds => "concurrency bounds",
        }
    }
}

/// What is decided for the pod of a proxy, and what was learned of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aim {
    /// Requests per second that the pod may get; `None`: no limit.
    pub per_pod: Option<f64>,
    /// Time that a full bucket lasts at this rate, in seconds.
    pub bucket_s: f64,
    /// Time of an answer that did not wait, in seconds, where it is known.
    pub service_s: Option<f64>,
    /// Time within which an answer is of use, in seconds.
    pub slo_s: f64,
}

/// The configuration of an HTTP filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// Type URL of the configuration.
    pub type_url: &'static str,
    /// The configuration in the JSON form of protobuf, without its type.
    pub json: Value,
    /// The same, encoded.
    pub proto: Vec<u8>,
}

impl Filter {
    /// The configuration as a value of `typed_config`.
    pub fn typed(&self) -> Value {
        let mut typed = json!({"@type": self.type_url});
        if let (Value::Object(out), Value::Object(fields)) = (&mut typed, &self.json) {
            out.extend(fields.clone());
        }
        typed
    }
}

/// Something in a proxy that holds a limit.
pub trait Actuator: Send + Sync {
    /// Which it is.
    fn kind(&self) -> Kind;

    /// The configuration of its filter. Without a limit, or without what it must know, the filter lets everything pass.
    fn filter(&self, aim: &Aim) -> Filter;

    /// Whether `wanted` is worth what a change from `held` costs.
    fn is_worth(&self, held: &Aim, wanted: &Aim) -> bool;
}

/// The actuator of a kind, for a proxy.
pub fn actuator(kind: Kind, facilities: &Facilities) -> Box<dyn Actuator> {
    match kind {
        Kind::EcdsBucket => Box::new(EcdsBucket),
        Kind::EnvoyFilterBucket => Box::new(EnvoyFilterBucket),
        Kind::ConcurrencyBounds => Box::new(ConcurrencyBounds {
            pinned: facilities.pins(),
        }),
    }
}

/// A duration in the JSON form of protobuf, in whole milliseconds.
fn seconds(millis: i64) -> String {
    if millis % 1000 == 0 {
        format!("{}s", millis / 1000)
    } else {
        format!("{}.{:03}s", millis / 1000, millis % 1000)
    }
}

/// Whether a number differs by more than a share of what it was.
fn differs(old: f64, new: f64, by: f64) -> bool {
    (new - old).abs() > by * old.abs()
}

#[cfg(test)]
mod tests;
