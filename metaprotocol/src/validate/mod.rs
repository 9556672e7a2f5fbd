//! Validation: from the input to what is in force, with what is wrong. Pure.
//!
//! What a schema cannot see is checked here. Routes are an ordered list where the first match wins, so that one bad
//! route cannot be left out: calls that it should take would fall to the routes after it. Therefore
//!
//! - one bad route (a mistake, or something that the filter cannot do and that would send calls elsewhere) keeps
//!   *all* routes of the last good router in force;
//! - a route to a host, port or subset that is not there does so too; but where no last good router is known, for
//!   example after a restart, the routes are applied as written: the others of them work;
//! - with a mistake and no last good router, nothing is put in place: the plan is frozen, and what proxies have stays;
//! - limits, exports and gateways are judged apart from routes, each with its own last good value. A bad `exportTo`
//!   without one is narrowed to the router's own namespace, never widened.

mod limits;
mod routes;
mod values;

use trimtab_kit::problem::Problem;

use crate::features::{
    Feature, RequiredFeature, Support, Target, UnsupportedEffect, support, wanted,
};
use crate::input::{Protocol, Router, ServicePortInput};
use crate::output::Refusal;
pub(crate) use values::is_label;

/// What is in force for one filter.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// The input.
    pub input: &'a ServicePortInput,
    /// The filter that is made.
    pub target: Target,
    /// The router in force: all its durations, patterns, names and numbers are good, and what `target` cannot do is taken
    /// out. `None`: there is no router, everything goes to the service itself.
    pub router: Option<Router>,
    /// [`Self::router`] with all that it asks for, when its routes are those of the input: good to go back to.
    pub accepted: Option<Router>,
    /// What is wrong.
    pub refusals: Vec<Refusal>,
    /// There is a mistake and nothing good to put in its place: outputs that hold routes must not be made, and those
    /// that are in force must be left as they are.
    pub retained: bool,
    /// Nothing can be made of the port.
    pub unusable: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Cannot be applied.
    Invalid,
    /// Names something that is not there.
    Reference,
    /// Is applied, but surely not meant.
    Doubtful,
}

#[derive(Clone, Debug)]
struct Finding {
    problem: Problem,
    class: Class,
}

/// Collects findings of one object.
struct Diagnostics<'a> {
    object: &'a str,
    list: Vec<Finding>,
}

impl<'a> Diagnostics<'a> {
    fn new(object: &'a str) -> Self {
        Self {
            object,
            list: Vec::new(),
        }
    }

    fn add(
        &mut self,
        class: Class,
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let problem = Problem::new(self.object, field, reason, message);
        self.list.push(Finding { problem, class });
    }

    fn invalid(
        &mut self,
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.add(Class::Invalid, field, reason, message);
    }

    fn has(&self, class: Class) -> bool {
        self.list.iter().any(|f| f.class == class)
    }
}

/// Checks `input` for a filter.
pub fn plan(input: &ServicePortInput, target: Target) -> Plan<'_> {
    let mut plan = Plan {
        input,
        target,
        router: None,
        accepted: None,
        refusals: Vec::new(),
        retained: false,
        unusable: false,
    };
    check_port(&mut plan);
    if let Some(router) = &input.router {
        plan_router(&mut plan, router);
    }
    plan
}

fn plan_router(plan: &mut Plan<'_>, written: &Router) {
    let object = written.owner.to_string();
    let last = plan.input.last_good.as_deref();
    let mut router = written.clone();
    router.routes = routes_in_force(plan, &object, written, last, &mut router.owner);

    let bad = limits::local(&object, written);
    if report(plan, bad, false) {
        let good = |l: &&Router| limits::local(&object, l).list.is_empty();
        router.local_rate_limit = last.filter(good).and_then(|l| l.local_rate_limit.clone());
    }
    let bad = limits::global(&object, written);
    if report(plan, bad, false) {
        let good = |l: &&Router| limits::global(&object, l).list.is_empty();
        router.global_rate_limit = last.filter(good).and_then(|l| l.global_rate_limit.clone());
    }
    let bad = routes::exports(&object, written);
    if report(plan, bad, false) {
        let good = |l: &&Router| routes::exports(&object, l).list.is_empty();
        let narrow = || vec![".".to_owned()];
        router.export_to = last
            .filter(good)
            .map_or_else(narrow, |l| l.export_to.clone());
    }
    let closed = routes::closed(&object, plan.input, written);
    report(plan, closed, false);
    if !plan.refusals.iter().any(|r| r.blocks_routes) {
        plan.accepted = Some(router.clone());
    }
    take_out(plan, &mut router);
    check_place_of_limits(plan, &object, &router);
    keep_out(plan.input, &mut router);
    plan.router = Some(router);
}

/// Leaves out the namespaces that take no objects for services of others.
fn keep_out(input: &ServicePortInput, router: &mut Router) {
    if router.export_to.is_empty() {
        return;
    }
    router.export_to.retain(|to| !input.closed.contains(to));
    if router.export_to.is_empty() {
        // Without an entry it would be the default scope.
        router.export_to.push("~".to_owned());
    }
}

/// Limits are held by the service's own sidecars, or by gateways where it has none.
fn check_place_of_limits(plan: &mut Plan<'_>, object: &str, router: &Router) {
    let limited = router.local_rate_limit.is_some() || router.global_rate_limit.is_some();
    let input = plan.input;
    if !limited || !input.workload_selector.is_empty() || !input.gateways.is_empty() {
        return;
    }
    let field = if router.local_rate_limit.is_some() {
        "spec.localRateLimit"
    } else {
        "spec.globalRateLimit"
    };
    let mut findings = Diagnostics::new(object);
    let message = format!(
        "{} selects no pods whose sidecars could hold the limit: set its workload selector, or bind the router to a gateway",
        input.object()
    );
    findings.add(Class::Doubtful, field, "NoWorkload", message);
    report(plan, findings, false);
}

/// The routes to apply, and in `owner` whose they are.
fn routes_in_force(
    plan: &mut Plan<'_>,
    object: &str,
    written: &Router,
    last: Option<&Router>,
    owner: &mut crate::owner::Owner,
) -> Vec<crate::input::Route> {
    let input = plan.input;
    let findings = routes::check(object, input, written);
    let lacks = blocking(input, written, plan.target);
    let last = last.filter(|l| {
        routes::check(object, input, l)
            .list
            .iter()
            .all(|f| f.class == Class::Doubtful)
            && blocking(input, l, plan.target).is_empty()
    });
    let invalid = findings.has(Class::Invalid) || !lacks.is_empty();
    let unresolved = findings.has(Class::Reference);
    let blocked = invalid || (unresolved && last.is_some());
    report(plan, findings, blocked);
    for lack in lacks {
        let refusal = lacking(object, &lack, plan.target, true);
        plan.refusals.push(refusal);
    }
    if !blocked {
        return written.routes.clone();
    }
    if let Some(last) = last {
        owner.clone_from(&last.owner);
        return last.routes.clone();
    }
    plan.retained = true;
    Vec::new()
}

/// Adds findings to the plan; whether any forbids what was checked.
fn report(plan: &mut Plan<'_>, findings: Diagnostics<'_>, blocked: bool) -> bool {
    let bad = findings.list.iter().any(|f| f.class != Class::Doubtful);
    for finding in findings.list {
        let blocks = blocked && finding.class != Class::Doubtful;
        plan.refusals
            .push(Refusal::mistake(finding.problem, blocks));
    }
    bad
}

/// What routes ask for, the filter cannot do, and no route may go without.
fn blocking(input: &ServicePortInput, router: &Router, target: Target) -> Vec<RequiredFeature> {
    let lost = |u: &RequiredFeature| {
        !support(u.feature, target).usable() && u.feature.loss() == UnsupportedEffect::BlocksRoutes
    };
    wanted(input, router).into_iter().filter(lost).collect()
}

/// Takes out what the filter cannot do, with a refusal for each.
fn take_out(plan: &mut Plan<'_>, router: &mut Router) {
    let object = router.owner.to_string();
    for lack in wanted(plan.input, router) {
        if support(lack.feature, plan.target).usable()
            || lack.feature.loss() == UnsupportedEffect::BlocksRoutes
        {
            continue;
        }
        let refusal = lacking(&object, &lack, plan.target, false);
        plan.refusals.push(refusal);
        strip(router, &lack);
    }
}

fn strip(router: &mut Router, lack: &RequiredFeature) {
    match lack.feature {
        Feature::LocalRateLimit => {
            if let Some(limit) = &mut router.local_rate_limit {
                limit.bucket = None;
            }
        }
        Feature::LocalRateLimitConditions => {
            if let Some(limit) = &mut router.local_rate_limit {
                limit.conditions.clear();
            }
        }
        Feature::GlobalRateLimit => router.global_rate_limit = None,
        Feature::Gateways => router.gateways.clear(),
        _ => {}
    }
    let empty = |l: &crate::input::LocalRateLimit| l.bucket.is_none() && l.conditions.is_empty();
    router.local_rate_limit.take_if(|l| empty(l));
    let Some(route) = lack.route.and_then(|i| router.routes.get_mut(i)) else {
        return;
    };
    match lack.feature {
        Feature::Mirror => route.mirror = None,
        Feature::RequestMutation => route.request_mutation.clear(),
        Feature::ResponseMutation => route.response_mutation.clear(),
        Feature::Timeout => route.timeout = None,
        Feature::Retries => route.retries = None,
        _ => {}
    }
}

/// The refusal of a feature.
fn lacking(object: &str, lack: &RequiredFeature, target: Target, blocks_routes: bool) -> Refusal {
    let (reason, fix) = match support(lack.feature, target) {
        Support::No { reason, fix } => (reason, fix),
        _ => ("the protocol has nothing of the kind", "remove the field"),
    };
    let effect = if blocks_routes {
        "no route of this version is applied"
    } else {
        "the rest is applied without it"
    };
    let message = format!(
        "{} on {}: {reason}; {effect}: {fix}",
        lack.feature.title(),
        target.title()
    );
    Refusal {
        problem: Problem::new(object, lack.field.clone(), "NotSupported", message),
        target: Some(target),
        feature: Some(lack.feature),
        blocks_routes,
    }
}

/// Reason of a remark: callers have no address to call. Proxies without Istio need none.
pub const NO_ADDRESS: &str = "NoAddress";

/// What is wrong with the port itself.
fn check_port(plan: &mut Plan<'_>) {
    let input = plan.input;
    let object = input.object();
    let mut findings = Diagnostics::new(&object);
    let field = format!("spec.ports[{}].name", input.port.name);
    if let Protocol::MetaProtocol {
        application_protocol,
        codec,
        ..
    } = &input.protocol
    {
        if application_protocol.is_empty() {
            plan.unusable = true;
            findings.invalid(
                &field,
                "InvalidPortName",
                format!(
                    "\"{}\" does not say which protocol: name the port like tcp-metaprotocol-dubbo",
                    input.port.name
                ),
            );
        } else if codec.is_none() {
            plan.unusable = true;
            findings.invalid(&field, "UnknownProtocol", format!(
                "there is no ApplicationProtocol \"{application_protocol}\": create it with spec.protocol and spec.codec, or correct the port's name"
            ));
        }
    }
    if input.vips.is_empty() && !input.headless {
        findings.add(Class::Doubtful, "spec.addresses", NO_ADDRESS, format!(
            "{} has no address that callers could use, so only its own side is configured: set spec.addresses, or switch on address allocation",
            input.host
        ));
    }
    plan.retained |= plan.unusable;
    report(plan, findings, true);
}
