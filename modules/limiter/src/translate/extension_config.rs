//! Hot values for ECDS: one `TypedExtensionConfig` for each filter of a set.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;

use super::limit::{LOCAL_RATE_LIMIT, Profile};
use super::names::resource_name;
use super::{PlacedRule, local_limit, profiles};
use crate::input::LimiterInput;

/// Type URL of ECDS resources.
pub const EXTENSION_CONFIG_TYPE: &str =
    "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";

/// One resource: the configuration of one HTTP filter.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtensionConfig {
    /// Name of the resource and of the filter: `trimtab.<namespace>.<limiter>.<set>`, with a hash when the filter is of one rule
    /// or its answer is not plain.
    pub name: String,
    /// Canonical JSON of the content: its hash is the version, equal on all replicas.
    pub canonical: String,
    /// Encoded `TypedExtensionConfig`.
    pub body: Vec<u8>,
    /// How many buckets are live.
    pub live: usize,
}

pub(super) fn filter_name(input: &LimiterInput, set: &str, profile: &Profile) -> String {
    let base = resource_name(&input.owner.name, &input.owner.namespace, set);
    if profile.is_plain() {
        base
    } else {
        format!("{base}.{}", profile.suffix(&[]))
    }
}

pub(super) fn of_set(
    input: &LimiterInput,
    set: &str,
    placed_rules: &[PlacedRule<'_>],
) -> Vec<ExtensionConfig> {
    let refs: Vec<&PlacedRule<'_>> = placed_rules.iter().collect();
    let mut names = Vec::new();
    let mut out = Vec::new();
    for profile in profiles(placed_rules) {
        let name = filter_name(input, set, &profile);
        if names.contains(&name) {
            continue; // profiles that differ in the body only share a filter
        }
        let limit = local_limit(input, &refs, &profile);
        let config = TypedExtensionConfig {
            name: name.clone(),
            typed_config: Some(Any {
                type_url: LOCAL_RATE_LIMIT.to_owned(),
                value: limit.to_proto().encode_to_vec(),
            }),
        };
        out.push(ExtensionConfig {
            name: name.clone(),
            canonical: limit.to_json().to_string(),
            body: config.encode_to_vec(),
            live: limit.buckets.len(),
        });
        names.push(name);
    }
    out
}
