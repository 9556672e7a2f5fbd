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
mod tests;
