//! A configuration of the local rate limit filter: buckets, and what a refused request gets.

use serde_json::{Map, Value, json};
use trimtab_kit::module::camel_case;

use super::place::{Place, Side};

/// A limit at a place.
#[derive(Debug)]
pub struct Bucket<'a> {
    /// Side of the proxy.
    pub side: Side,
    /// Where it applies.
    pub place: Place,
    /// It is in the filter and not at a route.
    pub of_filter: bool,
    /// The limit.
    pub limit: Limit<'a>,
}

/// What is allowed, and what a refused request gets.
#[derive(Debug, Default)]
pub struct Limit<'a> {
    /// Of all requests; `None`: as many as they like.
    pub default: Option<Tokens>,
    /// Of requests that match.
    pub descriptors: Vec<Descriptor<'a>>,
    /// Requests are counted and pass.
    pub shadow: bool,
    /// Headers of refusals.
    pub headers: Vec<Value>,
    /// `response` of the action.
    pub response: Map<String, Value>,
}

/// A bucket that is filled up at once.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    /// Requests an interval.
    pub quota: u64,
    nanos: u64,
}

/// In nanoseconds.
const SECOND: u64 = 1_000_000_000;
/// So many a second is no limit.
const UNLIMITED: u64 = 4_294_967_295;

impl Tokens {
    /// As `fill_interval`.
    pub fn interval(self) -> Value {
        match self.nanos % SECOND {
            0 => json!({"seconds": self.nanos / SECOND}),
            nanos => json!({"seconds": self.nanos / SECOND, "nanos": nanos}),
        }
    }
}

/// A bucket of requests with these entries.
#[derive(Debug)]
pub struct Descriptor<'a> {
    /// Key and value, in order; without a value, each has a bucket.
    pub entries: Vec<(&'a str, Option<&'a str>)>,
    /// The bucket.
    pub tokens: Tokens,
}

impl Descriptor<'_> {
    /// For messages.
    pub fn words(&self) -> String {
        let entries = self.entries.iter();
        let entries: Vec<String> = entries
            .map(|(k, v)| format!("{k}={}", v.unwrap_or("*")))
            .collect();
        entries.join(", ")
    }
}

/// A field by its name in snake_case, which may be written in camelCase too.
pub fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    let found = value.get(name).or_else(|| value.get(camel_case(name)));
    found.unwrap_or(&Value::Null)
}

/// The message in a `typed_config`, as TypedStruct or as it stands.
pub fn config(typed: &Value) -> &Value {
    match typed.get("value") {
        Some(value) if !field(typed, "type_url").is_null() => value,
        _ => typed,
    }
}

/// The limit of a configuration; `None`: it has none, as where the filter is only inserted.
pub fn limit(config: &Value) -> Result<Option<Limit<'_>>, String> {
    let bucket = field(config, "token_bucket");
    let descriptors = field(config, "descriptors").as_array();
    if bucket.is_null() && descriptors.is_none_or(Vec::is_empty) {
        return Ok(None);
    }
    known(config)?;
    let mut out = Limit {
        shadow: shadow(config)?,
        ..Limit::default()
    };
    if !bucket.is_null() {
        out.default = Some(tokens(bucket)?).filter(|t| t.quota < UNLIMITED);
    }
    for descriptor in descriptors.into_iter().flatten() {
        let entries = field(descriptor, "entries")
            .as_array()
            .into_iter()
            .flatten();
        let entries = entries.map(|entry| {
            let text = |key: &str| entry[key].as_str();
            (
                text("key").unwrap_or_default(),
                text("value").filter(|v| !v.is_empty()),
            )
        });
        out.descriptors.push(Descriptor {
            entries: entries.collect(),
            tokens: tokens(field(descriptor, "token_bucket"))?,
        });
    }
    if field(config, "always_consume_default_token_bucket") == false
        && !out.descriptors.is_empty()
        && out.default.is_some()
    {
        return Err("always_consume_default_token_bucket: false: the default bucket is for requests that match no descriptor; of rules of a SmartLimiter all count: give the rest a rule of its own".to_owned());
    }
    answer(config, &mut out)?;
    Ok(Some(out))
}

/// Fields that a SmartLimiter has no word for.
fn known(config: &Value) -> Result<(), String> {
    for (name, why) in [
        (
            "local_rate_limit_per_downstream_connection",
            "each connection has a bucket; a SmartLimiter has one a pod",
        ),
        (
            "local_cluster_rate_limit",
            "the quota is shared by the pods: write strategy: average by hand",
        ),
        (
            "request_headers_to_add_when_not_enforced",
            "a SmartLimiter adds no header to requests that pass",
        ),
        (
            "rate_limits",
            "rate limits in the filter itself: put them at the route",
        ),
        ("stage", "stages of rate limits: a SmartLimiter has one"),
        (
            "max_dynamic_descriptors",
            "buckets by value: write present_match_separate and maxValues by hand",
        ),
    ] {
        let value = field(config, name);
        if !(value.is_null() || *value == false || *value == 0 || *value == json!([])) {
            return Err(format!("{name}: {why}"));
        }
    }
    let of_hosts = field(config, "vh_rate_limits");
    if !of_hosts.is_null() && of_hosts != "OVERRIDE" {
        return Err("vh_rate_limits: rate limits of the virtual host count besides those of the route; write them at one of the two".to_owned());
    }
    Ok(())
}

/// Whether requests over the limit pass.
fn shadow(config: &Value) -> Result<bool, String> {
    match share(field(config, "filter_enabled")) {
        Some(ALL) => {}
        None => return Err(
            "filter_enabled is absent: Envoy then limits nothing; there is nothing to take over"
                .to_owned(),
        ),
        Some(_) => {
            return Err(
                "filter_enabled: a share of the requests: a SmartLimiter counts all".to_owned(),
            );
        }
    }
    match share(field(config, "filter_enforced")) {
        Some(ALL) => Ok(false),
        None | Some(0) => Ok(true),
        Some(_) => Err("filter_enforced: a share of the requests: a SmartLimiter refuses all that are over the limit, or none (mode: Shadow)".to_owned()),
    }
}

/// In millionths.
const ALL: u64 = 1_000_000;

/// The default value of a runtime fraction, in millionths; `None`: there is none.
fn share(fraction: &Value) -> Option<u64> {
    if fraction.is_null() {
        return None;
    }
    let value = field(fraction, "default_value");
    let numerator = value["numerator"].as_u64().unwrap_or_default();
    let whole = match value["denominator"].as_str() {
        Some("TEN_THOUSAND") => 10_000,
        Some("MILLION") => ALL,
        _ => 100,
    };
    Some(numerator.saturating_mul(ALL / whole))
}

fn tokens(bucket: &Value) -> Result<Tokens, String> {
    let number = |name: &str| {
        let value = field(bucket, name);
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    };
    let quota = number("max_tokens").unwrap_or_default();
    let fill = number("tokens_per_fill").unwrap_or(1);
    if quota != fill {
        return Err(format!(
            "token_bucket: {quota} tokens at most and {fill} a fill: the quota of a SmartLimiter is both: choose one of the two numbers"
        ));
    }
    let interval = field(bucket, "fill_interval").as_str().unwrap_or_default();
    let nanos = nanos(interval).ok_or_else(|| {
        format!("token_bucket.fill_interval {interval:?} is no duration: write for example 60s")
    })?;
    if nanos < SECOND / 20 {
        return Err(format!(
            "token_bucket.fill_interval {interval}: Envoy takes nothing shorter than 50ms"
        ));
    }
    Ok(Tokens { quota, nanos })
}

/// A duration of protobuf's JSON: seconds, with a fraction.
fn nanos(text: &str) -> Option<u64> {
    let (seconds, part) = text
        .strip_suffix('s')?
        .split_once('.')
        .unwrap_or((text.strip_suffix('s')?, "0"));
    let part = format!("{part:0<9}");
    let nanos: u64 = part.get(..9)?.parse().ok()?;
    seconds
        .parse::<u64>()
        .ok()?
        .checked_mul(SECOND)?
        .checked_add(nanos)
}

/// What a refused request gets.
fn answer(config: &Value, out: &mut Limit<'_>) -> Result<(), String> {
    for added in field(config, "response_headers_to_add")
        .as_array()
        .into_iter()
        .flatten()
    {
        let header = &added["header"];
        out.headers
            .push(json!({"key": header["key"], "value": header["value"]}));
    }
    let code = &field(config, "status")["code"];
    match (code.as_u64(), code.as_str()) {
        // Envoy takes nothing below 400.
        (None | Some(0..=399 | 429), None) | (_, Some("TooManyRequests")) => {}
        (Some(code @ 400..=599), _) => {
            out.response.insert("status".to_owned(), code.into());
        }
        _ => {
            return Err(format!(
                "status.code {code}: write a number from 400 to 599"
            ));
        }
    }
    if field(config, "enable_x_ratelimit_headers") == "DRAFT_VERSION_03" {
        out.response
            .insert("rateLimitHeaders".to_owned(), true.into());
    }
    Ok(())
}
