//! From decided rules to objects. Pure and total; the same input gives the same bytes.
//!
//! Two deliveries with one identity: the descriptor value of a rule depends on what it matches and where, never on
//! its quota, so a changed quota changes one number and nothing else.

mod actions;
pub mod actuator;
pub mod cluster_share;
mod default_config;
mod envoy_filter;
mod extension_config;
mod limit;
mod names;

use std::collections::BTreeMap;

use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::{Delivery, DescriptorStatus, Mode};
use trimtab_kit::envoyfilter::RoutePlace;
use xxhash_rust::xxh3::xxh3_64;

pub use default_config::{decided_limits, default_limits};
pub use envoy_filter::PRIORITY;
pub use extension_config::{EXTENSION_CONFIG_TYPE, ExtensionConfig};
pub use names::envoy_filter_name;

use crate::decide::bucket;
use crate::decide::plan::{Group, Plan};
use crate::input::LimiterInput;
use crate::validate::{Rule, Validated};
use actions::{ActionSet, action_sets};
use limit::{Bucket, LocalLimit, Profile};

/// What one limiter gives.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// Sorted by name.
    pub envoy_filters: Vec<EnvoyFilter>,
    /// Hot values for ECDS, sorted by name.
    pub extension_configs: Vec<ExtensionConfig>,
}

/// One rule at one place: what becomes a route action and a bucket.
struct PlacedRule<'a> {
    place: &'a RoutePlace,
    sets: Vec<ActionSet>,
    profile: Profile,
    /// What is in force.
    bucket: Option<bucket::Bucket>,
}

/// Translates `input` with its decisions. Sets without a live rule give nothing with delivery EnvoyFilter; with ECDS the
/// static part stays for as long as the limiter is accepted, so that switching on and off touches no listener.
pub fn translate(
    input: &LimiterInput,
    validated: &Validated,
    decisions: &[DescriptorStatus],
) -> Translation {
    let mut out = Translation::default();
    for (set, placed_rules) in placed(input, validated, decisions) {
        match input.delivery() {
            Delivery::EnvoyFilter => {
                let live: Vec<PlacedRule<'_>> = placed_rules
                    .into_iter()
                    .filter(|p| p.bucket.is_some())
                    .collect();
                if !live.is_empty() {
                    out.envoy_filters
                        .push(envoy_filter::whole(input, set, &live));
                }
            }
            Delivery::Ecds => {
                out.envoy_filters
                    .push(envoy_filter::with_discovery(input, set, &placed_rules));
                out.extension_configs
                    .extend(extension_config::of_set(input, set, &placed_rules));
            }
        }
    }
    out
}

/// The accepted rules of each set of pods at their places.
fn placed<'a>(
    input: &LimiterInput,
    validated: &'a Validated,
    decisions: &[DescriptorStatus],
) -> BTreeMap<&'a str, Vec<PlacedRule<'a>>> {
    let mut by_set: BTreeMap<&str, Vec<PlacedRule<'_>>> = BTreeMap::new();
    if input.target.problem.is_some() {
        return by_set;
    }
    let mut seen = BTreeMap::new();
    let plan = Plan::new(input, validated);
    for rule in validated.good() {
        if !input.target.sets.contains_key(&rule.set) {
            continue;
        }
        let index = i32::try_from(rule.index).unwrap_or(i32::MAX);
        let decision = decisions
            .iter()
            .find(|d| d.set == rule.set && d.index == index);
        let bucket = decision.and_then(|d| bucket(&plan, rule, d));
        let mut profile = Profile::of(rule);
        for (n, place) in rule.places.iter().enumerate() {
            let identity = identity(input, rule, place, &mut seen);
            if n == 0 {
                profile.filter = own_filter(&plan, rule, &identity);
            }
            by_set.entry(&rule.set).or_default().push(PlacedRule {
                place,
                sets: action_sets(&rule.matches, &identity),
                profile: profile.clone(),
                bucket,
            });
        }
    }
    by_set
}

fn bucket(plan: &Plan, rule: &Rule, decision: &DescriptorStatus) -> Option<bucket::Bucket> {
    let own = rule.descriptor.action.fill_interval;
    let interval = decision.interval.or(own).unwrap_or_default();
    decision.quota.map(|quota| {
        if plan.in_steps(&rule.set, rule.index) {
            bucket::Bucket::in_steps(quota, interval)
        } else {
            bucket::Bucket::whole(quota, interval)
        }
    })
}

/// What tells the filter of a rule from the common one of its set. Filters of short intervals go first: a request that a short
/// window refuses then takes no token of a long one, whereas within a filter Envoy asks the slowest bucket first.
fn own_filter(plan: &Plan, rule: &Rule, identity: &str) -> Option<(i64, String)> {
    match plan.group(&rule.set, rule.index)? {
        Group::Object | Group::Shared(_) => None,
        Group::Own(..) => {
            let interval = rule.descriptor.action.fill_interval.unwrap_or_default();
            Some((interval.millis(), identity.to_owned()))
        }
        Group::Rest(_) => Some((i64::MAX, "rest".to_owned())),
    }
}

/// Name of the filter of a rule, where it is one that EnvoyFilters of others can name: with delivery ECDS it has a name of its own.
pub(crate) fn filter_of(input: &LimiterInput, rule: &Rule) -> Option<String> {
    let by_object = input.delivery() == Delivery::EnvoyFilter;
    by_object.then(|| envoy_filter::local_filter_name(input, &rule.set, &Profile::of(rule)))
}

/// The descriptor value of a rule at a place: `Service[name.namespace]-Id[n]`, with a number that depends on match and
/// place only. Rules that are equal in both are told apart by their order.
fn identity(
    input: &LimiterInput,
    rule: &Rule,
    place: &RoutePlace,
    seen: &mut BTreeMap<String, usize>,
) -> String {
    let canonical = serde_json::json!([
        rule.set,
        rule.descriptor.matches,
        rule.descriptor.custom_key,
        rule.descriptor.custom_value,
        place.context.as_str(),
        place.vhost,
        place.route,
    ])
    .to_string();
    let nth = seen.entry(canonical.clone()).or_insert(0);
    let id = xxh3_64(format!("{canonical}#{nth}").as_bytes()) % 10_000_000_000;
    *nth += 1;
    let owner = &input.owner;
    format!("Service[{}.{}]-Id[{id}]", owner.name, owner.namespace)
}

/// The configuration of one filter: the buckets of `pieces` with `profile`, only live ones.
fn local_limit(
    input: &LimiterInput,
    placed_rules: &[&PlacedRule<'_>],
    profile: &Profile,
) -> LocalLimit {
    local_limit_with(input, placed_rules, profile, |piece, _| piece.bucket)
}

/// As [`local_limit`], with the buckets that `bucket_of` gives to the entries of a rule.
fn local_limit_with(
    input: &LimiterInput,
    placed_rules: &[&PlacedRule<'_>],
    profile: &Profile,
    bucket_of: impl Fn(&PlacedRule<'_>, &[(String, String)]) -> Option<bucket::Bucket>,
) -> LocalLimit {
    let mut buckets: Vec<Bucket> = Vec::new();
    for piece in placed_rules
        .iter()
        .filter(|p| p.profile.same_filter(profile))
    {
        for set in &piece.sets {
            let Some(bucket) = bucket_of(piece, &set.entries) else {
                continue;
            };
            // Envoy refuses two buckets with the same entries, and with them the whole configuration. Only a custom
            // pair can be at several places of one filter; its requests then share a bucket.
            if !buckets.iter().any(|b| b.entries == set.entries) {
                buckets.push(Bucket {
                    entries: set.entries.clone(),
                    bucket,
                });
            }
        }
    }
    LocalLimit {
        buckets,
        profile: profile.clone(),
        shadow: input.spec.mode == Mode::Shadow,
    }
}

/// Profiles in use, the default one first.
fn profiles(placed_rules: &[PlacedRule<'_>]) -> Vec<Profile> {
    let mut out: Vec<Profile> = placed_rules.iter().map(|p| p.profile.clone()).collect();
    out.sort();
    out.dedup();
    out
}

#[cfg(test)]
mod tests;
