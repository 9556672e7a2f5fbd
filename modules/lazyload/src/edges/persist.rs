//! Edges as they are written in the status of a ServiceFence, and read back.

use std::sync::Arc;

use jiff::Timestamp;
use trimtab_crds::Duration;
use trimtab_crds::fence::{Dependency, DependencyState};

use super::Edge;
use super::rules::{EdgeState, EvidenceSet, Limits, Record, millis, timestamp};
use crate::learn::host;
use crate::object::{Caller, Evidence};

const METRIC_LABELS: [&str; 2] = ["destination_service", "request_host"];

/// As the callers of the store see it.
pub(super) fn edge((host, record): (Arc<str>, Record)) -> Edge {
    Edge {
        host,
        evidence: record.evidence_set.iter().collect(),
        first_seen: timestamp(record.first),
        last_seen: timestamp(record.last),
        idle: std::time::Duration::from_millis(record.idle),
        longest_gap: std::time::Duration::from_secs(u64::from(record.gap)),
        state: record.state,
        known: record.known,
    }
}

/// In scope because a call was seen.
pub(super) fn is_call(record: &Record) -> bool {
    record.state != EdgeState::Expired
        && !record.evidence_set.without(EvidenceSet::hints()).is_empty()
}

/// As it is written.
pub(super) fn dependency(
    caller: &Caller,
    host: &Arc<str>,
    record: &Record,
    limits: &Limits,
) -> Dependency {
    let idle = limits.step_start(limits.step(record.idle));
    let some = |millis: u64| (millis > 0).then(|| Duration::from_millis(millis).to_string());
    Dependency {
        host: host.to_string(),
        caller: caller.workload.to_string(),
        evidence: evidence(record.evidence_set),
        first_seen: timestamp(record.first).to_string(),
        last_seen: timestamp(record.written).to_string(),
        idle: some(idle),
        longest_gap: some(u64::from(record.gap) * 1000),
        state: match record.state {
            EdgeState::Active if !record.known => DependencyState::Unresolved,
            EdgeState::Active => DependencyState::Active,
            EdgeState::Expiring => DependencyState::Expiring,
            EdgeState::Expired => DependencyState::Expired,
        },
    }
}

/// As it was written. `None`: the host is not a host.
pub(super) fn record(
    dependency: &Dependency,
    now: i64,
    limits: &Limits,
) -> Option<(Arc<str>, Record)> {
    let host = host::clean(&dependency.host)?;
    // A time that cannot be read is not known better than that it is past.
    let time = |text: &str| {
        let time = text.parse::<Timestamp>().map_or(now, Timestamp::as_second);
        time.min(now)
    };
    let last = time(&dependency.last_seen);
    let pause = |text: &Option<String>| {
        let pause = text
            .as_deref()
            .and_then(|text| text.parse::<Duration>().ok());
        *pause.unwrap_or_default()
    };
    let evidence_set = dependency
        .evidence
        .iter()
        .filter_map(|text| proof(text))
        .fold(EvidenceSet::default(), EvidenceSet::with);
    let record = Record {
        first: time(&dependency.first_seen).min(last),
        last,
        written: last,
        idle: millis(pause(&dependency.idle)),
        gap: limits.bounded_gap(pause(&dependency.longest_gap)),
        evidence_set: if evidence_set.is_empty() {
            EvidenceSet::of(Evidence::Restored)
        } else {
            evidence_set
        },
        known: dependency.state != DependencyState::Unresolved,
        state: match dependency.state {
            DependencyState::Active | DependencyState::Unresolved => EdgeState::Active,
            DependencyState::Expiring => EdgeState::Expiring,
            DependencyState::Expired => EdgeState::Expired,
        },
        confirmed: false,
    };
    Some((host.as_ref().into(), record))
}

fn evidence(evidence_set: EvidenceSet) -> Vec<String> {
    let mut names: Vec<String> = evidence_set.iter().map(|e| e.as_str().to_owned()).collect();
    names.sort_unstable();
    names
}

fn proof(text: &str) -> Option<EvidenceSet> {
    let all = EvidenceSet::hints().with(
        [
            Evidence::AccessLog,
            Evidence::Prometheus,
            Evidence::Restored,
        ]
        .into_iter()
        .map(EvidenceSet::of)
        .fold(EvidenceSet::default(), EvidenceSet::with),
    );
    all.iter().find(|e| e.as_str() == text).map(EvidenceSet::of)
}

/// The key of a host in `status.metricStatus`.
pub fn metric_key(host: &str) -> String {
    format!("{{destination_service=\"{host}\"}}")
}

/// The host of a key of `status.metricStatus`: exactly one label, `destination_service` or `request_host`. The port is
/// dropped. Hosts that Slime refuses are refused: with `global-sidecar`, `:` or `unknown` in them.
pub fn host_of_metric(key: &str) -> Option<&str> {
    let (label, value) = key.strip_prefix('{')?.strip_suffix('}')?.split_once('=')?;
    let value = value.trim().strip_prefix('"')?.strip_suffix('"')?;
    if !METRIC_LABELS.contains(&label.trim()) || value.contains(['"', ',', '\\']) {
        return None;
    }
    let name = match value.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => value,
    };
    let refused = name.contains("global-sidecar") || name.contains(':') || name.contains("unknown");
    (!refused && host::clean(name).is_some_and(|clean| clean == name)).then_some(name)
}
