//! Status of users' objects from what was made of them. Pure.
//!
//! | condition | true | false |
//! |---|---|---|
//! | `Accepted` | every part of the object is taken | the first part that is not, and what to change |
//! | `ResolvedRefs` | what it names is there | what is missing |
//! | `Programmed` | the outputs are written and no proxy refuses them | why not; what proxies have stays |

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use trimtab_crds::metaprotocol::{MetaRouterStatus, ProxyCounts};
use trimtab_crds::status::ObjectStatus;
use trimtab_kit::answers::{Outcome, Words};
use trimtab_kit::condition::{Draft, listed, stamp};

use crate::input::Delivery;
use crate::object::{Kind, ObjectKey};
use crate::output::{Program, Refusal};

/// Something that is named is not there.
const REFERENCES: [&str; 12] = [
    "AddressTaken",
    "FilterMissing",
    "GatewayNotFound",
    "InvalidPortName",
    "NoHost",
    "NoServer",
    "SecretNotFound",
    "SecretNotMounted",
    "UnknownHost",
    "UnknownPort",
    "UnknownProtocol",
    "UnknownSubset",
];
/// Is applied, but surely not meant.
const REMARKS: [&str; 4] = ["NoAddress", "NoEffect", "NoWorkload", "Unreachable"];

/// Whether a problem with this reason stops nothing: it is applied, but surely not meant.
pub fn is_remark(reason: &str) -> bool {
    REMARKS.contains(&reason)
}

/// What became of one object.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The object.
    pub key: ObjectKey,
    /// Its `metadata.generation`.
    pub generation: i64,
    /// What is wrong with it, or with the service that it is for.
    pub refusals: Vec<Refusal>,
    /// Whether anything is made of it.
    pub in_force: bool,
    /// Why nothing is, in words.
    pub idle: String,
    /// What proxies run.
    pub programs: BTreeSet<Program>,
    /// Outputs are left as they are.
    pub retained: bool,
    /// A failed write of an output: reason and message.
    pub write_error: Option<(&'static str, String)>,
    /// The data plane serves proxies something that it has a part in.
    pub served: bool,
    /// What proxies say to outputs that go over xDS.
    pub answers: Outcome,
    /// What proxies say against it, so that it is left out.
    pub blame: Option<Words>,
    /// Number of routes in force.
    pub routes: usize,
}

impl Facts {
    fn over_xds(&self) -> bool {
        let by_server = |p: &Program| p.delivery != Delivery::Inline;
        self.served || self.programs.iter().any(by_server)
    }
}

/// Status of a MetaRouter. Transition times are kept from `before` where a condition's status did not change.
pub fn router_status(facts: &Facts, before: &[Condition], now: Timestamp) -> MetaRouterStatus {
    let names = |of: fn(&Program) -> &'static str| {
        let names: BTreeSet<&str> = facts.programs.iter().map(of).collect();
        let names: Vec<&str> = names.into_iter().collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    MetaRouterStatus {
        observed_generation: Some(facts.generation),
        conditions: conditions(facts, before, now),
        data_plane: names(|p| p.target.title()).filter(|_| facts.in_force),
        delivery: names(|p| delivery_name(p.delivery)).filter(|_| facts.in_force),
        proxies: (facts.in_force && facts.over_xds()).then(|| counts(&facts.answers)),
        routes: facts
            .in_force
            .then(|| i32::try_from(facts.routes).unwrap_or(i32::MAX)),
    }
}

/// Status of the other kinds.
pub fn object_status(facts: &Facts, before: &[Condition], now: Timestamp) -> ObjectStatus {
    ObjectStatus {
        observed_generation: Some(facts.generation),
        conditions: conditions(facts, before, now),
    }
}

/// How routes reach proxies, as shown.
pub fn delivery_name(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::RouteDiscovery => "RouteDiscovery",
        Delivery::Ecds => "ECDS",
        Delivery::Inline => "Inline",
    }
}

fn conditions(facts: &Facts, before: &[Condition], now: Timestamp) -> Vec<Condition> {
    let drafts = [accepted(facts), resolved(facts), programmed(facts)];
    // A protocol programs nothing by itself.
    let shown = |d: &Draft| facts.key.kind != Kind::ApplicationProtocol || d.kind == "Accepted";
    let drafts = drafts.into_iter().filter(shown);
    stamp(drafts, facts.generation, before, now)
}

fn accepted(facts: &Facts) -> Draft {
    let own = facts.key.to_string();
    let mine = |r: &&Refusal| r.problem.object == own;
    let is = |list: &[&str], r: &Refusal| list.contains(&r.problem.reason);
    let bad: Vec<&Refusal> = facts
        .refusals
        .iter()
        .filter(mine)
        .filter(|r| !is(&REFERENCES, r) && !is(&REMARKS, r))
        .collect();
    if let Some(worst) = bad.iter().find(|r| r.blocks_routes).or(bad.first()) {
        return Draft::new("Accepted", false, worst.problem.reason, in_words(&bad));
    }
    let remarks: Vec<&Refusal> = facts
        .refusals
        .iter()
        .filter(mine)
        .filter(|r| is(&REMARKS, r))
        .collect();
    match remarks.first() {
        Some(first) => Draft::new("Accepted", true, first.problem.reason, in_words(&remarks)),
        None => Draft::new("Accepted", true, "Accepted", "everything is accepted"),
    }
}

fn resolved(facts: &Facts) -> Draft {
    let missing: Vec<&Refusal> = facts
        .refusals
        .iter()
        .filter(|r| REFERENCES.contains(&r.problem.reason))
        .collect();
    match missing.first() {
        Some(first) => Draft::new(
            "ResolvedRefs",
            false,
            first.problem.reason,
            in_words(&missing),
        ),
        None => Draft::new(
            "ResolvedRefs",
            true,
            "ResolvedRefs",
            "everything that it names is there",
        ),
    }
}

fn programmed(facts: &Facts) -> Draft {
    let draft =
        |status, reason: &str, message: String| Draft::new("Programmed", status, reason, message);
    if !facts.in_force {
        let conflict = facts
            .refusals
            .iter()
            .filter(|r| r.problem.object == facts.key.to_string())
            .find(|r| ["Conflict", "NotOwner"].contains(&r.problem.reason));
        let reason = conflict.map_or("NotInForce", |r| r.problem.reason);
        let message = conflict.map_or_else(|| facts.idle.clone(), |r| r.problem.message.clone());
        return draft(false, reason, message);
    }
    if let Some((reason, message)) = &facts.write_error {
        let message = format!("{message}; the last good state stays and the write is tried again");
        return draft(false, reason, message);
    }
    if let Some(Words { node, message }) = &facts.blame {
        let message = format!(
            "proxies refuse what is made of it, and are served without it: correct it; {node} says: {message}"
        );
        return draft(false, "Rejected", message);
    }
    if let Some(message) = facts.answers.problem() {
        return draft(false, "Rejected", message);
    }
    if let Some(refusal) = facts.refusals.iter().find(|r| r.blocks_routes) {
        let rest = if facts.retained {
            "what proxies have is left as it is"
        } else {
            "the last good routes stay in force"
        };
        let reason = refusal.problem.reason;
        return draft(false, reason, format!("{rest}: {}", refusal.problem));
    }
    if !facts.over_xds() {
        return draft(
            true,
            "Written",
            "the generated objects are written".to_owned(),
        );
    }
    let (subscribed, acknowledged) = (facts.answers.proxies, facts.answers.holding);
    if subscribed == 0 {
        let message = "the generated objects are written; no proxy has asked for the routes yet";
        return draft(true, "NoProxies", message.to_owned());
    }
    let message = format!("{acknowledged} of {subscribed} proxies have it");
    if acknowledged < subscribed {
        return draft(false, "Pending", message);
    }
    draft(true, "Programmed", message)
}

/// Problems in words, each once.
fn in_words(refusals: &[&Refusal]) -> String {
    let mut seen = BTreeSet::new();
    let lines: Vec<String> = refusals
        .iter()
        .map(|r| format!("{}: {}", r.problem.field, r.problem.message))
        .filter(|line| seen.insert(line.clone()))
        .collect();
    listed(&lines)
}

/// How many proxies have it.
pub fn counts(answers: &Outcome) -> ProxyCounts {
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    ProxyCounts {
        subscribed: number(answers.proxies),
        acknowledged: number(answers.holding),
        refused: number(answers.refusing + answers.suspecting),
    }
}

#[cfg(test)]
mod tests;
