//! EnvoyFilters of others that take a limit out of the proxies' configuration, or limit the same requests too. Pure.
//!
//! Envoy takes the configuration of a filter from the most specific place: the route, then the virtual host. Of two patches for
//! one place the later one counts.

use trimtab_kit::condition::listed;
use trimtab_kit::envoyfilter::RoutePlace;
use trimtab_kit::problem::Problem;
use trimtab_mesh::model::{LimitChange, LimitPatch};

use crate::input::{LimiterInput, Order, Proxies, Rival};
use crate::translate::{PRIORITY, filter_of};
use crate::validate::{Rule, Validated};

/// How much of a rule is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Overridden {
    /// Nothing.
    Whole(String),
    /// Some pods or places.
    Partly(String),
    /// Nobody can tell.
    Perhaps(String),
}

/// What others do to a rule; none: nothing that is known.
pub(crate) fn overridden(input: &LimiterInput, rule: &Rule) -> Option<Overridden> {
    let own = filter_of(input, rule);
    let own = Own {
        filter: own.as_deref(),
        actions: rule.matches.custom.is_none(),
    };
    let (mut whole, mut partly, mut perhaps) = (Vec::new(), Vec::new(), Vec::new());
    for rival in &input.target.rivals {
        let Some(all) = rival.sets.get(&rule.set).copied() else {
            continue;
        };
        for patch in &rival.patches {
            let hits: Vec<Hit> = rule
                .places
                .iter()
                .map(|place| hit(rival, patch, place, own))
                .collect();
            let text = || said(rival, patch);
            let everywhere = !hits.is_empty() && hits.iter().all(|hit| *hit == Hit::Yes);
            if everywhere && all {
                whole.push(text());
            } else if hits.iter().any(|hit| matches!(hit, Hit::Yes | Hit::Some)) {
                partly.push(text());
            } else if hits.contains(&Hit::Perhaps) {
                perhaps.push(text());
            }
        }
    }
    for texts in [&mut whole, &mut partly, &mut perhaps] {
        texts.dedup();
    }
    if !whole.is_empty() {
        return Some(Overridden::Whole(listed(&whole)));
    }
    if !partly.is_empty() {
        return Some(Overridden::Partly(listed(&partly)));
    }
    (!perhaps.is_empty()).then(|| Overridden::Perhaps(listed(&perhaps)))
}

/// Whether a patch takes a rule away at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hit {
    No,
    /// For some of its virtual hosts or routes.
    Some,
    /// It depends on what is not known.
    Perhaps,
    Yes,
}

/// What a rule puts into proxies.
#[derive(Clone, Copy, Debug)]
struct Own<'a> {
    /// Name of its filter, where others can name it.
    filter: Option<&'a str>,
    /// Actions; a rule with `custom_key` waits for those of others.
    actions: bool,
}

fn hit(rival: &Rival, patch: &LimitPatch, place: &RoutePlace, own: Own<'_>) -> Hit {
    let context = patch.context.as_deref();
    if context.is_some_and(|context| context != place.context.as_str()) {
        return Hit::No;
    }
    let is_own = |name: &String| own.filter == Some(name.as_str());
    let later = match rival.order {
        Order::Before => Hit::No,
        Order::After => Hit::Yes,
        Order::Unknown => Hit::Perhaps,
    };
    let at_route = place.route.is_some();
    let hit = match &patch.does {
        // Of filters that are inserted after the patch, older releases remove those too, and newer ones do not.
        LimitChange::Removes(name) if is_own(name) => match rival.order {
            Order::After => Hit::Yes,
            Order::Before | Order::Unknown => Hit::Perhaps,
        },
        LimitChange::RemovesAll => Hit::Yes,
        LimitChange::Routes(names) if names.iter().any(is_own) => {
            if at_route {
                later
            } else {
                Hit::Yes
            }
        }
        LimitChange::VirtualHosts(names) if names.iter().any(is_own) && !at_route => later,
        LimitChange::RouteActions if !at_route && own.actions => Hit::Yes,
        _ => Hit::No,
    };
    if hit == Hit::No {
        return Hit::No;
    }
    let narrower = |theirs: &Option<String>, ours: &Option<String>| match (theirs, ours) {
        (None, _) => Some(false),
        (Some(theirs), Some(ours)) => (theirs == ours).then_some(false),
        (Some(_), None) => Some(true),
    };
    let (Some(vhost), Some(route)) = (
        narrower(&patch.vhost, &place.vhost),
        narrower(&patch.route, &place.route),
    ) else {
        return Hit::No;
    };
    match hit {
        _ if patch.conditional => Hit::Perhaps,
        Hit::Yes if vhost || route => Hit::Some,
        other => other,
    }
}

fn said(rival: &Rival, patch: &LimitPatch) -> String {
    let what = format!(
        "EnvoyFilter {} (configPatches[{}])",
        rival.name, patch.index
    );
    match &patch.does {
        LimitChange::Removes(name) => {
            format!("{what} removes or replaces the filter {name}: delete that patch")
        }
        LimitChange::RemovesAll => format!(
            "{what} removes or replaces the HTTP connection manager with all of its filters: delete that patch"
        ),
        LimitChange::RouteActions => format!(
            "{what} gives the routes rate_limits of their own, and those of the virtual host then do not count: put them on the virtual host"
        ),
        LimitChange::Inserts(_) | LimitChange::Routes(_) | LimitChange::VirtualHosts(_) => {
            let how = if rival.order == Order::Before {
                "delete that patch"
            } else {
                "delete that patch, or give the object a lower spec.priority"
            };
            format!(
                "{what} configures the same filter for the same routes in place of this limit (priority {}, ours is {PRIORITY}): {how}",
                rival.priority
            )
        }
    }
}

/// Filters of others that limit the same requests: each request needs a token of all.
pub(crate) fn limits_too(input: &LimiterInput, validated: &Validated) -> Option<Problem> {
    if input.settings.proxies == Proxies::Plain {
        return None;
    }
    let rules: Vec<&Rule> = validated.good().collect();
    let contexts: Vec<&str> = rules
        .iter()
        .flat_map(|rule| &rule.places)
        .map(|place| place.context.as_str())
        .collect();
    let own: Vec<String> = rules
        .iter()
        .filter_map(|rule| filter_of(input, rule))
        .collect();
    let mut texts = Vec::new();
    for rival in &input.target.rivals {
        for patch in &rival.patches {
            let LimitChange::Inserts(filter) = &patch.does else {
                continue;
            };
            let context = patch.context.as_deref();
            if context.is_some_and(|context| !contexts.contains(&context)) {
                continue;
            }
            let name = &rival.name;
            if !own.contains(filter) {
                texts.push(format!(
                    "EnvoyFilter {name} limits requests of the same pods too, by its filter {filter}: each request needs a token of both"
                ));
            } else if input.settings.insert_local_rate_limit {
                texts.push(format!(
                    "EnvoyFilter {name} inserts a filter {filter} too, so that each request takes two tokens of this limit: give that filter another name, or set limiter.disableInsertLocalRateLimit: true"
                ));
            }
        }
    }
    texts.dedup();
    (!texts.is_empty()).then(|| Problem::of_field("spec", "AcceptedWithRemarks", listed(&texts)))
}
