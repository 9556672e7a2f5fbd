use proptest::prelude::*;

use super::*;
use crate::sources::PodFacts;
use crate::sources::prometheus::config::{Handler, HandlerType, PrometheusConfig};
use crate::sources::prometheus::plan::plan;

fn series(labels: &[(&str, &str)], value: f64) -> Series {
    Series {
        labels: labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        value,
        stale: false,
    }
}

fn sample_request(id: u32, pods: &[&str], metrics: &[&str]) -> SampleRequest {
    SampleRequest {
        id: SampleRequestId(id),
        set: "_base".into(),
        namespace: "ns".into(),
        service: "svc".into(),
        pods: pods
            .iter()
            .map(|n| PodFacts::new("ns", n, true))
            .collect::<Vec<_>>()
            .into(),
        metrics: metrics.iter().map(|m| (*m).to_owned()).collect(),
        ..SampleRequest::default()
    }
}

fn config(kind: HandlerType) -> PrometheusConfig {
    let mut config = PrometheusConfig::new("http://p");
    config
        .handlers
        .insert("h".to_owned(), Handler::new("q", kind));
    config
}

fn run(
    kind: HandlerType,
    answer: &Answer,
    sample_request: SampleRequest,
) -> BTreeMap<String, Sample> {
    let config = config(kind);
    let sample_requests = [sample_request];
    let plan = plan(&config, &sample_requests);
    let answers = vec![answer.clone(); plan.queries.len()];
    let (values, _) = evaluate(&plan, &answers, &sample_requests);
    values.into_iter().map(|((_, n), s)| (n, s)).collect()
}

#[test]
fn a_value_needs_one_finite_series() {
    let one = |v| run(HandlerType::Value, &Ok(v), sample_request(1, &[], &["h"]))["h"].clone();
    assert_eq!(one(vec![]), Err(Failure::Empty));
    assert_eq!(one(vec![series(&[], 2.0)]), Ok(2.0));
    assert_eq!(
        one(vec![series(&[], f64::INFINITY)]),
        Err(Failure::NotFinite)
    );
    assert_eq!(
        one(vec![series(&[], 1.0), series(&[("a", "b")], 1.0)]),
        Err(Failure::Multiple(2))
    );
}

#[test]
fn pods_are_joined_and_other_pods_ignored() {
    let pod = |n, v| series(&[("namespace", "ns"), ("pod", n)], v);
    let foreign = series(&[("namespace", "other"), ("pod", "a")], 100.0);
    let answer = Ok(vec![
        pod("a", 1.0),
        pod("b", 3.0),
        pod("z", 50.0),
        foreign,
        pod("idle", f64::NAN),
    ]);
    let names = ["h", "h.avg", "h.sum", "h.max", "h.min", "h.count"];
    let got = run(
        HandlerType::PerPod,
        &answer,
        sample_request(1, &["a", "b", "new", "idle"], &names),
    );
    assert_eq!(
        names.map(|n| got[n].clone()),
        [2.0, 2.0, 4.0, 3.0, 1.0, 2.0].map(Ok)
    );
}

#[test]
fn a_broken_or_doubled_pod_is_never_hidden() {
    let pod = |n, v| series(&[("namespace", "ns"), ("pod", n)], v);
    let d = || sample_request(1, &["a", "b"], &["h"]);
    assert_eq!(
        run(
            HandlerType::PerPod,
            &Ok(vec![pod("a", 1.0), pod("b", f64::INFINITY)]),
            d()
        )["h"],
        Err(Failure::NotFinite)
    );
    assert_eq!(
        run(
            HandlerType::PerPod,
            &Ok(vec![pod("a", 1.0), pod("a", 2.0)]),
            d()
        )["h"],
        Err(Failure::Multiple(2))
    );
    assert_eq!(
        run(HandlerType::PerPod, &Ok(vec![pod("a", f64::NAN)]), d())["h"],
        Err(Failure::NotFinite)
    );
    assert_eq!(
        run(HandlerType::PerPod, &Ok(vec![]), d())["h"],
        Err(Failure::Empty)
    );
    assert_eq!(
        run(HandlerType::PerPod, &Err(Failure::Timeout), d())["h"],
        Err(Failure::Timeout)
    );
}

#[test]
fn stale_series_are_left_out_and_named_when_nothing_else_is_there() {
    let pod = |n, v| series(&[("namespace", "ns"), ("pod", n), ("service", "svc")], v);
    let old = |n| Series {
        stale: true,
        ..pod(n, 9.0)
    };
    let mixed: Answer = Ok(vec![pod("a", 1.0), old("a"), old("b")]);
    let only_old: Answer = Ok(vec![old("a"), old("b")]);
    for kind in [
        HandlerType::Value,
        HandlerType::PerPod,
        HandlerType::PerService,
    ] {
        let d = || sample_request(1, &["a", "b"], &["h"]);
        assert_eq!(run(kind, &mixed, d())["h"], Ok(1.0), "{kind:?}");
        assert_eq!(
            run(kind, &only_old, d())["h"],
            Err(Failure::Stale),
            "{kind:?}"
        );
    }
    let got = run(
        HandlerType::PerPod,
        &only_old,
        sample_request(1, &["a"], &["h.count"]),
    );
    assert_eq!(got["h.count"], Err(Failure::Stale));
}

#[test]
fn services_match_by_short_and_full_name() {
    let short = series(&[("namespace", "ns"), ("service", "svc")], 1.0);
    let full = series(&[("service", "svc.ns.svc.cluster.local")], 2.0);
    let foreign = series(&[("service", "svc.other.svc.cluster.local")], 9.0);
    let got = run(
        HandlerType::PerService,
        &Ok(vec![short, full, foreign.clone()]),
        sample_request(1, &[], &["h", "h.sum"]),
    );
    assert_eq!(
        (&got["h"], &got["h.sum"]),
        (&Err(Failure::Multiple(2)), &Ok(3.0))
    );
    assert_eq!(
        run(
            HandlerType::PerService,
            &Ok(vec![foreign]),
            sample_request(1, &[], &["h"])
        )["h"],
        Err(Failure::Empty)
    );
}

#[test]
fn groups_add_names() {
    let answer = Ok(vec![
        series(&[("version", "v1")], 1.0),
        series(&[("version", "v2")], f64::NAN),
    ]);
    let got = run(HandlerType::Group, &answer, sample_request(1, &[], &["h"]));
    assert_eq!(got.len(), 2);
    assert_eq!(
        (&got[r#"{version="v1"}"#], &got[r#"{version="v2"}"#]),
        (&Ok(1.0), &Err(Failure::NotFinite))
    );
    let got = run(
        HandlerType::Group,
        &answer,
        sample_request(1, &[], &["{version='v1'}", r#"{version="v3"}"#]),
    );
    assert_eq!(
        (&got["{version='v1'}"], &got[r#"{version="v3"}"#]),
        (&Ok(1.0), &Err(Failure::Empty))
    );
}

proptest! {
    // The hash join must agree with the obvious nested loop.
    #[test]
    fn join_agrees_with_a_nested_loop(
        mesh in prop::collection::btree_map((0u8..3, 0u8..8), -1e3..1e3f64, 0..20),
        mine in prop::collection::btree_set((0u8..3, 0u8..8), 0..12),
    ) {
        let answer: Answer = Ok(mesh.iter().map(|((n, p), v)| {
            series(&[("namespace", &format!("n{n}")), ("pod", &format!("p{p}"))], *v)
        }).collect());
        let mut d = sample_request(1, &[], &["h.sum", "h.max", "h.count"]);
        d.pods = mine.iter().map(|(n, p)| PodFacts::new(&format!("n{n}"), &format!("p{p}"), true)).collect::<Vec<_>>().into();
        let expected: Vec<f64> = mine.iter().filter_map(|k| mesh.get(k).copied()).collect();
        let got = run(HandlerType::PerPod, &answer, d);
        prop_assert_eq!(&got["h.count"], &Ok(expected.len() as f64));
        if expected.is_empty() {
            prop_assert_eq!(&got["h.sum"], &Err(Failure::Empty));
        } else {
            prop_assert_eq!(&got["h.sum"], &Ok(expected.iter().sum()));
            prop_assert_eq!(&got["h.max"], &Ok(expected.iter().copied().fold(f64::MIN, f64::max)));
        }
    }
}

#[test]
fn a_thousand_demands_share_a_grouped_query_and_get_their_own_rows() {
    let grouped = Handler::new("sum by (namespace, pod, code) (r)", HandlerType::PerPod);
    let grouped = Arc::new(BTreeMap::from([("g".to_owned(), grouped)]));
    let requests: Vec<_> = (0..1000)
        .map(|i| SampleRequest {
            grouped: grouped.clone(),
            rows: true,
            ..sample_request(i, &[if i % 2 == 0 { "a" } else { "b" }], &["g"])
        })
        .collect();
    let config = PrometheusConfig::new("http://p");
    let plan = plan(&config, &requests);
    assert_eq!(plan.queries.len(), 1);
    let one =
        |pod, code, value| series(&[("namespace", "ns"), ("pod", pod), ("code", code)], value);
    let answers = [Ok(vec![
        one("a", "200", 1.0),
        one("a", "429", 2.0),
        one("a", "500", f64::NAN),
    ])];
    let (values, rows) = evaluate(&plan, &answers, &requests);
    let key = |id| (SampleRequestId(id), "g".to_owned());
    assert_eq!(values[&key(0)], Ok(3.0));
    let codes: Vec<&str> = rows[&key(998)].iter().map(|r| &*r.labels["code"]).collect();
    assert_eq!(codes, ["200", "429"]);
    assert_eq!(values[&key(1)], Err(Failure::Empty));
}

#[test]
fn one_index_serves_all_demands_of_a_query() {
    let config = config(HandlerType::PerPod);
    let sample_requests: Vec<_> = (0..50)
        .map(|i| sample_request(i, &[if i % 2 == 0 { "a" } else { "b" }], &["h"]))
        .collect();
    let plan = plan(&config, &sample_requests);
    assert_eq!(plan.queries.len(), 1);
    let answers = [Ok(vec![
        series(&[("namespace", "ns"), ("pod", "a")], 1.0),
        series(&[("namespace", "ns"), ("pod", "b")], 2.0),
    ])];
    let (values, rows) = evaluate(&plan, &answers, &sample_requests);
    assert!(rows.is_empty(), "nobody asks for them");
    let got: Vec<_> = values.values().cloned().collect();
    let expected: Vec<Sample> = (0..50)
        .map(|i| Ok(if i % 2 == 0 { 1.0 } else { 2.0 }))
        .collect();
    assert_eq!(got, expected);
}
