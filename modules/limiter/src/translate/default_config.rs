//! The default configurations of filters that are delivered by ECDS: what a proxy limits to that starts while Trimtab is away.
//!
//! They stand in the listener, so that they change seldom ([`crate::decide::defaults`]); a proxy that the xDS server has answered once
//! does not use them any more.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::{Delivery, DescriptorStatus};
use trimtab_kit::envoyfilter::typed_struct;

use super::limit::{LOCAL_RATE_LIMIT, Profile, STAT_PREFIX};
use super::{PlacedRule, local_limit, local_limit_with, placed};
use crate::decide::bucket::Bucket;
use crate::input::LimiterInput;
use crate::validate::Validated;

/// The default of the filter with `profile`. Without a bucket it lets everything pass.
pub(super) fn default_config(
    input: &LimiterInput,
    placed_rules: &[PlacedRule<'_>],
    profile: &Profile,
) -> Value {
    let pieces: Vec<&PlacedRule<'_>> = placed_rules.iter().collect();
    let limit = match &input.defaults {
        None => local_limit(input, &pieces, profile),
        Some(kept) => local_limit_with(input, &pieces, profile, |_, entries| {
            kept.get(&descriptor(entries)).copied()
        }),
    };
    if limit.buckets.is_empty() {
        return json!({"@type": LOCAL_RATE_LIMIT, "stat_prefix": STAT_PREFIX});
    }
    // istiod reads a type by its own, maybe older, descriptors; a TypedStruct it passes on.
    typed_struct(LOCAL_RATE_LIMIT, &limit.to_json())
}

/// The limits that are decided, by descriptor; none: no limit. Empty unless they are delivered by ECDS.
pub fn decided_limits(
    input: &LimiterInput,
    validated: &Validated,
    decisions: &[DescriptorStatus],
) -> BTreeMap<String, Option<Bucket>> {
    let mut out = BTreeMap::new();
    if input.delivery() != Delivery::Ecds {
        return out;
    }
    for piece in placed(input, validated, decisions).values().flatten() {
        for set in &piece.sets {
            // As in a filter: of two rules for one descriptor the first with a limit counts.
            let limit: &mut Option<Bucket> = out.entry(descriptor(&set.entries)).or_default();
            *limit = limit.or(piece.bucket);
        }
    }
    out
}

/// The limits in the defaults of a generated object; `None`: it has no filters with defaults.
pub fn default_limits(object: &EnvoyFilter) -> Option<BTreeMap<String, Bucket>> {
    let patches = object.spec.config_patches.iter();
    let discovered = patches.map(|p| &p["patch"]["value"]["config_discovery"]);
    let mut discovered = discovered.filter(|d| !d.is_null()).peekable();
    discovered.peek()?;
    let descriptors =
        discovered.filter_map(|d| d["default_config"]["value"]["descriptors"].as_array());
    Some(descriptors.flatten().filter_map(read).collect())
}

/// A descriptor and its bucket, as `LocalLimit::to_json` writes them.
fn read(value: &Value) -> Option<(String, Bucket)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries: Vec<(String, String)> = value["entries"]
        .as_array()?
        .iter()
        .map(|entry| (text(&entry["key"]), text(&entry["value"])))
        .collect();
    let bucket = Bucket {
        tokens: value["tokenBucket"]["maxTokens"].as_i64()?,
        every: millis(value["tokenBucket"]["fillInterval"].as_str()?)?,
    };
    Some((descriptor(&entries), bucket))
}

/// Milliseconds of a duration in the JSON of protobuf.
fn millis(text: &str) -> Option<i64> {
    let text = text.strip_suffix('s')?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let millis: String = fraction.chars().chain("000".chars()).take(3).collect();
    let seconds: i64 = seconds.parse().ok()?;
    seconds.checked_mul(1000)?.checked_add(millis.parse().ok()?)
}

fn descriptor(entries: &[(String, String)]) -> String {
    json!(entries).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_written() {
        for wanted in [50, 500, 1000, 1334, 31_536_000_000] {
            let span = trimtab_crds::limiter::FillInterval {
                seconds: wanted / 1000,
                nanos: i32::try_from(wanted % 1000 * 1_000_000).unwrap(),
            };
            assert_eq!(millis(&span.to_proto_json()), Some(wanted));
        }
        assert_eq!(millis("9223372036854775807s"), None);
        assert_eq!(millis("soon"), None);
    }
}
