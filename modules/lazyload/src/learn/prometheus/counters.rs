//! Counters of two answers, one after the other: who called what, and who was watched. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use trimtab_kit::prometheus::{Answer, Row};
use xxhash_rust::xxh3::Xxh3;

use super::CALLER;
use crate::edges::{ObservedCall, Strays};
use crate::learn::host::{self, Target};
use crate::learn::{Rules, Skip, Skipped};
use crate::object::{Caller, Directory, Evidence};

/// Destinations that name no service.
const NOWHERE: [&str; 7] = [
    "",
    "unknown",
    "PassthroughCluster",
    "BlackHoleCluster",
    "InboundPassthroughCluster",
    "InboundPassthroughClusterIpv4",
    "InboundPassthroughClusterIpv6",
];

/// When an answer came, and how old the one before may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Monotonic time.
    pub(super) at: Duration,
    /// Two answers further apart are not one after the other.
    pub(super) longest: Duration,
}

/// What an answer tells.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) observed_calls: Vec<ObservedCall<'static>>,
    /// Callers that were watched, and for how long.
    pub(super) watched: Option<(Vec<Caller>, Duration)>,
    /// Calls that went to no service by its own cluster.
    pub(super) strays: BTreeMap<Caller, Strays>,
    pub(super) skipped: Skipped,
}

/// Counters as they were in the answer before.
#[derive(Debug, Default)]
pub(super) struct Counters {
    queries: [Query; 2],
    /// When the answer before came, if it was complete.
    complete: Option<Duration>,
}

/// Counters of one query.
#[derive(Debug, Default)]
struct Query {
    /// Whether it counts connections.
    tcp: bool,
    answered: bool,
    values: HashMap<u128, f64>,
    /// Callers with series of their own proxy, and how many.
    present: BTreeMap<Caller, usize>,
}

/// What one query's answer did.
#[derive(Default)]
struct Step {
    present: BTreeMap<Caller, usize>,
    /// Callers of which a proxy was lost or restarted: what it counted last is not known.
    disturbed: BTreeSet<Caller>,
}

impl Counters {
    /// Takes the answers of both queries; `None` for one that failed.
    pub(super) fn absorb(
        &mut self,
        answers: &[Option<Answer>; 2],
        window: &Window,
        directory: &dyn Directory,
        rules: &Rules,
    ) -> News {
        let mut status_update = News::default();
        let before: Vec<_> = self.queries.iter().map(|q| q.present.clone()).collect();
        let mut steps = Vec::new();
        for (tcp, (query, answer)) in self.queries.iter_mut().zip(answers).enumerate() {
            if let Some(answer) = answer {
                query.tcp = tcp == 1;
                steps.push(query.absorb(answer, directory, rules, &mut status_update));
            }
        }
        let full = |answer: &Option<Answer>| answer.as_ref().is_some_and(|a| a.warnings.is_empty());
        let some = steps.iter().any(|step| !step.present.is_empty());
        let complete = answers.iter().all(full) && some;
        let last = self.complete.take();
        if !complete {
            return status_update;
        }
        self.complete = Some(window.at);
        let by = last.and_then(|last| window.at.checked_sub(last));
        if let Some(by) = by.filter(|by| *by <= window.longest) {
            status_update.watched = Some((watched(&before, &steps), by));
        }
        status_update
    }
}

/// Callers whose telemetry was there before and is there now, undisturbed.
fn watched(before: &[BTreeMap<Caller, usize>], steps: &[Step]) -> Vec<Caller> {
    let callers: BTreeSet<&Caller> = before.iter().flat_map(BTreeMap::keys).collect();
    let steady = |caller: &&Caller| {
        before.iter().zip(steps).all(|(before, step)| {
            let now = step.present.get(*caller).copied().unwrap_or(0);
            let then = before.get(*caller).copied().unwrap_or(0);
            now >= then && !step.disturbed.contains(*caller)
        })
    };
    callers.into_iter().filter(steady).cloned().collect()
}

impl Query {
    fn absorb(
        &mut self,
        answer: &Answer,
        directory: &dyn Directory,
        rules: &Rules,
        status_update: &mut News,
    ) -> Step {
        let mut step = Step::default();
        let mut values = HashMap::with_capacity(answer.rows.len());
        for row in &answer.rows {
            let Some(caller) = caller(row) else {
                status_update.skipped.add(Skip::SourceUnknown, 1);
                continue;
            };
            if !is_verified(row, &caller, &rules.namespace_label) {
                status_update.skipped.add(Skip::Unverified, 1);
                continue;
            }
            let key = key(&row.labels);
            let old = self.values.get(&key).copied();
            values.insert(key, row.value);
            if is_own(row) {
                *step.present.entry(caller.clone()).or_default() += 1;
                if old.is_some_and(|old| row.value < old) {
                    step.disturbed.insert(caller.clone());
                }
            }
            // Of the first answer nobody knows when the calls were.
            if old.is_none_or(|old| row.value.to_bits() != old.to_bits()) {
                if self.answered && is_own(row) && is_stray(row, &caller, directory, rules) {
                    let strays = status_update.strays.entry(caller.clone()).or_default();
                    let count = if self.tcp {
                        &mut strays.tcp
                    } else {
                        &mut strays.http
                    };
                    *count += risen(row.value, old);
                }
                observed_calls(row, &caller, self.answered, directory, rules, status_update);
            }
        }
        if answer.warnings.is_empty() {
            self.values = values;
            self.present.clone_from(&step.present);
        } else {
            // What is not in it may only be missing.
            self.values.extend(values);
        }
        self.answered = true;
        step
    }
}

fn observed_calls(
    row: &Row,
    caller: &Caller,
    revives: bool,
    directory: &dyn Directory,
    rules: &Rules,
    status_update: &mut News,
) {
    let text = label(row, "destination_service");
    if row.value.is_nan() {
        status_update.skipped.add(Skip::Malformed, 1);
        return;
    }
    if NOWHERE.contains(&text) {
        status_update.skipped.add(Skip::DestinationUnknown, 1);
        return;
    }
    let Some(target) = host::target(text) else {
        status_update.skipped.add(Skip::Malformed, 1);
        return;
    };
    let namespace = match label(row, "destination_service_namespace") {
        "" | "unknown" => &caller.namespace,
        namespace => namespace,
    };
    let hosts = rules.hosts(target, 0, namespace, directory, &mut status_update.skipped);
    if hosts.is_empty() {
        status_update.skipped.add(Skip::DestinationUnknown, 1);
    }
    for (host, known) in hosts {
        let host = crate::edges::HostName::Shared(host.to_shared());
        let mut observed_call =
            ObservedCall::new(caller.clone(), host, known, Evidence::Prometheus);
        observed_call.revives = revives;
        status_update.observed_calls.push(observed_call);
    }
}

/// Whether the calls went to the fallback or to a cluster of no service.
fn is_stray(row: &Row, caller: &Caller, directory: &dyn Directory, rules: &Rules) -> bool {
    let text = label(row, "destination_service");
    if NOWHERE.contains(&text) {
        return true;
    }
    match host::target(text) {
        Some(Target::Name(name, _)) => match directory.host_of_name(&name, &caller.namespace) {
            Some(host) => rules.is_fallback(&host),
            None => true,
        },
        Some(Target::Address(address, port)) => {
            directory.hosts_at(address, port.unwrap_or(0)).is_empty()
        }
        None => false,
    }
}

/// By how much a counter has risen; one that began anew counts whole.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and a negative rise is none"
)]
fn risen(value: f64, old: Option<f64>) -> u64 {
    let before = old.filter(|old| *old <= value).unwrap_or(0.0);
    (value - before) as u64
}

fn label<'r>(row: &'r Row, name: &str) -> &'r str {
    row.labels.get(name).map_or("", String::as_str)
}

/// The caller of a series, if somebody is known.
fn caller(row: &Row) -> Option<Caller> {
    let workload = label(row, CALLER);
    let namespace = label(row, "source_workload_namespace");
    let known = |name: &str| !name.is_empty() && name != "unknown";
    (known(workload) && known(namespace)).then(|| Caller::new(namespace, workload))
}

/// Whether the caller's own proxy counts. A query without that label is taken to be of callers' proxies.
fn is_own(row: &Row) -> bool {
    matches!(label(row, "reporter"), "source" | "")
}

/// Whether the caller's own proxy tells it: `namespace_label` is set by the scrape, the other labels by whoever is scraped.
/// Without such a label nothing is known of who tells it.
fn is_verified(row: &Row, caller: &Caller, namespace_label: &str) -> bool {
    namespace_label.is_empty() || (is_own(row) && label(row, namespace_label) == &*caller.namespace)
}

/// A series by all of its labels.
fn key(labels: &BTreeMap<String, String>) -> u128 {
    let mut hash = Xxh3::new();
    for (name, value) in labels {
        for text in [name, value] {
            hash.update(text.as_bytes());
            // No text has this byte, so that no two lists of labels look the same.
            hash.update(&[0xff]);
        }
    }
    hash.digest128()
}
