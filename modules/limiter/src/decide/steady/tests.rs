//! What requests get through while metrics move, with buckets as Envoy has them: full after every change, then filled evenly.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Bucket, Plan, Steady, in_steps, interval_of};
use crate::decide::decide;
use crate::input::{LimiterInput, Reading};
use crate::validate::validate;

/// A limiter whose first rule is `{q}` a minute while `{on} > 0`; the second is fixed.
fn input(delivery: &str, extra: &Value) -> LimiterInput {
    let rule = |path: &str, condition: &str, quota: &str| {
        json!({"condition": condition, "action": {"quota": quota, "fill_interval": {"seconds": 60}},
            "match": [{"name": ":path", "prefix_match": path}]})
    };
    let mut spec = json!({"delivery": delivery,
        "sets": {"_base": [rule("/a", "{on} > 0", "{q}"), rule("/b", "true", "10")]}});
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({
        "owner": {"apiVersion": "microservice.slime.io/v1alpha2", "namespace": "default", "name": "a", "generation": 1},
        "spec": spec,
        "target": {"selector": {"app": "a"}, "sets": {"_base": {"pods": 2}}},
    }))
    .unwrap()
}

struct Run {
    input: LimiterInput,
    steady: Steady,
    now: u64,
    /// By rule: quota in force, tokens in milliseconds of its rate given since the limit came on, by time.
    rules: Vec<Rule>,
}

#[derive(Default)]
struct Rule {
    limit: Option<(i64, i64)>,
    /// Time, requests let through by a caller that always asks, largest quota since the limit came on.
    through: Vec<(u64, f64, f64)>,
    fills: usize,
}

impl Run {
    fn new(delivery: &str) -> Self {
        Self::with(delivery, &json!({}))
    }

    fn with(delivery: &str, extra: &Value) -> Self {
        Self {
            input: input(delivery, extra),
            steady: Steady::default(),
            now: 0,
            rules: vec![Rule::default(), Rule::default()],
        }
    }

    /// A second with these values.
    fn second(&mut self, q: f64, on: bool) {
        for (name, value) in [("q", q), ("on", f64::from(u8::from(on)))] {
            let name = format!("_base.{name}");
            self.input.metrics.insert(name, Reading::fresh(value));
        }
        let validated = validate(&self.input.owner, &self.input.spec);
        let right = decide(&self.input, &validated);
        let now = Duration::from_secs(self.now);
        let decisions = self.steady.settle(&self.input, &validated, right, now);
        self.input.previous.clone_from(&decisions);
        let plan = Plan::new(&self.input, &validated);
        let limits: Vec<_> = decisions
            .iter()
            .map(|d| d.quota.map(|q| (q, interval_of(&self.input, d).millis())))
            .collect();
        let groups: Vec<_> = (0..2).map(|i| plan.group("_base", i)).collect();
        let changed: Vec<bool> = (0..2).map(|i| limits[i] != self.rules[i].limit).collect();
        for (i, rule) in self.rules.iter_mut().enumerate() {
            let filled = (0..2).any(|j| changed[j] && groups[i] == groups[j]);
            let Some((quota, millis)) = limits[i] else {
                *rule = Rule::default();
                continue;
            };
            let key = ("_base".to_owned(), i32::try_from(i).unwrap());
            let span = interval_of(&self.input, &decisions[i]);
            let size = if in_steps(&plan, &key) {
                Bucket::in_steps(quota, span).tokens
            } else {
                quota
            };
            let (_, mut sum, most) = rule.through.last().copied().unwrap_or((self.now, 0.0, 0.0));
            if filled || rule.through.is_empty() {
                sum += size as f64;
                rule.fills += 1;
            }
            let rate = quota as f64 * 1000.0 / millis as f64;
            rule.through
                .push((self.now, sum + rate, most.max(rate * 60.0)));
            rule.limit = limits[i];
        }
        self.now += 1;
    }

    fn quota(&self) -> Option<i64> {
        self.rules[0].limit.map(|(quota, _)| quota)
    }
}

impl Rule {
    /// Over the whole time since the limit came on.
    fn within_bound(&self) -> Result<(), String> {
        for (i, (from, before, _)) in self.through.iter().enumerate() {
            for (to, after, most) in &self.through[i..] {
                let window = (to - from) as f64;
                let bound = 1.2 * (most + most * window / 60.0);
                if after - before > bound {
                    return Err(format!(
                        "{} in {window} s, {bound} are allowed",
                        after - before
                    ));
                }
            }
        }
        Ok(())
    }
}

#[test]
fn a_wobble_in_the_dead_band_changes_nothing() {
    for delivery in ["ECDS", "EnvoyFilter"] {
        let mut run = Run::new(delivery);
        for second in 0..120 {
            run.second(if second / 3 % 2 == 0 { 10.0 } else { 10.9 }, true);
        }
        assert_eq!(
            (run.quota(), run.rules[0].fills),
            (Some(10), 1),
            "{delivery}"
        );
    }
}

#[test]
fn a_tighter_limit_is_in_force_at_once_and_a_looser_one_after_a_window() {
    let mut run = Run::new("ECDS");
    run.second(100.0, true);
    run.second(50.0, true);
    assert_eq!(run.quota(), Some(50));
    for second in 0..60 {
        run.second(if second == 30 { 70.0 } else { 90.0 }, true);
        assert_eq!(run.quota(), Some(50), "{second}");
    }
    run.second(90.0, true);
    assert_eq!(run.quota(), Some(70), "the tightest of the window");
    // Within the dead band: after the window too, so that it is exact at rest.
    run.second(66.0, true);
    assert_eq!(run.quota(), Some(70));
    for _ in 0..60 {
        run.second(66.0, true);
    }
    assert_eq!(run.quota(), Some(66));
}

#[test]
fn a_condition_that_flaps_stays_on() {
    let mut run = Run::new("ECDS");
    for second in 0..200 {
        run.second(10.0, second / 3 % 2 == 0);
        assert_eq!(run.quota(), Some(10), "{second}");
    }
    for _ in 0..61 {
        run.second(10.0, false);
    }
    assert_eq!(run.quota(), None, "off when it was off for an interval");
    run.second(10.0, true);
    assert_eq!(run.quota(), Some(10), "and on at once");
}

#[test]
fn a_neighbour_fills_no_other_bucket_with_ecds() {
    let mut run = Run::new("ECDS");
    for second in 0..200_u32 {
        run.second(f64::from(10 + second * 37 % 90), second % 7 != 0);
    }
    assert_eq!(run.rules[1].fills, 1);
}

#[test]
fn an_edit_is_in_force_at_once() {
    let mut run = Run::new("EnvoyFilter");
    for _ in 0..5 {
        run.second(10.0, true);
        run.second(50.0, true);
    }
    assert_eq!(run.quota(), Some(10));
    run.input.owner.generation = 2;
    run.second(50.0, true);
    assert_eq!(run.quota(), Some(50));
}

#[test]
fn a_restart_changes_nothing_at_once() {
    let mut run = Run::new("ECDS");
    run.second(100.0, true);
    run.steady = Steady::restored(&run.input, Duration::from_secs(run.now));
    run.second(50.0, true);
    assert_eq!(
        run.quota(),
        Some(100),
        "how often it was filled is not known"
    );
    for _ in 0..61 {
        run.second(50.0, true);
    }
    assert_eq!(run.quota(), Some(50));
}

#[test]
fn a_window_of_none_loosens_at_once_and_still_does_not_leak() {
    let mut run = Run::with(
        "ECDS",
        &json!({"stabilization": {"window": "0s", "deadBand": 0}}),
    );
    run.second(50.0, true);
    run.second(60.0, true);
    assert_eq!(run.quota(), Some(60));
    for second in 0..200 {
        run.second(if second % 2 == 0 { 50.0 } else { 60.0 }, true);
    }
    run.rules[0].within_bound().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Metrics that jump every few seconds, both deliveries, with and without a window.
    #[test]
    fn fault_l1_no_window_lets_more_through_than_the_bound(
        values in prop::collection::vec((8_u32..200, 1_usize..12, prop::bool::weighted(0.85)), 1..40),
        ecds in any::<bool>(),
        window in prop::sample::select(vec!["0s", "5s", "60s"]),
    ) {
        let delivery = if ecds { "ECDS" } else { "EnvoyFilter" };
        let mut run = Run::with(delivery, &json!({"stabilization": {"window": window, "deadBand": 0}}));
        for (q, seconds, on) in values {
            for _ in 0..seconds {
                run.second(f64::from(q), on);
                for rule in &run.rules {
                    prop_assert!(rule.within_bound().is_ok(), "{:?}", rule.within_bound());
                }
            }
        }
    }
}
