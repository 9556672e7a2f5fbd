//! References to variables in a container's environment and arguments, as Kubernetes replaces them. Pure.

use std::collections::HashMap;

/// Longer values are configuration files or certificates; looking for names in them finds what nobody calls.
const LONGEST_VALUE: usize = 16 << 10;
/// Stands for what is not known, and for what is meant as it is written: a reference is no part of a host.
pub(super) const UNKNOWN: char = '\0';

/// The text with `$(NAME)` replaced by what is `known`, in which a variable without a value is one of elsewhere. `$$` is a `$`
/// that begins no reference. `None`: it is too long to be looked at.
pub(super) fn expanded(text: &str, known: &HashMap<&str, Option<String>>) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(more) = after.strip_prefix('$') {
            // `$$(NAME)` is the text `$(NAME)`.
            let (next, more) = match more.strip_prefix('(').and_then(|r| r.split_once(')')) {
                Some((_, more)) => (UNKNOWN, more),
                None => ('$', more),
            };
            out.push(next);
            rest = more;
        } else if let Some((name, more)) = after.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match known.get(name) {
                Some(Some(value)) => out.push_str(value),
                _ => out.push(UNKNOWN),
            }
            rest = more;
        } else {
            out.push('$');
        }
        if out.len() > LONGEST_VALUE {
            return None;
        }
    }
    out.push_str(rest);
    (out.len() <= LONGEST_VALUE).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_s22_references_are_read_as_by_kubernetes() {
        let known = HashMap::from([
            ("A", Some("a".to_owned())),
            ("EMPTY", Some(String::new())),
            ("SECRET", None),
        ]);
        for (text, expected) in [
            ("plain", "plain"),
            ("x$(A)y", "xay"),
            ("$(A)$(A)", "aa"),
            ("$(EMPTY)", ""),
            ("$(SECRET).b", "\0.b"),
            ("$(NOBODY).b", "\0.b"),
            ("$$(A)", "\0"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$\0"),
            ("100$", "100$"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("$$x", "$x"),
        ] {
            assert_eq!(expanded(text, &known).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(expanded(&"$(A)".repeat(LONGEST_VALUE + 1), &known), None);
        assert_eq!(expanded(&"b".repeat(LONGEST_VALUE + 1), &known), None);
    }
}
