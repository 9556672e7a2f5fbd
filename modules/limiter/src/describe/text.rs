//! A description for people.

use std::fmt::Write as _;

use trimtab_crds::limiter::{AdaptiveStatus, DescriptorState};
use trimtab_kit::describe::{Words, conditions, holders};

use super::view::{Description, RuleDescription, TargetDescription, ValueDescription};
use crate::decide::expression::pretty;
use crate::input::ReadingState;

const WORDS: Words = Words {
    yes: "LIMITING",
    partly: "PARTLY LIMITING",
    no: "NOT LIMITING",
};

/// The text: the answer first, then what it rests on.
pub fn text(description: &Description) -> String {
    let Description {
        namespace, name, ..
    } = description;
    let object = format!("SmartLimiter {namespace}/{name}");
    let mut out = description.verdict.text(&object, WORDS);
    // Writing to a String does not fail.
    let _ = body(&mut out, description);
    out
}

fn body(out: &mut String, description: &Description) -> std::fmt::Result {
    let Description {
        api_version,
        mode,
        delivery,
        follows,
        ..
    } = description;
    writeln!(
        out,
        "  object:  {api_version}, mode {mode}, delivery {delivery}"
    )?;
    if *follows {
        writeln!(
            out,
            "  decided by another replica, as its status says; values are those of this one"
        )?;
    }
    target(out, &description.target)?;
    for described in &description.rules {
        rule(out, described)?;
    }
    writeln!(out, "  written by Trimtab:")?;
    if description.outputs.is_empty() {
        writeln!(out, "    nothing: no limit is in force")?;
    }
    for output in &description.outputs {
        writeln!(out, "    {output}")?;
    }
    if !description.others.is_empty() {
        writeln!(out, "  others on the same pods:")?;
    }
    for other in &description.others {
        writeln!(out, "    {}: {}", other.object, other.does)?;
    }
    out.push_str(&holders(&description.proxies));
    out.push_str(&conditions(&description.conditions));
    Ok(())
}

fn target(out: &mut String, target: &TargetDescription) -> std::fmt::Result {
    writeln!(out, "  target:  {}", target.what)?;
    if !target.selector.is_empty() {
        writeln!(out, "    pods with {}", target.selector)?;
    }
    for set in &target.sets {
        let proxies = set
            .proxies
            .map_or_else(String::new, |n| format!(", {n} with a proxy for it"));
        writeln!(
            out,
            "    set {}: {} Ready pods{proxies}",
            set.name, set.pods
        )?;
    }
    for port in &target.ports {
        let to = match port.target {
            Some(target) if target != port.port => format!(" to workload port {target}"),
            _ => String::new(),
        };
        let carries = port.carries.as_deref().unwrap_or("HTTP");
        writeln!(out, "    port {}{to}: {carries}", port.port)?;
    }
    Ok(())
}

fn rule(out: &mut String, rule: &RuleDescription) -> std::fmt::Result {
    writeln!(out, "  {}: {}", rule.path, rule.state.as_str())?;
    writeln!(
        out,
        "    condition {}, quota {}, strategy {}",
        rule.condition, rule.quota, rule.strategy
    )?;
    if let Some(limit) = rule
        .each_proxy
        .as_ref()
        .filter(|_| rule.state == DescriptorState::NoProxy)
    {
        writeln!(
            out,
            "    limit: {limit} for each proxy is decided, and in force at none"
        )?;
    } else if let Some(limit) = &rule.each_proxy {
        let all = rule.all_proxies.as_ref().map_or_else(String::new, |all| {
            format!(", {all} for all proxies together")
        });
        writeln!(out, "    limit: {limit} for each proxy{all}")?;
    } else {
        writeln!(out, "    limit: none")?;
    }
    writeln!(out, "    why: {}", rule.reason)?;
    if let Some(law) = &rule.adaptive {
        adaptive(out, law)?;
    }
    for used in &rule.values {
        value(out, used)?;
    }
    for one in &rule.matches {
        writeln!(out, "    requests with {one}")?;
    }
    for place in &rule.places {
        writeln!(out, "    at {place}")?;
    }
    Ok(())
}

fn adaptive(out: &mut String, law: &AdaptiveStatus) -> std::fmt::Result {
    let rate = |rate: Option<f64>| {
        rate.map_or_else(|| "unknown".to_owned(), |r| format!("{}/s", pretty(r)))
    };
    let limit = law
        .limit
        .map_or_else(|| "no limit".to_owned(), |l| format!("{}/s", pretty(l)));
    writeln!(
        out,
        "    law: {}, {limit} for all pods; capacity {}, offered {}, refused {}",
        law.state,
        rate(law.capacity),
        rate(law.offered),
        rate(law.shed)
    )?;
    for note in &law.notes {
        writeln!(out, "    note: {note}")?;
    }
    Ok(())
}

fn value(out: &mut String, used: &ValueDescription) -> std::fmt::Result {
    let number = used.value.map_or_else(|| "none".to_owned(), pretty);
    write!(out, "    value {} = {number}", used.name)?;
    let state = match used.state {
        None => "never sampled",
        Some(ReadingState::Fresh) => "fresh",
        Some(ReadingState::Held) => "the last one, held",
        Some(ReadingState::Waiting) => "waiting for the first one",
        Some(ReadingState::Expired) => "missing for longer than holdFor",
    };
    write!(out, " ({state}")?;
    if let Some(age) = used.age_seconds {
        write!(out, ", sampled {age:.0}s ago")?;
    }
    write!(out, ", from {})", used.source)?;
    if let Some(failure) = &used.failure {
        write!(out, ": {failure}")?;
    }
    writeln!(out)
}
