//! Which source is asked for which metrics of which set.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use trimtab_crds::limiter::QueryType;
use trimtab_kit::sources::{Handler, HandlerType, MetricSource, SampleRequest, SampleRequestId};

use super::entry::Entry;
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
    let mut out = SampleRequests::default();
    let mut keys: Vec<&LimiterKey> = entries.keys().collect();
    keys.sort_unstable();
    for key in keys {
        let Some(entry) = entries.get(key) else {
            continue;
        };
        for (set, names) in entry.wanted() {
            let mine: Vec<String> = names
                .iter()
                .filter(|n| {
                    let own_query = entry.input.spec.metrics.keys().any(|m| {
                        *n == m
                            || n.strip_prefix(m.as_str())
                                .is_some_and(|r| r.starts_with('.'))
                    });
                    let mut of = sources.iter().zip(&provided);
                    let first = of.position(|(source, names)| {
                        names.contains(*n) && (!own_query || source.overrides_queries())
                    });
                    first.or(prometheus) == Some(source)
                })
                .cloned()
                .collect();
            if mine.is_empty() {
                continue;
            }
            out.sample_requests.push(SampleRequest {
                id: SampleRequestId(u32::try_from(out.owners.len()).unwrap_or(u32::MAX)),
                limiter: key.name.clone(),
                set: set.clone(),
                namespace: key.namespace.clone(),
                service: entry.service.clone(),
                pods: entry
                    .pods
                    .get(&set)
                    .cloned()
                    .unwrap_or_else(|| Vec::new().into()),
                custom: custom(entry, &mine),
                metrics: mine,
            });
            out.owners.push((key.clone(), set));
        }
    }
    out
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
        .map(|(name, q)| {
            let kind = match q.r#type {
                QueryType::Value => HandlerType::Value,
                QueryType::Group => HandlerType::Group,
                QueryType::PerPod => HandlerType::PerPod,
                QueryType::PerService => HandlerType::PerService,
            };
            (name.clone(), Handler::new(q.query.clone(), kind))
        })
        .collect()
}
