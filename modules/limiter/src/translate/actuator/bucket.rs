//! Token buckets of the local rate limit filter.

use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use prost::Message as _;
use serde_json::json;

use super::super::limit::{LOCAL_RATE_LIMIT, STAT_PREFIX, span, token_bucket};
use super::{Actuator, Aim, Filter, Kind, differs, seconds};
use crate::decide::bucket::Bucket;

/// Change that is worth to fill one bucket once more: any, since the law has a dead band of its own.
const ECDS_BAND: f64 = 0.0;
/// Change that is worth to fill all buckets of a listener, and a push of istiod.
const ENVOY_FILTER_BAND: f64 = 0.1;

/// A bucket in a filter that is delivered by ECDS.
#[derive(Clone, Copy, Debug)]
pub struct EcdsBucket;

/// A bucket in a filter that stands in the listener.
#[derive(Clone, Copy, Debug)]
pub struct EnvoyFilterBucket;

impl Actuator for EcdsBucket {
    fn kind(&self) -> Kind {
        Kind::EcdsBucket
    }

    fn filter(&self, aim: &Aim) -> Filter {
        filter(aim)
    }

    fn is_worth(&self, held: &Aim, wanted: &Aim) -> bool {
        is_worth(held, wanted, ECDS_BAND)
    }
}

impl Actuator for EnvoyFilterBucket {
    fn kind(&self) -> Kind {
        Kind::EnvoyFilterBucket
    }

    fn filter(&self, aim: &Aim) -> Filter {
        filter(aim)
    }

    fn is_worth(&self, held: &Aim, wanted: &Aim) -> bool {
        is_worth(held, wanted, ENVOY_FILTER_BAND)
    }
}

fn is_worth(held: &Aim, wanted: &Aim, band: f64) -> bool {
    match (held.per_pod, wanted.per_pod) {
        (None, None) => false,
        (Some(held_rate), Some(rate)) => {
            differs(held_rate, rate, band) || differs(held.bucket_s, wanted.bucket_s, band)
        }
        _ => true,
    }
}

/// One bucket for all requests of the listener.
fn filter(aim: &Aim) -> Filter {
    let mut proto = LocalRateLimit {
        stat_prefix: STAT_PREFIX.to_owned(),
        ..LocalRateLimit::default()
    };
    let Some(rate) = aim.per_pod else {
        return Filter {
            type_url: LOCAL_RATE_LIMIT,
            json: json!({"statPrefix": STAT_PREFIX}),
            proto: proto.encode_to_vec(),
        };
    };
    let bucket = Bucket::lasting(rate, aim.bucket_s);
    let tokens = u32::try_from(bucket.tokens).unwrap_or(u32::MAX);
    let mut json_bucket = json!({"maxTokens": tokens, "fillInterval": seconds(bucket.every)});
    if tokens > 0 {
        json_bucket["tokensPerFill"] = json!(tokens);
    }
    let percent = |key: &str| json!({"runtimeKey": key, "defaultValue": {"numerator": 100}});
    proto.token_bucket = Some(token_bucket(tokens, span(bucket.every)));
    let all = |key: &str| {
        Some(RuntimeFractionalPercent {
            default_value: Some(FractionalPercent {
                numerator: 100,
                denominator: 0,
            }),
            runtime_key: key.to_owned(),
        })
    };
    proto.filter_enabled = all(ENABLED);
    proto.filter_enforced = all(ENFORCED);
    proto.rate_limited_as_resource_exhausted = true;
    Filter {
        type_url: LOCAL_RATE_LIMIT,
        json: json!({
            "statPrefix": STAT_PREFIX,
            "tokenBucket": json_bucket,
            "filterEnabled": percent(ENABLED),
            "filterEnforced": percent(ENFORCED),
            "rateLimitedAsResourceExhausted": true,
        }),
        proto: proto.encode_to_vec(),
    }
}

const ENABLED: &str = "local_rate_limit_enabled";
const ENFORCED: &str = "local_rate_limit_enforced";
