//! What became of one object of a user, gathered from the hosts that it has a part in.

use std::collections::BTreeSet;

use trimtab_crds::metaprotocol::ProxyCounts;
use trimtab_kit::answers::{Outcome, Part};
use trimtab_kit::problem::Problem;

use super::host::HostState;
use super::{Engine, Inner};
use crate::index::Seen;
use crate::input::ServicePortInput;
use crate::object::{Kind, ObjectKey};
use crate::output::Refusal;
use crate::status::{Facts, counts};

impl Engine {
    /// What proxies said to the routes of a MetaRouter; `None`: it is not in force.
    pub fn proxies_of(&self, key: &ObjectKey) -> Option<ProxyCounts> {
        let seen = self.index.seen(key)?;
        let facts = self.facts(key, &seen);
        facts.in_force.then(|| counts(&facts.answers))
    }

    pub(super) fn facts(&self, key: &ObjectKey, seen: &Seen) -> Facts {
        let inner = self.inner.lock();
        let users = inner.users.get(key).into_iter().flatten();
        let states: Vec<&HostState> = users.filter_map(|h| inner.hosts.get(h)).collect();
        let mut facts = Facts {
            key: key.clone(),
            generation: seen.generation,
            refusals: Vec::new(),
            in_force: false,
            idle: idle(key, seen),
            programs: BTreeSet::new(),
            retained: false,
            write_error: None,
            served: false,
            answers: Outcome::default(),
            blame: None,
            routes: 0,
        };
        let own = key.to_string();
        for state in &states {
            inner.add_host(key, &own, state, &mut facts);
        }
        for problem in states.iter().flat_map(|s| &s.problems) {
            if problem.object == own {
                let refusal = Refusal::mistake(problem.clone(), false);
                facts.refusals.push(refusal);
            }
        }
        add_lone(key, seen, states.is_empty(), &mut facts);
        let mut once = Vec::new();
        for refusal in std::mem::take(&mut facts.refusals) {
            if !once.contains(&refusal) {
                once.push(refusal);
            }
        }
        facts.refusals = once;
        let parts: Vec<Part> = states.iter().flat_map(|s| s.parts()).collect();
        drop(inner);
        self.add_answers(parts, &own, &mut facts);
        facts
    }

    /// What proxies say to the resources of its hosts, and to what the data plane makes of it.
    fn add_answers(&self, mut parts: Vec<Part>, own: &str, facts: &mut Facts) {
        if !facts.in_force {
            return;
        }
        let served = self.answers.parts_of(own);
        facts.served = !served.is_empty();
        parts.extend(served);
        facts.answers = self.answers.of(&parts);
        facts.blame = self.answers.blame(own);
    }
}

impl Inner {
    fn add_host(&self, key: &ObjectKey, own: &str, state: &HostState, facts: &mut Facts) {
        let mut used = false;
        for port in state.ports.values() {
            if !has_part(key, &port.input) {
                continue;
            }
            used = true;
            let service = port.input.object();
            let refusals = port.made.refusals.iter();
            let about = |r: &&Refusal| r.problem.object == own || r.problem.object == service;
            facts.refusals.extend(refusals.filter(about).cloned());
            let of_service = state.problems.iter().filter(|p| p.object == service);
            let of_service = of_service.map(|p| Refusal::mistake(p.clone(), false));
            facts.refusals.extend(of_service);
            facts.programs.extend(port.made.programs.iter().copied());
            facts.retained |= port.made.retained;
        }
        if !used {
            return;
        }
        facts.in_force = true;
        if key.kind == Kind::MetaRouter {
            facts.routes = state.in_force().map_or(0, |r| r.routes.len());
        }
        let owner = state.owner.as_ref();
        let error = owner.and_then(|o| self.errors.get(o));
        if facts.write_error.is_none() {
            facts.write_error = error.cloned();
        }
    }
}

/// Whether an object is in force on a port.
pub(super) fn has_part(key: &ObjectKey, input: &ServicePortInput) -> bool {
    let is = |owner: &crate::owner::Owner| {
        owner.kind == key.kind.as_str()
            && owner.namespace == key.namespace
            && owner.name == key.name
    };
    match key.kind {
        Kind::MetaRouter => input.router.as_ref().is_some_and(|r| is(&r.owner)),
        Kind::RedisService => input.redis.as_ref().is_some_and(|r| is(&r.owner)),
        Kind::RedisDestination => {
            let mut destinations = input.redis_destinations.values();
            destinations.any(|d| is(&d.owner))
        }
        Kind::DubboAuthorizationPolicy => input.dubbo_policies.iter().any(|p| is(&p.owner)),
        Kind::ApplicationProtocol => false,
    }
}

/// What is wrong with an object that no host uses.
fn add_lone(key: &ObjectKey, seen: &Seen, lone: bool, facts: &mut Facts) {
    let mut add = |field: &str, reason, message: String| {
        let problem = Problem::new(key, field, reason, message);
        facts.refusals.push(Refusal::mistake(problem, false));
    };
    if seen.foreign {
        add(
            "metadata.namespace",
            "NotOwner",
            format!(
                "an ApplicationProtocol holds for the whole mesh, and objects of namespace {} do not decide for it: create it in the root namespace, or have {} added to metaprotocol.trustedNamespaces",
                key.namespace, key.namespace
            ),
        );
    } else if let Some(other) = &seen.overridden_by {
        let protocol = seen.names.join(", ");
        add(
            "spec.protocol",
            "Conflict",
            format!(
                "ApplicationProtocol {other} is in force for \"{protocol}\", because it is the last by name: delete one of the two"
            ),
        );
    }
    if lone && key.kind == Kind::DubboAuthorizationPolicy {
        add(
            "metadata.namespace",
            "NoHost",
            format!(
                "no service of namespace {} has a Dubbo port: name the port like tcp-dubbo, or put the policy into the namespace of its service",
                key.namespace
            ),
        );
    }
}

fn idle(key: &ObjectKey, seen: &Seen) -> String {
    let hosts = seen.names.join(", ");
    match key.kind {
        Kind::MetaRouter => {
            format!("nothing is made of it: see ResolvedRefs, and the ports of {hosts}")
        }
        Kind::RedisService | Kind::RedisDestination => {
            format!("nothing is made of it: no Redis port has a use for it at {hosts}")
        }
        Kind::DubboAuthorizationPolicy => {
            "nothing is made of it: there is no Dubbo service in its namespace".to_owned()
        }
        Kind::ApplicationProtocol => String::new(),
    }
}
