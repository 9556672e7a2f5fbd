//! Checks of rate limits.

use std::time::Duration;

use super::{Diagnostics, values};
use crate::input::{Router, TokenBucket, outbound_cluster};

/// Below it Aeraki's filter refuses its configuration, and with it the listener.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);

/// The local limit.
pub(super) fn local<'a>(object: &'a str, router: &Router) -> Diagnostics<'a> {
    let mut out = Diagnostics::new(object);
    let field = "spec.localRateLimit";
    let Some(limit) = &router.local_rate_limit else {
        return out;
    };
    if limit.bucket.is_none() && limit.conditions.is_empty() {
        out.invalid(
            field,
            "InvalidLimit",
            "the limit says nothing: set tokenBucket or conditions",
        );
    }
    if let Some(plain) = &limit.bucket {
        bucket(&mut out, &format!("{field}.tokenBucket"), plain);
    }
    for (i, condition) in limit.conditions.iter().enumerate() {
        let field = format!("{field}.conditions[{i}]");
        if condition.matches.is_empty() {
            out.invalid(format!("{field}.match"), "InvalidLimit", "the condition matches everything: name attributes, or use spec.localRateLimit.tokenBucket");
        }
        values::matches(
            &mut out,
            &format!("{field}.match.attributes"),
            &condition.matches,
        );
        bucket(&mut out, &format!("{field}.tokenBucket"), &condition.bucket);
    }
    out
}

fn bucket(out: &mut Diagnostics<'_>, field: &str, bucket: &TokenBucket) {
    for (name, value) in [
        ("maxTokens", bucket.max_tokens),
        ("tokensPerFill", bucket.tokens_per_fill),
    ] {
        if value == 0 {
            out.invalid(
                format!("{field}.{name}"),
                "InvalidLimit",
                "must be at least 1",
            );
        }
    }
    let field = format!("{field}.fillInterval");
    values::span(out, &field, &bucket.fill_interval, LEAST_INTERVAL);
}

/// The global limit.
pub(super) fn global<'a>(object: &'a str, router: &Router) -> Diagnostics<'a> {
    let mut out = Diagnostics::new(object);
    let field = "spec.globalRateLimit";
    let Some(limit) = &router.global_rate_limit else {
        return out;
    };
    if let Some(matches) = &limit.matches {
        values::matches(&mut out, &format!("{field}.match.attributes"), matches);
    }
    if limit.domain.is_empty() {
        out.invalid(
            format!("{field}.domain"),
            "InvalidLimit",
            "is empty: name the domain of the rate limit service's rules",
        );
    }
    if let Some(timeout) = &limit.timeout {
        let field = format!("{field}.requestTimeout");
        values::span(&mut out, &field, timeout, Duration::from_millis(1));
    }
    if !is_cluster(&limit.cluster) {
        out.invalid(
            format!("{field}.rateLimitService"),
            "InvalidLimit",
            format!(
                "\"{}\" is not the name of a cluster: write for example {}",
                limit.cluster,
                outbound_cluster(8081, "", "ratelimit.default.svc.cluster.local")
            ),
        );
    }
    if limit.descriptors.is_empty() {
        out.invalid(
            format!("{field}.descriptors"),
            "InvalidLimit",
            "is empty: name at least one property with its descriptorKey",
        );
    }
    for (i, descriptor) in limit.descriptors.iter().enumerate() {
        let field = format!("{field}.descriptors[{i}]");
        values::attribute(&mut out, &format!("{field}.property"), &descriptor.property);
        if descriptor.descriptor_key.is_empty() {
            out.invalid(
                format!("{field}.descriptorKey"),
                "InvalidLimit",
                "is empty: name the key of the rate limit service's rule",
            );
        }
    }
    out
}

/// A cluster of the bootstrap by its name, or one of Istio's.
fn is_cluster(name: &str) -> bool {
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return false;
    }
    if !name.contains('|') {
        return true;
    }
    let parts: Vec<&str> = name.split('|').collect();
    matches!(parts.as_slice(), ["outbound", port, _, host]
        if port.parse::<u16>().is_ok_and(|p| p > 0) && values::is_host(host))
}
