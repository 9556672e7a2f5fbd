//! Names of hosts that a virtual host can have.

/// Whether Istio takes `text` as a host: labels with dots between, the first may be a wildcard. Two virtual hosts of one
/// domain, or one with a line break, make Envoy refuse all of them.
pub(crate) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(inside)
    };
    let text = text.strip_prefix("*.").unwrap_or(text);
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 255 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_t9_hosts_are_names_that_a_virtual_host_can_have() {
        for good in [
            "a",
            "api.example.com",
            "*.example.com",
            "a_b.c-d",
            "1.2.3.4",
            "a.b.",
        ] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "*", "*.", "a..b", "a\nb", "a b", "a*.b", "é.b", "**.a"] {
            assert!(!is_host(bad), "{bad:?}");
        }
    }
}
