//! HTTP rules of a VirtualService as plain routes.

use std::collections::BTreeMap;

use serde_json::Value;
use trimtab_crds::istio::{
    self, HttpMatchRequest, HttpRetry, HttpRule, StringMatch, VirtualService,
};
use trimtab_kit::envoy::re2::{self, Engine};
use trimtab_kit::envoy::{header, is_duration};
use trimtab_kit::problem::Problem;
use trimtab_metaprotocol::input::{Destination, Mirror, ValueMatch, WeightedDestination};
use trimtab_metaprotocol::owner::Owner;
use trimtab_metaprotocol::span::Span;

use crate::input::{HttpMatch, HttpRetries, HttpRoute, ServiceInput};

/// Reads the rules. A rule with something that is not done here is left out and reported, as calls would otherwise go
/// where the user did not send them. `full` makes a host of a short name.
pub(super) fn routes(
    object: &VirtualService,
    owner: &Owner,
    full: &dyn Fn(&str) -> String,
    problems: &mut Vec<Problem>,
) -> Vec<HttpRoute> {
    let mut out = Vec::new();
    for (index, rule) in object.spec.http.iter().enumerate() {
        match route(rule, full) {
            Ok(route) => out.push(route),
            Err((field, text)) => problems.push(Problem::new(
                owner,
                format!("spec.http[{index}]{field}"),
                "NotSupported",
                text,
            )),
        }
    }
    out
}

/// Destinations of routes that are nowhere. What it comes to is decided with the ports that are called.
pub(super) fn missing(
    routes: &[HttpRoute],
    owner: &Owner,
    services: &BTreeMap<String, ServiceInput>,
) -> Vec<Problem> {
    let mut out = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let listed = route.destinations.iter().enumerate();
        let listed = listed.map(|(i, d)| (format!("route[{i}]"), &d.destination));
        let mirror = route.mirror.iter();
        let mirror = mirror.map(|m| ("mirror".to_owned(), &m.destination));
        for (place, to) in listed.chain(mirror) {
            let service = services.get(&to.host);
            let port = |s: &ServiceInput| {
                to.port
                    .is_none_or(|p| s.ports.iter().any(|o| o.number == p))
            };
            let subset =
                |s: &ServiceInput| to.subset.is_empty() || s.subsets.contains_key(&to.subset);
            if !service.is_some_and(|s| port(s) && subset(s)) {
                let text = format!(
                    "no service has the host \"{}\" with this port and subset: correct them, or add the Service, the port, or the subset of a DestinationRule",
                    to.host
                );
                let field = format!("spec.http[{index}].{place}");
                out.push(Problem::new(owner, field, "UnknownDestination", text));
            }
        }
    }
    out
}

type FieldError = (String, String);

fn wrong<T>(field: impl Into<String>, text: impl Into<String>) -> Result<T, FieldError> {
    Err((field.into(), text.into()))
}

fn not_done(at: &str, field: &str, known: &str) -> FieldError {
    let text =
        format!("proxies without Istio do not do this: remove the field (known are {known})");
    (format!("{at}.{field}"), text)
}

/// Refuses fields that nobody reads.
fn known(others: &BTreeMap<String, Value>, at: &str, known: &str) -> Result<(), FieldError> {
    match others.keys().next() {
        Some(field) => Err(not_done(at, field, known)),
        None => Ok(()),
    }
}

fn route(rule: &HttpRule, full: &dyn Fn(&str) -> String) -> Result<HttpRoute, FieldError> {
    let fields = "name, match, route, timeout, retries, mirror, mirrorPercentage, mirrorPercent";
    known(&rule.others, "", fields)?;
    if rule.delegate.is_some() {
        return Err(not_done("", "delegate", fields));
    }
    if !rule.mirrors.is_empty() {
        return Err(not_done("", "mirrors", fields));
    }
    let matches = rule.matches.iter().enumerate();
    let matches = matches.map(|(i, test)| matched(test, &format!(".match[{i}]")));
    let matches = matches.collect::<Result<Vec<HttpMatch>, FieldError>>()?;
    let mut destinations = Vec::new();
    for (i, to) in rule.route.iter().enumerate() {
        let at = format!(".route[{i}]");
        known(&to.others, &at, "destination, weight")?;
        destinations.push(WeightedDestination {
            destination: destination(&to.destination, full, &at)?,
            weight: to
                .weight
                .and_then(|w| u32::try_from(w).ok())
                .unwrap_or_default(),
        });
    }
    if destinations.is_empty() {
        return wrong(".route", "there is no destination: write at least one");
    }
    let mut weights = destinations.iter().map(|d| d.weight);
    if weights.try_fold(0_u32, u32::checked_add).is_none() {
        return wrong(
            ".route",
            "the weights have a sum over 4294967295, which Envoy refuses: write smaller ones",
        );
    }
    if destinations.len() > 1 && destinations.iter().all(|d| d.weight == 0) {
        return wrong(
            ".route",
            "no destination has a weight, so that nothing would go anywhere: write weights",
        );
    }
    Ok(HttpRoute {
        name: rule.name.clone(),
        matches,
        destinations,
        mirror: mirror(rule, full)?,
        timeout: span(rule.timeout.as_ref(), ".timeout")?,
        retries: rule.retries.as_ref().map(retries).transpose()?,
    })
}

fn span(text: Option<&String>, at: &str) -> Result<Option<Span>, FieldError> {
    let Some(text) = text else {
        return Ok(None);
    };
    let span = Span::new(text);
    match span.get() {
        Err(error) => wrong(at, error.to_string()),
        Ok(duration) if !is_duration(*duration) => wrong(
            at,
            format!("{text} is longer than Envoy can count: write 2562047h at most"),
        ),
        Ok(_) => Ok(Some(span)),
    }
}

fn destination(
    to: &istio::Destination,
    full: &dyn Fn(&str) -> String,
    at: &str,
) -> Result<Destination, FieldError> {
    if to.host.is_empty() {
        return wrong(
            format!("{at}.destination.host"),
            "there is no host: write one",
        );
    }
    Ok(Destination {
        host: full(&to.host),
        subset: to.subset.clone(),
        port: to.port(),
    })
}

fn mirror(rule: &HttpRule, full: &dyn Fn(&str) -> String) -> Result<Option<Mirror>, FieldError> {
    let Some(to) = &rule.mirror else {
        return Ok(None);
    };
    let percent = rule.mirror_percentage.map(|p| p.value);
    Ok(Some(Mirror {
        destination: destination(to, full, ".mirror")?,
        percent: percent.or(rule.mirror_percent).unwrap_or(100.0),
    }))
}

fn retries(retries: &HttpRetry) -> Result<HttpRetries, FieldError> {
    known(
        &retries.others,
        ".retries",
        "attempts, perTryTimeout, retryOn",
    )?;
    let per_try = retries.per_try_timeout.as_ref();
    Ok(HttpRetries {
        attempts: u32::try_from(retries.attempts).unwrap_or_default(),
        per_try_timeout: span(per_try, ".retries.perTryTimeout")?,
        retry_on: retries.retry_on.clone(),
    })
}

fn matched(test: &HttpMatchRequest, at: &str) -> Result<HttpMatch, FieldError> {
    known(&test.others, at, "name, uri, headers, method")?;
    let mut headers = BTreeMap::new();
    for (name, value) in &test.headers {
        let at = format!("{at}.headers.{}", name.escape_debug());
        if let Err(why) = header::matched(name) {
            return wrong(at, why.to_string());
        }
        let value = header_match(value, &at)?;
        headers.insert(name.to_ascii_lowercase(), value);
    }
    if let Some(method) = &test.method {
        let value = header_match(method, &format!("{at}.method"))?;
        headers.insert(":method".to_owned(), value);
    }
    let path = test.uri.as_ref();
    let path = path.map(|uri| value_match(uri, &format!("{at}.uri")));
    Ok(HttpMatch {
        path: path.transpose()?,
        headers,
    })
}

/// As Istio reads it, an empty prefix and the pattern `*` are any value; Envoy refuses both.
fn header_match(test: &StringMatch, at: &str) -> Result<ValueMatch, FieldError> {
    Ok(match value_match(test, at)? {
        ValueMatch::Prefix(prefix) if prefix.is_empty() => ValueMatch::Present,
        other => other,
    })
}

fn value_match(test: &StringMatch, at: &str) -> Result<ValueMatch, FieldError> {
    if let Some(text) = &test.exact {
        Ok(ValueMatch::Exact(text.clone()))
    } else if let Some(text) = &test.prefix {
        Ok(ValueMatch::Prefix(text.clone()))
    } else if let Some(text) = &test.regex {
        if text == "*" {
            return Ok(ValueMatch::Present);
        }
        if text.is_empty() {
            return wrong(at, "the pattern is empty: write one, or {} for any value");
        }
        if let Err(why) = re2::check(text, Engine::Envoy) {
            return wrong(at, format!("\"{text}\" is no RE2 expression: {why}"));
        }
        Ok(ValueMatch::Regex(text.clone()))
    } else if test.others.is_empty() {
        Ok(ValueMatch::Present)
    } else {
        wrong(at, "write exact, prefix or regex, or {} for any value")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trimtab_crds::istio::VirtualServiceSpec;

    use super::*;

    fn read(rule: Value) -> (Vec<HttpRoute>, Vec<Problem>) {
        let spec = VirtualServiceSpec {
            http: vec![serde_json::from_value(rule).unwrap()],
            ..VirtualServiceSpec::default()
        };
        let mut problems = Vec::new();
        let object = VirtualService::new("v", spec);
        let full = |host: &str| format!("{host}.full");
        let routes = routes(&object, &Owner::default(), &full, &mut problems);
        (routes, problems)
    }

    #[test]
    fn a_rule_is_read() {
        let (routes, problems) = read(json!({
            "match": [{"uri": {"prefix": "/a"}, "method": {"exact": "GET"}, "headers": {"X-Tier": {}}}],
            "route": [{"destination": {"host": "a", "subset": "v1", "port": {"number": 7}}, "weight": 10},
                {"destination": {"host": "b"}, "weight": 90}],
            "timeout": "2s", "retries": {"attempts": 0},
            "mirror": {"host": "c"}, "mirrorPercentage": {"value": 5.5},
        }));
        assert_eq!(problems, []);
        let route = &routes[0];
        let names: Vec<&String> = route.matches[0].headers.keys().collect();
        assert_eq!(names, [":method", "x-tier"]);
        assert_eq!(route.destinations[0].destination.host, "a.full");
        assert_eq!(route.destinations[0].destination.port, Some(7));
        assert_eq!(
            route.mirror.as_ref().unwrap().percent.to_bits(),
            5.5_f64.to_bits()
        );
        assert_eq!(route.retries.as_ref().unwrap().attempts, 0);
    }

    #[test]
    fn fault_t9_any_value_is_read_as_istio_reads_it() {
        let any = [json!({}), json!({"prefix": ""}), json!({"regex": "*"})];
        for test in any {
            let (routes, problems) = read(json!({
                "match": [{"headers": {"x": test}}],
                "route": [{"destination": {"host": "a"}}],
            }));
            assert_eq!(problems, []);
            assert_eq!(routes[0].matches[0].headers["x"], ValueMatch::Present);
        }
    }

    #[test]
    fn fault_t9_a_rule_with_a_value_that_envoy_refuses_is_left_out() {
        let to = json!([{"destination": {"host": "a"}}]);
        for (rule, field) in [
            (
                json!({"route": to, "match": [{"headers": {"x": {"regex": "a**"}}}]}),
                "spec.http[0].match[0].headers.x",
            ),
            (
                json!({"route": to, "match": [{"method": {"regex": r"[\w--\d]"}}]}),
                "spec.http[0].match[0].method",
            ),
            (
                json!({"route": to, "match": [{"uri": {"regex": ""}}]}),
                "spec.http[0].match[0].uri",
            ),
            (
                json!({"route": to, "match": [{"headers": {"a\nb": {"exact": "1"}}}]}),
                r"spec.http[0].match[0].headers.a\nb",
            ),
            (
                json!({"route": to, "match": [{"headers": {"": {"exact": "1"}}}]}),
                "spec.http[0].match[0].headers.",
            ),
            (
                json!({"route": to, "timeout": "2562047h47m16.8s"}),
                "spec.http[0].timeout",
            ),
            (
                json!({"route": [{"destination": {"host": "a"}, "weight": i32::MAX},
                    {"destination": {"host": "b"}, "weight": i32::MAX},
                    {"destination": {"host": "c"}, "weight": 2}]}),
                "spec.http[0].route",
            ),
        ] {
            let (routes, problems) = read(rule);
            assert!(routes.is_empty(), "{field}");
            assert_eq!(problems[0].field, field);
        }
    }

    #[test]
    fn a_rule_that_cannot_be_followed_as_a_whole_is_left_out() {
        let to = json!([{"destination": {"host": "a"}}]);
        for (rule, field) in [
            (json!({"route": to, "fault": {}}), "spec.http[0].fault"),
            (json!({"route": []}), "spec.http[0].route"),
            (
                json!({"route": [{"destination": {}}]}),
                "spec.http[0].route[0].destination.host",
            ),
            (json!({"route": to, "timeout": "x"}), "spec.http[0].timeout"),
            (
                json!({"route": to, "match": [{"port": 7}]}),
                "spec.http[0].match[0].port",
            ),
            (
                json!({"route": to, "match": [{"uri": {"regex": "("}}]}),
                "spec.http[0].match[0].uri",
            ),
            (
                json!({"route": to, "match": [{"uri": {"suffix": "a"}}]}),
                "spec.http[0].match[0].uri",
            ),
            (
                json!({"route": to, "retries": {"attempts": 1, "x": 1}}),
                "spec.http[0].retries.x",
            ),
            (
                json!({"route": [{"destination": {"host": "a"}}, {"destination": {"host": "b"}}]}),
                "spec.http[0].route",
            ),
        ] {
            let (routes, problems) = read(rule);
            assert!(routes.is_empty(), "{field}");
            assert_eq!(problems[0].field, field);
        }
    }
}
