//! From a number of requests to the quota of a pod.

use trimtab_crds::limiter::FillInterval;

use crate::validate::{Rule, Strategy};

/// Rounding up may add this much of the quota; more goes into a longer interval.
const ROUNDING: f64 = 1.1;
/// Longest interval in milliseconds: a year.
const LONGEST: f64 = 31_536_000_000.0;

/// The quota of one pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    pub quota: i64,
    /// Of the service, when it is shared here.
    pub total: Option<i64>,
    /// Other than the rule's.
    pub interval: Option<FillInterval>,
}

/// Per pod, and the total when it is shared here.
///
/// With strategy `average` a quota that already names a pod count is per pod as written, since Slime's users write
/// `100/{{._base.pod}}`; any other quota is the service's total.
pub(super) fn share(rule: &Rule, value: f64, pods: i64) -> Share {
    let names_pods = rule
        .quota
        .names()
        .iter()
        .any(|n| n == "pod" || n.ends_with(".pod"));
    let interval = rule.descriptor.action.fill_interval.unwrap_or_default();
    if rule.strategy == Strategy::Average && !names_pods && value > 0.0 {
        let (total, _) = rounded(value, interval);
        return shared(value, pods, interval, total);
    }
    let (quota, interval) = rounded(value, interval);
    Share {
        quota,
        total: None,
        interval,
    }
}

/// A total of `value` by the pods.
#[allow(clippy::cast_precision_loss)] // no cluster has so many pods
pub(super) fn shared(value: f64, pods: i64, interval: FillInterval, total: i64) -> Share {
    let (quota, interval) = rounded(value / pods.max(1) as f64, interval);
    Share {
        quota,
        total: Some(total),
        interval,
    }
}

/// Whole requests, rounded up, and the interval that they take when rounding changes the rate by more than a tenth: a quarter of a
/// request a second is one in four seconds. Nothing, and less than nothing, is 0.
///
/// The tolerance keeps 3.0000000000000004 at 3. The upper bound is Envoy's `uint32`.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // bounded by the clamps
fn rounded(value: f64, interval: FillInterval) -> (i64, Option<FillInterval>) {
    if value <= 0.0 {
        return (0, None);
    }
    let whole = (value - 1e-9 * value.max(1.0)).ceil();
    let whole = whole.clamp(1.0, f64::from(u32::MAX));
    let longer = (whole / value > ROUNDING).then(|| {
        let millis = (interval.millis() as f64 * whole / value - 1e-6).ceil();
        let millis = millis.min(LONGEST) as i64;
        FillInterval {
            seconds: millis / 1000,
            nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap_or(0),
        }
    });
    (whole as i64, longer)
}
