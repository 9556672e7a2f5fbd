//! Remarks on what a fence selects.

use crate::mesh::ResolvedFence;

/// A selector that the user wrote and that no pod matches: misspelt, or its workload is away.
pub(super) fn of_pods(fence: &ResolvedFence) -> Option<String> {
    let written = fence.spec.workload_selector.as_ref()?;
    if written.labels.is_empty() || fence.pods > 0 {
        return None;
    }
    let pairs = written.labels.iter().map(|(k, v)| format!("{k}={v}"));
    let labels: Vec<String> = pairs.collect();
    Some(format!(
        "spec.workloadSelector.labels ({}) selects no pod of namespace {}: correct the labels, unless the pods are still to come",
        labels.join(","),
        fence.key.namespace
    ))
}
