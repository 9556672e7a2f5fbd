//! Validation: from what the user wrote to rules that can be decided and translated, or problems. Pure.
//!
//! A bad descriptor is refused alone; the others go on. Only what makes the whole object meaningless refuses it.

mod action;
mod adaptive;
mod matches;
mod target;

use std::sync::Arc;

use trimtab_crds::Duration;
use trimtab_crds::limiter::{BASE_SET, Delivery, Descriptor, LimiterSpec};
use trimtab_kit::identity::XdsEndpoint;
use trimtab_kit::problem::Problem;

pub(crate) use action::RETRY_AFTER;
pub use adaptive::AdaptiveRule;
pub use matches::{Address, RuleMatch, Separate, Test, ValueMatch};
pub(crate) use target::virtual_hosts;

use crate::decide::expression::Expression;
use crate::input::ServicePort;
use crate::owner::Owner;
use trimtab_kit::envoyfilter::RoutePlace;

/// How a quota is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Per pod.
    Single,
    /// The service's total, shared by its Ready pods.
    Average,
    /// What keeps the service at its capacity, found by the law.
    Adaptive,
}

impl Strategy {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Average => "average",
            Self::Adaptive => "adaptive",
        }
    }
}

/// A descriptor that passed validation.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `_base` or a subset.
    pub set: String,
    /// Index in the set.
    pub index: usize,
    /// Path of the descriptor in the object.
    pub path: String,
    /// As written.
    pub descriptor: Descriptor,
    /// When.
    pub condition: Arc<Expression>,
    /// How much.
    pub quota: Arc<Expression>,
    /// How the quota is meant.
    pub strategy: Strategy,
    /// With strategy `adaptive`: its options.
    pub adaptive: Option<AdaptiveRule>,
    /// Which requests.
    pub matches: RuleMatch,
    /// Where.
    pub places: Vec<RoutePlace>,
    /// Is applied, but surely not meant.
    pub remarks: Vec<Problem>,
}

/// What validation found.
#[derive(Clone, Debug, Default)]
pub struct Validated {
    /// Makes the object as a whole unusable.
    pub object: Vec<Problem>,
    /// By set and index, in the order of the spec.
    pub rules: Vec<Checked>,
}

/// One descriptor.
#[derive(Clone, Debug)]
pub struct Checked {
    /// `_base` or a subset.
    pub set: String,
    /// Index in the set.
    pub index: usize,
    /// The rule, or what is wrong with it.
    pub rule: Result<Rule, Problem>,
    /// The version before, of a descriptor that an edit has broken: it stays in force.
    pub kept: Option<Rule>,
}

impl Checked {
    /// The rule in force.
    pub fn in_force(&self) -> Option<&Rule> {
        self.rule.as_ref().ok().or(self.kept.as_ref())
    }
}

impl Validated {
    /// Rules in force; none when the object is refused.
    pub fn good(&self) -> impl Iterator<Item = &Rule> {
        let whole = self.object.is_empty();
        self.rules
            .iter()
            .filter(move |_| whole)
            .filter_map(Checked::in_force)
    }

    /// Keeps the rules of `before` for descriptors that an edit has broken.
    pub fn keep_from(&mut self, before: &Self) {
        for broken in self.rules.iter_mut().filter(|c| c.rule.is_err()) {
            let same = |c: &&Checked| c.set == broken.set && c.index == broken.index;
            let old = before.rules.iter().find(same);
            broken.kept = old.and_then(Checked::in_force).cloned();
        }
    }

    /// What is applied, but surely not meant.
    pub fn remarks(&self) -> impl Iterator<Item = &Problem> {
        self.good().flat_map(|rule| &rule.remarks)
    }

    /// All problems, the object's first.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.object
            .iter()
            .chain(self.rules.iter().filter_map(|c| c.rule.as_ref().err()))
    }
}

/// What all descriptors of a limiter are checked with.
#[derive(Clone, Copy)]
struct Scope<'a> {
    owner: &'a Owner,
    spec: &'a LimiterSpec,
    ports: &'a [ServicePort],
}

/// Checks `spec` without looking at the mesh: an inbound port stands for itself.
pub fn validate(owner: &Owner, spec: &LimiterSpec) -> Validated {
    validate_for(owner, spec, &[])
}

/// Checks `spec` for a Service with `ports` ([`TargetFacts::ports`](crate::input::TargetFacts::ports)): an inbound port
/// that is none of them is the workload's, and stands for the Service ports that lead to it.
pub fn validate_for(owner: &Owner, spec: &LimiterSpec, ports: &[ServicePort]) -> Validated {
    let scope = Scope { owner, spec, ports };
    let mut out = Validated {
        object: object_problems(spec),
        rules: Vec::new(),
    };
    for (set, descriptors) in &spec.sets {
        for (index, descriptor) in descriptors.iter().enumerate() {
            let path = owner.descriptor_path(set, index);
            let rule = check(scope, set, index, &path, descriptor);
            out.rules.push(Checked {
                set: set.clone(),
                index,
                rule,
                kept: None,
            });
        }
    }
    refuse_repeated_pairs(&mut out.rules);
    adaptive::check_sets(&mut out.rules);
    if out.object.is_empty() && out.rules.is_empty() {
        let field = if owner.is_first_form() {
            "spec.descriptors"
        } else {
            "spec.sets"
        };
        out.object.push(Problem::of_field(
            field,
            "NoDescriptors",
            "the limiter has no descriptor: add one with condition and action",
        ));
    }
    out
}

/// A custom pair names one bucket at a place, and a bucket has one quota.
fn refuse_repeated_pairs(rules: &mut [Checked]) {
    let mut seen: Vec<(String, (String, String), Vec<RoutePlace>)> = Vec::new();
    for checked in rules {
        let Ok(rule) = &checked.rule else { continue };
        let Some(pair) = &rule.matches.custom else {
            continue;
        };
        let repeated = seen.iter().any(|(set, p, places)| {
            *set == rule.set && p == pair && places.iter().any(|place| rule.places.contains(place))
        });
        if repeated {
            checked.rule = Err(Problem::of_field(
                format!("{}.custom_key", rule.path),
                "InvalidMatch",
                format!(
                    "an earlier descriptor has {}={} at the same place: keep one of the two",
                    pair.0, pair.1
                ),
            ));
        } else {
            seen.push((rule.set.clone(), pair.clone(), rule.places.clone()));
        }
    }
}

fn object_problems(spec: &LimiterSpec) -> Vec<Problem> {
    let mut out = Vec::new();
    if spec.rollout.is_some() {
        out.push(Problem::of_field("spec.rollout", "NotSupported", "the roll-out ladder is not available yet: remove spec.rollout, use mode: Shadow and then mode: Enforce"));
    }
    let hold_for = spec.hold_for.as_deref().map(str::parse::<Duration>);
    if let Some(Err(error)) = hold_for {
        out.push(Problem::of_field(
            "spec.holdFor",
            "InvalidDuration",
            error.to_string(),
        ));
    }
    let stabilization = spec.stabilization.as_ref();
    let window = stabilization.and_then(|s| s.window.as_deref());
    if let Some(Err(error)) = window.map(str::parse::<Duration>) {
        out.push(Problem::of_field(
            "spec.stabilization.window",
            "InvalidDuration",
            error.to_string(),
        ));
    }
    if spec.gateway && spec.host.is_some() {
        out.push(Problem::of_field("spec.host", "InvalidTarget", "host names a ServiceEntry of the mesh and cannot be used with gateway: true: use target.host or target.route"));
    }
    for name in spec.metrics.keys() {
        let ok = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
            && !name.ends_with('.')
            && !name.contains("..");
        if !ok || name == "pod" {
            out.push(Problem::of_field(
                format!("spec.metrics.{name}"),
                "InvalidMetricName",
                format!("\"{name}\" cannot be a metric's name: use letters, digits, _ and single dots, and not pod"),
            ));
        }
    }
    out
}

fn check(
    scope: Scope<'_>,
    set: &str,
    index: usize,
    path: &str,
    d: &Descriptor,
) -> Result<Rule, Problem> {
    let adaptive = adaptive::is_adaptive(d)
        .then(|| adaptive::check(scope, d, path))
        .transpose()?;
    let (condition_text, quota_text) = match adaptive {
        Some(_) => ("true", "0"),
        None => (d.condition.as_str(), d.action.quota.as_str()),
    };
    let condition = compile(condition_text, &format!("{path}.condition"))?;
    let quota = compile(quota_text, &format!("{path}.action.quota"))?;
    not_negative(&quota, &format!("{path}.action.quota"))?;
    if !quota.is_number() {
        return Err(Problem::of_field(
            format!("{path}.action.quota"),
            "InvalidExpression",
            format!(
                "\"{}\" is true or false: a quota is a number of requests, for example 100 or pod > 3 ? 100 : 50",
                d.action.quota
            ),
        ));
    }
    let strategy = action::check(&d.action, &format!("{path}.action"))?;
    let matches = matches::check(d, path)?;
    let gateway_base_only = scope.spec.gateway && set != BASE_SET;
    if gateway_base_only {
        return Err(Problem::of_field(
            path,
            "InvalidTarget",
            "subsets cannot be used with gateway: true: move the descriptor to the set _base",
        ));
    }
    let places = target::check(scope, d, path)?;
    let mut remarks = matches::remarks(d, path);
    remarks.extend(bare_number(&condition, &d.condition, path));
    Ok(Rule {
        set: set.to_owned(),
        index,
        path: path.to_owned(),
        descriptor: d.clone(),
        condition: Arc::new(condition),
        quota: Arc::new(quota),
        strategy,
        adaptive,
        matches,
        places,
        remarks,
    })
}

/// A condition that is a metric alone: Slime's rule makes it true at exactly 1, which nobody means.
fn bare_number(condition: &Expression, text: &str, path: &str) -> Option<Problem> {
    let bare = condition.is_number() && !condition.names().is_empty();
    bare.then(|| {
        Problem::of_field(
            format!("{path}.condition"),
            "AcceptedWithRemarks",
            format!("\"{text}\" is a number, which counts as true at exactly 1 only: write a comparison, for example {text} > 0"),
        )
    })
}

/// What is always less than nothing is a slip of the pen.
fn not_negative(quota: &Expression, field: &str) -> Result<(), Problem> {
    match quota.number(&[]) {
        Ok(value) if quota.names().is_empty() && value < 0.0 => Err(Problem::of_field(
            field,
            "InvalidQuota",
            format!(
                "the quota is {value}: write the number of requests per fill_interval, 0 to refuse every request"
            ),
        )),
        _ => Ok(()),
    }
}

fn compile(text: &str, field: &str) -> Result<Expression, Problem> {
    Expression::compile(text)
        .map_err(|e| Problem::of_field(field, e.reason(), format!("\"{text}\": {e}")))
}

/// Whether `delivery` can be used with these settings.
pub fn delivery_problem(delivery: Delivery, xds: &XdsEndpoint) -> Option<Problem> {
    (delivery == Delivery::Ecds && xds.address.is_empty()).then(|| {
        Problem::of_field(
            "spec.delivery",
            "NotConfigured",
            "delivery ECDS needs the operator's xDS address: set xds.advertise in the configuration, or use delivery: EnvoyFilter",
        )
    })
}
