//! Strategy `adaptive` in the engine: a service in a few lines stands behind the limit that is in force.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use trimtab_crds::limiter::{DescriptorState, DescriptorStatus};
use trimtab_kit::engine::Engine as _;
use trimtab_kit::sources::{
    Failure, MetricSource, PrometheusConfig, PrometheusSource, Row as Series,
};
use trimtab_limiter::index::V1alpha2;

use crate::fixture::{FakeSource, Fixture, base, limiter};

const PODS: usize = 2;
/// Requests per second that a pod answers in time.
const CAPACITY: f64 = 100.0;
const NAMES: [&str; 4] = [
    "adaptive.requests",
    "adaptive.within",
    "adaptive.time",
    "adaptive.cores",
];

fn series(pod: usize, labels: &[(&str, &str)], value: f64) -> Series {
    let labels = labels.iter();
    Series {
        pod: format!("a-{pod}").into(),
        labels: labels.map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        value,
    }
}

/// An engine whose source is a service.
struct Service {
    fixture: Fixture,
    queue: f64,
}

impl Service {
    fn new() -> Self {
        let source = Arc::new(FakeSource::default());
        for name in NAMES {
            source.fail(name, Failure::Empty);
        }
        let fixture = Fixture::with_sources(vec![source.clone()], source);
        fixture.service("a", PODS);
        Self {
            fixture,
            queue: 0.0,
        }
    }

    fn adaptive(options: &Value) -> Value {
        base(&[json!({"action": {"strategy": "adaptive", "adaptive": options}})])
    }

    /// Requests per second that each pod lets pass.
    fn limit(&self) -> f64 {
        let rate = |d: &DescriptorStatus| {
            let (quota, interval) = (d.quota?, d.interval?);
            Some(quota as f64 * 1000.0 / interval.millis() as f64)
        };
        let views = self.fixture.engine.views();
        let own = views.iter().find(|view| view.name == "a");
        own.into_iter()
            .flat_map(|view| &view.descriptors)
            .filter_map(rate)
            .fold(f64::MAX, f64::min)
    }

    /// Five seconds with `offered` requests per second at each pod.
    async fn run(&mut self, offered: f64) -> DescriptorStatus {
        let accepted = offered.min(self.limit());
        self.queue = (self.queue + 5.0 * (accepted - CAPACITY)).max(0.0);
        let done = if self.queue > 0.0 { CAPACITY } else { accepted };
        // Answers wait for the queue; the SLO is half a second.
        let in_time = if self.queue > 0.5 * CAPACITY {
            0.0
        } else {
            done
        };
        let wait = 0.02 + self.queue / CAPACITY;
        let both = |of: &dyn Fn(usize) -> Vec<Series>| (0..PODS).flat_map(of).collect();
        let source = &self.fixture.source;
        source.set_rows(
            "adaptive.requests",
            both(&|pod| {
                vec![
                    series(
                        pod,
                        &[("response_code", "200"), ("response_flags", "-")],
                        done,
                    ),
                    series(
                        pod,
                        &[("response_code", "429"), ("response_flags", "RL")],
                        offered - accepted,
                    ),
                ]
            }),
        );
        source.set_rows(
            "adaptive.within",
            both(&|pod| {
                vec![
                    series(pod, &[("le", "500")], in_time),
                    series(pod, &[("le", "+Inf")], done),
                ]
            }),
        );
        source.set_rows(
            "adaptive.time",
            both(&|pod| vec![series(pod, &[], done * wait * 1000.0)]),
        );
        self.fixture.tick(5).await;
        self.now()
    }

    fn now(&self) -> DescriptorStatus {
        self.fixture.view("a").descriptors[0].clone()
    }
}

fn law(d: &DescriptorStatus) -> (String, Option<f64>) {
    let adaptive = d.adaptive.clone().unwrap_or_default();
    (adaptive.state, adaptive.limit)
}

#[tokio::test]
async fn an_overload_is_held_to_the_capacity_and_let_go_afterwards() {
    let mut service = Service::new();
    let spec = Service::adaptive(&json!({"slo": "500ms", "floor": 10}));
    service.fixture.limiter("a", 1, &spec);
    for _ in 0..20 {
        let d = service.run(60.0).await;
        assert!(
            service.limit() > CAPACITY,
            "nothing is refused in calm: {d:?}"
        );
    }
    for _ in 0..30 {
        service.run(250.0).await;
    }
    let held = service.now();
    let limit = service.limit();
    assert!(
        (0.75 * CAPACITY..1.05 * CAPACITY).contains(&limit),
        "{limit}: {held:?}"
    );
    assert_eq!(held.state, DescriptorState::Limiting, "{held:?}");
    let adaptive = held.adaptive.clone().unwrap();
    assert!(
        adaptive.capacity.is_some_and(|c| c > 150.0 && c < 230.0),
        "{adaptive:?}"
    );
    assert_eq!(adaptive.offered, Some(500.0));
    assert!(
        adaptive.shed.is_some_and(|shed| shed > 250.0),
        "{adaptive:?}"
    );
    // Its rates are carried on to the moment of the decision.
    for value in ["capacity ", "offered ", "accepted "] {
        assert!(held.reason.contains(value), "{}", held.reason);
    }
    for _ in 0..20 {
        service.run(60.0).await;
    }
    assert!(service.limit() > CAPACITY, "{:?}", service.now());
    assert!(["Open", "Armed"].contains(&law(&service.now()).0.as_str()));
}

#[tokio::test]
async fn a_restart_in_mid_run_changes_nothing() {
    let spec = Service::adaptive(&json!({"slo": "500ms"}));
    let offered = |n: usize| if (10..40).contains(&n) { 250.0 } else { 60.0 };
    let mut whole = Service::new();
    whole.fixture.limiter("a", 1, &spec);
    // Each tick on which a status was written is a point to start again from.
    let (mut decisions, mut stored) = (Vec::new(), Vec::new());
    for n in 0..60 {
        decisions.push(law(&whole.run(offered(n)).await));
        let jobs = whole.fixture.jobs();
        let status = jobs.into_values().find_map(|job| job.status);
        if let Some(status) = status {
            stored.push((n, serde_json::to_value(&*status).unwrap(), whole.queue));
        }
    }
    let limiting = |n: usize| decisions[n].0 == "Limiting" || decisions[n].0 == "Draining";
    assert!(
        stored.iter().filter(|(n, _, _)| limiting(*n)).count() >= 2,
        "{decisions:?}"
    );
    for (n, status, queue) in stored {
        let mut again = Service::new();
        again.queue = queue;
        let mut object = limiter("a", 1, &spec);
        assert!(
            n < 2 || status["descriptors"][0]["adaptive"]["memory"].is_string(),
            "{status}"
        );
        object["status"] = status;
        again
            .fixture
            .clock
            .advance(Duration::from_secs(5 * (n as u64 + 1)));
        again.fixture.put::<V1alpha2>(object);
        again.fixture.engine.absorb();
        for (after, expected) in decisions.iter().enumerate().skip(n + 1) {
            let d = again.run(offered(after)).await;
            assert_eq!(
                law(&d),
                *expected,
                "restarted after tick {n}, tick {after}: {d:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_floor_and_the_largest_shed_are_held() {
    for (options, floor, shed) in [
        (json!({"slo": "500ms", "floor": 320}), 320.0, 0.95),
        (json!({"slo": "500ms", "maxShed": 40}), 1.0, 0.4),
    ] {
        let mut service = Service::new();
        let spec = Service::adaptive(&options);
        service.fixture.limiter("a", 1, &spec);
        for _ in 0..10 {
            service.run(60.0).await;
        }
        for _ in 0..20 {
            let d = service.run(250.0).await;
            let law = d.adaptive.clone().unwrap();
            let offered = law.offered.unwrap();
            // A request is counted when it is answered, so that a queue hides what is offered.
            let least = f64::max(floor, (1.0 - shed) * offered) / PODS as f64;
            assert!(service.limit() > 0.96 * least, "{options}: {d:?}");
        }
    }
}

#[tokio::test]
async fn without_metrics_the_limit_holds_and_then_moves_to_the_fallback() {
    let mut service = Service::new();
    let mut spec = Service::adaptive(&json!({"slo": "500ms", "fallback": 400}));
    spec["holdFor"] = json!("30s");
    service.fixture.limiter("a", 1, &spec);
    for _ in 0..10 {
        service.run(60.0).await;
    }
    for _ in 0..20 {
        service.run(250.0).await;
    }
    let before = service.limit();
    for name in NAMES {
        service.fixture.source.fail(name, Failure::Timeout);
    }
    service.fixture.tick(5).await;
    let held = service.now();
    assert_eq!(
        (held.state, service.limit()),
        (DescriptorState::Held, before),
        "{held:?}"
    );
    for _ in 0..30 {
        service.fixture.tick(5).await;
    }
    let d = service.now();
    assert_eq!(
        (d.state, service.limit()),
        (DescriptorState::Fallback, 200.0),
        "{d:?}"
    );
}

#[tokio::test]
async fn nothing_is_limited_before_anything_is_measured_and_the_status_says_so() {
    let service = Service::new();
    service
        .fixture
        .limiter("a", 1, &Service::adaptive(&json!({})));
    for _ in 0..5 {
        service.fixture.tick(5).await;
    }
    let d = service.now();
    assert_eq!(
        (d.state, d.quota),
        (DescriptorState::Unknown, None),
        "{d:?}"
    );
    let view = service.fixture.view("a");
    assert_ne!(view.ready, "True");
}

#[tokio::test]
async fn of_two_adaptive_limiters_of_the_same_pods_the_first_decides() {
    let service = Service::new();
    let spec = Service::adaptive(&json!({}));
    service.fixture.limiter("a", 1, &spec);
    let mut other = spec.clone();
    other["workloadSelector"] = json!({"app": "a"});
    service.fixture.limiter("b", 1, &other);
    service.fixture.tick(5).await;
    service.fixture.tick(5).await;
    let refused = service.fixture.view("b").descriptors[0].clone();
    assert_eq!(refused.state, DescriptorState::Refused, "{refused:?}");
    assert!(
        refused.reason.contains("SmartLimiter default/a"),
        "{}",
        refused.reason
    );
    assert_ne!(service.now().state, DescriptorState::Refused);
    let fixed = base(&[
        json!({"condition": "true", "action": {"quota": "9", "fill_interval": {"seconds": 1}}}),
    ]);
    service.fixture.limiter("a", 2, &fixed);
    service.fixture.tick(5).await;
    service.fixture.tick(5).await;
    let now = service.fixture.view("b").descriptors[0].clone();
    assert_ne!(now.state, DescriptorState::Refused, "{now:?}");
}

#[tokio::test]
async fn many_limiters_ask_for_as_much_as_one() {
    let config = PrometheusConfig::new("http://127.0.0.1:9");
    let source: Arc<dyn MetricSource> = Arc::new(PrometheusSource::new(config).unwrap());
    let sources = vec![source.clone()];
    let fixture = Fixture::with_sources(sources, Arc::new(FakeSource::default()));
    for n in 0..200 {
        let name = format!("svc-{n}");
        fixture.service(&name, 1);
        let slo = if n % 2 == 0 { "500ms" } else { "1s" };
        let spec = Service::adaptive(&json!({"slo": slo}));
        fixture.limiter(&name, 1, &spec);
    }
    fixture.engine.absorb();
    let book = fixture.engine.sample_requests(0);
    assert_eq!(book.sample_requests.len(), 200);
    // Nobody listens there, and each query counts all the same.
    let samples = source.sample(&book.sample_requests).await;
    assert_eq!(samples.queries, NAMES.len());
}
