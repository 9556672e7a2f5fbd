//! Rules of `match`: from Slime's matchers to what Envoy can look at.

use std::net::IpAddr;

use ipnet::IpNet;
use trimtab_crds::limiter::{Descriptor, MatchSource, Matcher};
use trimtab_kit::problem::Problem;

/// Which requests a rule is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleMatch {
    /// All must match.
    pub queries: Vec<ValueMatch>,
    /// All must match.
    pub headers: Vec<ValueMatch>,
    /// Alternatives, each with its own bucket; empty = any address.
    pub addresses: Vec<Address>,
    /// Somebody else's route action.
    pub custom: Option<(String, String)>,
}

/// A match on a header or query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueMatch {
    /// Header or parameter.
    pub name: String,
    /// How.
    pub test: Test,
    /// Turned round.
    pub invert: bool,
}

/// How a value is tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// RE2, full match.
    Regex(String),
    /// Equal.
    Exact(String),
    /// Starts with.
    Prefix(String),
    /// Ends with.
    Suffix(String),
    /// Is there.
    Present,
}

/// An address or a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// One address.
    Ip(IpAddr),
    /// A range, with host bits cleared.
    Net(IpNet),
}

pub(super) fn check(d: &Descriptor, path: &str) -> Result<RuleMatch, Problem> {
    let mut out = RuleMatch::default();
    for (i, matcher) in d.matches.iter().enumerate() {
        let path = format!("{path}.match[{i}]");
        if matcher.present_match_separate == Some(true) {
            return Err(Problem::of_field(
                format!("{path}.present_match_separate"),
                "NotSupported",
                "one counter per header value needs strategy global, which is not available yet: use present_match",
            ));
        }
        match matcher.source() {
            MatchSource::HeadMatch => out.headers.push(value_match(matcher, &path)?),
            MatchSource::QueryMatch => out.queries.push(value_match(matcher, &path)?),
            MatchSource::SourceIpMatch => out.addresses.extend(addresses(matcher, &path)?),
            MatchSource::JsonBodyMatch => {
                return Err(Problem::of_field(
                    format!("{path}.matchSource"),
                    "NotSupported",
                    "JsonBodyMatch needs a filter that Envoy does not have: match a header or query parameter",
                ));
            }
        }
    }
    out.custom = custom(d, path)?;
    Ok(out)
}

fn custom(d: &Descriptor, path: &str) -> Result<Option<(String, String)>, Problem> {
    let filled = |s: &Option<String>| s.clone().filter(|s| !s.is_empty());
    match (filled(&d.custom_key), filled(&d.custom_value)) {
        (None, None) => Ok(None),
        (Some(key), Some(value)) if d.matches.is_empty() => Ok(Some((key, value))),
        (Some(_), Some(_)) => Err(Problem::of_field(
            format!("{path}.custom_key"),
            "InvalidMatch",
            "custom_key stands for a match made elsewhere: remove match or custom_key",
        )),
        _ => Err(Problem::of_field(
            format!("{path}.custom_key"),
            "InvalidMatch",
            "custom_key and custom_value go together: set both or none",
        )),
    }
}

fn value_match(m: &Matcher, path: &str) -> Result<ValueMatch, Problem> {
    let name = m.name.clone().unwrap_or_default();
    if name.is_empty() {
        return Err(Problem::of_field(
            format!("{path}.name"),
            "InvalidMatch",
            "name is required: the header, pseudo header or query parameter to match",
        ));
    }
    let filled = |s: &Option<String>| s.clone().filter(|s| !s.is_empty());
    let (test, invert) = if let Some(regex) = filled(&m.regex_match) {
        regex_check(&regex, path)?;
        (Test::Regex(regex), false)
    } else if let Some(text) = filled(&m.exact_match) {
        (Test::Exact(text), false)
    } else if let Some(text) = filled(&m.prefix_match) {
        (Test::Prefix(text), false)
    } else if let Some(text) = filled(&m.suffix_match) {
        (Test::Suffix(text), false)
    } else if m.is_exact_match_empty == Some(true) {
        (Test::Exact(String::new()), false)
    } else if let Some(present) = m.present_match {
        (Test::Present, !present)
    } else {
        return Err(Problem::of_field(
            path,
            "InvalidMatch",
            "nothing is matched: set one of exact_match, regex_match, prefix_match, suffix_match, is_exact_match_empty, present_match",
        ));
    };
    let asked = m.invert_match == Some(true);
    Ok(ValueMatch {
        name,
        test,
        invert: invert != asked,
    })
}

/// Envoy's expressions are RE2's. The `regex` crate has the same syntax and a little more; what is more is refused here,
/// since a proxy that refuses an expression refuses all of its routes with it.
fn regex_check(text: &str, path: &str) -> Result<(), Problem> {
    let refused = |why: &str| {
        Problem::of_field(
            format!("{path}.regex_match"),
            "InvalidRegex",
            format!("\"{text}\" is no RE2 expression: {why}"),
        )
    };
    if let Err(error) = regex::Regex::new(text) {
        let why = error.to_string();
        let why = why.lines().last().unwrap_or("");
        return Err(refused(why.trim_start_matches("error: ")));
    }
    not_re2(text).map_or(Ok(()), |why| Err(refused(why)))
}

/// The first thing in a valid expression of the `regex` crate that RE2 does not know.
fn not_re2(text: &str) -> Option<&'static str> {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let tail = rest.get(c.len_utf8()..).unwrap_or("");
        rest = tail;
        match c {
            '\\' => {
                if tail.starts_with(['u', 'U', '<', '>']) || tail.starts_with("b{") {
                    return Some("it has an escape that RE2 does not know");
                }
                if tail.starts_with(['p', 'P']) && !is_re2_class(tail.get(1..).unwrap_or("")) {
                    return Some(
                        "it has a Unicode class that RE2 does not know: use a short name like \\p{Lu} or a script",
                    );
                }
                let escaped = tail.chars().next().map_or(0, char::len_utf8);
                rest = tail.get(escaped..).unwrap_or("");
            }
            '(' if tail.starts_with('?') => {
                let flags = tail.get(1..).unwrap_or("");
                let end = flags.find([')', ':', '<', '>']).unwrap_or(0);
                let named = flags.starts_with(['P', '<']);
                if !named
                    && flags
                        .get(..end)
                        .is_some_and(|f| f.contains(|c| !"imsU-".contains(c)))
                {
                    return Some("it has a flag that RE2 does not know: use i, m, s and U");
                }
            }
            '{' => {
                let numbers = tail.split('}').next().unwrap_or("").split(',');
                if numbers
                    .filter_map(|n| n.trim().parse::<u64>().ok())
                    .any(|n| n > 1000)
                {
                    return Some("it repeats more than 1000 times");
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether RE2 has the Unicode class whose name follows `\p`: general categories by their short names, and scripts.
fn is_re2_class(after: &str) -> bool {
    const SCRIPTS: [&str; 14] = [
        "Arabic",
        "Armenian",
        "Common",
        "Cyrillic",
        "Devanagari",
        "Georgian",
        "Greek",
        "Han",
        "Hangul",
        "Hebrew",
        "Hiragana",
        "Katakana",
        "Latin",
        "Thai",
    ];
    let Some(braced) = after.strip_prefix('{') else {
        return true; // one letter
    };
    let name = braced
        .split('}')
        .next()
        .unwrap_or("")
        .trim_start_matches('^');
    let general =
        matches!(name.len(), 1 | 2) && "CLMNPSZ".contains(name.chars().next().unwrap_or(' '));
    general && name != "LC" || SCRIPTS.contains(&name)
}

fn addresses(m: &Matcher, path: &str) -> Result<Vec<Address>, Problem> {
    let field = format!("{path}.exact_match");
    let text = m.exact_match.as_deref().unwrap_or_default();
    if m.invert_match == Some(true) {
        return Err(Problem::of_field(
            format!("{path}.invert_match"),
            "InvalidMatch",
            "addresses cannot be inverted: list those that are meant",
        ));
    }
    let mut out = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let address = if let Ok(ip) = part.parse::<IpAddr>() {
            Address::Ip(ip)
        } else if let Ok(net) = part.parse::<IpNet>() {
            Address::Net(net.trunc())
        } else {
            return Err(Problem::of_field(
                field,
                "InvalidAddress",
                format!(
                    "\"{part}\" is neither an address nor a range: write 10.0.0.1 or 10.0.0.0/8"
                ),
            ));
        };
        if !out.contains(&address) {
            out.push(address);
        }
    }
    if out.is_empty() {
        return Err(Problem::of_field(
            field,
            "InvalidAddress",
            "SourceIpMatch needs exact_match with addresses or CIDR ranges, separated by commas",
        ));
    }
    Ok(out)
}
