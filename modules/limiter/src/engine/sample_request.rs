//! Which source is asked for which metrics of which set.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use trimtab_crds::limiter::{MetricQuery, QueryType};
use trimtab_kit::sources::{Handler, HandlerType, MetricSource, SampleRequest, SampleRequestId};

use super::entry::Entry;
use crate::decide::adaptive::measure::le;
use crate::decide::adaptive::queries::queries;
use crate::index::LimiterKey;

/// Demands of one tick of one source, and whose they are: the number of a demand is its place in both lists.
#[derive(Debug, Default)]
pub struct SampleRequests {
    /// For the source.
    pub sample_requests: Vec<SampleRequest>,
    /// Limiter and set.
    pub owners: Vec<(LimiterKey, String)>,
}

/// Collects what `sources[source]` is asked for. A name belongs to the first source that provides it; queries of the
/// limiter itself, and grouped series that nobody has seen yet, belong to Prometheus.
pub(super) fn book(
    sources: &[Arc<dyn MetricSource>],
    source: usize,
    entries: &HashMap<LimiterKey, Entry>,
) -> SampleRequests {
    let provided: Vec<BTreeSet<String>> = sources
        .iter()
        .map(|s| s.provides().into_iter().collect())
        .collect();
    let prometheus = sources.iter().position(|s| s.name() == "prometheus");
    let asked = |name: &String, own_query: bool| {
        let mut of = sources.iter().zip(&provided);
        let first = of.position(|(source, names)| {
            names.contains(name) && (!own_query || source.overrides_queries())
        });
        first.or(prometheus) == Some(source)
    };
    let grouped = grouped(entries);
    let mut out = SampleRequests::default();
    let mut keys: Vec<&LimiterKey> = entries.keys().collect();
    keys.sort_unstable();
    for key in keys {
        let Some(entry) = entries.get(key) else {
            continue;
        };
        for (set, names) in entry.wanted() {
            let names = names.into_iter();
            let mine: Vec<String> = names.filter(|n| asked(n, is_own(entry, n))).collect();
            let request = SampleRequest {
                custom: custom(entry, &mine),
                metrics: mine,
                ..SampleRequest::default()
            };
            out.add(key, set, entry, request);
        }
        for set in entry.adaptive_sets() {
            let own = entry.own_measures(&set);
            let names = entry.measures(&set).into_iter();
            let mine: Vec<String> = names.filter(|n| asked(n, own.contains_key(n))).collect();
            let custom = own.iter().filter(|(name, _)| mine.contains(name));
            let request = SampleRequest {
                custom: custom.map(|(n, q)| (n.clone(), handler(q))).collect(),
                metrics: mine,
                grouped: grouped.clone(),
                rows: true,
                ..SampleRequest::default()
            };
            out.add(key, set, entry, request);
        }
    }
    out
}

/// Whether a name is one of the limiter's own queries, or derived from one.
fn is_own(entry: &Entry, name: &str) -> bool {
    entry.input.spec.metrics.keys().any(|m| {
        name == m
            || name
                .strip_prefix(m.as_str())
                .is_some_and(|r| r.starts_with('.'))
    })
}

impl SampleRequests {
    /// Adds what is asked for of one set, if it is anything.
    fn add(&mut self, key: &LimiterKey, set: String, entry: &Entry, request: SampleRequest) {
        if request.metrics.is_empty() {
            return;
        }
        self.sample_requests.push(SampleRequest {
            id: SampleRequestId(u32::try_from(self.owners.len()).unwrap_or(u32::MAX)),
            limiter: key.name.clone(),
            set: set.clone(),
            namespace: key.namespace.clone(),
            service: entry.service.clone(),
            pods: entry.pods.get(&set).cloned().unwrap_or_default(),
            ..request
        });
        self.owners.push((key.clone(), set));
    }
}

/// Queries of strategy `adaptive`, the same for all limiters.
fn grouped(entries: &HashMap<LimiterKey, Entry>) -> Arc<BTreeMap<String, Handler>> {
    let (mut bounds, mut statuses, mut config) = (BTreeSet::new(), BTreeSet::new(), None);
    for entry in entries.values() {
        let sets = entry.adaptive_sets();
        if sets.is_empty() {
            continue;
        }
        bounds.extend(sets.iter().filter_map(|set| entry.bound(set)).map(le));
        statuses.extend(entry.refusals());
        config.get_or_insert(&entry.input.settings.adaptive);
    }
    let all = config.map(|config| queries(config, &bounds, &statuses));
    Arc::new(all.unwrap_or_default())
}

fn handler(q: &MetricQuery) -> Handler {
    let kind = match q.r#type {
        QueryType::Value => HandlerType::Value,
        QueryType::Group => HandlerType::Group,
        QueryType::PerPod => HandlerType::PerPod,
        QueryType::PerService => HandlerType::PerService,
    };
    Handler::new(q.query.clone(), kind)
}

fn custom(entry: &Entry, names: &[String]) -> Vec<(String, Handler)> {
    let spec: &BTreeMap<_, _> = &entry.input.spec.metrics;
    spec.iter()
        .filter(|(m, _)| {
            names.iter().any(|n| {
                n == *m
                    || n.strip_prefix(m.as_str())
                        .is_some_and(|r| r.starts_with('.'))
            })
        })
        .map(|(name, q)| (name.clone(), handler(q)))
        .collect()
}
