//! Matches as Envoy rate limit actions and the descriptor entries that they give.
//!
//! Order query, header, source address, as in Slime, with single values before the address. Rules: `config.route.v3.RateLimit.Action`.

use serde_json::{Map, Value, json};

use crate::validate::{Address, RuleMatch, Separate, Test, ValueMatch};

/// One `rate_limits` item and the entries of its bucket.
pub(super) struct ActionSet {
    /// Actions in order; `None` when somebody else writes them (`custom_key`).
    pub actions: Option<Vec<Value>>,
    /// Descriptor entries that the actions give.
    pub entries: Vec<(String, String)>,
}

/// Action sets of a rule: one, or one for each address.
pub(super) fn action_sets(m: &RuleMatch, identity: &str) -> Vec<ActionSet> {
    if let Some((key, value)) = &m.custom {
        return vec![ActionSet {
            actions: None,
            entries: vec![(key.clone(), value.clone())],
        }];
    }
    let mut actions = Vec::new();
    let mut entries = Vec::new();
    queries(&m.queries, identity, &mut actions, &mut entries);
    if !m.headers.is_empty() {
        let headers: Vec<Value> = m.headers.iter().map(header).collect();
        actions.push(
            json!({"header_value_match": {"descriptor_value": identity, "headers": headers}}),
        );
        entries.push(("header_match".to_owned(), identity.to_owned()));
    }
    for (i, separate) in m.separate.iter().enumerate() {
        // A key of the rule's own, and no value: Envoy keeps a bucket for each that comes.
        let key = format!("{identity}-Value[{i}]");
        actions.push(match separate {
            Separate::Header(name) => {
                json!({"request_headers": {"header_name": name, "descriptor_key": key}})
            }
            Separate::Query(name) => {
                json!({"query_parameters": {"query_parameter_name": name, "descriptor_key": key}})
            }
        });
        entries.push((key, String::new()));
    }
    if m.addresses.is_empty() {
        if actions.is_empty() {
            actions.push(json!({"generic_key": {"descriptor_value": identity}}));
            entries.push(("generic_key".to_owned(), identity.to_owned()));
        }
        return vec![ActionSet {
            actions: Some(actions),
            entries,
        }];
    }
    m.addresses
        .iter()
        .enumerate()
        .map(|(i, address)| of_address(address, i, identity, &actions, &entries))
        .collect()
}

/// An address with a key of its own in front: without it, every `remote_address` action of the route would give the
/// same entry and one request would be counted once for each.
fn of_address(
    address: &Address,
    i: usize,
    identity: &str,
    actions: &[Value],
    entries: &[(String, String)],
) -> ActionSet {
    let mut actions = actions.to_vec();
    let mut entries = entries.to_vec();
    let key = format!("{identity}-{i}");
    actions.push(json!({"generic_key": {"descriptor_value": key}}));
    entries.push(("generic_key".to_owned(), key));
    match address {
        Address::Ip(ip) => {
            actions.push(json!({"remote_address": {}}));
            entries.push(("remote_address".to_owned(), ip.to_string()));
        }
        Address::Net(net) => {
            let field = if net.addr().is_ipv4() {
                "v4_prefix_mask_len"
            } else {
                "v6_prefix_mask_len"
            };
            actions.push(json!({"masked_remote_address": {field: net.prefix_len()}}));
            entries.push(("masked_remote_address".to_owned(), net.to_string()));
        }
    }
    ActionSet {
        actions: Some(actions),
        entries,
    }
}

/// Straight query matches share one action; a turned one needs its own, since Envoy turns actions and not parameters.
fn queries(
    matches: &[ValueMatch],
    identity: &str,
    actions: &mut Vec<Value>,
    entries: &mut Vec<(String, String)>,
) {
    let straight: Vec<Value> = matches.iter().filter(|m| !m.invert).map(query).collect();
    let mut push = |action: Value| {
        actions.push(json!({"query_parameter_value_match": action}));
        entries.push(("query_match".to_owned(), identity.to_owned()));
    };
    if !straight.is_empty() {
        push(json!({"descriptor_value": identity, "query_parameters": straight}));
    }
    for m in matches.iter().filter(|m| m.invert) {
        push(
            json!({"descriptor_value": identity, "expect_match": false, "query_parameters": [query(m)]}),
        );
    }
}

fn query(m: &ValueMatch) -> Value {
    match &m.test {
        Test::Present => json!({"name": m.name, "present_match": true}),
        test => json!({"name": m.name, "string_match": string_match(test)}),
    }
}

fn header(m: &ValueMatch) -> Value {
    let mut out = Map::new();
    out.insert("name".into(), json!(m.name));
    match &m.test {
        Test::Present => out.insert("present_match".into(), json!(true)),
        test => out.insert("string_match".into(), string_match(test)),
    };
    if m.invert {
        out.insert("invert_match".into(), json!(true));
    }
    Value::Object(out)
}

/// `type.matcher.v3.StringMatcher`: the current form, not the deprecated `exact_match` family of headers.
fn string_match(test: &Test) -> Value {
    match test {
        Test::Regex(r) => json!({"safe_regex": {"regex": r}}),
        Test::Exact(s) => json!({"exact": s}),
        Test::Prefix(s) => json!({"prefix": s}),
        Test::Suffix(s) => json!({"suffix": s}),
        Test::Present => json!({}),
    }
}
