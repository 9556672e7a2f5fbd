//! Rules of `match`: from Slime's matchers to what Envoy can look at.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use trimtab_crds::limiter::{Descriptor, MatchSource, Matcher};
use trimtab_kit::envoy::header::{self, HeaderError};
use trimtab_kit::envoy::re2::{self, Engine};
use trimtab_kit::problem::Problem;

/// Names of pseudo headers without their colon.
const PSEUDO: [&str; 4] = ["authority", "method", "path", "scheme"];
/// Methods that clients use.
const METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];
/// Values that a proxy keeps a bucket for, unless the match says.
const VALUES: u32 = 1000;
/// Leading bits of an IPv6 address that stands for an IPv4 one.
const MAPPED_BITS: u8 = 96;

/// Which requests a rule is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleMatch {
    /// All must match.
    pub queries: Vec<ValueMatch>,
    /// All must match.
    pub headers: Vec<ValueMatch>,
    /// Alternatives, each with its own bucket; empty = any address.
    pub addresses: Vec<Address>,
    /// Each value has a bucket of its own.
    pub separate: Vec<Separate>,
    /// How many values a proxy keeps a bucket for; 0 without such.
    pub values: u32,
    /// Somebody else's route action.
    pub custom: Option<(String, String)>,
}

/// What has a bucket for each of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Separate {
    /// A header.
    Header(String),
    /// A query parameter.
    Query(String),
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
        separate(matcher, &path, &mut out)?;
        match matcher.source() {
            MatchSource::HeadMatch | MatchSource::QueryMatch if !is_test(matcher) => {}
            MatchSource::HeadMatch => {
                out.headers
                    .push(value_match(matcher, &path, header::matched)?);
            }
            MatchSource::QueryMatch => {
                out.queries
                    .push(value_match(matcher, &path, header::parameter)?);
            }
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

/// Whether a match asks more than which values there are.
fn is_test(m: &Matcher) -> bool {
    let filled = |s: &Option<String>| s.as_ref().is_some_and(|s| !s.is_empty());
    m.present_match_separate != Some(true)
        || [
            &m.regex_match,
            &m.exact_match,
            &m.prefix_match,
            &m.suffix_match,
        ]
        .into_iter()
        .any(filled)
        || m.is_exact_match_empty == Some(true)
}

/// A bucket for each value of what is matched.
fn separate(m: &Matcher, path: &str, out: &mut RuleMatch) -> Result<(), Problem> {
    let wrong = |field: &str, why: &str| {
        let field = format!("{path}.{field}");
        Err(Problem::of_field(field, "InvalidMatch", why))
    };
    if m.present_match_separate != Some(true) {
        return match m.max_values {
            None => Ok(()),
            Some(_) => wrong(
                "maxValues",
                "only present_match_separate has a bucket for each value: set it to true, or remove maxValues",
            ),
        };
    }
    let most = match m.max_values.map(u32::try_from) {
        None => VALUES,
        Some(Ok(most @ 1..=10_000)) => most,
        Some(_) => return wrong("maxValues", "write a number from 1 to 10000"),
    };
    if m.present_match == Some(false) || (m.invert_match == Some(true) && !is_test(m)) {
        return wrong(
            "present_match_separate",
            "what is absent has no value to count: remove invert_match, or present_match: false",
        );
    }
    if m.ignore_query == Some(true) {
        return wrong(
            "ignoreQuery",
            "a bucket is for the whole value of :path, with its query: remove ignoreQuery or present_match_separate",
        );
    }
    let name = named(m, path)?;
    let (check_name, of): (NameCheck, fn(String) -> Separate) = match m.source() {
        MatchSource::HeadMatch => (header::matched, Separate::Header),
        MatchSource::QueryMatch => (header::parameter, Separate::Query),
        MatchSource::SourceIpMatch => {
            return wrong(
                "present_match_separate",
                "it is for headers and query parameters: list addresses in exact_match, which have a bucket each",
            );
        }
        // Refused for what it is.
        MatchSource::JsonBodyMatch => return Ok(()),
    };
    check_name(&name).map_err(|why| {
        Problem::of_field(format!("{path}.name"), "InvalidMatch", why.to_string())
    })?;
    out.values = out.values.max(most);
    out.separate.push(of(name));
    Ok(())
}

/// Checks the name of a header or parameter.
type NameCheck = fn(&str) -> Result<(), HeaderError>;

fn named(m: &Matcher, path: &str) -> Result<String, Problem> {
    let name = m.name.clone().filter(|name| !name.is_empty());
    name.ok_or_else(|| {
        Problem::of_field(
            format!("{path}.name"),
            "InvalidMatch",
            "name is required: the header, pseudo header or query parameter to match",
        )
    })
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

fn value_match(m: &Matcher, path: &str, check_name: NameCheck) -> Result<ValueMatch, Problem> {
    let name = named(m, path)?;
    check_name(&name).map_err(|why| {
        Problem::of_field(format!("{path}.name"), "InvalidMatch", why.to_string())
    })?;
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
    let test = if m.ignore_query == Some(true) {
        without_query(test, &name, path)?
    } else {
        test
    };
    let asked = m.invert_match == Some(true);
    if m.source() == MatchSource::HeadMatch && !asked {
        possible(&name, &test, path)?;
    }
    Ok(ValueMatch {
        name,
        test,
        invert: invert != asked,
    })
}

/// The same test of a path that any query may follow.
fn without_query(test: Test, name: &str, path: &str) -> Result<Test, Problem> {
    if name != ":path" {
        return Err(Problem::of_field(
            format!("{path}.ignoreQuery"),
            "InvalidMatch",
            "only the header :path has a query: remove ignoreQuery",
        ));
    }
    let (before, rest) = match test {
        Test::Regex(regex) => ("", format!("(?:{regex})")),
        Test::Exact(value) => ("", escaped(&value)),
        Test::Suffix(value) => ("[^?]*", escaped(&value)),
        Test::Prefix(_) | Test::Present => return Ok(test),
    };
    let regex = format!("{before}{rest}([?].*)?");
    regex_check(&regex, path)?;
    Ok(Test::Regex(regex))
}

/// A text as an expression that matches it alone.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A proxy that refuses an expression refuses all of its routes with it.
fn regex_check(text: &str, path: &str) -> Result<(), Problem> {
    re2::check(text, Engine::Envoy).map_err(|why| {
        Problem::of_field(
            format!("{path}.regex_match"),
            "InvalidRegex",
            format!("\"{text}\" is no RE2 expression: {why}"),
        )
    })
}

/// A range of mapped addresses (`::ffff:10.0.0.0/104`) as the IPv4 range that it is.
fn unmapped(net: IpNet) -> IpNet {
    let mapped = match net {
        IpNet::V6(net) => net.addr().to_ipv4_mapped(),
        IpNet::V4(_) => None,
    };
    let prefix = net.prefix_len().checked_sub(MAPPED_BITS);
    let range = mapped.zip(prefix);
    let range = range.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    range.map_or(net, IpNet::V4)
}

/// Refuses what no request has: a method in lower case, a path that begins with no slash.
fn possible(name: &str, how: &Test, path: &str) -> Result<(), Problem> {
    let (Test::Exact(text) | Test::Prefix(text)) = how else {
        return Ok(());
    };
    let upper = text.to_ascii_uppercase();
    let fix = match (name, how) {
        (":method", Test::Exact(_)) if *text != upper && METHODS.contains(&upper.as_str()) => {
            format!("methods are in upper case: write {upper}")
        }
        (":path", _) if !text.is_empty() && !text.starts_with(['/', '*']) => {
            let rest = text
                .split_once("://")
                .and_then(|(_, rest)| rest.split_once('/'));
            let bare = rest.map_or(text.as_str(), |(_, rest)| rest);
            format!("a path begins with /: write /{bare}")
        }
        _ => return Ok(()),
    };
    Err(Problem::of_field(
        path,
        "InvalidMatch",
        format!("no request has the {name} \"{text}\": {fix}"),
    ))
}

/// Headers that are probably meant to be pseudo headers.
pub(super) fn remarks(d: &Descriptor, path: &str) -> Vec<Problem> {
    let matchers = d.matches.iter().enumerate();
    let heads = matchers.filter(|(_, m)| m.source() == MatchSource::HeadMatch);
    let found = heads.filter_map(|(i, m)| {
        let name = m.name.as_deref()?.to_ascii_lowercase();
        PSEUDO.contains(&name.as_str()).then(|| {
            Problem::of_field(
                format!("{path}.match[{i}].name"),
                "AcceptedWithRemarks",
                format!("\"{name}\" is an ordinary header that clients seldom send: write \":{name}\" for the one of the request line"),
            )
        })
    });
    found.collect()
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
        // Envoy knows clients with IPv4 by their IPv4 address only.
        let address = if let Ok(ip) = part.parse::<IpAddr>() {
            Address::Ip(ip.to_canonical())
        } else if let Ok(net) = part.parse::<IpNet>() {
            Address::Net(unmapped(net.trunc()))
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
