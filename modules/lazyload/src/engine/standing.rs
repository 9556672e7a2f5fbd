//! Pods that obey no Sidecar.

use crate::mesh::ResolvedFence;
use crate::status::ProgrammedState;

/// A remark on pods that obey no Sidecar, beside others that do.
pub(super) fn outside(resolved: &ResolvedFence) -> Option<String> {
    let standing = &resolved.standing;
    (standing.outside() > 0 && standing.any_obeys()).then(|| {
        format!(
            "{} of {} pods obey no Sidecar: {}; choose workloadSelector.labels that only the others have",
            standing.outside(),
            standing.pods,
            standing.text()
        )
    })
}

/// No pod obeys a Sidecar.
pub(super) fn none_obeys(resolved: &ResolvedFence) -> ProgrammedState {
    let standing = &resolved.standing;
    let (reason, rule) = if standing.is_of_gateways() {
        (
            "Gateway",
            "Istio gives gateways and waypoints no Sidecar, so that they see the whole mesh",
        )
    } else {
        (
            "NoSidecar",
            "a Sidecar has no effect without a sidecar proxy",
        )
    };
    let why = format!(
        "none of the {} pods obeys a Sidecar: {}; {rule}: delete the fence, or change its workloadSelector",
        standing.pods,
        standing.text()
    );
    ProgrammedState::Outside(reason, why)
}
