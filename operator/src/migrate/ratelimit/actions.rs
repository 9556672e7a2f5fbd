//! What makes descriptors of a request, and the matches that say the same.

use serde_json::{Value, json};
use trimtab_kit::module::camel_case;

use super::bucket::field;
use super::place::{Place, Side};

/// An item of `rate_limits`: it makes one descriptor of a request, or none.
#[derive(Debug)]
pub struct RateLimit<'a> {
    /// Side of the proxy.
    pub side: Side,
    /// Where it is.
    pub place: Place,
    entries: Vec<Entry<'a>>,
}

#[derive(Debug)]
struct Entry<'a> {
    key: &'a str,
    source: Source<'a>,
}

#[derive(Debug)]
enum Source<'a> {
    /// Always the same value, for requests that match.
    Fixed(&'a str, Result<Vec<Value>, String>),
    /// The value of a header.
    Header(&'a str),
    /// The address of the client.
    Address,
    /// Nothing that a SmartLimiter can match.
    Unknown,
}

/// Reads an item of `rate_limits`.
pub fn read(rate_limit: &Value, side: Side, place: Place) -> Result<RateLimit<'_>, String> {
    for (name, why) in [
        ("stage", "stages of rate limits: a SmartLimiter has one"),
        (
            "disable_key",
            "a key of Envoy's runtime that switches it off: mode: Shadow does",
        ),
        ("limit", "a limit that comes with the request"),
        ("hits_addend", "requests that count more than once"),
        ("apply_on_stream_done", "requests that count when they end"),
    ] {
        let value = field(rate_limit, name);
        if !(value.is_null() || *value == 0 || *value == false) {
            return Err(format!("rate_limits.{name}: {why}"));
        }
    }
    let actions = field(rate_limit, "actions").as_array();
    let entries = actions.into_iter().flatten().map(entry).collect();
    Ok(RateLimit {
        side,
        place,
        entries,
    })
}

fn entry(action: &Value) -> Entry<'_> {
    let of = |name: &str| action.get(name).or_else(|| action.get(camel_case(name)));
    if let Some(generic) = of("generic_key") {
        return Entry {
            key: key(generic, "generic_key"),
            source: Source::Fixed(word(generic, "descriptor_value"), Ok(Vec::new())),
        };
    }
    if let Some(headers) = of("header_value_match") {
        return Entry {
            key: key(headers, "header_match"),
            source: Source::Fixed(
                word(headers, "descriptor_value"),
                all(headers, "headers", header),
            ),
        };
    }
    if let Some(query) = of("query_parameter_value_match") {
        return Entry {
            key: key(query, "query_match"),
            source: Source::Fixed(
                word(query, "descriptor_value"),
                all(query, "query_parameters", parameter),
            ),
        };
    }
    if let Some(header) = of("request_headers") {
        return Entry {
            key: word(header, "descriptor_key"),
            source: Source::Header(word(header, "header_name")),
        };
    }
    for key in ["remote_address", "masked_remote_address"] {
        if of(key).is_some() {
            return Entry {
                key,
                source: Source::Address,
            };
        }
    }
    Entry {
        key: "",
        source: Source::Unknown,
    }
}

fn word<'a>(of: &'a Value, name: &str) -> &'a str {
    field(of, name).as_str().unwrap_or_default()
}

fn key<'a>(of: &'a Value, otherwise: &'a str) -> &'a str {
    match word(of, "descriptor_key") {
        "" => otherwise,
        key => key,
    }
}

impl RateLimit<'_> {
    /// Whether an action is of a kind that a SmartLimiter has no match for.
    pub fn is_beyond(&self) -> bool {
        self.entries
            .iter()
            .any(|e| matches!(e.source, Source::Unknown))
    }

    /// The matches of requests that get a descriptor with these entries; `None`: it never makes such a one.
    pub fn makes(&self, wanted: &[(&str, Option<&str>)]) -> Option<Result<Vec<Value>, String>> {
        if self.entries.len() != wanted.len() {
            return None;
        }
        let mut out = Ok(Vec::new());
        for (entry, (key, value)) in self.entries.iter().zip(wanted) {
            if entry.key != *key {
                return None;
            }
            let matches = match (&entry.source, value) {
                (Source::Fixed(fixed, matches), Some(value)) if fixed == value => matches.clone(),
                (Source::Fixed(_, matches), None) => matches.clone(),
                (Source::Fixed(..) | Source::Unknown, _) => return None,
                (Source::Header(name), Some(value)) => {
                    Ok(vec![json!({"name": name, "exact_match": value})])
                }
                (Source::Header(name), None) => {
                    Ok(vec![json!({"name": name, "present_match_separate": true})])
                }
                (Source::Address, Some(address)) => Ok(vec![
                    json!({"matchSource": "SourceIpMatch", "exact_match": address}),
                ]),
                (Source::Address, None) => Err(format!(
                    "descriptor {key}: a bucket for each address: a SmartLimiter has one for each address that it names"
                )),
            };
            out = out.and_then(|mut all: Vec<Value>| {
                all.extend(matches?);
                Ok(all)
            });
        }
        Some(out)
    }
}

/// All matchers of an action.
fn all(
    action: &Value,
    list: &str,
    read: fn(&Value) -> Result<Value, String>,
) -> Result<Vec<Value>, String> {
    if *field(action, "expect_match") == false {
        return Err("expect_match: false counts requests without the header too; invert_match of a SmartLimiter does not: write two rules by hand".to_owned());
    }
    let items = field(action, list).as_array().into_iter().flatten();
    items.map(read).collect()
}

fn header(matcher: &Value) -> Result<Value, String> {
    if *field(matcher, "treat_missing_header_as_empty") == true {
        return Err("treat_missing_header_as_empty: a SmartLimiter has no word for it".to_owned());
    }
    let mut out = json!({"name": matcher["name"]});
    specifier(matcher, &mut out)?;
    let inverted = field(matcher, "invert_match");
    if *inverted == true {
        if out.get("present_match").is_some() {
            out["present_match"] = (out["present_match"] != true).into();
        } else {
            out["invert_match"] = true.into();
        }
    }
    Ok(out)
}

fn parameter(matcher: &Value) -> Result<Value, String> {
    let mut out = json!({"name": matcher["name"], "matchSource": "QueryMatch"});
    specifier(matcher, &mut out)?;
    Ok(out)
}

/// What a value must be: as `string_match`, or in the older fields of a header.
fn specifier(matcher: &Value, out: &mut Value) -> Result<(), String> {
    let string = field(matcher, "string_match");
    if *field(string, "ignore_case") == true {
        return Err("string_match.ignore_case: write regex_match: (?i)... by hand".to_owned());
    }
    let name = matcher["name"].as_str().unwrap_or_default();
    for (new, old, ours) in [
        ("exact", "exact_match", "exact_match"),
        ("prefix", "prefix_match", "prefix_match"),
        ("suffix", "suffix_match", "suffix_match"),
    ] {
        let value = field(string, new).as_str().or(field(matcher, old).as_str());
        if let Some(value) = value {
            let empty = value.is_empty() && ours == "exact_match";
            let (key, value) = if empty {
                ("is_exact_match_empty", true.into())
            } else {
                (ours, Value::from(value))
            };
            out[key] = value;
            return Ok(());
        }
    }
    for regex in [
        field(string, "safe_regex"),
        field(matcher, "safe_regex_match"),
    ] {
        if let Some(regex) = regex["regex"].as_str() {
            out["regex_match"] = regex.into();
            return Ok(());
        }
    }
    let present = field(matcher, "present_match");
    if present.is_null() && (!string.is_null() || has_other(matcher)) {
        return Err(format!(
            "the matcher of {name}: a SmartLimiter compares by exact, prefix, suffix, regex and presence: write regex_match by hand"
        ));
    }
    out["present_match"] = (*present != false).into();
    Ok(())
}

fn has_other(matcher: &Value) -> bool {
    let others = ["contains_match", "range_match"];
    others.iter().any(|name| !field(matcher, name).is_null())
}
