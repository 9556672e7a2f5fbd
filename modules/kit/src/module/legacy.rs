//! Keys of predecessors' configurations.

use serde_json::{Map, Value};

/// A key that a predecessor has for the job of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegacyKey {
    /// As its documents write it, in camelCase.
    pub key: &'static str,
    /// Where it went.
    pub became: Became,
}

/// What has become of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// A key with the same meaning, by its path.
    Key(&'static str),
    /// Nothing, and nothing is missing: a section takes it with a warning. The text says why.
    Nothing(&'static str),
    /// Something else, or nothing yet. The text says what to do.
    Other(&'static str),
}

/// Predecessors read keys in camelCase and in snake_case.
pub fn camel_case(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    let mut upper = false;
    for letter in key.chars() {
        match letter {
            '_' => upper = true,
            _ if upper => {
                out.extend(letter.to_uppercase());
                upper = false;
            }
            _ => out.push(letter),
        }
    }
    out
}

fn find(legacy: &[LegacyKey], key: &str) -> Option<LegacyKey> {
    let key = camel_case(key);
    legacy.iter().find(|l| l.key == key).copied()
}

/// The keys of a section that have no effect, with the reason.
pub(super) fn without_effect<'a>(
    legacy: &[LegacyKey],
    section: &'a Value,
) -> Vec<(&'a str, &'static str)> {
    let keys = section.as_object().into_iter().flat_map(Map::keys);
    keys.filter_map(|key| match find(legacy, key)?.became {
        Became::Nothing(why) => Some((key.as_str(), why)),
        Became::Key(_) | Became::Other(_) => None,
    })
    .collect()
}

/// What to do about a key that the section does not have.
pub(super) fn advice(legacy: &[LegacyKey], error: &str) -> Option<String> {
    let key = error.strip_prefix("unknown field `")?.split('`').next()?;
    match find(legacy, key)?.became {
        Became::Key(path) if path != key => {
            Some(format!("{key} of Slime is {path} of this section"))
        }
        Became::Other(what) => Some(format!("{key} of Slime: {what}")),
        Became::Key(_) | Became::Nothing(_) => None,
    }
}
