//! EnvoyFilters in Slime's shape and patch order: route actions, filters, buckets; then the local reply.

use std::collections::BTreeMap;

use kube::core::ObjectMeta;
use serde_json::{Map, Value, json};
use trimtab_crds::istio::{EnvoyFilter, EnvoyFilterSpec, WorkloadSelector};
use trimtab_crds::limiter::{BASE_SET, KIND};
use trimtab_kit::envoyfilter::{PatchBuilder, PatchContext, RoutePlace, typed_struct};
use trimtab_kit::generated::{owned_labels, owner_references};
use trimtab_kit::identity::XdsEndpoint;

use super::default_config::default_config;
use super::extension_config::filter_name;
use super::limit::{FILTER_NAME, LOCAL_RATE_LIMIT, LocalLimit, Profile, STAT_PREFIX};
use super::{PlacedRule, envoy_filter_name, local_limit, profiles};
use crate::input::LimiterInput;

/// Which patches proxies take.
struct Builders {
    /// For all proxies.
    all: PatchBuilder,
    /// For those that know buckets by value and headers that tell the limit.
    modern: PatchBuilder,
}

impl Builders {
    fn of(input: &LimiterInput) -> Self {
        let proxy_version = input.settings.proxy_version.clone();
        // One pattern can be matched: the user's then says it all.
        let modern = if proxy_version.is_empty() {
            MODERN.to_owned()
        } else {
            proxy_version.clone()
        };
        Self {
            all: PatchBuilder { proxy_version },
            modern: PatchBuilder {
                proxy_version: modern,
            },
        }
    }

    fn for_profile(&self, profile: &Profile) -> &PatchBuilder {
        if profile.needs_modern() {
            &self.modern
        } else {
            &self.all
        }
    }
}

/// Everything in one object: delivery `EnvoyFilter`.
pub(super) fn whole(
    input: &LimiterInput,
    set: &str,
    placed_rules: &[PlacedRule<'_>],
) -> EnvoyFilter {
    let builders = Builders::of(input);
    let mut patches = action_patches(&builders, placed_rules);
    for context in contexts(placed_rules) {
        for profile in distinct_filters(placed_rules) {
            let name = local_filter_name(input, set, &profile);
            if name == FILTER_NAME && !input.settings.insert_local_rate_limit {
                continue; // the user inserts it
            }
            let value = json!({
                "name": name,
                "typed_config": typed_struct(LOCAL_RATE_LIMIT, &json!({"statPrefix": STAT_PREFIX})),
            });
            let builder = builders.for_profile(&profile);
            patches.push(builder.insert_http_filter(context, &value));
        }
    }
    let mut groups = groups(placed_rules.iter());
    // A merge replaces a route's configuration of a filter, so the wide places come first and the narrow ones repeat
    // the buckets of the wide ones that cover them.
    groups.sort_by_key(|(place, _)| place.vhost.is_some());
    for (place, _) in &groups {
        let here: Vec<&PlacedRule<'_>> = placed_rules
            .iter()
            .filter(|p| covers(p.place, place))
            .collect();
        patches.extend(bucket_patches(input, set, &builders, place, &here));
    }
    patches.extend(reply_patches(&builders.all, placed_rules));
    object(input, set, patches)
}

/// Buckets of a place: what all proxies take, then what only newer ones do, in place of it.
fn bucket_patches(
    input: &LimiterInput,
    set: &str,
    builders: &Builders,
    place: &RoutePlace,
    here: &[&PlacedRule<'_>],
) -> Vec<Value> {
    let (mut all, mut modern) = (Map::new(), Map::new());
    for profile in here.iter().map(|piece| &piece.profile) {
        let name = local_filter_name(input, set, profile);
        let limit = || local_limit(input, here, profile);
        let config = |limit: &LocalLimit| typed_struct(LOCAL_RATE_LIMIT, &limit.to_json());
        if profile.tells() {
            let mut reduced = limit();
            reduced.profile = profile.untold();
            all.entry(name.clone()).or_insert_with(|| config(&reduced));
        }
        let newest = if profile.tells() || profile.needs_modern() {
            &mut modern
        } else {
            &mut all
        };
        newest.entry(name).or_insert_with(|| config(&limit()));
    }
    let patches = [(&builders.all, all), (&builders.modern, modern)];
    let patches = patches.into_iter().filter(|(_, map)| !map.is_empty());
    patches
        .map(|(builder, map)| builder.merge_route(place, &json!({"typed_per_filter_config": map})))
        .collect()
}

/// The static half of delivery `ECDS`: filters with `config_discovery`, and the actions of every accepted rule.
pub(super) fn with_discovery(
    input: &LimiterInput,
    set: &str,
    placed_rules: &[PlacedRule<'_>],
) -> EnvoyFilter {
    let builders = Builders::of(input);
    let mut patches = action_patches(&builders, placed_rules);
    for context in contexts(placed_rules) {
        for profile in distinct_filters(placed_rules) {
            let default = default_config(input, placed_rules, &profile);
            let name = filter_name(input, set, &profile);
            let filter = discovery_filter(&name, &input.settings.xds, &default);
            let builder = builders.for_profile(&profile);
            patches.push(builder.insert_http_filter(context, &filter));
        }
    }
    patches.extend(reply_patches(&builders.all, placed_rules));
    object(input, set, patches)
}

/// A filter whose configuration comes from Trimtab's xDS server. The default needs no warming, so a listener never waits for
/// Trimtab.
fn discovery_filter(name: &str, xds: &XdsEndpoint, default: &Value) -> Value {
    json!({
        "name": name,
        "config_discovery": {
            "config_source": {
                "resource_api_version": "V3",
                "initial_fetch_timeout": "0s",
                "api_config_source": {
                    "api_type": "GRPC",
                    "transport_api_version": "V3",
                    "grpc_services": [xds.grpc_service()],
                },
            },
            "default_config": default,
            "apply_default_config_without_warming": true,
            "type_urls": [LOCAL_RATE_LIMIT],
        },
    })
}

/// Pieces by place, in order of first appearance.
fn groups<'a, 'b>(
    placed_rules: impl Iterator<Item = &'b PlacedRule<'a>>,
) -> Vec<(&'a RoutePlace, Vec<&'b PlacedRule<'a>>)>
where
    'a: 'b,
{
    let mut out: Vec<(&RoutePlace, Vec<&PlacedRule<'_>>)> = Vec::new();
    for piece in placed_rules {
        match out.iter_mut().find(|(place, _)| *place == piece.place) {
            Some((_, list)) => list.push(piece),
            None => out.push((piece.place, vec![piece])),
        }
    }
    out
}

/// Actions at each place, those that older proxies refuse apart.
fn action_patches(builders: &Builders, placed_rules: &[PlacedRule<'_>]) -> Vec<Value> {
    let mut out = Vec::new();
    for (builder, modern) in [(&builders.all, false), (&builders.modern, true)] {
        let pieces = placed_rules.iter();
        let pieces = pieces.filter(|p| p.profile.needs_modern() == modern);
        for (place, pieces) in groups(pieces) {
            let limits: Vec<Value> = pieces
                .iter()
                .flat_map(|p| &p.sets)
                .filter_map(|s| s.actions.as_ref())
                .map(|actions| json!({"actions": actions}))
                .collect();
            if limits.is_empty() {
                continue;
            }
            let value = if place.route.is_some() {
                json!({"route": {"rate_limits": limits}})
            } else {
                json!({"rate_limits": limits})
            };
            out.push(builder.merge_route(place, &value));
        }
    }
    out
}

fn contexts(placed_rules: &[PlacedRule<'_>]) -> Vec<PatchContext> {
    let mut out: Vec<PatchContext> = placed_rules.iter().map(|p| p.place.context).collect();
    out.sort_unstable();
    out.dedup();
    out
}

/// Whether a patch at `wide` reaches all that one at `narrow` reaches.
fn covers(wide: &RoutePlace, narrow: &RoutePlace) -> bool {
    wide.context == narrow.context
        && wide.route == narrow.route
        && (wide.vhost.is_none() || wide.vhost == narrow.vhost)
}

/// Name of the filter of a set with this answer.
///
/// Slime's name for the plain answer of a Service's limiter. Where several objects meet on one workload (subsets,
/// gateways, selectors, Services of the same pods) or answers differ, a name of its own: two filters of one name would each count every request,
/// and a route has one configuration for each name. The name in Slime's style also stays when users insert the filter.
pub(super) fn local_filter_name(input: &LimiterInput, set: &str, profile: &Profile) -> String {
    let spec = &input.spec;
    let alone = set == BASE_SET
        && !input.target.shared
        && !spec.gateway
        && spec.workload_selector.is_empty()
        && spec.host.is_none();
    let inserted_by_user = set == BASE_SET && !input.settings.insert_local_rate_limit;
    if profile.is_plain() && (alone || inserted_by_user) {
        return FILTER_NAME.to_owned();
    }
    let owner = &input.owner;
    format!(
        "{FILTER_NAME}.{}",
        profile.suffix(&[&owner.namespace, &owner.name, set])
    )
}

/// One profile for each filter: those that differ in the body only share one.
fn distinct_filters(placed_rules: &[PlacedRule<'_>]) -> Vec<Profile> {
    let mut out: Vec<Profile> = Vec::new();
    for profile in profiles(placed_rules) {
        if !out.iter().any(|p| p.same_filter(&profile)) {
            out.push(profile);
        }
    }
    out
}

/// Bodies: Envoy's filter has none of its own, so the listener's local reply replaces it for refusals. They are told by
/// their details, since the filter sets the flag `RL` only after it has answered.
fn reply_patches(builder: &PatchBuilder, placed_rules: &[PlacedRule<'_>]) -> Vec<Value> {
    let mut by_context: BTreeMap<PatchContext, Vec<Value>> = BTreeMap::new();
    for piece in placed_rules {
        let Some(body) = &piece.profile.body else {
            continue;
        };
        let mapper = json!({
            "filter": {"and_filter": {"filters": [
                {"status_code_filter": {"comparison": {"op": "EQ", "value": {
                    "default_value": piece.profile.status(), "runtime_key": "trimtab_local_reply_status"}}}},
                {"extension_filter": {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                    "expression": "response.code_details == 'local_rate_limited'"}}},
            ]}},
            "body": {"inline_string": body},
        });
        let list = by_context.entry(piece.place.context).or_default();
        if !list.contains(&mapper) {
            list.push(mapper);
        }
    }
    by_context
        .into_iter()
        .map(|(context, mappers)| {
            builder.merge_connection_manager(
                context,
                &json!({"local_reply_config": {"mappers": mappers}}),
            )
        })
        .collect()
}

fn object(input: &LimiterInput, set: &str, patches: Vec<Value>) -> EnvoyFilter {
    let owner = &input.owner;
    let mut labels: BTreeMap<String, String> = input.target.selector.clone();
    if let Some(facts) = input.target.sets.get(set) {
        labels.extend(facts.labels.clone());
    }
    let group = owner.api_version.split('/').next().unwrap_or_default();
    let meta_labels = owned_labels(
        None,
        owner.revision.as_deref(),
        &format!("{KIND}.{group}"),
        &owner.name,
    );
    EnvoyFilter {
        metadata: ObjectMeta {
            name: Some(envoy_filter_name(&owner.name, &owner.namespace, set)),
            namespace: Some(owner.namespace.clone()),
            labels: Some(meta_labels),
            owner_references: owner_references(&owner.api_version, KIND, &owner.name, &owner.uid),
            ..ObjectMeta::default()
        },
        spec: EnvoyFilterSpec {
            workload_selector: (!labels.is_empty()).then_some(WorkloadSelector { labels }),
            config_patches: patches,
            // Relative patches without a priority are warned of by `istioctl analyze` (IST0151). Objects of others, at 0,
            // go first: their filters then stand before ours, which is next to the router.
            priority: Some(PRIORITY),
            ..EnvoyFilterSpec::default()
        },
    }
}

/// Proxies of Istio 1.26 or later, which is Envoy 1.34. Older ones refuse a bucket without a value, and the routes with it.
const MODERN: &str = "^(1[.](2[6-9]|[3-9][0-9])|[2-9][.])";
/// Order of our EnvoyFilters among others.
pub const PRIORITY: i32 = 10;
