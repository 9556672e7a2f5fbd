//! Bounds for Envoy's `adaptive_concurrency`: the proxy reacts within a tenth of a second, and within what is known of its pod.
//!
//! Envoy moves its limit so that the time of an answer stays near a pinned one. The pinned time is that of an answer that waited
//! for a share of the SLO only. So the filter finds the right number of requests in the pod whether a pod became slower or lost
//! workers, and the bounds keep it from what nobody can mean: fewer requests than the pod works on at once, or more than it could
//! answer in time. Every change makes the filter begin anew at the lower bound; with this one nothing is lost by that.

use envoy_types::pb::envoy::config::core::v3::RuntimeFeatureFlag;
use envoy_types::pb::envoy::extensions::filters::http::adaptive_concurrency::v3::{
    AdaptiveConcurrency, GradientControllerConfig,
    adaptive_concurrency::ConcurrencyControllerConfig,
    gradient_controller_config::{ConcurrencyLimitCalculationParams, MinimumRttCalculationParams},
};
use envoy_types::pb::envoy::r#type::v3::{HttpStatus, Percent};
use envoy_types::pb::google::protobuf::{BoolValue, Duration, UInt32Value};
use prost::Message as _;
use serde_json::{Value, json};

use super::{Actuator, Aim, Filter, Kind, differs, seconds};

/// Type URL of the filter's configuration.
pub const ADAPTIVE_CONCURRENCY: &str =
    "type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency";
/// Key of the runtime that switches the filter.
const RUNTIME_KEY: &str = "trimtab.adaptive_concurrency.enabled";
/// How long a request should wait at most, as a share of the SLO.
const WAIT_SHARE: f64 = 0.2;
/// How long a request may wait if the pod loses half of its capacity at once, as a share of the SLO.
const LONGEST_WAIT: f64 = 0.5;
/// Change that is worth to begin anew.
const BAND: f64 = 0.3;
/// Between two steps of Envoy's limit, in milliseconds.
const STEP_MS: i64 = 100;
/// Between two measurements of the time of an answer where it cannot be pinned, in milliseconds.
const MEASURE_MS: i64 = 300_000;

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub struct ConcurrencyBounds {
    /// Whether the proxy takes a pinned time. Without it Envoy measures the time by letting few requests in, now and then.
    pub pinned: bool,
}

/// Numbers of the filter.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bounds {
    least: u32,
    most: u32,
    time_ms: i64,
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped before"
)]
fn bounds(aim: &Aim) -> Option<Bounds> {
    let (rate, service_s) = aim.per_pod.zip(aim.service_s)?;
    if !(rate > 0.0 && service_s > 0.0) {
        return None;
    }
    // What the pod works on at once, by Little's law, and so many more that no worker waits for a request, and that chance
    // refuses nobody when the filter begins anew.
    let at_once = rate * service_s;
    let queued = at_once.sqrt().max(0.5 * WAIT_SHARE * aim.slo_s * rate);
    let least = (at_once + queued).ceil().clamp(2.0, 1e6);
    let most = (rate * LONGEST_WAIT * aim.slo_s)
        .ceil()
        .clamp(least + 1.0, 1e7);
    let time_ms = 1000.0 * (service_s + WAIT_SHARE * aim.slo_s);
    Some(Bounds {
        least: least as u32,
        most: most as u32,
        time_ms: time_ms.round().clamp(1.0, 1e9) as i64,
    })
}

impl Actuator for ConcurrencyBounds {
    fn kind(&self) -> Kind {
        Kind::ConcurrencyBounds
    }

    fn filter(&self, aim: &Aim) -> Filter {
        let found = bounds(aim);
        let (enabled, bounds) = (found.is_some(), found.unwrap_or(OFF));
        Filter {
            type_url: ADAPTIVE_CONCURRENCY,
            json: self.json(enabled, &bounds),
            proto: self.proto(enabled, &bounds).encode_to_vec(),
        }
    }

    fn is_worth(&self, held: &Aim, wanted: &Aim) -> bool {
        match (bounds(held), bounds(wanted)) {
            (None, None) => false,
            (Some(held), Some(wanted)) => {
                differs(f64::from(held.least), f64::from(wanted.least), BAND)
                    || differs(f64::from(held.most), f64::from(wanted.most), BAND)
                    || differs(held.time_ms as f64, wanted.time_ms as f64, BAND)
            }
            _ => true,
        }
    }
}

/// For a filter that lets everything pass: Envoy wants values all the same.
const OFF: Bounds = Bounds {
    least: 3,
    most: 1000,
    time_ms: 1000,
};

impl ConcurrencyBounds {
    fn json(self, enabled: bool, bounds: &Bounds) -> Value {
        let mut time = json!({"minConcurrency": bounds.least, "buffer": {"value": 0.0}});
        if self.pinned {
            time["fixedValue"] = json!(seconds(bounds.time_ms));
        } else {
            time["interval"] = json!(seconds(MEASURE_MS));
            time["buffer"] = json!({"value": 100.0});
        }
        json!({
            "gradientControllerConfig": {
                "sampleAggregatePercentile": {"value": 50.0},
                "concurrencyLimitParams": {"maxConcurrencyLimit": bounds.most, "concurrencyUpdateInterval": seconds(STEP_MS)},
                "minRttCalcParams": time,
            },
            "enabled": {"defaultValue": enabled, "runtimeKey": RUNTIME_KEY},
            "concurrencyLimitExceededStatus": {"code": 429},
        })
    }

    fn proto(self, enabled: bool, bounds: &Bounds) -> AdaptiveConcurrency {
        let percent = |value| Some(Percent { value });
        let mut time = MinimumRttCalculationParams {
            min_concurrency: Some(UInt32Value {
                value: bounds.least,
            }),
            buffer: percent(0.0),
            ..MinimumRttCalculationParams::default()
        };
        if self.pinned {
            time.fixed_value = Some(duration(bounds.time_ms));
        } else {
            time.interval = Some(duration(MEASURE_MS));
            time.buffer = percent(100.0);
        }
        let gradient = GradientControllerConfig {
            sample_aggregate_percentile: percent(50.0),
            concurrency_limit_params: Some(ConcurrencyLimitCalculationParams {
                max_concurrency_limit: Some(UInt32Value { value: bounds.most }),
                concurrency_update_interval: Some(duration(STEP_MS)),
                // Newer than the proxies of today; the floor is `min_concurrency` in all of them.
                ..ConcurrencyLimitCalculationParams::default()
            }),
            min_rtt_calc_params: Some(time),
        };
        AdaptiveConcurrency {
            enabled: Some(RuntimeFeatureFlag {
                default_value: Some(BoolValue { value: enabled }),
                runtime_key: RUNTIME_KEY.to_owned(),
            }),
            concurrency_limit_exceeded_status: Some(HttpStatus { code: 429 }),
            concurrency_controller_config: Some(
                ConcurrencyControllerConfig::GradientControllerConfig(gradient),
            ),
        }
    }
}

fn duration(millis: i64) -> Duration {
    Duration {
        seconds: millis / 1000,
        nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap_or(0),
    }
}
