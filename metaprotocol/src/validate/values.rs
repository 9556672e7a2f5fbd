//! Checks of single values: attributes, patterns, names, durations.

use std::collections::BTreeMap;
use std::time::Duration;

use trimtab_kit::envoy::is_duration;
use trimtab_kit::envoy::re2::{self, Engine};

use super::Diagnostics;
use crate::input::{KeyValue, ValueMatch};
use crate::span::Span;

/// What Envoy takes as a name of an attribute.
const NAME_BYTES: usize = 16_384;
/// Entries of a mutation.
const MUTATIONS: usize = 1000;

/// Tests of attributes at `field`.
pub(super) fn matches(
    out: &mut Diagnostics<'_>,
    field: &str,
    matches: &BTreeMap<String, ValueMatch>,
) {
    for (name, value) in matches {
        let field = format!("{field}.{name}");
        attribute(out, &field, name);
        match value {
            ValueMatch::Present => {}
            ValueMatch::Exact(text) | ValueMatch::Prefix(text) => {
                if text.is_empty() {
                    out.invalid(
                        &field,
                        "InvalidMatch",
                        "an empty value matches nothing: write a value, or {} for presence",
                    );
                } else if text.contains(['\0', '\r', '\n']) {
                    out.invalid(
                        &field,
                        "InvalidMatch",
                        "the value has a line break or a zero byte: remove it",
                    );
                }
            }
            ValueMatch::Regex(text) => pattern(out, &field, text),
        }
    }
}

/// A proxy that refuses a pattern refuses all routes that come with it.
fn pattern(out: &mut Diagnostics<'_>, field: &str, text: &str) {
    if text.is_empty() {
        out.invalid(
            field,
            "InvalidRegex",
            "the pattern is empty: write a pattern, or {} for presence",
        );
    } else if let Err(why) = re2::check(text, Engine::Envoy) {
        out.invalid(
            field,
            "InvalidRegex",
            format!("\"{text}\" is not RE2: {why}"),
        );
    }
}

/// The name of an attribute.
pub(super) fn attribute(out: &mut Diagnostics<'_>, field: &str, name: &str) {
    let odd = |c: char| c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > NAME_BYTES || name.contains(odd) {
        out.invalid(field, "InvalidAttribute", format!(
            "\"{}\" cannot be the name of an attribute: use a name without spaces and control characters",
            name.escape_debug()
        ));
    }
}

/// Attributes to set at `field`.
pub(super) fn mutations(out: &mut Diagnostics<'_>, field: &str, list: &[KeyValue]) {
    if list.len() > MUTATIONS {
        out.invalid(
            field,
            "InvalidMutation",
            format!("{} entries: at most {MUTATIONS} are allowed", list.len()),
        );
    }
    for (i, kv) in list.iter().enumerate() {
        let field = format!("{field}[{i}]");
        attribute(out, &format!("{field}.key"), &kv.key);
        if kv.value.is_empty()
            || kv.value.len() > NAME_BYTES
            || kv.value.contains(['\0', '\r', '\n'])
        {
            out.invalid(format!("{field}.value"), "InvalidMutation", format!(
                "the value must have 1 to {NAME_BYTES} bytes, without line breaks and zero bytes"
            ));
        }
    }
}

/// A duration of at least `least`.
pub(super) fn span(out: &mut Diagnostics<'_>, field: &str, span: &Span, least: Duration) {
    match span.get() {
        Err(error) => out.invalid(field, "InvalidDuration", error.to_string()),
        Ok(d) if *d < least => out.invalid(
            field,
            "InvalidDuration",
            format!("{span} is too short: the least is {least:?}"),
        ),
        Ok(d) if !is_duration(*d) => out.invalid(
            field,
            "InvalidDuration",
            format!("{span} is longer than proxies can count: write 2562047h at most"),
        ),
        Ok(_) => {}
    }
}

/// Whether `text` is a full DNS name; the last label is not a number, so that it is no address.
pub(super) fn is_host(text: &str) -> bool {
    let text = text.strip_prefix("*.").unwrap_or(text);
    let last_is_number = text
        .rsplit('.')
        .next()
        .is_some_and(|l| l.chars().all(|c| c.is_ascii_digit()));
    text.len() <= 255 && !last_is_number && text.split('.').all(is_label)
}

/// Whether `text` is a DNS-1123 label.
pub(crate) fn is_label(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}
