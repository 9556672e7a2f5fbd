//! Whether proxies can hold what is decided, as far as that can be known. Pure.
//!
//! A limit by EnvoyFilter goes through istiod, which does not tell what proxies make of it: what is known are the pods, their
//! proxies and the virtual hosts. A limit by ECDS is answered for by each proxy.

use std::collections::BTreeMap;

use trimtab_crds::limiter::{BASE_SET, Delivery, DescriptorState, DescriptorStatus};
use trimtab_kit::condition::{Draft, listed};
use trimtab_kit::envoyfilter::{PatchContext, RoutePlace};

use crate::input::{Gap, LimiterInput, Proxies, Reach};
use crate::overridden::{Overridden, overridden};
use crate::status::Report;
use crate::validate::{Rule, Validated};

/// The condition's type.
const KIND: &str = "Programmed";
/// Between why nothing holds a limit, and why it was decided.
pub(crate) const DECIDED: &str = "; decided: ";
/// Reasons of refusals that say that nothing can hold the limit.
const NOWHERE: [&str; 1] = ["PortNotHTTP"];

/// Which proxies a rule can be on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// Those of all Ready pods.
    All,
    /// Those of some.
    Some(String),
    /// On none: reason and message.
    None(&'static str, String),
    /// Not known: reason and message.
    Unknown(&'static str, String),
}

impl Standing {
    fn nowhere(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::None(reason, why) => Some((reason, why)),
            _ => None,
        }
    }

    fn partly(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Some(why) => Some(("PartiallyProgrammed", why)),
            _ => None,
        }
    }

    fn unknown(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Unknown(reason, why) => Some((reason, why)),
            _ => None,
        }
    }
}

impl Gap {
    /// In words.
    pub(crate) fn title(self, gateway: bool) -> &'static str {
        match self {
            Self::NoSidecar => "without the container istio-proxy",
            Self::HostNetwork => "on the host's network, where no traffic is led to a sidecar",
            Self::Ambient => "in ambient mode, where the node's proxy takes no limits",
            Self::Waypoint => "a waypoint, which no EnvoyFilter with a workloadSelector reaches",
            Self::OtherRole if gateway => "a sidecar and no gateway",
            Self::OtherRole => "a gateway, which needs gateway: true",
            Self::OtherRevision => "of another revision of Istio",
        }
    }
}

fn gaps(input: &LimiterInput, reach: &Reach) -> String {
    let text = |(gap, pods): (&Gap, &i64)| {
        if *gap != Gap::OtherRevision {
            return format!("{pods} {}", gap.title(input.spec.gateway));
        }
        let theirs: Vec<&str> = reach.revisions.iter().map(String::as_str).collect();
        let wanted = input.owner.revision.as_deref().unwrap_or_default();
        format!(
            "{pods} of revision {} of Istio, while the label istio.io/rev of the limiter is {wanted}",
            theirs.join(" and ")
        )
    };
    let texts: Vec<String> = reach.without.iter().map(text).collect();
    texts.join(", ")
}

/// Where a rule stands. `None` of its places decides alone: pods first, then virtual hosts, then ports.
fn standing(input: &LimiterInput, rule: &Rule) -> Standing {
    let target = &input.target;
    let set = target.sets.get(&rule.set).cloned().unwrap_or_default();
    let places = rule.places.iter().filter_map(|p| p.vhost.as_ref());
    let missing: Vec<&str> = places
        .filter_map(|name| target.no_virtual_host.get(name).map(String::as_str))
        .collect();
    let Some(reach) = &set.reach else {
        return match missing.first() {
            Some(why) => no_host(input, rule, missing.len(), why),
            None if set.pods > 0 => Standing::All,
            None => Standing::Unknown("NoPods", format!("set {} has no Ready pods", rule.set)),
        };
    };
    let without: i64 = reach.without.values().sum();
    let pods = reach.proxies + without;
    if pods == 0 {
        return Standing::Unknown("NoPods", format!("set {} has no Ready pods", rule.set));
    }
    if reach.proxies == 0 {
        let why = gaps(input, reach);
        let why = format!("no proxy can hold it: of {pods} Ready pods, {why}");
        return Standing::None("NoProxy", why);
    }
    if let Some(why) = missing.first() {
        return no_host(input, rule, missing.len(), why);
    }
    if let Some(why) = opaque(input, rule) {
        return Standing::None("PortNotHTTP", why);
    }
    let overridden = overridden(input, rule);
    if let Some(Overridden::Whole(why)) = overridden {
        return Standing::None("Overridden", why);
    }
    let reached = reach.proxies - around(input, rule, reach);
    if reached <= 0 {
        return Standing::None(
            "NoProxy",
            "no proxy sees its requests: the port is excluded by the annotations traffic.sidecar.istio.io/excludeInboundPorts or includeInboundPorts of the pods".to_owned(),
        );
    }
    if reached < pods {
        let excluded = reach.proxies - reached;
        let mut why = vec![gaps(input, reach)];
        if excluded > 0 {
            why.push(format!("{excluded} with the port excluded from the proxy"));
        }
        why.retain(|text| !text.is_empty());
        let why = why.join(", ");
        return Standing::Some(format!("{reached} of {pods} Ready pods limit; {why}"));
    }
    match overridden {
        Some(Overridden::Partly(why)) => Standing::Some(why),
        Some(Overridden::Perhaps(why)) => {
            let why = format!("what istiod makes of this is not known: {why}");
            Standing::Unknown("Overridden", why)
        }
        _ => Standing::All,
    }
}

fn no_host(input: &LimiterInput, rule: &Rule, missing: usize, why: &str) -> Standing {
    if missing < rule.places.len() {
        return Standing::Some(why.to_owned());
    }
    if input.spec.gateway && why.contains("Gateway API") {
        return Standing::Unknown("NoSuchVirtualHost", why.to_owned());
    }
    Standing::None("NoSuchVirtualHost", why.to_owned())
}

/// Why proxies see no requests on any of the rule's ports, if so.
fn opaque(input: &LimiterInput, rule: &Rule) -> Option<String> {
    let inbound = |p: &&RoutePlace| p.context == PatchContext::SidecarInbound;
    let ports = rule.places.iter().filter(inbound).flat_map(|place| {
        let port = place
            .vhost
            .as_deref()
            .and_then(|name| name.rsplit('|').next());
        let port = port.and_then(|port| port.parse::<u16>().ok());
        let known = input.target.ports.iter();
        known.filter(move |p| port.is_none_or(|port| p.port == port))
    });
    let mut why = None;
    for port in ports {
        why = Some(format!(
            "port {} carries {}",
            port.port,
            port.opaque?.title()
        ));
    }
    why
}

/// Pods with a proxy that sees nothing of any of the rule's ports.
fn around(input: &LimiterInput, rule: &Rule, reach: &Reach) -> i64 {
    let inbound = rule.places.iter();
    let mut inbound = inbound
        .filter(|p| p.context == PatchContext::SidecarInbound)
        .peekable();
    if inbound.peek().is_none() {
        return 0;
    }
    let of_port = |port: u16| reach.around.get(&port).copied().unwrap_or_default();
    let mut least: Option<i64> = None;
    let mut take = |pods: i64| least = Some(least.map_or(pods, |l| l.min(pods)));
    for place in inbound {
        let name = place.vhost.as_deref();
        if let Some(port) = name.and_then(|name| name.rsplit('|').next()) {
            take(port.parse().map_or(0, of_port));
        } else {
            let ports = input.target.ports.iter().filter(|p| p.opaque.is_none());
            ports.for_each(|port| take(of_port(port.port)));
        }
    }
    least.unwrap_or_default()
}

/// Rules that something is decided for, each with its decision.
fn decided<'a>(
    validated: &'a Validated,
    decisions: &'a [DescriptorStatus],
) -> impl Iterator<Item = (&'a Rule, &'a DescriptorStatus)> {
    validated.good().filter_map(|rule| {
        let index = i32::try_from(rule.index).ok()?;
        let of_rule = |d: &&DescriptorStatus| d.set == rule.set && d.index == index;
        let decision = decisions.iter().find(of_rule)?;
        let nothing = decision.state == DescriptorState::Refused && decision.quota.is_none();
        (!nothing).then_some((rule, decision))
    })
}

/// The decisions as they are shown: a limit that no proxy can hold does not limit.
pub(crate) fn shown(
    input: &LimiterInput,
    validated: &Validated,
    decisions: &[DescriptorStatus],
    report: &Report<'_>,
) -> Vec<DescriptorStatus> {
    let mut why: BTreeMap<(String, i32), String> = BTreeMap::new();
    // There may be a proxy any moment: the limit is in force, and nobody is there to hold it.
    let mut empty: BTreeMap<(String, i32), String> = BTreeMap::new();
    let everywhere = nobody(input, report);
    for (rule, decision) in decided(validated, decisions) {
        let key = (decision.set.clone(), decision.index);
        let own = match standing(input, rule) {
            _ if input.settings.proxies == Proxies::Plain => {
                let open = plain(report);
                if open.status.is_none() {
                    empty.insert(key.clone(), open.message);
                }
                None
            }
            Standing::None(_, why) => Some(why),
            Standing::Unknown("NoPods", why) => {
                empty.insert(key.clone(), format!("{why}, so nothing holds it"));
                None
            }
            _ => None,
        };
        if let Some(text) = own.or_else(|| everywhere.clone()) {
            why.insert(key, text);
        }
    }
    let mut out = decisions.to_vec();
    for decision in &mut out {
        let limits = matches!(
            decision.state,
            DescriptorState::Limiting | DescriptorState::Held | DescriptorState::Fallback
        );
        if !limits || decision.quota.is_none() {
            continue;
        }
        let key = (decision.set.clone(), decision.index);
        if let Some(why) = why.remove(&key) {
            decision.decided = Some(decision.state);
            decision.state = DescriptorState::NoProxy;
            decision.reason = format!("{why}{DECIDED}{}", decision.reason);
        } else if let Some(why) = empty.remove(&key) {
            decision.reason = format!("{why}{DECIDED}{}", decision.reason);
        }
    }
    out
}

/// Why no proxy at all has the values that are served.
fn nobody(input: &LimiterInput, report: &Report<'_>) -> Option<String> {
    let asked = &report.taken;
    let all_refuse = asked.proxies > 0 && asked.holding == 0;
    if let Some(problem) = asked.problem().filter(|_| all_refuse) {
        return Some(problem);
    }
    if let Some(words) = &report.blame {
        return Some(format!("proxies refuse routes with it: {}", words.message));
    }
    let by_us = input.delivery() == Delivery::Ecds && input.settings.proxies == Proxies::Istio;
    (by_us && report.served && asked.proxies == 0).then(|| {
        "no proxy is connected to Trimtab's xDS server for it: check xds.advertise, the token and the network".to_owned()
    })
}

/// The condition.
pub(crate) fn programmed(
    input: &LimiterInput,
    validated: &Validated,
    decisions: &[DescriptorStatus],
    report: &Report<'_>,
) -> Draft {
    let rules: Vec<&Rule> = decided(validated, decisions)
        .map(|(rule, _)| rule)
        .collect();
    if let Some(draft) = before_proxies(input, validated, &rules, report) {
        return draft;
    }
    if input.settings.proxies == Proxies::Plain {
        return plain(report);
    }
    let standings: Vec<Standing> = rules.iter().map(|rule| standing(input, rule)).collect();
    let told = |of: fn(&Standing) -> Option<(&'static str, &str)>| {
        let all = rules.iter().zip(&standings);
        let found: Vec<(&str, String)> = all
            .filter_map(|(rule, s)| of(s).map(|(r, why)| (r, format!("{}: {why}", rule.path))))
            .collect();
        let texts: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
        found.first().map(|(reason, _)| (*reason, listed(&texts)))
    };
    if let Some((reason, message)) = told(Standing::nowhere) {
        return Draft::new(KIND, false, reason, message);
    }
    let unknown = told(Standing::unknown);
    let unknown = unknown.map(|(reason, why)| Draft::unknown(KIND, reason, why));
    let all_unknown = standings.iter().all(|s| s.unknown().is_some());
    if let Some(draft) = unknown.clone().filter(|_| all_unknown) {
        return draft;
    }
    if let Some(draft) = by_answers(input, &rules, report) {
        return draft;
    }
    if let Some((reason, message)) = told(Standing::partly) {
        return Draft::new(KIND, false, reason, message);
    }
    unknown.unwrap_or_else(|| {
        let message = holders(input, &rules, report);
        Draft::new(KIND, true, "Programmed", message)
    })
}

/// What is known without a look at proxies: there is nothing that they could hold, or they refuse it.
fn before_proxies(
    input: &LimiterInput,
    validated: &Validated,
    rules: &[&Rule],
    report: &Report<'_>,
) -> Option<Draft> {
    if input.target.problem.is_some() {
        return Some(Draft::not_evaluated(
            KIND,
            "the target is not known: see Resolved",
        ));
    }
    if rules.is_empty() || report.delivery.is_some() {
        let mut problems = validated.problems();
        let nowhere = problems.find(|p| NOWHERE.contains(&p.reason));
        return Some(match nowhere {
            Some(problem) => Draft::new(KIND, false, problem.reason, problem.to_string()),
            None => Draft::not_evaluated(KIND, "no rule can be in force: see Accepted"),
        });
    }
    if report.apply_error.is_some() {
        return Some(Draft::not_evaluated(
            KIND,
            "the outputs are not written: see Applied",
        ));
    }
    let refused = report.taken.words.is_some() || report.blame.is_some();
    let message = nobody(input, report).filter(|_| refused)?;
    Some(Draft::new(KIND, false, "Rejected", message))
}

/// What connections of proxies say against it, with delivery ECDS.
fn by_answers(input: &LimiterInput, rules: &[&Rule], report: &Report<'_>) -> Option<Draft> {
    if input.delivery() != Delivery::Ecds || input.settings.proxies != Proxies::Istio {
        return None;
    }
    if let Some(message) = nobody(input, report) {
        return Some(Draft::new(KIND, false, "NoProxy", message));
    }
    let connected = i64::try_from(report.taken.proxies).unwrap_or(i64::MAX);
    let pods = proxies(input, rules)?;
    (report.served && connected < pods).then(|| {
        let message = format!("{connected} of {pods} proxies are connected for it");
        Draft::new(KIND, false, "PartiallyProgrammed", message)
    })
}

fn plain(report: &Report<'_>) -> Draft {
    let (all, have) = (report.programmed.proxies, report.programmed.holding);
    if all == 0 {
        let message = "no proxy is connected that is served it";
        return Draft::unknown(KIND, "NoProxy", message);
    }
    Draft::new(
        KIND,
        true,
        "Programmed",
        format!("{have} of {all} proxies have it"),
    )
}

/// Pods with a proxy that the rules are for; none: not known.
fn proxies(input: &LimiterInput, rules: &[&Rule]) -> Option<i64> {
    let sets = &input.target.sets;
    let of = |set: &str| Some(sets.get(set)?.reach.as_ref()?.proxies);
    if rules.iter().any(|rule| rule.set == BASE_SET) {
        return of(BASE_SET);
    }
    let mut names: Vec<&str> = rules.iter().map(|rule| rule.set.as_str()).collect();
    names.dedup();
    names.into_iter().map(of).sum()
}

fn holders(input: &LimiterInput, rules: &[&Rule], report: &Report<'_>) -> String {
    let pods = proxies(input, rules);
    let pods = pods.map_or_else(|| "its pods".to_owned(), |n| format!("{n} Ready pods"));
    match (input.delivery(), input.settings.proxies) {
        (Delivery::Ecds, Proxies::Istio) => {
            let (all, have) = (report.taken.proxies, report.taken.holding);
            format!("{have} of {all} connected proxies have it, for {pods}")
        }
        (Delivery::Ecds, _) => format!("proxies of {pods} can have it"),
        (Delivery::EnvoyFilter, _) => format!(
            "the EnvoyFilter selects {pods} with a proxy; istiod does not tell whether they accept it"
        ),
    }
}
