//! The descriptor: one rule of a SmartLimiter. Shared by both forms.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::adaptive::Adaptive;
use super::schema;
use crate::number::number_or_text;

/// One rule: when `condition` holds, requests that match get `action.quota` per `action.fill_interval`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::descriptor)]
pub struct Descriptor {
    /// Expression that says when the limit is on, e.g. `{cpu}>0.8`, `{{._base.cpu.sum}}>100` or `true`. Strategy `adaptive`
    /// finds that out itself: leave it out there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(min = 1, max = 1024))]
    pub condition: String,
    /// What is allowed while the condition holds.
    pub action: Action,
    /// All must match; empty = every request.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub matches: Vec<Matcher>,
    /// Replaces `spec.target` as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Descriptor key of a route action that somebody else adds to the route (an EnvoyPlugin, an EnvoyFilter);
    /// Trimtab then writes the bucket for `custom_key`=`custom_value` and no action.
    #[serde(default, alias = "customKey", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub custom_key: Option<String>,
    /// Descriptor value that goes with `custom_key`.
    #[serde(
        default,
        alias = "customValue",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 256))]
    pub custom_value: Option<String>,
}

/// How much is allowed, and what a refused request gets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::action)]
pub struct Action {
    /// Expression of the number of requests per `fill_interval`, e.g. `30/{pod}`. Rounded up; at least 1 unless 0 is written.
    /// Required, except with strategy `adaptive`, which has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(min = 1, max = 1024))]
    pub quota: String,
    /// Refill period, 50 ms or longer. Required, except with strategy `adaptive`, which has none.
    #[serde(
        default,
        alias = "fillInterval",
        skip_serializing_if = "Option::is_none"
    )]
    pub fill_interval: Option<FillInterval>,
    /// `single` (default): the quota is per pod. `average`: the quota is the service's total, shared by its Ready pods.
    /// `adaptive`: Trimtab finds the limit that keeps the service at its capacity. `global` is not available yet and is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["", "single", "average", "global", "adaptive"]))]
    pub strategy: Option<String>,
    /// Options of strategy `adaptive`; all have defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
    /// Headers of the answer to a refused request.
    #[serde(default, alias = "headersToAdd", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub headers_to_add: Vec<HeaderToAdd>,
    /// Status and body of the answer to a refused request; default 429 with `local_rate_limited`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Response>,
}

/// A time span as protobuf JSON's two parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::fill_interval)]
pub struct FillInterval {
    /// Whole seconds of the interval.
    #[serde(default, deserialize_with = "number_or_text")]
    #[schemars(range(min = 0, max = 31_536_000), transform = crate::schema::number_or_text)]
    pub seconds: i64,
    /// Nanoseconds on top of the seconds.
    #[serde(
        default,
        deserialize_with = "number_or_text",
        skip_serializing_if = "is_zero"
    )]
    #[schemars(range(min = 0, max = 999_999_999), transform = crate::schema::number_or_text)]
    pub nanos: i32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's skip_serializing_if passes a reference
fn is_zero(n: &i32) -> bool {
    *n == 0
}

impl FillInterval {
    /// The span in milliseconds, rounded down.
    pub fn millis(self) -> i64 {
        self.seconds * 1000 + i64::from(self.nanos) / 1_000_000
    }

    /// The span as a protobuf JSON duration, e.g. `1s`, `1.500s`.
    pub fn to_proto_json(self) -> String {
        if self.nanos == 0 {
            return format!("{}s", self.seconds);
        }
        let mut frac = format!("{:09}", self.nanos);
        while frac.len() > 3 && frac.ends_with("000") {
            frac.truncate(frac.len() - 3);
        }
        format!("{}.{frac}s", self.seconds)
    }
}

/// One header that is added to refused answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeaderToAdd {
    /// Name of the header.
    #[schemars(length(min = 1, max = 256))]
    pub key: String,
    /// Value of the header.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// The answer to a refused request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Response {
    /// HTTP status, 400 to 599; default 429.
    #[serde(
        default,
        deserialize_with = "number_or_text",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 400, max = 599), transform = crate::schema::number_or_text)]
    pub status: Option<i32>,
    /// Body as plain text. Applies to all refusals on the same listeners, because Envoy's local reply is a listener setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub body: Option<String>,
    /// What a refused gRPC call gets: `ResourceExhausted` (default) or `FromStatus`.
    #[serde(
        default,
        rename = "grpcStatus",
        skip_serializing_if = "Option::is_none"
    )]
    pub grpc_status: Option<GrpcStatus>,
    /// True: answers to the rule's requests have `x-ratelimit-limit`, `x-ratelimit-remaining` and `x-ratelimit-reset`, also
    /// those that are not refused.
    #[serde(
        default,
        rename = "rateLimitHeaders",
        skip_serializing_if = "Option::is_none"
    )]
    pub rate_limit_headers: Option<bool>,
    /// True: refusals have `retry-after`, the seconds of `fill_interval`, after which the bucket is full again.
    #[serde(
        default,
        rename = "retryAfter",
        skip_serializing_if = "Option::is_none"
    )]
    pub retry_after: Option<bool>,
}

/// Status of refused gRPC calls, `ResourceExhausted` by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GrpcStatus {
    /// `RESOURCE_EXHAUSTED` (8), which Istio's default retries do not repeat.
    #[default]
    ResourceExhausted,
    /// What Envoy makes of the HTTP status: `UNAVAILABLE` (14) of 429 and 503, `PERMISSION_DENIED` (7) of 403.
    FromStatus,
}

/// Where requests are limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::target)]
pub struct Target {
    /// `inbound` (default) or `outbound`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["", "inbound", "outbound"]))]
    pub direction: Option<String>,
    /// Inbound: the Service's port, or the workload's port behind it, 0 = all ports. Outbound: appended to the virtual host's name.
    #[serde(
        default,
        deserialize_with = "number_or_text",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0, max = 65535), transform = crate::schema::number_or_text)]
    pub port: Option<i32>,
    /// Outbound: `<virtual host>/<route name>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub route: Vec<String>,
    /// Outbound, when `route` is empty: virtual hosts, limited as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub host: Vec<String>,
}

impl Target {
    /// Whether the target names outbound routes or hosts.
    pub fn is_outbound(&self) -> bool {
        self.direction.as_deref() == Some("outbound")
            && !(self.route.is_empty() && self.host.is_empty())
    }
}

/// What a [`Matcher`] looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchSource {
    /// A header or pseudo header (`:method`, `:path`, `:authority`).
    #[default]
    HeadMatch,
    /// A query parameter.
    QueryMatch,
    /// A field of a JSON body: needs a filter that stock Envoy does not have, and is refused.
    JsonBodyMatch,
    /// The client's address.
    SourceIpMatch,
}

/// One match. The first specifier that is set counts, in the order regex, exact, prefix, suffix, empty, present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::matcher)]
pub struct Matcher {
    /// Which part of the request is matched.
    #[serde(
        default,
        rename = "matchSource",
        alias = "match_source",
        skip_serializing_if = "is_head"
    )]
    pub match_source: MatchSource,
    /// Old spelling of `matchSource: QueryMatch`.
    #[serde(
        default,
        rename = "useQueryMatch",
        alias = "use_query_match",
        skip_serializing_if = "Option::is_none"
    )]
    pub use_query_match: Option<bool>,
    /// Header or query parameter; empty for SourceIpMatch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub name: Option<String>,
    /// Requests whose whole value matches this regular expression (RE2).
    #[serde(default, alias = "regexMatch", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub regex_match: Option<String>,
    /// Equal. With SourceIpMatch: addresses and CIDR ranges separated by commas, each with its own bucket.
    #[serde(default, alias = "exactMatch", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub exact_match: Option<String>,
    /// Requests whose value begins with this text.
    #[serde(
        default,
        alias = "prefixMatch",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 1024))]
    pub prefix_match: Option<String>,
    /// Requests whose value ends with this text.
    #[serde(
        default,
        alias = "suffixMatch",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 1024))]
    pub suffix_match: Option<String>,
    /// True: the header is present and empty.
    #[serde(
        default,
        alias = "isExactMatchEmpty",
        skip_serializing_if = "Option::is_none"
    )]
    pub is_exact_match_empty: Option<bool>,
    /// True: the header or query parameter is present. False: it is absent.
    #[serde(
        default,
        alias = "presentMatch",
        skip_serializing_if = "Option::is_none"
    )]
    pub present_match: Option<bool>,
    /// True: turns the header match round.
    #[serde(
        default,
        alias = "invertMatch",
        skip_serializing_if = "Option::is_none"
    )]
    pub invert_match: Option<bool>,
    /// True: `:path` is matched without its query. Envoy's `:path` has the query, so `exact_match: /list` does not match
    /// `/list?page=2`.
    #[serde(
        default,
        rename = "ignoreQuery",
        skip_serializing_if = "Option::is_none"
    )]
    pub ignore_query: Option<bool>,
    /// True: each value of the header or query parameter has a bucket of its own; requests without it are not limited. Beside
    /// another test it is for the values that pass it. Proxies of Istio 1.26 or later.
    #[serde(
        default,
        alias = "presentMatchSeparate",
        skip_serializing_if = "Option::is_none"
    )]
    pub present_match_separate: Option<bool>,
    /// With `present_match_separate`: how many values a proxy keeps a bucket for, default 1000. One more takes the place of
    /// the value that was not seen for longest, whose bucket is full when it comes back.
    #[serde(
        default,
        rename = "maxValues",
        deserialize_with = "number_or_text",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 1, max = 10_000), transform = crate::schema::number_or_text)]
    pub max_values: Option<i32>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's skip_serializing_if passes a reference
fn is_head(source: &MatchSource) -> bool {
    *source == MatchSource::HeadMatch
}

impl Matcher {
    /// What is matched, with the old spelling `useQueryMatch` honoured as Slime does: only beside HeadMatch.
    pub fn source(&self) -> MatchSource {
        match self.match_source {
            MatchSource::HeadMatch if self.use_query_match == Some(true) => MatchSource::QueryMatch,
            other => other,
        }
    }
}
