//! The local rate limit filter's configuration, as EnvoyFilter JSON and as protobuf for ECDS.
//!
//! Source: `envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit`.

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, RuntimeFractionalPercent,
};
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::{
    LocalRateLimitDescriptor, XRateLimitHeadersRfcVersion, rate_limit_descriptor::Entry,
};
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, HttpStatus, TokenBucket};
use envoy_types::pb::google::protobuf::{BoolValue, Duration, UInt32Value};
use serde_json::{Value, json};
use trimtab_crds::limiter::{Action, FillInterval, GrpcStatus, HeaderToAdd};
use xxhash_rust::xxh3::xxh3_64;

use crate::decide::bucket;
use crate::validate::{RETRY_AFTER, Rule};

/// Type URL of the filter's configuration.
pub(super) const LOCAL_RATE_LIMIT: &str =
    "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
/// Slime's name of the filter.
pub(super) const FILTER_NAME: &str = "envoy.filters.http.local_ratelimit";
/// Slime's stat prefix.
pub(super) const STAT_PREFIX: &str = "http_local_rate_limiter";
/// Tokens of the default bucket, which requests without a descriptor use: never the limit.
const UNLIMITED: u32 = u32::MAX;

/// What a refused request gets. Rules with different answers need filters of their own, because Envoy's filter has one
/// answer; with one filter, one rule's headers would show on another rule's refusals.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Profile {
    /// Place among the filters and whose it is, when it is not the common one of the set: a filter that changes fills all of
    /// its buckets.
    pub filter: Option<(i64, String)>,
    /// HTTP status; 0 = Envoy's 429.
    status: i32,
    headers: Vec<(String, String)>,
    /// gRPC calls get what Envoy makes of the HTTP status.
    grpc_of_status: bool,
    /// Answers tell the limit and what is left of it.
    tells: bool,
    /// Values that get a bucket of their own; 0: all buckets are known before.
    values: u32,
    /// Body, written into the listener's local reply.
    pub body: Option<String>,
}

impl Profile {
    pub fn of(rule: &Rule) -> Self {
        let action = &rule.descriptor.action;
        let response = action.response.clone().unwrap_or_default();
        let retry_after = response.retry_after.unwrap_or_default();
        let retry_after = retry_after.then(|| (RETRY_AFTER.to_owned(), whole_seconds(action)));
        Self {
            filter: None,
            grpc_of_status: response.grpc_status == Some(GrpcStatus::FromStatus),
            tells: response.rate_limit_headers.unwrap_or_default(),
            values: rule.matches.values,
            status: response.status.filter(|s| *s != 429).unwrap_or_default(),
            headers: action
                .headers_to_add
                .iter()
                // Envoy reads %NAME% as a command; Slime's users write plain values.
                .map(|HeaderToAdd { key, value }| (key.clone(), value.replace('%', "%%")))
                .chain(retry_after)
                .collect(),
            body: response.body,
        }
    }

    pub fn status(&self) -> i32 {
        if self.status == 0 { 429 } else { self.status }
    }

    /// Whether one filter can give both answers: bodies are the listener's, not the filter's.
    pub fn same_filter(&self, other: &Self) -> bool {
        self.filter == other.filter
            && self.status == other.status
            && self.headers == other.headers
            && self.options() == other.options()
    }

    pub fn is_plain(&self) -> bool {
        self.filter.is_none()
            && self.status == 0
            && self.headers.is_empty()
            && self.options() == (false, false, 0)
    }

    fn options(&self) -> (bool, bool, u32) {
        (self.grpc_of_status, self.tells, self.values)
    }

    /// Whether older proxies refuse its buckets, and with them all of the routes.
    pub fn needs_modern(&self) -> bool {
        self.values > 0
    }

    /// Whether older proxies get it without the headers that tell the limit: before Envoy 1.31 those can end the process.
    pub fn tells(&self) -> bool {
        self.tells && !self.needs_modern()
    }

    /// Without those headers.
    pub fn untold(&self) -> Self {
        Self {
            tells: false,
            ..self.clone()
        }
    }

    /// Tells the filters of one limiter's set apart; `of` names the set when the filters of others must differ too.
    pub fn suffix(&self, of: &[&str]) -> String {
        let mut text = match &self.filter {
            Some((_, filter)) => json!([of, filter, self.status, self.headers]),
            None if of.is_empty() => json!([self.status, self.headers]),
            None => json!([of, self.status, self.headers]),
        };
        // Not for the others, whose names stay what they were.
        if self.options() != (false, false, 0)
            && let Value::Array(list) = &mut text
        {
            list.push(json!(self.options()));
        }
        format!("{:08x}", xxh3_64(text.to_string().as_bytes()) & 0xffff_ffff)
    }
}

/// The interval of a rule, after which its bucket is full again.
fn whole_seconds(action: &Action) -> String {
    let millis = action.fill_interval.unwrap_or_default().millis();
    ((millis + 999) / 1000).max(1).to_string()
}

/// A bucket and its key.
pub(super) struct Bucket {
    pub entries: Vec<(String, String)>,
    pub bucket: bucket::Bucket,
}

impl Bucket {
    fn tokens(&self) -> u32 {
        u32::try_from(self.bucket.tokens).unwrap_or(u32::MAX)
    }

    fn interval(&self) -> FillInterval {
        span(self.bucket.every)
    }
}

pub(super) fn span(millis: i64) -> FillInterval {
    FillInterval {
        seconds: millis / 1000,
        nanos: i32::try_from((millis % 1000) * 1_000_000).unwrap_or(0),
    }
}

/// One filter's configuration.
pub(super) struct LocalLimit {
    pub buckets: Vec<Bucket>,
    pub profile: Profile,
    pub shadow: bool,
}

impl LocalLimit {
    /// Fill interval of the default bucket. Envoy wants descriptor intervals to be multiples of it.
    fn default_interval(&self) -> FillInterval {
        let every = || self.buckets.iter().map(|b| b.bucket.every);
        let millis = every().fold(1000, gcd);
        // 50 ms is Envoy's floor; older ones refuse intervals that share no divisor of 50 ms or more, unless there is only one.
        let millis = if millis < 50 {
            every().fold(0, gcd)
        } else {
            millis
        };
        span(millis.max(50))
    }

    /// As the value of a TypedStruct, in Slime's lowerCamelCase.
    pub fn to_json(&self) -> Value {
        if self.buckets.is_empty() {
            // As `to_proto` has it: the version of a hot value must say what its content says.
            return json!({"statPrefix": STAT_PREFIX});
        }
        let bucket = |tokens: u32, interval: FillInterval| {
            let mut b = json!({"maxTokens": tokens, "fillInterval": interval.to_proto_json()});
            if tokens > 0 {
                b["tokensPerFill"] = json!(tokens);
            }
            b
        };
        let descriptors: Vec<Value> = self
            .buckets
            .iter()
            .map(|b| {
                let entries: Vec<Value> = b
                    .entries
                    .iter()
                    .map(|(k, v)| {
                        if v.is_empty() {
                            json!({"key": k})
                        } else {
                            json!({"key": k, "value": v})
                        }
                    })
                    .collect();
                json!({"entries": entries, "tokenBucket": bucket(b.tokens(), b.interval())})
            })
            .collect();
        let percent = |key: &str, numerator: u32| json!({"runtimeKey": key, "defaultValue": {"numerator": numerator}});
        let mut out = json!({
            "statPrefix": STAT_PREFIX,
            "descriptors": descriptors,
            "tokenBucket": bucket(UNLIMITED, self.default_interval()),
            "filterEnabled": percent("local_rate_limit_enabled", 100),
            "filterEnforced": percent(self.enforced_key(), self.enforced()),
        });
        if !self.profile.headers.is_empty() {
            out["responseHeadersToAdd"] = self
                .profile
                .headers
                .iter()
                .map(|(k, v)| json!({"header": {"key": k, "value": v}, "appendAction": "APPEND_IF_EXISTS_OR_ADD"}))
                .collect();
        }
        if self.profile.status != 0 {
            out["status"] = json!({"code": self.profile.status});
        }
        if !self.profile.grpc_of_status {
            out["rateLimitedAsResourceExhausted"] = json!(true);
        }
        if self.profile.tells {
            out["enableXRatelimitHeaders"] = json!("DRAFT_VERSION_03");
        }
        if self.profile.values > 0 {
            out["maxDynamicDescriptors"] = json!(self.profile.values);
        }
        out
    }

    fn enforced(&self) -> u32 {
        if self.shadow { 0 } else { 100 }
    }

    /// A shadowed limiter has its own key: the common one may be set in the proxies' runtime.
    fn enforced_key(&self) -> &'static str {
        if self.shadow {
            "local_rate_limit_shadow_enforced"
        } else {
            "local_rate_limit_enforced"
        }
    }

    fn added_headers(&self) -> Vec<HeaderValueOption> {
        self.profile
            .headers
            .iter()
            .map(|(key, value)| HeaderValueOption {
                header: Some(HeaderValue {
                    key: key.clone(),
                    value: value.clone(),
                    ..HeaderValue::default()
                }),
                append_action: HeaderAppendAction::AppendIfExistsOrAdd.into(),
                ..HeaderValueOption::default()
            })
            .collect()
    }

    /// As protobuf.
    pub fn to_proto(&self) -> LocalRateLimit {
        let mut out = LocalRateLimit {
            stat_prefix: STAT_PREFIX.to_owned(),
            ..LocalRateLimit::default()
        };
        if self.buckets.is_empty() {
            // Without a bucket and the two percentages the filter lets everything pass.
            return out;
        }
        let percent = |key: &str, numerator| {
            Some(RuntimeFractionalPercent {
                default_value: Some(FractionalPercent {
                    numerator,
                    denominator: 0,
                }),
                runtime_key: key.to_owned(),
            })
        };
        out.token_bucket = Some(token_bucket(UNLIMITED, self.default_interval()));
        out.filter_enabled = percent("local_rate_limit_enabled", 100);
        out.filter_enforced = percent(self.enforced_key(), self.enforced());
        out.always_consume_default_token_bucket = Some(BoolValue { value: false });
        out.descriptors = self
            .buckets
            .iter()
            .map(|b| LocalRateLimitDescriptor {
                entries: b
                    .entries
                    .iter()
                    .map(|(k, v)| Entry {
                        key: k.clone(),
                        value: v.clone(),
                    })
                    .collect(),
                token_bucket: Some(token_bucket(b.tokens(), b.interval())),
                ..LocalRateLimitDescriptor::default()
            })
            .collect();
        out.response_headers_to_add = self.added_headers();
        if self.profile.status != 0 {
            out.status = Some(HttpStatus {
                code: self.profile.status,
            });
        }
        out.rate_limited_as_resource_exhausted = !self.profile.grpc_of_status;
        if self.profile.tells {
            out.enable_x_ratelimit_headers = XRateLimitHeadersRfcVersion::DraftVersion03.into();
        }
        let values = self.profile.values;
        out.max_dynamic_descriptors = (values > 0).then_some(UInt32Value { value: values });
        out
    }
}

pub(super) fn token_bucket(tokens: u32, interval: FillInterval) -> TokenBucket {
    TokenBucket {
        max_tokens: tokens,
        tokens_per_fill: (tokens > 0).then_some(UInt32Value { value: tokens }),
        fill_interval: Some(Duration {
            seconds: interval.seconds,
            nanos: interval.nanos,
        }),
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
