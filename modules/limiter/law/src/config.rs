//! What a user states of a service.

use serde::{Deserialize, Serialize};

/// What the law is told of a service. Only `slo_s` and `floor` have to be thought about; all have defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Time within which a call must be answered, in seconds. An answer after it is of no use to the client.
    pub slo_s: f64,
    /// Requests per second, over all pods, that are never refused.
    pub floor: f64,
    /// Largest share of the offered requests that may be refused, 0 to 1.
    pub max_shed: f64,
    /// How long the last limit stays in force when measurements are missing, in seconds.
    pub hold_s: f64,
    /// Limit after `hold_s` without measurements, in requests per second; `None` is no limit.
    pub fallback: Option<f64>,
    /// Time between two ticks, in seconds.
    pub interval_s: f64,
    /// Window over which the rates of a tick are averages, in seconds.
    pub window_s: f64,
    /// Priority tiers from the lowest, which is shed first, to the highest.
    pub tiers: Vec<serde_json::Value>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            slo_s: 1.0,
            floor: 1.0,
            max_shed: 0.95,
            hold_s: 60.0,
            fallback: None,
            interval_s: 5.0,
            window_s: 15.0,
            tiers: Vec::new(),
        }
    }
}

impl Config {
    /// The configuration with values that make sense: a number that is none, or out of range, is replaced by its default.
    pub(crate) fn checked(&self) -> Self {
        let default = Self::default();
        let positive = |value: f64, default: f64| {
            if value.is_finite() && value > 0.0 {
                value
            } else {
                default
            }
        };
        let interval_s = positive(self.interval_s, default.interval_s);
        Self {
            slo_s: positive(self.slo_s, default.slo_s),
            floor: if self.floor.is_finite() {
                self.floor.max(0.0)
            } else {
                default.floor
            },
            max_shed: if self.max_shed.is_finite() {
                self.max_shed.clamp(0.0, 1.0)
            } else {
                default.max_shed
            },
            hold_s: if self.hold_s.is_finite() {
                self.hold_s.max(0.0)
            } else {
                default.hold_s
            },
            fallback: self
                .fallback
                .filter(|fallback| fallback.is_finite() && *fallback >= 0.0),
            interval_s,
            window_s: positive(self.window_s, default.window_s).max(interval_s),
            tiers: self.tiers.clone(),
        }
    }
}
