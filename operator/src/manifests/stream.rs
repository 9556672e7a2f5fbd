//! A YAML stream as documents, each with its place, and mistakes in the words of who writes files.

use std::fmt::{Display, Formatter};

use serde_json::Value;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Budget, DuplicateKeyPolicy, Error};

use super::title;

/// Where in a file an object is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Number of the document, from 1; 0: not known.
    pub document: usize,
    /// Number of its first line, from 1; 0: not known.
    pub line: usize,
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "document {}", self.document)?;
        match self.line {
            0 => Ok(()),
            line => write!(f, ", line {line}"),
        }
    }
}

/// The documents of a stream. One that is not YAML, or that has a key twice, does not take the others along.
pub(super) fn values(text: &str) -> Vec<(Place, Result<Value, String>)> {
    let parts = parts(text);
    if let Ok(values) = serde_saphyr::from_multiple::<Value>(text) {
        let values: Vec<Value> = values.into_iter().filter(|v| !v.is_null()).collect();
        let alike = values.len() == parts.len();
        let place = |i: usize| Place {
            document: i + 1,
            line: parts.get(i).filter(|_| alike).map_or(0, |part| part.line),
        };
        let values = values.into_iter().enumerate();
        return values.map(|(i, value)| (place(i), Ok(value))).collect();
    }
    let mut out = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        let place = Place {
            document: i + 1,
            line: part.line,
        };
        match serde_saphyr::from_multiple::<Value>(part.text) {
            Ok(values) => {
                let values = values.into_iter().filter(|v| !v.is_null());
                out.extend(values.map(|value| (place, Ok(value))));
            }
            Err(_) => out.push((place, Err(mistake(part)))),
        }
    }
    out
}

/// The text of one document.
struct Part<'a> {
    text: &'a str,
    /// Lines of the file in front of the text.
    before: usize,
    /// The first line that is no comment, from 1.
    line: usize,
}

/// The documents of a stream that are not empty. A line that begins with `---` begins a document wherever it stands, also
/// within a block.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut out = Vec::new();
    let mut add = |before: usize, text| {
        let first = str::lines(text).position(|line| {
            let line = line.strip_prefix("---").unwrap_or(line).trim();
            !line.is_empty() && !line.starts_with(['#', '%']) && line != "..."
        });
        out.extend(first.map(|first| Part {
            text,
            before,
            line: before + first + 1,
        }));
    };
    let (mut start, mut first, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.strip_prefix("---");
        if marker.is_some_and(|rest| {
            rest.trim_start_matches([' ', '\t']) != rest || rest.trim().is_empty()
        }) && at > start
        {
            add(first, &text[start..at]);
            (start, first) = (at, number);
        }
        at += line.len();
    }
    add(first, &text[start..]);
    out
}

/// What is wrong with a document.
fn mistake(part: &Part<'_>) -> String {
    // Empty lines in front, so that the message counts the lines of the file.
    let whole = format!("{}{}", "\n".repeat(part.before), part.text);
    let plain = serde_saphyr::options! { with_snippet: false };
    let error = serde_saphyr::from_multiple_with_options::<Value>(&whole, plain);
    let Err(error) = error else {
        return "not YAML".to_owned();
    };
    match error.without_snippet() {
        Error::Budget { breach, .. } => bound(breach),
        Error::DuplicateMappingKey { key, location } => {
            let line = usize::try_from(location.line()).unwrap_or_default();
            let key = key.as_deref().unwrap_or("?");
            let title = named(part.text);
            let lines = match first_of(&whole, key, line) {
                Some(first) => format!("at lines {first} and {line}"),
                None => format!("the second time at line {line}"),
            };
            format!("{title}a key is written twice, keep one: {key}, {lines}")
        }
        // Of what an alias repeats, the cause stands in the text only.
        other if other.to_string().contains("budget breached") => {
            bound(&BudgetBreach::Nodes { nodes: 0 })
        }
        other => format!("not YAML: {other}"),
    }
}

/// The title of a document that has a key twice.
fn named(part: &str) -> String {
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
    let values = serde_saphyr::from_multiple_with_options::<Value>(part, options);
    let object = values
        .ok()
        .and_then(|v| v.into_iter().find(|v| !v.is_null()));
    object.map_or_else(String::new, |object| format!("{}: ", title(&object)))
}

/// The line above `line` that has the key, in the same block.
fn first_of(text: &str, key: &str, line: usize) -> Option<usize> {
    let indent = |line: &str| {
        let rest = line.trim_start_matches([' ', '-']);
        line.len() - rest.len()
    };
    let above: Vec<&str> = text.lines().take(line).collect();
    let (second, above) = above.split_last()?;
    let of_key = |line: &str| {
        let rest = line.trim_start_matches([' ', '-', '"', '\'']);
        let rest = rest.strip_prefix(key).unwrap_or_default();
        rest.trim_start_matches(['"', '\'', ' ']).starts_with(':')
    };
    let depth = indent(second);
    let same = above.iter().enumerate().rev();
    let mut same = same.take_while(|(_, l)| l.trim().is_empty() || indent(l) >= depth);
    of_key(second).then_some(())?;
    let (at, _) = same.find(|(_, l)| indent(l) == depth && of_key(l))?;
    Some(at + 1)
}

/// A bound of the reader: which, and what to do.
fn bound(breach: &BudgetBreach) -> String {
    let bounds = Budget::default();
    match breach {
        BudgetBreach::Depth { .. } => format!(
            "its maps and lists are nested more than {} deep, which is the bound: write it flatter",
            bounds.max_depth
        ),
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => format!(
            "it has more than {} values, which is the bound for one document; each alias (*name) counts all that it stands for: split it into several documents",
            bounds.max_nodes
        ),
        BudgetBreach::ScalarBytes { .. } => format!(
            "its texts have more than {} MiB, which is the bound for one document: split it into several documents",
            bounds.max_total_scalar_bytes >> 20
        ),
        BudgetBreach::Anchors { .. }
        | BudgetBreach::Aliases { .. }
        | BudgetBreach::AliasAnchorRatio { .. }
        | BudgetBreach::RecordedAnchorEvents { .. }
        | BudgetBreach::RecordedAnchorBytes { .. }
        | BudgetBreach::MergeKeys { .. } => format!(
            "it has too many anchors (&name) and aliases (*name): the bounds for one document are {} each, and {} aliases for an anchor: write the values out",
            bounds.max_anchors, bounds.alias_anchor_ratio_multiplier
        ),
        _ => {
            "it is larger than the reader of YAML takes: split it into several documents".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        let values = values(text).into_iter();
        let wrong = values.filter_map(|(place, value)| Some((place, value.err()?)));
        wrong
            .map(|(place, error)| format!("{place}: {error}"))
            .collect()
    }

    #[test]
    fn fault_o31_a_bound_is_named_with_what_to_do() {
        let deep = format!("{}b{}", "{a: ".repeat(70), "}".repeat(70));
        let wide = format!("[{}x]", "x,".repeat(250_001));
        let mut anchors = String::new();
        for i in 0..50_001 {
            writeln!(anchors, "- &a{i} x").unwrap();
        }
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..7 {
            let list = vec![format!("*a{}", i - 1); 10].join(",");
            writeln!(bomb, "a{i}: &a{i} [{list}]").unwrap();
        }
        for (text, bound, fix) in [
            (deep, "64 deep", "write it flatter"),
            (wide, "250000 values", "split it"),
            (anchors, "50000", "write the values out"),
            (bomb, "bound", ":"),
        ] {
            let found = mistakes(&format!("a: b\n---\n# c\n{text}\n---\nc: d\n"));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with("document 2, line 4: "), "{found:?}");
            assert!(
                found[0].contains(bound) && found[0].contains(fix),
                "{found:?}"
            );
            assert!(
                !found[0].contains(['{', '}']) && found[0].len() < 300,
                "{found:?}"
            );
        }
        let many = "a: b\n---\n".repeat(2000);
        assert_eq!(values(&many).len(), 2000, "documents have no bound");
    }

    #[test]
    fn fault_o31_a_key_twice_names_both_lines() {
        let text = "kind: K\nmetadata: {name: a}\nspec:\n  mode: Shadow\n  sets:\n    mode: x\n  # mode: c\n  'mode': Enforce\n";
        assert_eq!(
            mistakes(text),
            [
                "document 1, line 1: K default/a: a key is written twice, keep one: mode, at lines 4 and 8"
            ]
        );
        let list = "a:\n- b: 1\n  c: 2\n- b: 3\n  d: 1\n  b: 4\n";
        assert!(
            mistakes(list)[0].ends_with("b, at lines 4 and 6"),
            "{:?}",
            mistakes(list)
        );
        let flow = mistakes("a: {b: 1, b: 2}\n");
        assert!(
            flow[0].ends_with("b, the second time at line 1"),
            "{flow:?}"
        );
    }

    #[test]
    fn fault_o31_places_are_those_of_the_file() {
        let place = |document, line| Place { document, line };
        for (text, places) in [
            (
                "a: b\n---\n---\n# only this\n---\n\nc: d\n",
                vec![place(1, 1), place(2, 7)],
            ),
            (
                "%YAML 1.2\n---\na: b\n...\n---\nc: d\n",
                vec![place(1, 3), place(2, 6)],
            ),
            ("--- {a: b}\n--- {c: d}\n", vec![place(1, 1), place(2, 2)]),
            (
                "# c\n---\na: [\n---\nc: d\n",
                vec![place(1, 3), place(2, 5)],
            ),
        ] {
            let found: Vec<Place> = values(text).iter().map(|(place, _)| *place).collect();
            assert_eq!(found, places, "{text}");
        }
    }
}
