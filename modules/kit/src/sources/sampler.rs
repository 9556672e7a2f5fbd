//! Hold, then fall back: what a missing value means.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::{Failure, Sample, finite};

/// How much a reading can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Sampled in this tick.
    Fresh,
    /// The source failed; the last good value is still within its hold time.
    Held {
        /// Age of the last good value.
        age: Duration,
    },
    /// The last good value is older than the hold time; the declared fallback applies.
    Expired {
        /// Age of the last good value.
        age: Duration,
    },
    /// There has never been a good value; the declared fallback applies.
    Never,
}

impl Freshness {
    /// A bounded PascalCase word for status and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "Fresh",
            Self::Held { .. } => "Held",
            Self::Expired { .. } => "Expired",
            Self::Never => "Never",
        }
    }
}

/// What to use for a metric now.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The fresh or held value; `None` means that the caller applies its declared fallback.
    pub value: Option<f64>,
    /// How old the value is.
    pub freshness: Freshness,
    /// Why there is no fresh value.
    pub failure: Option<Failure>,
    /// When the present kind of freshness began, on the caller's clock.
    pub since: Duration,
    /// Failures in a row; 0 when fresh.
    pub failures: u32,
}

#[derive(Clone, Debug)]
struct Cell {
    last: Option<(f64, Duration)>,
    kind: &'static str,
    since: Duration,
    failures: u32,
}

/// Remembers the last good value of each metric of each key.
///
/// Time comes from the caller as the duration since any fixed start, so a test or a replay moves it as it likes. Going backwards is read as
/// standing still.
#[derive(Clone, Debug, Default)]
pub struct Sampler {
    cells: HashMap<String, BTreeMap<String, Cell>>,
}

impl Sampler {
    /// An empty sampler.
    pub fn new() -> Self {
        Self::default()
    }

    /// Accounts one sample and says what to use. `key` names the demand stably across ticks, unlike its id.
    pub fn observe(
        &mut self,
        key: &str,
        metric: &str,
        sample: Sample,
        now: Duration,
        hold_for: Duration,
    ) -> Reading {
        let cell = self.cell(key, metric, now);
        let sample = sample.and_then(finite);
        let (value, freshness, failure) = match sample {
            Ok(value) => {
                cell.last = Some((value, now));
                cell.failures = 0;
                (Some(value), Freshness::Fresh, None)
            }
            Err(failure) => {
                cell.failures = cell.failures.saturating_add(1);
                let (value, freshness) = match cell.last {
                    None => (None, Freshness::Never),
                    Some((value, at)) => {
                        let age = now.saturating_sub(at);
                        if age <= hold_for && !hold_for.is_zero() {
                            (Some(value), Freshness::Held { age })
                        } else {
                            (None, Freshness::Expired { age })
                        }
                    }
                };
                (value, freshness, Some(failure))
            }
        };
        if cell.kind != freshness.as_str() {
            cell.kind = freshness.as_str();
            cell.since = now;
        }
        Reading {
            value,
            freshness,
            failure,
            since: cell.since,
            failures: cell.failures,
        }
    }

    /// The age of the last good value of a metric.
    pub fn age(&self, key: &str, metric: &str, now: Duration) -> Option<Duration> {
        let (_, at) = self.cells.get(key)?.get(metric)?.last?;
        Some(now.saturating_sub(at))
    }

    /// Releases all memory of a key.
    pub fn forget(&mut self, key: &str) {
        self.cells.remove(key);
    }

    /// Releases the metrics of a key that its spec no longer names.
    pub fn retain_metrics(&mut self, key: &str, mut keep: impl FnMut(&str) -> bool) {
        if let Some(metrics) = self.cells.get_mut(key) {
            metrics.retain(|name, _| keep(name));
            if metrics.is_empty() {
                self.cells.remove(key);
            }
        }
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    fn cell(&mut self, key: &str, metric: &str, now: Duration) -> &mut Cell {
        self.cells
            .entry(key.to_owned())
            .or_default()
            .entry(metric.to_owned())
            .or_insert(Cell {
                last: None,
                kind: Freshness::Never.as_str(),
                since: now,
                failures: 0,
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLD: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn holds_then_expires_then_recovers() {
        let mut sampler = Sampler::new();
        let fresh = sampler.observe("ns/a", "cpu", Ok(0.5), at(10), HOLD);
        assert_eq!(
            (fresh.value, fresh.freshness, fresh.since),
            (Some(0.5), Freshness::Fresh, at(10))
        );

        let held = sampler.observe("ns/a", "cpu", Err(Failure::Timeout), at(20), HOLD);
        assert_eq!(
            (held.value, held.freshness),
            (Some(0.5), Freshness::Held { age: at(10) })
        );
        assert_eq!(
            (held.failure, held.since, held.failures),
            (Some(Failure::Timeout), at(20), 1)
        );

        let edge = sampler.observe("ns/a", "cpu", Err(Failure::Empty), at(40), HOLD);
        assert_eq!(
            (edge.value, edge.since, edge.failures),
            (Some(0.5), at(20), 2)
        );

        let expired = sampler.observe("ns/a", "cpu", Err(Failure::Empty), at(41), HOLD);
        assert_eq!(
            (expired.value, expired.freshness),
            (None, Freshness::Expired { age: at(31) })
        );
        assert_eq!(expired.since, at(41));

        let back = sampler.observe("ns/a", "cpu", Ok(0.7), at(50), HOLD);
        assert_eq!(
            (back.value, back.freshness, back.since, back.failures),
            (Some(0.7), Freshness::Fresh, at(50), 0)
        );
    }

    #[test]
    fn no_value_yet_is_never_and_a_nan_is_a_failure() {
        let mut sampler = Sampler::new();
        let reading = sampler.observe("k", "m", Ok(f64::NAN), at(1), HOLD);
        assert_eq!(
            (reading.value, reading.freshness, reading.failure),
            (None, Freshness::Never, Some(Failure::NotFinite))
        );
    }

    #[test]
    fn zero_hold_never_uses_an_old_value() {
        let mut sampler = Sampler::new();
        sampler.observe("k", "m", Ok(1.0), at(1), Duration::ZERO);
        let reading = sampler.observe("k", "m", Err(Failure::Empty), at(1), Duration::ZERO);
        assert_eq!(
            (reading.value, reading.freshness),
            (
                None,
                Freshness::Expired {
                    age: Duration::ZERO
                }
            )
        );
    }

    #[test]
    fn memory_is_released() {
        let mut sampler = Sampler::new();
        sampler.observe("a", "x", Ok(1.0), at(1), HOLD);
        sampler.observe("b", "x", Ok(1.0), at(1), HOLD);
        sampler.forget("a");
        assert_eq!(sampler.len(), 1);
        sampler.retain_metrics("b", |name| name == "y");
        assert!(sampler.is_empty());
        assert_eq!(
            sampler
                .observe("a", "x", Err(Failure::Empty), at(2), HOLD)
                .freshness,
            Freshness::Never
        );
    }

    fn samples() -> impl Strategy<Value = Vec<(Option<f64>, u64)>> {
        prop::collection::vec((prop::option::of(-1e6..1e6f64), 0u64..40), 1..60)
    }

    proptest! {
        // The reading must follow from the newest good sample alone, whatever happened before.
        #[test]
        fn reading_follows_from_the_newest_good_sample(steps in samples()) {
            let mut sampler = Sampler::new();
            let (mut now, mut good): (u64, Option<(f64, u64)>) = (0, None);
            let mut last_since = Duration::ZERO;
            for (value, dt) in steps {
                now += dt;
                let reading = sampler.observe("k", "m", value.ok_or(Failure::Empty), at(now), HOLD);
                if let Some(v) = value { good = Some((v, now)); }
                let expected = good.filter(|(_, t)| now - t <= 30).map(|(v, _)| v);
                prop_assert_eq!(reading.value, expected);
                prop_assert_eq!(reading.failure.is_none(), reading.freshness == Freshness::Fresh);
                prop_assert_eq!(reading.freshness == Freshness::Never, good.is_none());
                prop_assert!(reading.since <= at(now) && reading.since >= last_since);
                last_since = reading.since;
            }
        }

        // Keys and metrics do not influence each other.
        #[test]
        fn cells_are_independent(steps in samples()) {
            let (mut alone, mut together) = (Sampler::new(), Sampler::new());
            let mut now = 0;
            for (value, dt) in steps {
                now += dt;
                together.observe("other", "m", Ok(9.0), at(now), HOLD);
                together.observe("k", "n", Err(Failure::Stale), at(now), HOLD);
                let sample = value.ok_or(Failure::Empty);
                prop_assert_eq!(
                    alone.observe("k", "m", sample.clone(), at(now), HOLD),
                    together.observe("k", "m", sample, at(now), HOLD)
                );
            }
        }
    }
}
