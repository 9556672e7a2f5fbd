//! What is refused of objects whose status others write, as Events.

use std::collections::BTreeSet;

use trimtab_kit::events::Event;
use trimtab_kit::problem::Problem;

use super::host::HostState;
use crate::index::Index;
use crate::status::is_remark;

/// The Events of a host: of VirtualServices, Services and ServiceEntries. Other objects have a status of ours.
pub(super) fn events(index: &Index, state: &HostState) -> BTreeSet<Event> {
    let refusals = state.refusals().map(|r| &r.problem);
    let problems = state.problems.iter().chain(refusals);
    let refused = problems.filter(|p| !is_remark(p.reason));
    refused.filter_map(|p| event(index, p)).collect()
}

fn event(index: &Index, problem: &Problem) -> Option<Event> {
    let (kind, object) = problem.object.split_once(' ')?;
    let (namespace, name) = object.split_once('/')?;
    let api_version = match kind {
        "Service" => "v1",
        "ServiceEntry" | "VirtualService" => "networking.istio.io/v1",
        _ => return None,
    };
    Some(Event {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: index.uid(kind, namespace, name).unwrap_or_default(),
        field: problem.field.clone(),
        reason: problem.reason,
        note: format!("{}: {}", problem.field, problem.message),
    })
}
