//! HTTP rules of a VirtualService as plain routes.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use trimtab_crds::istio::VirtualService;
use trimtab_kit::problem::Problem;
use trimtab_metaprotocol::input::{Destination, Mirror, ValueMatch, WeightedDestination};
use trimtab_metaprotocol::owner::Owner;
use trimtab_metaprotocol::span::Span;

use crate::input::{HttpMatch, HttpRetries, HttpRoute};

/// Fields of a rule that proxies without Istio follow, or that mean nothing there.
const RULE: [&str; 9] = [
    "name",
    "match",
    "route",
    "timeout",
    "retries",
    "mirror",
    "mirrorPercentage",
    "mirror_percentage",
    "mirrorPercent",
];
const MATCH: [&str; 4] = ["name", "uri", "headers", "method"];

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

type Wrong = (String, String);

fn wrong<T>(field: impl Into<String>, text: impl Into<String>) -> Result<T, Wrong> {
    Err((field.into(), text.into()))
}

fn known(value: &Value, names: &[&str], at: &str) -> Result<(), Wrong> {
    let other = |fields: &Map<String, Value>| {
        fields
            .keys()
            .find(|k| !names.contains(&k.as_str()))
            .cloned()
    };
    match value.as_object().map(other) {
        None => wrong(at, "this is not an object: write one"),
        Some(Some(field)) => wrong(
            format!("{at}.{field}"),
            format!(
                "proxies without Istio do not do this, and the rule is left out: remove the field (known are {})",
                names.join(", ")
            ),
        ),
        Some(None) => Ok(()),
    }
}

fn route(rule: &Value, full: &dyn Fn(&str) -> String) -> Result<HttpRoute, Wrong> {
    known(rule, &RULE, "")?;
    let mut matches = Vec::new();
    for (i, test) in list(&rule["match"]).iter().enumerate() {
        let at = format!(".match[{i}]");
        known(test, &MATCH, &at)?;
        matches.push(matched(test, &at)?);
    }
    let mut destinations = Vec::new();
    for (i, to) in list(&rule["route"]).iter().enumerate() {
        let at = format!(".route[{i}]");
        known(to, &["destination", "weight"], &at)?;
        destinations.push(WeightedDestination {
            destination: destination(&to["destination"], full, &at)?,
            weight: number(&to["weight"]).unwrap_or_default(),
        });
    }
    if destinations.is_empty() {
        return wrong(".route", "there is no destination: write at least one");
    }
    if destinations.len() > 1 && destinations.iter().all(|d| d.weight == 0) {
        return wrong(
            ".route",
            "no destination has a weight, so that nothing would go anywhere: write weights",
        );
    }
    Ok(HttpRoute {
        name: text(&rule["name"]),
        matches,
        destinations,
        mirror: mirror(rule, full)?,
        timeout: span(&rule["timeout"], ".timeout")?,
        retries: retries(&rule["retries"])?,
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|n| u32::try_from(n).ok())
}

fn span(value: &Value, at: &str) -> Result<Option<Span>, Wrong> {
    let Some(text) = value.as_str() else {
        return Ok(None);
    };
    let span = Span::new(text);
    if let Err(error) = span.get() {
        return wrong(at, error.to_string());
    }
    Ok(Some(span))
}

fn destination(
    value: &Value,
    full: &dyn Fn(&str) -> String,
    at: &str,
) -> Result<Destination, Wrong> {
    let host = value["host"].as_str().filter(|h| !h.is_empty());
    let Some(host) = host else {
        return wrong(
            format!("{at}.destination.host"),
            "there is no host: write one",
        );
    };
    let port = number(&value["port"]["number"]).and_then(|n| u16::try_from(n).ok());
    Ok(Destination {
        host: full(host),
        subset: text(&value["subset"]),
        port,
    })
}

fn mirror(rule: &Value, full: &dyn Fn(&str) -> String) -> Result<Option<Mirror>, Wrong> {
    if rule["mirror"].is_null() {
        return Ok(None);
    }
    let percentage = ["mirrorPercentage", "mirror_percentage"]
        .iter()
        .find_map(|f| rule[*f]["value"].as_f64());
    Ok(Some(Mirror {
        destination: destination(&rule["mirror"], full, ".mirror")?,
        percent: percentage
            .or(rule["mirrorPercent"].as_f64())
            .unwrap_or(100.0),
    }))
}

fn retries(value: &Value) -> Result<Option<HttpRetries>, Wrong> {
    if value.is_null() {
        return Ok(None);
    }
    known(value, &["attempts", "perTryTimeout", "retryOn"], ".retries")?;
    Ok(Some(HttpRetries {
        attempts: number(&value["attempts"]).unwrap_or_default(),
        per_try_timeout: span(&value["perTryTimeout"], ".retries.perTryTimeout")?,
        retry_on: text(&value["retryOn"]),
    }))
}

fn matched(test: &Value, at: &str) -> Result<HttpMatch, Wrong> {
    let mut headers = BTreeMap::new();
    for (name, value) in test["headers"].as_object().into_iter().flatten() {
        let value = value_match(value, &format!("{at}.headers.{name}"))?;
        headers.insert(name.to_ascii_lowercase(), value);
    }
    if !test["method"].is_null() {
        let value = value_match(&test["method"], &format!("{at}.method"))?;
        headers.insert(":method".to_owned(), value);
    }
    let path = (!test["uri"].is_null()).then(|| value_match(&test["uri"], &format!("{at}.uri")));
    Ok(HttpMatch {
        path: path.transpose()?,
        headers,
    })
}

fn value_match(value: &Value, at: &str) -> Result<ValueMatch, Wrong> {
    let of = |kind: &str| value[kind].as_str().map(str::to_owned);
    if let Some(text) = of("exact") {
        Ok(ValueMatch::Exact(text))
    } else if let Some(text) = of("prefix") {
        Ok(ValueMatch::Prefix(text))
    } else if let Some(text) = of("regex") {
        if let Err(error) = regex::Regex::new(&text) {
            return wrong(at, format!("the pattern is not one: {error}"));
        }
        Ok(ValueMatch::Regex(text))
    } else if value.as_object().is_some_and(Map::is_empty) {
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
            http: vec![rule],
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
