//! One instant vector, and the names of its series.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::sources::Failure;

/// One series of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
    /// Older than the handler allows: not to be used, but not absent either.
    pub(crate) stale: bool,
}

impl Series {
    /// A series whose value was left out for its age.
    pub(crate) fn gone(labels: Vec<(&str, &str)>) -> Self {
        let owned = |(k, v): (&str, &str)| (k.to_owned(), v.to_owned());
        Self {
            labels: labels.into_iter().map(owned).collect(),
            value: f64::NAN,
            stale: true,
        }
    }

    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// The name as Prometheus writes it: `up{a="b", c="d"}`, sorted by label.
    pub(crate) fn name(&self) -> String {
        render(
            self.label("__name__"),
            self.labels.iter().filter(|(k, _)| *k != "__name__"),
        )
    }
}

/// The outcome of one query.
pub(crate) type Answer = Result<Vec<Series>, Failure>;

fn render<'a>(name: &str, labels: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let mut out = format!("{name}{{");
    for (i, (key, value)) in labels.enumerate() {
        let separator = if i > 0 { ", " } else { "" };
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        // Writing to a String cannot fail.
        let _ = write!(out, "{separator}{key}=\"{value}\"");
    }
    out.push('}');
    out
}

/// Brings a series name that a user wrote into Prometheus' spelling: labels sorted, one space after commas. A text that is not a series name
/// comes back unchanged and so matches nothing.
pub(crate) fn canonical_name(text: &str) -> String {
    parse_name(text).map_or_else(
        || text.to_owned(),
        |(name, labels)| render(&name, labels.iter()),
    )
}

fn parse_name(text: &str) -> Option<(String, BTreeMap<String, String>)> {
    let (name, rest) = text.trim().split_once('{')?;
    let mut name = name.trim().to_owned();
    let mut rest = rest.strip_suffix('}')?.trim_start();
    let mut labels = BTreeMap::new();
    while !rest.is_empty() {
        // Names that are no plain words are written in quotes, and that of the series then stands in the braces.
        let (key, after) = if let Some(key) = quoted(rest) {
            key
        } else {
            let key = rest.split('=').next()?;
            (key.trim().to_owned(), &rest[key.len()..])
        };
        let after = match after.trim_start().strip_prefix('=') {
            Some(after) => {
                let (value, after) = quoted(after.trim_start())?;
                labels.insert(key, value);
                after
            }
            None if name.is_empty() && rest.starts_with(['"', '\'']) => {
                name = key;
                after
            }
            None => return None,
        };
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if after.is_empty() => after,
            None => return None,
        };
    }
    Some((name, labels))
}

/// Reads a string in quotes; returns it and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            c if c == quote => return Some((value, &text[at + c.len_utf8()..])),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fault_l11_names_in_quotes_are_the_names() {
        for (written, same) in [
            (r#"{"service.name"="x"}"#, r#"{service.name="x"}"#),
            (r#"up{"a-b" = 'x', c="y"}"#, r#"up{a-b="x",c="y"}"#),
            (r#"{"http.requests", "k"="v"}"#, r#"http.requests{k="v"}"#),
            (r#"{a="="}"#, r#"{'a'="="}"#),
        ] {
            assert_eq!(canonical_name(written), canonical_name(same), "{written}");
        }
        for none in ["{a}", r#"{"a","b"}"#, r#"{"a"=b}"#, r#"x{"y"}"#] {
            assert_eq!(canonical_name(none), none);
        }
    }

    #[test]
    fn names_are_spelled_as_prometheus_does() {
        for (written, name) in [
            (r#"{version="v1"}"#, r#"{version="v1"}"#),
            (r#" up{ b = 'x',a="y" }"#, r#"up{a="y", b="x"}"#),
            ("{}", "{}"),
            ("up{", "up{"),
            (r#"{a="b" c="d"}"#, r#"{a="b" c="d"}"#),
        ] {
            assert_eq!(canonical_name(written), name);
        }
    }

    proptest! {
        #[test]
        fn a_rendered_name_is_canonical(labels in prop::collection::btree_map("[a-z_]{1,6}", "\\PC{0,8}", 0..4)) {
            let series = Series { labels: labels.into_iter().filter(|(k, _)| k != "__name__").collect(), value: 1.0, stale: false };
            let name = series.name();
            prop_assert_eq!(canonical_name(&name), name);
        }

        #[test]
        fn never_panics(text in "\\PC{0,30}") {
            let once = canonical_name(&text);
            prop_assert_eq!(canonical_name(&once), once);
        }
    }
}
