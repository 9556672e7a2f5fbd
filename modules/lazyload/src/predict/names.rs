//! How istiod compares host names (`pkg/config/host`).

fn suffix(name: &str) -> Option<&str> {
    name.strip_prefix('*')
}

/// Whether all names of `name` are names of `of`.
pub(super) fn is_subset(name: &str, of: &str) -> bool {
    match (suffix(name), suffix(of)) {
        (Some(name), Some(of)) => name.len() >= of.len() && name.ends_with(of),
        (Some(_), None) => false,
        (None, Some(of)) => name.ends_with(of),
        (None, None) => name == of,
    }
}

/// Whether they have a name in common.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    is_subset(a, b) || is_subset(b, a)
}

/// The wildcard of `patterns` that says most of a host.
pub(super) fn closest<'a>(host: &str, patterns: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let host = host.strip_prefix('*').unwrap_or(host);
    let covering = patterns.filter(|p| suffix(p).is_some_and(|s| host.ends_with(s)));
    covering.max_by_key(|p| p.len())
}

#[cfg(test)]
mod tests {
    use super::{is_subset, overlap};

    #[test]
    fn names_compare_as_in_istiod() {
        for (a, b, subset, common) in [
            ("foo.com", "foo.com", true, true),
            ("foo.com", "bar.com", false, false),
            ("foo.com", "*.com", true, true),
            ("*.com", "foo.com", false, true),
            ("foo.com", "*.foo.com", false, false),
            ("*.foo.com", "*.com", true, true),
            ("*.com", "*.foo.com", false, true),
            ("*.foo.com", "*.bar.com", false, false),
            ("foo.com", "*", true, true),
            ("*.com", "*", true, true),
            ("foo.com", "*foo.com", true, true),
        ] {
            assert_eq!(is_subset(a, b), subset, "{a} {b}");
            assert_eq!(overlap(a, b), common, "{a} {b}");
            assert_eq!(overlap(b, a), common, "{b} {a}");
        }
    }
}
