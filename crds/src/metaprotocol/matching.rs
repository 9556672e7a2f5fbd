//! Matches of request attributes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Which requests; all attributes must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::matches)]
pub struct Match {
    /// Matches by attribute name, e.g. `interface` and `method` of Dubbo. `{}` and `null` both mean "is present";
    /// `{}` is the better spelling, because kubectl takes nulls out of objects that it updates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub attributes: BTreeMap<String, Option<StringMatch>>,
}

/// One of `exact`, `prefix`, `regex`; none of them = the attribute is present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::string_match)]
pub struct StringMatch {
    /// Equal. The empty text means "is present", as in Aeraki.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub exact: Option<String>,
    /// Requests whose value begins with this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub prefix: Option<String>,
    /// RE2, full match. `*` means "is present", as in Aeraki.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub regex: Option<String>,
}

/// What a value in [`Match::attributes`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeMatch<'a> {
    /// The attribute is there, whatever its value.
    Present,
    /// Equal.
    Exact(&'a str),
    /// Requests whose value begins with this text.
    Prefix(&'a str),
    /// RE2, full match; not compiled yet.
    Regex(&'a str),
}

impl Match {
    /// Attribute names and what is asked of them, sorted by name.
    pub fn by_name(&self) -> impl Iterator<Item = (&str, AttributeMatch<'_>)> {
        self.attributes.iter().map(|(name, value)| {
            let wanted = value
                .as_ref()
                .map_or(AttributeMatch::Present, StringMatch::wanted);
            (name.as_str(), wanted)
        })
    }
}

impl StringMatch {
    /// What is asked; every spelling of presence is [`AttributeMatch::Present`].
    pub fn wanted(&self) -> AttributeMatch<'_> {
        match (&self.exact, &self.prefix, &self.regex) {
            (Some(text), ..) if !text.is_empty() => AttributeMatch::Exact(text),
            (_, Some(text), _) => AttributeMatch::Prefix(text),
            (_, _, Some(text)) if text != "*" => AttributeMatch::Regex(text),
            _ => AttributeMatch::Present,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_presence_is_present() {
        let given: Match = serde_json::from_value(serde_json::json!({"attributes": {
            "a": null, "b": {}, "c": {"regex": "*"}, "d": {"exact": ""},
            "e": {"exact": "x"}, "f": {"prefix": "x"}, "g": {"regex": "x.*"},
        }}))
        .unwrap();
        let wanted: Vec<_> = given.by_name().map(|(_, wanted)| wanted).collect();
        assert_eq!(wanted[..4], [AttributeMatch::Present; 4]);
        assert_eq!(
            wanted[4..],
            [
                AttributeMatch::Exact("x"),
                AttributeMatch::Prefix("x"),
                AttributeMatch::Regex("x.*")
            ]
        );
    }
}
