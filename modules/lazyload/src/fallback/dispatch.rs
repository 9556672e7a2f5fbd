//! Domains of dispatches as matches of `:authority`.
//!
//! A dispatch is a route of the catch-all virtual host and not a virtual host of its own: a domain that is also a known
//! service of some proxy would be a duplicate there, for which Envoy refuses the whole route configuration. What a
//! proxy knows is matched first either way.

use serde_json::{Value, json};

use crate::config::Dispatch;

/// A dispatch's condition and the dispatch, in the order in which they are tried: Envoy's order of domains, exact names,
/// then `*.suffix`, then `prefix.*`, the longer first; then regular expressions in the order written; then `*`.
pub(super) fn ordered(dispatches: &[Dispatch]) -> Vec<(&Dispatch, Option<String>)> {
    let mut by_domain: Vec<(&Dispatch, &str)> = dispatches
        .iter()
        .flat_map(|dispatch| {
            let domains = dispatch.domains.iter();
            domains.map(move |domain| (dispatch, domain.as_str()))
        })
        .collect();
    // Stable: equal ones stay in the order written.
    by_domain.sort_by_key(|(_, domain)| rank(domain));
    let (everything, specific): (Vec<_>, Vec<_>) = by_domain
        .into_iter()
        .partition(|(_, domain)| *domain == "*");
    let regexes = dispatches
        .iter()
        .filter(|dispatch| !dispatch.domain_regex.is_empty())
        .map(|dispatch| (dispatch, Some(dispatch.domain_regex.clone())));
    specific
        .into_iter()
        .map(|(dispatch, domain)| (dispatch, Some(pattern(domain))))
        .chain(regexes)
        .chain(everything.into_iter().map(|(dispatch, _)| (dispatch, None)))
        .collect()
}

/// Kind of a domain, then the longer first.
fn rank(domain: &str) -> (u8, usize) {
    let kind = match domain {
        "*" => 3,
        _ if domain.starts_with('*') => 1,
        _ if domain.ends_with('*') => 2,
        _ => 0,
    };
    (kind, usize::MAX - domain.len())
}

/// RE2 for the whole `:authority`. As in a virtual host case does not count, a wildcard stands for at least one character,
/// and, as Istio sets up its route configurations, a port in the authority is ignored unless the domain has one.
fn pattern(domain: &str) -> String {
    let text = if let Some(suffix) = domain.strip_prefix('*') {
        format!(".+{}", regex::escape(suffix))
    } else if let Some(prefix) = domain.strip_suffix('*') {
        return format!("(?i){}.+", regex::escape(prefix));
    } else {
        regex::escape(domain)
    };
    let has_port = domain
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    let port = if has_port { "" } else { "(:[0-9]+)?" };
    format!("(?i){text}{port}")
}

/// The match of a route on `:authority` by RE2; without one, every request.
pub(super) fn route_match(regex: Option<&str>) -> Value {
    let mut condition = json!({"prefix": "/"});
    if let Some(regex) = regex {
        condition["headers"] =
            json!([{"name": ":authority", "string_match": {"safe_regex": {"regex": regex}}}]);
    }
    condition
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(domain: &str, authority: &str) -> bool {
        regex::Regex::new(&format!("^(?:{})$", pattern(domain)))
            .unwrap()
            .is_match(authority)
    }

    #[test]
    fn domains_mean_what_they_mean_in_a_virtual_host() {
        for (domain, yes, no) in [
            (
                "a.com",
                vec!["a.com", "A.com", "a.com:8080"],
                vec!["b.a.com", "aXcom", "a.com."],
            ),
            ("a.com:80", vec!["a.com:80"], vec!["a.com", "a.com:8080"]),
            (
                "*.a.com",
                vec!["b.a.com", "c.b.a.com:1"],
                vec!["a.com", ".a.com"],
            ),
            ("*-b.a.com", vec!["x-b.a.com"], vec!["-b.a.com"]),
            ("a.*", vec!["a.com", "a.b.c:90"], vec!["a.", "ba.com"]),
            ("[::1]", vec!["[::1]", "[::1]:80"], vec!["[::2]"]),
        ] {
            for authority in yes {
                assert!(matches(domain, authority), "{domain} {authority}");
            }
            for authority in no {
                assert!(!matches(domain, authority), "{domain} {authority}");
            }
        }
    }

    #[test]
    fn the_most_specific_comes_first() {
        let dispatch = |name: &str, domains: &[&str], regex: &str| Dispatch {
            name: name.to_owned(),
            domains: domains.iter().map(|&d| d.to_owned()).collect(),
            domain_regex: regex.to_owned(),
            cluster: "c".to_owned(),
        };
        let all = [
            dispatch("any", &["*"], ""),
            dispatch("regex", &[], "x.*"),
            dispatch("prefix", &["a.*"], ""),
            dispatch("wide", &["*.com", "b.com"], ""),
            dispatch("narrow", &["*.a.com"], ""),
        ];
        let names: Vec<&str> = ordered(&all).iter().map(|(d, _)| d.name.as_str()).collect();
        assert_eq!(names, ["wide", "narrow", "wide", "prefix", "regex", "any"]);
        assert_eq!(ordered(&all)[5].1, None);
    }
}
