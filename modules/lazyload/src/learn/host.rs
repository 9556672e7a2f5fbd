//! Host names as they come in messages.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

/// Longest DNS name.
const LONGEST: usize = 253;

/// What an authority or a host label names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A name, in lower case, and its port.
    Name(Cow<'a, str>, Option<u16>),
    /// An address, and its port.
    Address(IpAddr, Option<u16>),
}

/// Reads `name`, `name:port`, `1.2.3.4:port`, `[::1]:port` or `::1`.
///
/// `None`: not a host, for example too long, with a character that no DNS name has, or with a port that is none.
pub fn target(text: &str) -> Option<Target<'_>> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port.parse().ok()?),
            None if rest.is_empty() => None,
            None => return None,
        };
        return Some(Target::Address(address.into(), port));
    }
    let (name, port) = match text.split_once(':') {
        None => (text, None),
        // Two colons: an IPv6 address without brackets, which cannot have a port.
        Some((_, rest)) if rest.contains(':') => (text, None),
        Some((name, port)) => (name, Some(port.parse().ok()?)),
    };
    // Names begin with digits now and then, but no name ends in a label of digits alone.
    if name
        .bytes()
        .all(|b| b.is_ascii_hexdigit() || matches!(b, b'.' | b':'))
        && let Ok(address) = name.parse::<IpAddr>()
    {
        return Some(Target::Address(address, port));
    }
    Some(Target::Name(clean(name)?, port))
}

/// A host name in lower case, without a final dot. `None`: no DNS name; a first label `*` is one here, and so are
/// underscores, as Services of `ExternalName` and ServiceEntries may have them.
pub fn clean(name: &str) -> Option<Cow<'_, str>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > LONGEST {
        return None;
    }
    let rest = name.strip_prefix("*.").unwrap_or(name);
    let mut upper = false;
    let mut label = 0;
    let mut last = b'.';
    for byte in rest.bytes() {
        match byte {
            b'.' if label == 0 || last == b'-' => return None,
            b'.' => label = 0,
            b'-' if label == 0 => return None,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            b'A'..=b'Z' => {
                upper = true;
                label += 1;
            }
            _ => return None,
        }
        if label > 63 {
            return None;
        }
        last = byte;
    }
    if label == 0 || last == b'-' {
        return None;
    }
    Some(if upper {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str, port: Option<u16>) -> Target<'_> {
        Target::Name(text.into(), port)
    }

    #[test]
    fn names_and_addresses_are_told_apart() {
        let address = |text: &str, port| Some(Target::Address(text.parse().unwrap(), port));
        assert_eq!(target("A.b:80"), Some(name("a.b", Some(80))));
        assert_eq!(target("a.b.svc."), Some(name("a.b.svc", None)));
        assert_eq!(target("10.0.0.1:9080"), address("10.0.0.1", Some(9080)));
        assert_eq!(target("[fd00::1]:9080"), address("fd00::1", Some(9080)));
        assert_eq!(target("fd00::1"), address("fd00::1", None));
        assert_eq!(target("10.example.com"), Some(name("10.example.com", None)));
        assert_eq!(target("_sip._tcp.a"), Some(name("_sip._tcp.a", None)));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = "a.".repeat(127) + "ab";
        for text in [
            "",
            ":80",
            "a:b",
            "a:99999",
            "a b",
            "a/b",
            "-a",
            "a-",
            "a..b",
            ".a",
            "[::1",
            "[::1]x",
            "é.de",
            "a\0",
            "a,b",
            "*",
            "*a",
            &long,
            &"a".repeat(64),
        ] {
            assert_eq!(target(text), None, "{text:?}");
        }
        assert_eq!(clean("*.example.com").as_deref(), Some("*.example.com"));
    }
}
