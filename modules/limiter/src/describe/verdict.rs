//! Whether a limiter limits now, and why not. Pure.

use std::collections::{BTreeMap, BTreeSet};

use trimtab_crds::limiter::DescriptorState;
use trimtab_kit::describe::{Answer, Cause, ConditionView, Verdict};

use super::view::{Description, OtherLimit, RuleDescription};
use crate::input::Gap;
use crate::programmed::DECIDED;
use crate::status::{REMARKS, rank};

/// What the verdict rests on besides the description.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Why Ready pods have no proxy for it.
    pub gaps: BTreeSet<Gap>,
    /// Annotations of pods lead traffic around their proxies.
    pub around: bool,
    /// It is for gateways.
    pub gateway: bool,
    /// What is there in place of what was not found, by the reason of the condition.
    pub near: BTreeMap<&'static str, String>,
    /// The other API group has an object of the same name, which this one keeps out.
    pub other_form: bool,
}

/// The verdict.
pub(crate) fn verdict(description: &Description, facts: &Facts) -> Verdict {
    let rules = &description.rules;
    let mut causes: Vec<Cause> = Vec::new();
    let blocked = blocking(description, facts, &mut causes);
    for rule in by_severity(rules) {
        if let Some(cause) = of_rule(description, rule, facts)
            && !causes.iter().any(|c| c.message == cause.message)
        {
            causes.push(cause);
        }
    }
    let limiting: Vec<&RuleDescription> = rules.iter().filter(|rule| limits(rule)).collect();
    let broken = rules.iter().any(|rule| !limits(rule) && !is_idle(rule));
    let partly = partly(description, facts, &mut causes);
    let unknown = unknown(description, &mut causes);
    let shadow = description.mode == "Shadow";
    if shadow {
        causes.push(
            Cause::new(
                "Shadow",
                "mode: Shadow counts what it would refuse, and refuses nothing",
            )
            .fix("set spec.mode: Enforce"),
        );
    }
    let answer = if blocked || shadow || limiting.is_empty() {
        Answer::No
    } else if unknown {
        Answer::Unknown
    } else if broken || partly {
        Answer::Partly
    } else {
        Answer::Yes
    };
    if matches!(answer, Answer::Yes | Answer::Partly) {
        causes.extend(tighter(&limiting, &description.others));
        let remarks = condition(description, "Accepted").filter(|c| c.reason == REMARKS);
        causes.extend(remarks.map(|c| Cause::new(&c.reason, &c.message)));
    }
    if facts.other_form {
        causes.push(Cause::new(
            "Conflict",
            "microservice.netease.com/v1alpha1 has a SmartLimiter of this name too, which is not in force beside this one: delete one of the two",
        ));
    }
    let told = matches!(answer, Answer::Yes | Answer::Partly);
    Verdict {
        answer,
        in_force: if told {
            in_force(&limiting)
        } else {
            String::new()
        },
        causes,
    }
}

fn limits(rule: &RuleDescription) -> bool {
    rule.each_proxy.is_some() && rule.state != DescriptorState::NoProxy
}

fn is_idle(rule: &RuleDescription) -> bool {
    rule.state == DescriptorState::Idle
        || (rule.state == DescriptorState::Held && rule.each_proxy.is_none())
}

fn in_force(limiting: &[&RuleDescription]) -> String {
    let mut texts: Vec<&str> = limiting
        .iter()
        .filter_map(|rule| rule.each_proxy.as_deref())
        .collect();
    texts.dedup();
    format!("{} for each proxy", texts.join(", "))
}

/// Rules whose causes are told first come first; the order of the object decides among equals.
fn by_severity(rules: &[RuleDescription]) -> Vec<&RuleDescription> {
    let mut out: Vec<&RuleDescription> = rules.iter().collect();
    out.sort_by_key(|rule| rank(rule.state));
    out
}

fn condition<'a>(description: &'a Description, kind: &str) -> Option<&'a ConditionView> {
    description.conditions.iter().find(|c| c.kind == kind)
}

/// What keeps the whole limiter out of the proxies. Returns whether there is something.
fn blocking(description: &Description, facts: &Facts, causes: &mut Vec<Cause>) -> bool {
    let before = causes.len();
    let is = |kind: &str, status: &str| condition(description, kind).filter(|c| c.status == status);
    let told = |c: &&ConditionView| {
        let mut refusals = description.rules.iter().filter_map(|r| r.refusal.as_ref());
        refusals.any(|refusal| *refusal == c.reason)
    };
    let whole = is("Accepted", "False").filter(|c| !told(c));
    causes.extend(whole.map(|c| Cause::new(&c.reason, &c.message)));
    // Of an object that cannot be read the version before is in force.
    let before = before + usize::from(whole.is_some_and(|c| c.reason == "Undecodable"));
    if let Some(c) = is("Applied", "False").filter(|c| c.reason != "Rejected") {
        causes.push(Cause::new(&c.reason, &c.message));
    }
    let pods = is("Programmed", "Unknown").filter(|c| ["NoPods", "NoProxy"].contains(&&*c.reason));
    if let Some(c) = pods {
        let cause = Cause::new(&c.reason, &c.message);
        causes.push(match (&*c.reason, facts.near.get("NoPods")) {
            ("NoPods", Some(near)) => cause.fix(format!(
                "correct the labels, or start pods with {}: {near}",
                description.target.selector
            )),
            ("NoPods", None) => cause.fix(format!(
                "start pods with {}, or wait until they are Ready",
                description.target.selector
            )),
            _ => cause.fix("start the proxies with the address of Trimtab's xDS server"),
        });
    }
    causes.len() > before
}

/// Why a rule does not limit, or limits otherwise than written; none: it does what it says.
fn of_rule(description: &Description, rule: &RuleDescription, facts: &Facts) -> Option<Cause> {
    let at = |text: &str| {
        if description.rules.len() > 1 && !text.contains(&rule.path) {
            format!("{}: {text}", rule.path)
        } else {
            text.to_owned()
        }
    };
    match rule.state {
        DescriptorState::Refused => {
            // Without a reason of its own it is refused with the whole object, which is told already.
            let reason = rule.refusal.as_deref().filter(|r| *r != "Refused")?;
            let cause = Cause::new(reason, at(&rule.reason));
            let near = rule.values.iter().find_map(|value| value.near.as_ref());
            let near = near.map(|near| format!("did you mean {near}?"));
            let near = near.filter(|_| reason == "UnknownMetric");
            Some(match facts.near.get(reason).cloned().or(near) {
                Some(near) => cause.fix(near),
                None => cause,
            })
        }
        DescriptorState::NoProxy => {
            let programmed = condition(description, "Programmed");
            let programmed = programmed.filter(|c| c.status == "False");
            let reason = programmed.map_or("NoProxy", |c| &c.reason);
            let why = rule.reason.split(DECIDED).next().unwrap_or_default();
            let cause = Cause::new(reason, at(why));
            Some(match fix(reason, facts) {
                Some(fix) => cause.fix(fix),
                None => cause,
            })
        }
        DescriptorState::Unknown => {
            let missing = rule.values.iter().find(|value| value.value.is_none());
            let fix = missing.map(|value| {
                let (name, source) = (&value.name, &value.source);
                format!("{name} comes from {source}: ask for it there; spec.fallback says what holds without it")
            });
            Some(Cause {
                fix,
                ..Cause::new("NoValue", at(&rule.reason))
            })
        }
        _ if rule.each_proxy.is_some() => None,
        DescriptorState::Idle | DescriptorState::Held => Some(Cause::new(
            "Idle",
            at(&format!("its condition does not hold now: {}", rule.reason)),
        )),
        DescriptorState::Fallback | DescriptorState::Limiting => Some(
            Cause::new("Fallback", at(&rule.reason)).fix("correct the metric, or set spec.fallback: {action: Limit, quota: N}"),
        ),
    }
    .filter(|cause| cause.reason != "Idle" || !description.rules.iter().any(limits))
}

/// What to change where no proxy can hold a limit.
fn fix(reason: &str, facts: &Facts) -> Option<String> {
    let first = facts.gaps.first();
    let text = match (reason, first) {
        ("NoProxy", Some(Gap::NoSidecar)) => {
            "label the namespace istio-injection=enabled (with revisions istio.io/rev=REVISION), and restart the pods"
        }
        ("NoProxy", Some(Gap::HostNetwork)) => {
            "take hostNetwork out of the pods, or limit their callers (target.direction: outbound)"
        }
        ("NoProxy", Some(Gap::Ambient)) => {
            "limits need a sidecar: take the label istio.io/dataplane-mode=ambient away, inject sidecars, and restart the pods"
        }
        ("NoProxy", Some(Gap::Waypoint)) => {
            "select pods with sidecars, or a gateway: a waypoint takes no limits"
        }
        ("NoProxy", Some(Gap::OtherRole)) if facts.gateway => {
            "select the pods of a gateway, or take gateway: true away"
        }
        ("NoProxy", Some(Gap::OtherRole)) => "set spec.gateway: true with outbound targets",
        ("NoProxy", Some(Gap::OtherRevision)) => {
            "set the label istio.io/rev of the limiter to the revision of the proxies, or take it away: then all revisions get the limit"
        }
        ("NoProxy", None) if facts.around => {
            "take the port out of the annotation, or list it in includeInboundPorts, and restart the pods"
        }
        ("Rejected", _) => "correct the rule: proxies keep what they had before",
        ("PortNotHTTP", _) => {
            "if it is HTTP, name the port http-..., or set its appProtocol to http"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// What lets it limit at some proxies only. Returns whether there is something.
fn partly(description: &Description, facts: &Facts, causes: &mut Vec<Cause>) -> bool {
    let before = causes.len();
    for kind in ["Applied", "Programmed"] {
        let found = condition(description, kind).filter(|c| c.status == "False");
        let partial = |c: &&ConditionView| {
            ["Rejected", "PartiallyProgrammed"].contains(&&*c.reason)
                && !causes.iter().any(|known| known.reason == c.reason)
        };
        let cause = found.filter(partial);
        causes.extend(cause.map(|c| {
            let reason = if c.reason == "PartiallyProgrammed" {
                "NoProxy"
            } else {
                &c.reason
            };
            Cause {
                fix: fix(reason, facts),
                ..Cause::new(&c.reason, &c.message)
            }
        }));
    }
    causes.len() > before
}

/// What makes it impossible to tell. Returns whether there is something.
fn unknown(description: &Description, causes: &mut Vec<Cause>) -> bool {
    let before = causes.len();
    let found = condition(description, "Programmed").filter(|c| c.status == "Unknown");
    let open = ["NoSuchVirtualHost", "Overridden"];
    let found = found.filter(|c| open.contains(&&*c.reason));
    causes.extend(found.map(|c| {
        let cause = Cause::new(&c.reason, &c.message);
        if c.reason == "NoSuchVirtualHost" {
            return cause.fix("write the virtual host as istioctl proxy-config routes shows it for the gateway, <host>:<port>");
        }
        cause.fix("look at what the proxies have: istioctl proxy-config routes POD -o yaml")
    }));
    causes.len() > before
}

/// Others that let less pass, so that this limit is never reached.
fn tighter(limiting: &[&RuleDescription], others: &[OtherLimit]) -> Option<Cause> {
    let own = limiting.iter().filter_map(|rule| rule.per_second);
    let own = own.min_by(f64::total_cmp)?;
    let mut tighter: Vec<&OtherLimit> = others
        .iter()
        .filter(|other| other.per_second.is_some_and(|theirs| theirs < own))
        .collect();
    tighter.sort_by(|a, b| {
        a.per_second
            .partial_cmp(&b.per_second)
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let first = tighter.first()?;
    Some(
        Cause::new(
            "TighterLimit",
            format!(
                "{} is for the same pods and ports and lets less pass, so that this limit may never be reached: {}",
                first.object, first.does
            ),
        )
        .fix("raise or delete that one, or put both rules into one limiter"),
    )
}
