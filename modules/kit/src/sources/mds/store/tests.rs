use proptest::prelude::*;

use super::*;
use crate::clock::ManualClock;
use crate::sources::PodFacts;
use crate::sources::mds::well_known;

fn store(max_series: usize) -> (MdsStore, ManualClock) {
    let clock = ManualClock::default();
    (
        MdsStore::new(
            MdsConfig {
                max_series,
                ..MdsConfig::default()
            },
            Arc::new(clock.clone()),
        ),
        clock,
    )
}

#[test]
fn fault_t6_series_are_bounded_by_what_they_cost() {
    let clock = ManualClock::default();
    let config = MdsConfig {
        max_bytes: 100_000,
        ..MdsConfig::default()
    };
    let store = MdsStore::new(config, Arc::new(clock.clone()));
    let own_names: Vec<Series> = (0..2000)
        .map(|i| pod("p", &format!("own_{i:04}_{}", "x".repeat(200)), 1.0))
        .collect();
    let response = put(&store, own_names.clone());
    assert!((10..50).contains(&response.accepted), "{response:?}");
    assert_eq!(response.rejected.len(), 1000, "an answer is bounded, too");
    assert!(response.rejected[0].reason.contains("maxBytes"));
    assert!(refused(&store, pod("q", "other", 1.0)).contains("maxBytes"));
    // What is there is brought up to date.
    assert_eq!(put(&store, own_names[..5].to_vec()).accepted, 5);
    clock.advance(Duration::from_secs(60));
    let shared = (0..200).map(|i| pod(&format!("p{i}"), "shared", 1.0));
    assert_eq!(put(&store, shared.collect()).accepted, 200);
    let (bytes, counted) = {
        let mut inner = store.inner.write();
        let before = inner.bytes;
        inner.sweep(Duration::ZERO, Duration::ZERO);
        (before, inner.bytes)
    };
    assert_eq!(bytes, counted);
}

fn series(name: &str, target: Target, value: f64) -> Series {
    Series {
        name: name.into(),
        namespace: "ns".into(),
        target: Some(target),
        value,
        ttl: None,
        at: None,
    }
}

fn service(name: &str, value: f64) -> Series {
    series(name, Target::Service("svc".into()), value)
}

fn pod(pod: &str, name: &str, value: f64) -> Series {
    series(name, Target::Pod(pod.into()), value)
}

fn put(store: &MdsStore, list: Vec<Series>) -> PushResponse {
    store.put(PushRequest { series: list }, &Reach::All)
}

#[test]
fn fault_t7_a_workload_pushes_for_its_own_namespace() {
    let store = MdsStore::new(MdsConfig::default(), Arc::new(ManualClock::default()));
    let reach = Reach::Namespace("evil".to_owned());
    let own = Series {
        namespace: "evil".into(),
        ..service("load", 1.0)
    };
    let batch = PushRequest {
        series: vec![service("load", 9.0), own],
    };
    let response = store.put(batch, &reach);
    assert_eq!((response.accepted, response.rejected.len()), (1, 1));
    let reason = &response.rejected[0].reason;
    assert!(reason.contains("metrics.mds.trustedNamespaces"), "{reason}");
    assert_eq!(store.len(), 1);
}

fn refused(store: &MdsStore, one: Series) -> String {
    let response = put(store, vec![one]);
    assert_eq!(response.accepted, 0);
    response.rejected[0].reason.clone()
}

fn sample_request(pods: &[&str]) -> SampleRequest {
    SampleRequest {
        namespace: "ns".into(),
        service: "svc".into(),
        pods: pods
            .iter()
            .map(|n| PodFacts::new("ns", n, true))
            .collect::<Vec<_>>()
            .into(),
        ..SampleRequest::default()
    }
}

fn read(store: &MdsStore, name: &str, pods: &[&str]) -> Option<Sample> {
    store.read().sample(&sample_request(pods), name)
}

#[test]
fn a_service_value_is_direct_and_pods_are_aggregated() {
    let (store, _) = store(100);
    put(
        &store,
        vec![
            pod("a", "load", 1.0),
            pod("b", "load", 4.0),
            pod("z", "load", 90.0),
        ],
    );
    let pods = ["a", "b", "silent"];
    let got = ["load", "load.sum", "load.max", "load.min", "load.count"]
        .map(|n| read(&store, n, &pods).unwrap());
    assert_eq!(got, [2.5, 5.0, 4.0, 1.0, 2.0].map(Ok));
    put(&store, vec![service("load", 7.0)]);
    assert_eq!(read(&store, "load", &pods), Some(Ok(7.0)));
    assert_eq!(read(&store, "load.max", &pods), Some(Ok(4.0)));
}

#[test]
fn unknown_names_are_left_to_others_and_known_ones_are_empty() {
    let (store, _) = store(100);
    assert_eq!(read(&store, "load", &["a"]), None);
    put(
        &store,
        vec![series("load", Target::Service("other".into()), 1.0)],
    );
    assert_eq!(read(&store, "load", &["a"]), Some(Err(Failure::Empty)));
    assert_eq!(
        store.names(),
        [
            "load",
            "load.avg",
            "load.count",
            "load.max",
            "load.min",
            "load.sum"
        ]
    );
}

#[test]
fn values_expire_then_are_forgotten() {
    let (store, clock) = store(100);
    put(&store, vec![service("x", 1.0), pod("a", "y", 2.0)]);
    clock.advance(Duration::from_millis(29_999));
    assert_eq!(read(&store, "x", &[]), Some(Ok(1.0)));
    clock.advance(Duration::from_millis(1));
    assert_eq!(read(&store, "x", &[]), Some(Err(Failure::Stale)));
    assert_eq!(read(&store, "y", &["a"]), Some(Err(Failure::Stale)));
    assert_eq!(read(&store, "y.count", &["a"]), Some(Err(Failure::Stale)));
    assert_eq!(store.len(), 2);
    clock.advance(REMEMBERED);
    assert_eq!(read(&store, "x", &[]), None);
    assert!(store.is_empty());
    assert!(store.inner.read().namespaces.is_empty());
}

#[test]
fn age_counts_against_the_time_to_live() {
    let (store, clock) = store(100);
    let seconds = clock.now().as_second() - 20;
    put(
        &store,
        vec![Series {
            at: Some(well_known::Timestamp { seconds, nanos: 0 }),
            ..service("x", 1.0)
        }],
    );
    clock.advance(Duration::from_secs(9));
    assert_eq!(read(&store, "x", &[]), Some(Ok(1.0)));
    clock.advance(Duration::from_secs(1));
    assert_eq!(read(&store, "x", &[]), Some(Err(Failure::Stale)));
}

#[test]
fn a_live_pod_stands_in_for_an_expired_service_value() {
    let (store, clock) = store(100);
    put(&store, vec![service("x", 1.0)]);
    clock.advance(Duration::from_secs(31));
    put(&store, vec![pod("a", "x", 5.0)]);
    assert_eq!(read(&store, "x", &["a"]), Some(Ok(5.0)));
}

#[test]
fn a_full_store_refuses_with_the_reason_and_reuses_expired_room() {
    let (store, clock) = store(2);
    let response = put(
        &store,
        vec![
            service("a", 1.0),
            service("b", 1.0),
            service("c", 1.0),
            service("a", 2.0),
        ],
    );
    assert_eq!((response.accepted, response.rejected.len()), (3, 1));
    assert_eq!(response.rejected[0].index, 2);
    assert!(
        response.rejected[0].reason.contains("maxSeries"),
        "{}",
        response.rejected[0].reason
    );
    assert_eq!(read(&store, "a", &[]), Some(Ok(2.0)));
    clock.advance(Duration::from_secs(31));
    assert_eq!(put(&store, vec![service("c", 3.0)]).accepted, 1);
    assert_eq!(store.len(), 1);
}

/// Puts a good series that `spoil` made bad, and looks for `word` in the reason.
fn assert_refused(word: &str, spoil: impl FnOnce(&mut Series)) {
    let (store, _) = store(100);
    let mut one = service("x", 1.0);
    spoil(&mut one);
    let response = put(&store, vec![service("x", 1.0), one, service("y", 1.0)]);
    assert_eq!(
        (response.accepted, response.rejected.len()),
        (2, 1),
        "{word}"
    );
    assert_eq!(response.rejected[0].index, 1);
    let reason = &response.rejected[0].reason;
    assert!(reason.contains(word), "{reason}");
}

#[test]
fn bad_names_and_values_are_refused_alone() {
    for name in ["", "9x", "a-b", ".a", "x y", &"x".repeat(300)] {
        assert_refused("metric name", |s| s.name = name.to_owned());
    }
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_refused("NaN", |s| s.value = value);
    }
    assert_refused("namespace", |s| s.namespace.clear());
    assert_refused("target", |s| s.target = None);
    assert_refused("target", |s| s.target = Some(Target::Pod(String::new())));
}

#[test]
fn bad_times_are_refused_alone() {
    for seconds in [0, -5, 3601, i64::MAX] {
        let ttl = well_known::Duration { seconds, nanos: 0 };
        assert_refused("ttl", |s| s.ttl = Some(ttl));
    }
    let now = ManualClock::default().now().as_second();
    for (seconds, word) in [
        (now + 61, "clock"),
        (i64::MAX, "clock"),
        (-1, "expired"),
        (now - 30, "expired"),
    ] {
        let at = well_known::Timestamp { seconds, nanos: 0 };
        assert_refused(word, |s| s.at = Some(at));
    }
}

#[test]
fn late_values_do_not_replace_newer_ones() {
    let (store, clock) = store(100);
    let now = clock.now().as_second();
    let at = |seconds, value| Series {
        at: Some(well_known::Timestamp { seconds, nanos: 0 }),
        ..service("x", value)
    };
    assert_eq!(put(&store, vec![at(now - 5, 1.0)]).accepted, 1);
    assert!(refused(&store, at(now - 6, 2.0)).contains("order"));
    assert_eq!(read(&store, "x", &[]), Some(Ok(1.0)));
    assert_eq!(put(&store, vec![service("x", 4.0)]).accepted, 1);
    // A pusher whose clock runs ahead a little is believed, but its value lives no longer.
    assert_eq!(put(&store, vec![at(now + 50, 3.0)]).accepted, 1);
    clock.advance(Duration::from_secs(30));
    assert_eq!(read(&store, "x", &[]), Some(Err(Failure::Stale)));
}

proptest! {
    // The counters that bound the store must follow its content through any history.
    #[test]
    fn counts_follow_content(steps in prop::collection::vec((0u8..4, 0u8..3, any::<bool>(), 1i64..90, 0u64..60), 1..60)) {
        let (store, clock) = store(7);
        for (target, name, is_pod, ttl, dt) in steps {
            clock.advance(Duration::from_secs(dt));
            let target = if is_pod { Target::Pod(format!("t{target}")) } else { Target::Service(format!("t{target}")) };
            let mut one = series(&format!("m{name}"), target, 1.0);
            one.ttl = Some(well_known::Duration { seconds: ttl, nanos: 0 });
            put(&store, vec![one]);
            drop(store.read());
            let inner = store.inner.read();
            let mut names: BTreeMap<Box<str>, usize> = BTreeMap::new();
            let metrics = inner.namespaces.values().flat_map(|n| n.services.values().chain(n.pods.values()));
            for name in metrics.flat_map(BTreeMap::keys) {
                *names.entry(name.clone()).or_default() += 1;
            }
            prop_assert_eq!(names.values().sum::<usize>(), inner.series);
            prop_assert_eq!(&names, &inner.names);
            prop_assert!(inner.series <= 7);
        }
    }
}
