//! With delivery ECDS the default configurations of filters limit to what was decided last. They are in listeners, so they follow seldom.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use trimtab_crds::istio::EnvoyFilter;
use trimtab_kit::engine::Engine as _;
use trimtab_limiter::index::{DefaultLimits, Form, LimiterKey, V1alpha2};
use trimtab_limiter::translate::default_limits;

use crate::fixture::{Fixture, limiter};

fn rule(quota: &str, seconds: u32) -> Value {
    json!({"condition": "true", "action": {"quota": quota, "fill_interval": {"seconds": seconds}}})
}

fn spec(rules: &[Value]) -> Value {
    json!({"delivery": "ECDS", "sets": {"_base": {"descriptor": rules}}})
}

/// A limiter of 100 and the load in 10 s.
fn moving(load: f64) -> Fixture {
    let fixture = Fixture::new();
    fixture.service("a", 1);
    fixture.source.set("cpu", load);
    fixture.limiter("a", 1, &spec(&[rule("100+{cpu}", 10)]));
    fixture
}

/// The objects that are written next, as the API server would show them.
fn written(fixture: &Fixture) -> Vec<EnvoyFilter> {
    let jobs = fixture.jobs().into_values();
    jobs.filter_map(|job| job.desired).flatten().collect()
}

/// Requests in ten seconds that the defaults let pass, by descriptor.
fn limits(objects: &[EnvoyFilter]) -> Vec<i64> {
    let all: BTreeMap<_, _> = objects
        .iter()
        .filter_map(default_limits)
        .flatten()
        .collect();
    all.values()
        .map(|b| (b.tokens * 10_000 + b.every / 2) / b.every)
        .collect()
}

fn a() -> LimiterKey {
    LimiterKey {
        namespace: "default".to_owned(),
        name: "a".to_owned(),
        form: Form::V1alpha2,
    }
}

async fn ticks(fixture: &Fixture, seconds: u64) {
    for _ in 0..seconds {
        fixture.tick(1).await;
    }
}

#[tokio::test]
async fn defaults_follow_at_once_then_every_ten_minutes() {
    let fixture = moving(0.0);
    fixture.tick(1).await;
    let first = written(&fixture);
    assert_eq!(limits(&first), [100], "the first decision");

    fixture.source.set("cpu", 100.0);
    ticks(&fixture, 500).await;
    assert_eq!(fixture.quotas("a"), [Some(200)]);
    assert_eq!(written(&fixture), first, "no object changes");
    ticks(&fixture, 110).await;
    let second = written(&fixture);
    assert_eq!(limits(&second), [200]);

    fixture.source.set("cpu", 115.0);
    ticks(&fixture, 1300).await;
    assert_eq!(fixture.quotas("a"), [Some(215)]);
    assert_eq!(written(&fixture), second, "within the dead band");

    let edited = spec(&[rule("300+{cpu}", 10)]);
    fixture.limiter("a", 2, &edited);
    fixture.tick(1).await;
    assert_eq!(fixture.quotas("a"), [Some(415)]);
    assert_eq!(limits(&written(&fixture)), [200], "an edit of the quota");
    ticks(&fixture, 62).await;
    assert_eq!(limits(&written(&fixture)), [415]);
}

#[tokio::test]
async fn a_restart_keeps_the_defaults_that_the_object_has() {
    let before = moving(0.0);
    before.tick(1).await;
    before.source.set("cpu", 100.0);
    ticks(&before, 30).await;
    let jobs = before.jobs().into_values().next_back();
    let job = jobs.expect("a change");
    let (live, status) = (job.desired.expect("objects"), job.status);
    assert_eq!(limits(&live), [100]);

    let after = Fixture::new();
    after.service("a", 1);
    after.source.set("cpu", 100.0);
    let mut object = limiter("a", 1, &spec(&[rule("100+{cpu}", 10)]));
    object["status"] = json!(status);
    for filter in &live {
        after.put::<DefaultLimits>(json!(filter));
    }
    after.put::<V1alpha2>(object);
    after.engine.absorb();
    assert_eq!(written(&after), live, "nothing is written");
    ticks(&after, 590).await;
    assert_eq!(after.quotas("a"), [Some(200)]);
    let desired = after.engine.desired(&a()).expect("objects");
    assert_eq!(desired, live, "the time between two begins anew");
    assert!(written(&after).is_empty(), "nothing to write");
    ticks(&after, 20).await;
    assert_eq!(limits(&written(&after)), [200]);
}

/// A refresh fills the buckets of all filters of the listener: those of an hour may be filled once in five.
#[tokio::test]
async fn a_refresh_waits_for_the_buckets_that_it_fills() {
    for other in ["a rule", "a limiter of the same pods"] {
        let fixture = moving(0.0);
        let hour = rule("1000", 3600);
        if other == "a rule" {
            fixture.limiter("a", 1, &spec(&[rule("100+{cpu}", 10), hour]));
        } else {
            let spec = json!({"workloadSelector": {"app": "a"},
                "sets": {"_base": {"descriptor": [hour]}}});
            fixture.limiter("b", 1, &spec);
        }
        fixture.tick(1).await;
        fixture.jobs();
        let mut refreshes = Vec::new();
        for minute in 0..480_u32 {
            let load = f64::from(minute / 11 % 2) * 100.0;
            fixture.source.set("cpu", load);
            fixture.tick(60).await;
            let objects = written(&fixture);
            let objects: Vec<EnvoyFilter> = objects
                .into_iter()
                .filter(|o| o.metadata.name.as_deref() == Some("a.default.ratelimit"))
                .collect();
            let now = limits(&objects);
            if !now.is_empty() && refreshes.last().is_none_or(|(_, last)| *last != now) {
                refreshes.push((minute, now));
            }
        }
        let times: Vec<u32> = refreshes.iter().map(|(minute, _)| *minute).collect();
        assert!((2..=3).contains(&times.len()), "{other}: {times:?}");
        for pair in times.windows(2).skip(1) {
            assert!(pair[1] - pair[0] >= 300, "{other}: {times:?}");
        }
    }
}
