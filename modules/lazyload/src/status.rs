//! Status of a ServiceFence from what was made of it. Pure.
//!
//! | condition | true | false |
//! |---|---|---|
//! | `Accepted` | the spec is taken | the first part that is not, and what to change |
//! | `FallbackReady` | calls to hosts out of scope are carried | by what they are not; no scope is made narrower then |
//! | `Programmed` | the Sidecar is written | why not; what is there stays |
//! | `FirstCallsRefused` | policies of hosts out of scope let the pods in and not the fallback | never: it is absent |
//! | `Tightened` | mode `Auto` has come to `Enforce` | what it waits for |
//! | `Ready` | the fence does what it asks for | the first of the others that it does not |

mod fit;
mod modes;

use std::collections::BTreeMap;

use jiff::Timestamp;
use trimtab_crds::fence::{AutoStatus, Dependency, Domain, FenceStatus, Mode, ScopeSize};
use trimtab_kit::condition::{Draft, MAX_MESSAGE, listed, stamp};

use crate::mesh::Problem;
use crate::object::FenceKey;

pub use fit::StatusRoom;

/// A mesh that has grown or shrunk by less than this share of its size is no change.
const NEWS_SHARE: i64 = 10;

/// What stands between a fence and its Sidecar, or between the Sidecar and its effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgrammedState {
    /// The Sidecar is as it must be.
    Written,
    /// The same; it has everything but so many services that are proven unused.
    Excluding(usize),
    /// Mode `Auto` where nothing can be excluded: no Sidecar before it tightens.
    Open,
    /// The fence only learns.
    Observing,
    /// The Sidecar of another fence of the same pods has this fence's scope too.
    MergedInto(FenceKey),
    /// A user's Sidecar is there for the same pods or under the same name; its name.
    UserSidecar(String),
    /// The first Sidecar waits until the fallback carries calls.
    WaitsForFallback,
    /// Nothing can be made of the fence: see `Accepted`.
    Refused,
    /// The mode needs what this Istio does not have.
    Unsupported(String),
    /// None of the pods obeys a Sidecar: reason and message.
    Outside(&'static str, String),
    /// A write failed: reason and message.
    WriteFailed(&'static str, String),
}

/// What calls to hosts out of scope meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FallbackState {
    /// The configuration does without a fallback.
    Unused,
    /// Wired, with ready pods.
    Ready,
    /// Not yet or no longer: why, and what to do.
    NotReady(String),
}

/// What became of one fence.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// `metadata.generation`.
    pub generation: i64,
    /// The mode that is in force.
    pub mode: Mode,
    /// What is wrong with the spec. Not the kit's `Problem`: a fence has few mistakes, each is a case, and one has no field.
    pub refusals: &'a [Problem],
    /// Worth knowing, without effect on the Sidecar.
    pub warnings: &'a [String],
    /// How far it got.
    pub programmed_state: &'a ProgrammedState,
    /// The fallback.
    pub fallback: &'a FallbackState,
    /// Hosts out of scope that let the pods in and not the fallback, with their policies.
    pub first_calls: &'a [String],
    /// Services whose first calls are not carried, with the reasons.
    pub not_carried: &'a [String],
    /// Hosts by dependency.
    pub domains: &'a BTreeMap<String, Domain>,
    /// Learned calls in Slime's form.
    pub metric_status: &'a BTreeMap<String, String>,
    /// Learned calls in ours, sorted by host and caller.
    pub dependencies: &'a [Dependency],
    /// Size of the scope.
    pub size: &'a ScopeSize,
    /// Entries of the Sidecar.
    pub entries: usize,
    /// How large the status may be.
    pub room: StatusRoom,
    /// Of mode `Auto`: where it stands, and the condition that says it.
    pub auto: Option<(AutoStatus, Draft)>,
    /// What the Sidecar takes over from another one: the end of a message, or nothing.
    pub inherited: &'a str,
}

/// The status. Transition times and what is no change are kept from `before`.
pub fn status(facts: &Facts<'_>, before: &FenceStatus, now: Timestamp) -> FenceStatus {
    let mut out = FenceStatus {
        observed_generation: Some(facts.generation),
        mode: Some(facts.mode),
        auto: facts.auto.as_ref().map(|(status, _)| status.clone()),
        domains: facts.domains.clone(),
        metric_status: facts.metric_status.clone(),
        visitor: before.visitor.clone(),
        dependencies: facts.dependencies.to_vec(),
        scope: Some(facts.size.clone()),
        conditions: Vec::new(),
    };
    let left_out = fit::fit(&mut out, facts.room.bytes());
    let mut drafts = vec![
        accepted(facts, left_out),
        fallback(facts),
        programmed(facts),
    ];
    drafts.extend(first_calls(facts));
    drafts.push(ready(facts, &drafts));
    drafts.extend(facts.auto.as_ref().map(|(_, draft)| draft.clone()));
    // Cut without the kit's sign of a cut: a stored message that was cut would differ from it, and be written again.
    for draft in &mut drafts {
        draft.message = draft.message.chars().take(MAX_MESSAGE).collect();
    }
    out.conditions = stamp(drafts, facts.generation, &before.conditions, now);
    if !is_news(&out, before) {
        out.dependencies.clone_from(&before.dependencies);
        out.scope.clone_from(&before.scope);
    }
    out
}

/// Whether anything is different that a reader or a restart needs: not times of calls, and not the mesh by a little.
fn is_news(new: &FenceStatus, old: &FenceStatus) -> bool {
    let bare = |status: &FenceStatus| {
        let mut bare = status.clone();
        bare.scope = None;
        for dependency in &mut bare.dependencies {
            dependency.last_seen.clear();
        }
        bare
    };
    let (Some(a), Some(b)) = (&new.scope, &old.scope) else {
        return true;
    };
    let far = |a: i64, b: i64| (a - b).abs() * NEWS_SHARE > a.abs().max(b.abs());
    bare(new) != bare(old)
        || a.services != b.services
        || far(a.mesh_services, b.mesh_services)
        || far(a.bytes, b.bytes)
        || far(a.mesh_bytes, b.mesh_bytes)
}

fn reason(problem: &Problem) -> &'static str {
    match problem {
        Problem::MissingService { .. } => "ServiceNotFound",
        Problem::NoSelector { .. } => "ServiceWithoutSelector",
        Problem::Undecodable(_) => "NotReadable",
    }
}

fn accepted(facts: &Facts<'_>, left_out: Option<String>) -> Draft {
    if let Some(first) = facts.refusals.first() {
        let messages: Vec<String> = facts.refusals.iter().map(ToString::to_string).collect();
        return Draft::new("Accepted", false, reason(first), listed(&messages));
    }
    let warnings: Vec<String> = left_out
        .into_iter()
        .chain(facts.warnings.iter().cloned())
        .collect();
    if warnings.is_empty() {
        return Draft::new("Accepted", true, "Accepted", "everything is accepted");
    }
    Draft::new("Accepted", true, "AcceptedWithRemarks", listed(&warnings))
}

fn fallback(facts: &Facts<'_>) -> Draft {
    let draft =
        |status, reason, message: &str| Draft::new("FallbackReady", status, reason, message);
    if facts.mode == Mode::Exclude {
        return modes::no_fallback();
    }
    match facts.fallback {
        FallbackState::Unused => draft(
            true,
            "NotUsed",
            "the configuration does without a fallback: calls to hosts out of scope go where outboundTrafficPolicy sends them",
        ),
        FallbackState::Ready if !facts.not_carried.is_empty() => {
            draft(true, "Ready", &not_carried(facts))
        }
        FallbackState::Ready => draft(true, "Ready", "calls to hosts out of scope are carried"),
        FallbackState::NotReady(why) => draft(false, "NotReady", why),
    }
}

fn not_carried(facts: &Facts<'_>) -> String {
    let services = listed(facts.not_carried);
    format!(
        "calls to hosts out of scope are carried, but not to {services}: declare them in spec.host when they are called"
    )
}

/// Only of a fence whose first calls take the fallback.
fn first_calls(facts: &Facts<'_>) -> Option<Draft> {
    let narrow = matches!(
        facts.programmed_state,
        ProgrammedState::Written | ProgrammedState::MergedInto(_)
    );
    let takes = narrow && *facts.fallback != FallbackState::Unused;
    (takes && !facts.first_calls.is_empty()).then(|| {
        let message = format!(
            "a first call has the identity of the fallback, and these hosts let the pods in and not the fallback: {}; declare them in spec.host, or allow the fallback, see docs/servicefence.md, Policies of the target",
            listed(facts.first_calls)
        );
        Draft::new("FirstCallsRefused", true, "TargetPolicy", message)
    })
}

fn programmed(facts: &Facts<'_>) -> Draft {
    let draft = |status, reason, message: String| Draft::new("Programmed", status, reason, message);
    match facts.programmed_state {
        ProgrammedState::Written => draft(
            true,
            "Programmed",
            match facts.entries {
                0 => format!("the Sidecar names no host{}", facts.inherited),
                1 => format!("the Sidecar names 1 host{}", facts.inherited),
                many => format!("the Sidecar names {many} hosts{}", facts.inherited),
            },
        ),
        ProgrammedState::Excluding(services) => modes::excluding(*services),
        ProgrammedState::Open => modes::open(),
        ProgrammedState::MergedInto(other) => draft(
            true,
            "Merged",
            format!("the Sidecar of ServiceFence {other} is for the same pods and has this scope too"),
        ),
        ProgrammedState::Observing => draft(
            false,
            "Observing",
            "no Sidecar is written: set enable to true and mode to Enforce for one".to_owned(),
        ),
        ProgrammedState::UserSidecar(name) => draft(
            false,
            "UserSidecar",
            format!("Sidecar {name} is for the same pods, or has the name that ours would have, and was not made by Trimtab: it stays alone; delete or rename it to let this fence act"),
        ),
        ProgrammedState::WaitsForFallback => draft(
            false,
            "WaitsForFallback",
            "a first Sidecar is written once calls to hosts out of scope are carried: see FallbackReady".to_owned(),
        ),
        ProgrammedState::Refused => draft(
            false,
            "Refused",
            "see Accepted; a Sidecar that is there stays as it is".to_owned(),
        ),
        ProgrammedState::Unsupported(why) => draft(false, "Unsupported", why.clone()),
        ProgrammedState::Outside(reason, why) => draft(false, reason, why.clone()),
        ProgrammedState::WriteFailed(reason, message) => draft(
            false,
            reason,
            format!("{message}; the last good state stays and the write is tried again"),
        ),
    }
}

/// A fence that only learns does without a Sidecar and a fallback.
fn ready(facts: &Facts<'_>, conditions: &[Draft]) -> Draft {
    let observes = matches!(
        facts.programmed_state,
        ProgrammedState::Observing | ProgrammedState::Open
    );
    let matters = |c: &&Draft| c.is_false() && !(observes && c.kind != "Accepted");
    match conditions.iter().find(matters) {
        Some(bad) => Draft::new(
            "Ready",
            false,
            &bad.reason,
            format!("{}: {}", bad.kind, bad.message),
        ),
        None if observes => Draft::new("Ready", true, "Observing", "the fence learns"),
        None => Draft::new("Ready", true, "Ready", "the fence works"),
    }
}

#[cfg(test)]
mod tests;
