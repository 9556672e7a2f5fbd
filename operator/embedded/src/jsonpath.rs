//! The subset of kubectl's JSONPath that printer columns use.

use serde_json::Value;

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// `[?(@.field=="value")]`
    Where(Vec<String>, String),
}

/// All values at a path such as `.status.conditions[?(@.type=="Ready")].status`.
pub(crate) fn find<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut at = vec![value];
    for step in parse(path) {
        at = at.into_iter().flat_map(|v| apply(v, &step)).collect();
    }
    at
}

fn apply<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(i) => {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            let at = if *i < 0 {
                items
                    .len()
                    .checked_sub(usize::try_from(i.unsigned_abs()).unwrap_or(usize::MAX))
            } else {
                usize::try_from(*i).ok()
            };
            at.and_then(|i| items.get(i)).into_iter().collect()
        }
        Step::All => match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        },
        Step::Where(path, want) => value
            .as_array()
            .into_iter()
            .flatten()
            .filter(|item| {
                let found = path.iter().try_fold(*item, |v, name| v.get(name));
                match found {
                    Some(Value::String(s)) => s == want,
                    Some(other) => serde_json::from_str(want).is_ok_and(|w: Value| w == *other),
                    None => false,
                }
            })
            .collect(),
    }
}

fn parse(path: &str) -> Vec<Step> {
    let path = path.trim().trim_start_matches('{').trim_end_matches('}');
    let mut steps = Vec::new();
    let mut rest = path.trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = bracket_end(after);
            steps.extend(bracket(&after[..end]));
            rest = after.get(end + 1..).unwrap_or_default();
        } else {
            let after = rest.strip_prefix('.').unwrap_or(rest);
            let (name, left) = field_name(after);
            if !name.is_empty() {
                steps.push(if name == "*" {
                    Step::All
                } else {
                    Step::Field(name)
                });
            }
            rest = left;
        }
    }
    steps
}

fn bracket_end(text: &str) -> usize {
    let mut quote = None;
    for (i, c) in text.char_indices() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            (']', None) => return i,
            _ => {}
        }
    }
    text.len()
}

fn bracket(inner: &str) -> Option<Step> {
    let inner = inner.trim();
    let unquote = |t: &str| t.trim().trim_matches(['\'', '"']).to_owned();
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        let (left, right) = filter.split_once("==")?;
        let path = left
            .trim()
            .trim_start_matches("@.")
            .split('.')
            .map(str::to_owned)
            .collect();
        return Some(Step::Where(path, unquote(right)));
    }
    if let Ok(index) = inner.parse() {
        return Some(Step::Index(index));
    }
    Some(Step::Field(unquote(inner)))
}

/// A field name up to an unescaped `.` or `[`; `\.` is a dot in the name.
fn field_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[i..]),
            c => name.push(c),
        }
    }
    (name, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths() {
        let o = json!({"a": {"b.c": 1, "l": [{"t": "x", "v": 1}, {"t": "y", "v": 2}]}});
        for (path, want) in [
            (".a.l[0].v", vec![json!(1)]),
            (".a.l[-1].v", vec![json!(2)]),
            (".a.l[*].v", vec![json!(1), json!(2)]),
            (".a.l[?(@.t==\"y\")].v", vec![json!(2)]),
            (".a['b.c']", vec![json!(1)]),
            (".a.b\\.c", vec![json!(1)]),
            ("{.a.none}", vec![]),
        ] {
            let found: Vec<Value> = find(&o, path).into_iter().cloned().collect();
            assert_eq!(found, want, "{path}");
        }
    }
}
