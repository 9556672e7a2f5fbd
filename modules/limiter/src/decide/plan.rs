//! Which rules lose their tokens together, and which buckets fill in steps. Pure.
//!
//! Envoy fills every bucket of a configuration that changes. With delivery ECDS a resource is one configuration, so each rule has
//! one of its own. With delivery `EnvoyFilter` the buckets are in routes: a change of one fills all of the object.

use std::collections::BTreeMap;

use trimtab_crds::limiter::{Delivery, FallbackAction};
use trimtab_kit::condition::listed;
use trimtab_kit::problem::Problem;

use crate::input::{LimiterInput, Proxies};
use crate::validate::{Rule, Strategy, Validated};

/// Filters of a set, at most: each reads all matches of the route, and each is a subscription of the proxy.
pub const MOST_FILTERS: usize = 16;

/// Rules whose buckets are in one configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// All rules of the object: delivery `EnvoyFilter`.
    Object,
    /// The fixed rules of a set with more than [`MOST_FILTERS`] rules, the only rule of a set, and those whose answers tell the
    /// limit: each filter would add lines of its own to the answers of all.
    Shared(String),
    /// One rule.
    Own(String, usize),
    /// The rules that move and have no filter of their own any more.
    Rest(String),
}

/// How the rules of a limiter are laid out. Depends on what is written, never on a decision, so that proxies keep their filters.
#[derive(Debug)]
pub struct Plan {
    rules: BTreeMap<(String, usize), (Group, bool)>,
}

impl Plan {
    /// The plan of a limiter.
    pub fn new(input: &LimiterInput, validated: &Validated) -> Self {
        let mut own: BTreeMap<&str, usize> = BTreeMap::new();
        let mut placed: Vec<(&Rule, Group)> = Vec::new();
        for rule in validated.good() {
            let of_set = validated.rules.iter().filter(|c| c.set == rule.set).count();
            let group = if input.delivery() == Delivery::EnvoyFilter {
                Group::Object
            } else if of_set == 1 || tells(rule) || (of_set > MOST_FILTERS && !moves(rule)) {
                Group::Shared(rule.set.clone())
            } else {
                let taken = own.entry(&rule.set).or_default();
                *taken += 1;
                if *taken < MOST_FILTERS || of_set <= MOST_FILTERS {
                    Group::Own(rule.set.clone(), rule.index)
                } else {
                    Group::Rest(rule.set.clone())
                }
            };
            placed.push((rule, group));
        }
        let steps = |rule: &Rule, group: &Group| {
            // Envoy fills the buckets of the law as they are: their fills are short.
            rule.strategy != Strategy::Adaptive
                && (varies(input, rule)
                    || placed
                        .iter()
                        .any(|(other, g)| g == group && other.path != rule.path && moves(other)))
        };
        let rules = placed
            .iter()
            .map(|(rule, group)| {
                let key = (rule.set.clone(), rule.index);
                (key, (group.clone(), steps(rule, group)))
            })
            .collect();
        Self { rules }
    }

    /// The group of a rule.
    pub fn group(&self, set: &str, index: usize) -> Option<&Group> {
        self.of(set, index).map(|(group, _)| group)
    }

    /// Whether the bucket of a rule fills in steps: something may fill it out of turn.
    pub fn in_steps(&self, set: &str, index: usize) -> bool {
        self.of(set, index).is_some_and(|(_, steps)| *steps)
    }

    fn of(&self, set: &str, index: usize) -> Option<&(Group, bool)> {
        self.rules.get(&(set.to_owned(), index))
    }
}

/// A limit that moves, by EnvoyFilter, beside another limiter of the same pods and ports: their routes are one configuration,
/// and each change of it fills the buckets of both.
pub(crate) fn fills_others(input: &LimiterInput, validated: &Validated) -> Option<Problem> {
    let by_routes = |delivery: Delivery| delivery == Delivery::EnvoyFilter;
    let moving = validated.good().any(moves);
    if !moving || !by_routes(input.delivery()) || input.settings.proxies == Proxies::Plain {
        return None;
    }
    let others = input.target.neighbours.iter();
    let others = others.filter(|(_, d)| by_routes(d.unwrap_or(input.settings.delivery)));
    let names: Vec<String> = others.map(|(name, _)| name.clone()).collect();
    (!names.is_empty()).then(|| {
        let names = listed(&names);
        Problem::of_field(
            "spec.delivery",
            "AcceptedWithRemarks",
            format!(
                "this limit moves, and each change fills the buckets of {names} too, which limits the same pods and ports: set delivery: ECDS"
            ),
        )
    })
}

/// Whether a rule in force gets another quota now and then.
fn varies(input: &LimiterInput, rule: &Rule) -> bool {
    let fallback = input.spec.fallback.as_ref().map(|f| f.action);
    !rule.quota.names().is_empty()
        || rule.strategy == Strategy::Average
        || (fallback == Some(FallbackAction::Limit) && !rule.condition.names().is_empty())
}

/// Whether answers tell the limit.
fn tells(rule: &Rule) -> bool {
    let response = rule.descriptor.action.response.as_ref();
    response.and_then(|r| r.rate_limit_headers) == Some(true)
}

/// Whether anything but an edit changes what a rule gives.
fn moves(rule: &Rule) -> bool {
    !rule.condition.names().is_empty()
        || !rule.quota.names().is_empty()
        || rule.strategy != Strategy::Single
}
