//! Rate limits of a MetaRouter; both hold on the inbound side.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Match;
use super::schema;

/// Limits counted in each proxy: the first condition that matches decides, else `tokenBucket`, else there is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::local_rate_limit)]
pub struct LocalRateLimit {
    /// For requests that no condition matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_bucket: Option<TokenBucket>,
    /// Conditions with a bucket each; the first that matches counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub conditions: Vec<LimitCondition>,
}

/// A bucket for some requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitCondition {
    /// Requests that the bucket is for.
    #[serde(rename = "match")]
    pub matches: Match,
    /// The bucket that these requests take tokens from.
    pub token_bucket: TokenBucket,
}

/// A bucket of tokens; a request takes one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenBucket {
    /// Size of the bucket, 1 or more; full at the start.
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub max_tokens: i64,
    /// Tokens added every `fillInterval`, 1 or more; default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub tokens_per_fill: i64,
    /// Refill period, e.g. `60s`.
    #[schemars(transform = crate::schema::duration)]
    pub fill_interval: String,
}

fn one() -> i64 {
    1
}

/// Limits counted by a rate limit service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GlobalRateLimit {
    /// Requests that are counted; absent: every request.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<Match>,
    /// Domain at the rate limit service.
    #[schemars(length(min = 1, max = 253))]
    pub domain: String,
    /// How long to wait for the service; default `20ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::duration, extend("default" = super::DEFAULT_LIMIT_TIMEOUT))]
    pub request_timeout: Option<String>,
    /// True: requests are refused while the service does not answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deny_on_fail: bool,
    /// Envoy cluster of the service, e.g. `outbound|8081||limits.default.svc.cluster.local`.
    #[schemars(length(min = 1, max = 512))]
    pub rate_limit_service: String,
    /// Together they make one descriptor.
    #[schemars(length(min = 1, max = 32))]
    pub descriptors: Vec<LimitDescriptor>,
}

/// An entry of the descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitDescriptor {
    /// Attribute of the request whose value is sent.
    #[schemars(length(min = 1, max = 256))]
    pub property: String,
    /// Key that it is sent under.
    #[schemars(length(min = 1, max = 256))]
    pub descriptor_key: String,
}
