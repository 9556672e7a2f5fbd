//! Gives each demand its values from the answers of a tick. Pure; O(series + pods).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::config::{Aggregate, Labels};
use super::plan::{Plan, Reduction, Want};
use super::series::{Answer, Series};
use crate::sources::{
    Failure, MetricName, QueryCounts, Row, Sample, SampleRequest, SampleRequestId, finite,
};

/// The series of one answer by the object that they are about.
type Index<'a> = HashMap<(&'a str, &'a str), Vec<&'a Series>>;

/// An index per query, kind and label names, so that many demands of one query share it.
#[derive(Default)]
struct Indexes<'a> {
    pods: HashMap<(usize, &'a Labels), Index<'a>>,
    services: HashMap<(usize, &'a Labels), Index<'a>>,
    groups: HashMap<usize, BTreeMap<String, Sample>>,
}

/// By demand and name.
type ByName<T> = BTreeMap<(SampleRequestId, MetricName), T>;

/// The values of all wants, and the series behind those whose demands ask for them. `answers` is parallel to the queries of the plan.
pub(crate) fn evaluate(
    plan: &Plan<'_>,
    answers: &[Answer],
    sample_requests: &[SampleRequest],
) -> (ByName<Sample>, ByName<Vec<Row>>) {
    let (mut values, mut rows) = (BTreeMap::new(), BTreeMap::new());
    let mut indexes = Indexes::default();
    for want in &plan.wants {
        let sample_request = &sample_requests[want.sample_request];
        let answer = match &want.query {
            Ok(index) => match &answers[*index] {
                Ok(series) => Ok((*index, series.as_slice())),
                Err(failure) => Err(failure.clone()),
            },
            Err(failure) => Err(failure.clone()),
        };
        let answer = answer.map_err(|failure| told(failure, want, sample_request));
        match answer {
            Ok((query, series)) if sample_request.rows => {
                let found = indexes.rows(want, sample_request, query, series);
                let key = (sample_request.id, want.name.to_owned());
                // Which rows make up a number is the caller's to say.
                let sum = if found.is_empty() {
                    Err(Failure::Empty)
                } else {
                    finite(found.iter().map(|row| row.value).sum())
                };
                values.insert(key.clone(), sum);
                rows.insert(key, found);
            }
            Ok((query, series)) => indexes.fill(&mut values, want, sample_request, query, series),
            Err(failure) => put(&mut values, sample_request.id, want.name, Err(failure)),
        }
    }
    (values, rows)
}

/// A refused query of a limiter names the limiter and the metric: in a log nobody else does.
fn told(failure: Failure, want: &Want<'_>, sample_request: &SampleRequest) -> Failure {
    match failure {
        Failure::Error(text) if want.own => Failure::Error(format!(
            "query {} of {}: {text}",
            want.name,
            sample_request.limiter()
        )),
        other => other,
    }
}

impl<'a> Indexes<'a> {
    /// The usable series of a demand, those of its pods in their order.
    fn rows(
        &mut self,
        want: &Want<'a>,
        sample_request: &SampleRequest,
        query: usize,
        series: &'a [Series],
    ) -> Vec<Row> {
        let row = |pod: &Arc<str>, one: &Series| {
            (!one.stale && one.value.is_finite()).then(|| Row {
                pod: pod.clone(),
                labels: one.labels.clone(),
                value: one.value,
            })
        };
        let nobody: Arc<str> = "".into();
        match &want.take {
            Reduction::Pods { labels, .. } => {
                let index = self
                    .pods
                    .entry((query, labels))
                    .or_insert_with(|| pod_index(series, labels));
                let pods = sample_request.pods.iter();
                pods.flat_map(|pod| {
                    let of_pod = index.get(&(pod.namespace.as_ref(), pod.name.as_ref()));
                    of_pod
                        .into_iter()
                        .flatten()
                        .filter_map(|one| row(&pod.name, one))
                })
                .collect()
            }
            Reduction::Service { labels, .. } => {
                let index = self
                    .services
                    .entry((query, labels))
                    .or_insert_with(|| service_index(series, labels));
                let key = (
                    sample_request.namespace.as_str(),
                    sample_request.service.as_str(),
                );
                let of_service = index.get(&key).into_iter().flatten();
                of_service.filter_map(|one| row(&nobody, one)).collect()
            }
            Reduction::Value | Reduction::AllSeries | Reduction::Series(_) => {
                series.iter().filter_map(|one| row(&nobody, one)).collect()
            }
        }
    }

    fn fill(
        &mut self,
        values: &mut BTreeMap<(SampleRequestId, MetricName), Sample>,
        want: &Want<'a>,
        sample_request: &SampleRequest,
        query: usize,
        series: &'a [Series],
    ) {
        let sample = match &want.take {
            Reduction::Value => single(series),
            Reduction::Pods { labels, aggregate } => {
                let index = self
                    .pods
                    .entry((query, labels))
                    .or_insert_with(|| pod_index(series, labels));
                over_pods(index, sample_request, *aggregate)
            }
            Reduction::Service { labels, aggregate } => {
                let index = self
                    .services
                    .entry((query, labels))
                    .or_insert_with(|| service_index(series, labels));
                over_service(index, sample_request, *aggregate)
            }
            Reduction::Series(name) => {
                let group = self
                    .groups
                    .entry(query)
                    .or_insert_with(|| group_index(series));
                group.get(name).cloned().unwrap_or(Err(Failure::Empty))
            }
            Reduction::AllSeries => {
                let group = self
                    .groups
                    .entry(query)
                    .or_insert_with(|| group_index(series));
                if !group.is_empty() {
                    for (name, sample) in group {
                        put(values, sample_request.id, name, sample.clone());
                    }
                    return;
                }
                Err(Failure::Empty)
            }
        };
        put(values, sample_request.id, want.name, sample);
    }
}

/// Several groups may be asked for one raw series name: a value from any of them is kept.
fn put(
    values: &mut BTreeMap<(SampleRequestId, MetricName), Sample>,
    id: SampleRequestId,
    name: &str,
    sample: Sample,
) {
    let slot = values
        .entry((id, name.to_owned()))
        .or_insert_with(|| sample.clone());
    // "Not there" of one group must not hide that another one could not be asked.
    let better = matches!(
        (&*slot, &sample),
        (Err(_), Ok(_)) | (Err(Failure::Empty), Err(_))
    );
    if better {
        *slot = sample;
    }
}

fn single(series: &[Series]) -> Sample {
    match live(series.iter())?.as_slice() {
        [] => Err(Failure::Empty),
        [one] => finite(*one),
        many => Err(Failure::Multiple(many.len())),
    }
}

/// The values that may be used; stale when there are only others.
fn live<'s>(series: impl Iterator<Item = &'s Series>) -> Result<Vec<f64>, Failure> {
    let (mut values, mut stale) = (Vec::new(), false);
    for one in series {
        if one.stale {
            stale = true;
        } else {
            values.push(one.value);
        }
    }
    if values.is_empty() && stale {
        return Err(Failure::Stale);
    }
    Ok(values)
}

fn pod_index<'a>(series: &'a [Series], labels: &Labels) -> Index<'a> {
    let mut index = Index::with_capacity(series.len());
    for one in series {
        index
            .entry((one.label(&labels.namespace), one.label(&labels.pod)))
            .or_default()
            .push(one);
    }
    index
}

fn service_index<'a>(series: &'a [Series], labels: &Labels) -> Index<'a> {
    let mut index = Index::with_capacity(series.len());
    for one in series {
        let key = service_key(one.label(&labels.namespace), one.label(&labels.service));
        index.entry(key).or_default().push(one);
    }
    index
}

/// `svc.ns.svc` and longer name their namespace themselves; any other text is the name in the namespace of its label.
fn service_key<'a>(namespace: &'a str, service: &'a str) -> (&'a str, &'a str) {
    let mut parts = service.split('.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(namespace), Some("svc")) => (namespace, name),
        _ => (namespace, service),
    }
}

fn group_index(series: &[Series]) -> BTreeMap<String, Sample> {
    series
        .iter()
        .map(|s| (s.name(), single(std::slice::from_ref(s))))
        .collect()
}

fn over_pods(index: &Index<'_>, sample_request: &SampleRequest, aggregate: Aggregate) -> Sample {
    let (mut tally, mut measured, mut stale) = (QueryCounts::default(), false, false);
    for pod in sample_request.pods.iter() {
        // A pod that just started has no series yet; the others decide.
        let Some(series) = index.get(&(pod.namespace.as_ref(), pod.name.as_ref())) else {
            continue;
        };
        match live(series.iter().copied()).as_deref() {
            Ok([value]) => {
                measured = true;
                tally.add(*value);
            }
            // Which one of them is meant is the query's to say, for example by `sum by (namespace, pod)`.
            Ok(many) => return Err(Failure::Multiple(many.len())),
            Err(_) => stale = true,
        }
    }
    if stale && !measured {
        return Err(Failure::Stale);
    }
    tally.finish(aggregate)
}

fn over_service(
    index: &Index<'_>,
    sample_request: &SampleRequest,
    aggregate: Option<Aggregate>,
) -> Sample {
    let series = index.get(&(
        sample_request.namespace.as_str(),
        sample_request.service.as_str(),
    ));
    let values = live(series.into_iter().flatten().copied())?;
    if aggregate.is_none() && values.len() > 1 {
        return Err(Failure::Multiple(values.len()));
    }
    let mut tally = QueryCounts::default();
    for value in values {
        tally.add(value);
    }
    tally.finish(aggregate.unwrap_or_default())
}

#[cfg(test)]
mod tests {
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
}
