//! Which route a call takes, and why: decided offline by the rules of the proxies.

use std::collections::BTreeMap;

use regex::Regex;
use serde::Serialize;

use crate::input::{Router, ServicePortInput, ValueMatch};

/// The way of one call through the routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Routes in order, up to the one that is taken.
    pub steps: Vec<Step>,
    /// Clusters that the call may go to, with their weights; empty: no route takes it, and the proxy refuses it.
    pub clusters: Vec<(String, u32)>,
}

/// One route that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Index of the route.
    pub route: usize,
    /// Its name.
    pub name: String,
    /// Why it does not take the call; `None`: it does.
    pub missed: Option<String>,
}

/// Follows a call with `attributes` through the routes of `router`, which are those in force.
///
/// Names of attributes are compared without regard to case. A pattern must match the whole value.
pub fn explain(
    input: &ServicePortInput,
    router: Option<&Router>,
    attributes: &BTreeMap<String, String>,
) -> Explanation {
    let attributes: BTreeMap<String, &str> = attributes
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
        .collect();
    let mut steps = Vec::new();
    let list = router.map(|r| r.routes.as_slice()).unwrap_or_default();
    if list.is_empty() {
        return Explanation {
            steps,
            clusters: vec![(input.own_cluster(), 1)],
        };
    }
    for (index, route) in list.iter().enumerate() {
        let missed = route
            .matches
            .iter()
            .find_map(|(name, rule)| miss(name, rule, &attributes));
        let taken = missed.is_none();
        steps.push(Step {
            route: index,
            name: route.name.clone(),
            missed,
        });
        if taken {
            let only = route.destinations.len() == 1;
            let clusters = route.destinations.iter().map(|d| {
                let weight = if only { 1 } else { d.weight };
                (input.cluster(&d.destination), weight)
            });
            return Explanation {
                clusters: clusters.collect(),
                steps,
            };
        }
    }
    Explanation {
        steps,
        clusters: Vec::new(),
    }
}

/// Why a test fails.
fn miss(name: &str, rule: &ValueMatch, attributes: &BTreeMap<String, &str>) -> Option<String> {
    let Some(value) = attributes.get(&name.to_ascii_lowercase()) else {
        return Some(format!("the call has no {name}"));
    };
    let (holds, wanted) = match rule {
        ValueMatch::Present => (true, String::new()),
        ValueMatch::Exact(text) => (value == text, format!("\"{text}\"")),
        ValueMatch::Prefix(text) => (
            value.starts_with(text),
            format!("\"{text}\" at its beginning"),
        ),
        ValueMatch::Regex(text) => {
            let whole = Regex::new(&format!("^(?:{text})$"));
            (whole.is_ok_and(|r| r.is_match(value)), format!("/{text}/"))
        }
    };
    (!holds).then(|| format!("{name} is \"{value}\", wanted is {wanted}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_route_that_matches_takes_the_call() {
        let input: ServicePortInput = serde_json::from_value(json!({
            "host": "a.b", "namespace": "b", "service": "a",
            "port": {"number": 7, "name": "tcp-dubbo"}, "protocol": {"kind": "dubbo"},
            "router": {"owner": {"kind": "MetaRouter", "namespace": "b", "name": "a"}, "routes": [
                {"match": {"Tier": {"regex": "go.d"}, "method": "present"}, "route": [{"destination": {"host": "a.b", "subset": "v2"}}]},
                {"match": {"method": {"prefix": "say"}}, "route": [
                    {"destination": {"host": "a.b", "subset": "v1"}, "weight": 90}, {"destination": {"host": "c.b", "port": 8}, "weight": 10}]},
            ]},
        }))
        .unwrap();
        let ask = |pairs: &[(&str, &str)]| {
            let attributes = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            explain(&input, input.router.as_ref(), &attributes.collect())
        };
        let gold = ask(&[("tier", "gold"), ("METHOD", "sayHello")]);
        assert_eq!(gold.clusters, [("outbound|7|v2|a.b".to_owned(), 1)]);
        let longer = ask(&[("tier", "golden"), ("method", "sayHello")]);
        assert_eq!(
            longer.steps[0].missed.as_deref(),
            Some("Tier is \"golden\", wanted is /go.d/")
        );
        let split = [
            ("outbound|7|v1|a.b".to_owned(), 90),
            ("outbound|8||c.b".to_owned(), 10),
        ];
        assert_eq!(longer.clusters, split);
        let none = ask(&[("method", "get")]);
        assert!(none.clusters.is_empty());
        assert_eq!(none.steps.len(), 2);
        assert_eq!(
            none.steps[0].missed.as_deref(),
            Some("the call has no Tier")
        );
        let own = explain(&input, None, &BTreeMap::new());
        assert_eq!(own.clusters, [("outbound|7||a.b".to_owned(), 1)]);
    }
}
