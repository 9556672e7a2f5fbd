//! Tests of attributes in the forms of stock Envoy.

use serde_json::{Value, json};

use crate::input::ValueMatch;

/// A StringMatcher. Presence is any text: an attribute that is not there is never compared.
pub(in crate::translate) fn string_matcher(value: &ValueMatch) -> Value {
    match value {
        ValueMatch::Exact(text) => json!({"exact": text}),
        ValueMatch::Prefix(text) => json!({"prefix": text}),
        ValueMatch::Regex(text) => json!({"safeRegex": {"regex": text}}),
        ValueMatch::Present => json!({"safeRegex": {"regex": "(?s).*"}}),
    }
}

/// HeaderMatchers, in the order given.
pub(in crate::translate) fn header_matchers<'a>(
    matches: impl IntoIterator<Item = (&'a str, &'a ValueMatch)>,
) -> Vec<Value> {
    matches
        .into_iter()
        .map(|(name, value)| match value {
            ValueMatch::Present => json!({"name": name, "presentMatch": true}),
            other => json!({"name": name, "stringMatch": string_matcher(other)}),
        })
        .collect()
}
