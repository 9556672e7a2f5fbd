//! Rate limit filters, and attribute tests as header matchers.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::input::{GlobalRateLimit, LocalRateLimit, TokenBucket, ValueMatch};
use crate::proto;
use crate::span::Span;
use crate::validate::Plan;

/// How long a proxy waits for the rate limit service when the router does not say.
const DEFAULT_TIMEOUT: &str = "20ms";

/// The rate limit filters of the router in force, local before global.
pub(super) fn filters(plan: &Plan<'_>) -> Vec<Value> {
    let Some(router) = &plan.router else {
        return Vec::new();
    };
    let mut out = Vec::new();
    if let Some(limit) = &router.local_rate_limit {
        out.push(json!({
            "name": "aeraki.meta_protocol.filters.local_ratelimit",
            "config": local(&plan.input.host, limit),
        }));
    }
    if let Some(limit) = &router.global_rate_limit {
        out.push(json!({
            "name": "aeraki.meta_protocol.filters.ratelimit",
            "config": global(limit),
        }));
    }
    out
}

fn local(host: &str, limit: &LocalRateLimit) -> Value {
    let mut config = Map::new();
    config.insert("@type".into(), json!(proto::LOCAL_RATE_LIMIT));
    config.insert("statPrefix".into(), json!(host));
    if let Some(plain) = &limit.bucket {
        config.insert("tokenBucket".into(), bucket(plain));
    }
    if !limit.conditions.is_empty() {
        let conditions: Vec<Value> = limit
            .conditions
            .iter()
            .map(|c| {
                json!({
                    "match": {"metadata": matchers(&c.matches)},
                    "tokenBucket": bucket(&c.bucket),
                })
            })
            .collect();
        config.insert("conditions".into(), json!(conditions));
    }
    Value::Object(config)
}

/// A filter without `match` limits nothing in Aeraki's proxies, where users mean all requests. A request gives a
/// descriptor only when it has the properties, so that their presence says the same.
fn global(limit: &GlobalRateLimit) -> Value {
    let all: BTreeMap<String, ValueMatch>;
    let matches = match &limit.matches {
        Some(matches) if !matches.is_empty() => matches,
        _ => {
            let properties = limit.descriptors.iter().map(|d| d.property.clone());
            all = properties.map(|p| (p, ValueMatch::Present)).collect();
            &all
        }
    };
    let descriptors: Vec<Value> = limit
        .descriptors
        .iter()
        .map(|d| json!({"property": d.property, "descriptorKey": d.descriptor_key}))
        .collect();
    let timeout = limit.timeout.clone().unwrap_or(Span::new(DEFAULT_TIMEOUT));
    let mut config = Map::new();
    config.insert("@type".into(), json!(proto::RATE_LIMIT));
    config.insert("match".into(), json!({"metadata": matchers(matches)}));
    config.insert("domain".into(), json!(limit.domain));
    config.insert("timeout".into(), json!(timeout.to_json()));
    if limit.deny_on_fail {
        config.insert("failureModeDeny".into(), json!(true));
    }
    let service = json!({"grpcService": {"envoyGrpc": {"clusterName": limit.cluster}}});
    config.insert("rateLimitService".into(), service);
    config.insert("descriptors".into(), json!(descriptors));
    Value::Object(config)
}

fn bucket(bucket: &TokenBucket) -> Value {
    json!({
        "maxTokens": bucket.max_tokens,
        "tokensPerFill": bucket.tokens_per_fill,
        "fillInterval": bucket.fill_interval.to_json(),
    })
}

/// Header matchers, in the order of attribute names. The deprecated forms are the ones that Aeraki writes.
pub(super) fn matchers(matches: &BTreeMap<String, ValueMatch>) -> Vec<Value> {
    matches
        .iter()
        .map(|(name, value)| match value {
            ValueMatch::Exact(text) => json!({"name": name, "exactMatch": text}),
            ValueMatch::Prefix(text) => json!({"name": name, "prefixMatch": text}),
            ValueMatch::Regex(text) => {
                json!({"name": name, "safeRegexMatch": {"googleRe2": {}, "regex": text}})
            }
            ValueMatch::Present => json!({"name": name, "presentMatch": true}),
        })
        .collect()
}
