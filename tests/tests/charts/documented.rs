//! What the charts say of their values: comments in values.yaml, as helm-docs reads them, are the source of the descriptions in
//! values.schema.json and of the table in README.md.
//!
//! `# -- ` begins the comment of a value that users set, `# @default -- ` what stands for its default in the table. A comment
//! without `--` describes a group, which has no row.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::helm::chart;

const CHARTS: [&str; 2] = ["trimtab", "trimtab-crds"];
const BEGIN: &str = "<!-- values: made of the comments in values.yaml -->\n";
const END: &str = "<!-- end of values -->";

/// A value, or a group of values.
#[derive(Debug)]
struct Entry {
    /// Dotted.
    path: String,
    text: String,
    /// Not a group.
    is_value: bool,
    /// What stands for the default.
    default: Option<String>,
}

fn read(name: &str, file: &str) -> String {
    std::fs::read_to_string(chart(name).join(file)).unwrap_or_else(|e| panic!("{name}/{file}: {e}"))
}

/// The key of a line of YAML.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.trim_start().split_once(':')?;
    key.chars().all(char::is_alphanumeric).then_some(key)
}

/// The commented keys of values.yaml, in order.
fn entries(values: &str) -> Vec<Entry> {
    let mut out = Vec::new();
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    let mut inside: Option<usize> = None;
    for line in values.lines() {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim();
        if text.is_empty() {
            comment.clear();
            continue;
        }
        // What a value has inside is its default.
        if inside.is_some_and(|value| indent > value) {
            continue;
        }
        inside = None;
        if let Some(text) = text.strip_prefix('#') {
            comment.push(text.trim());
            continue;
        }
        let key = key(line).unwrap_or_else(|| panic!("no key: {line}"));
        above.retain(|(column, _)| *column < indent);
        above.push((indent, key));
        let path: Vec<&str> = above.iter().map(|(_, key)| *key).collect();
        let entry = entry(path.join("."), &comment);
        inside = entry.is_value.then_some(indent);
        out.push(entry);
        comment.clear();
    }
    out
}

fn entry(path: String, comment: &[&str]) -> Entry {
    let default = comment.iter().find_map(|l| l.strip_prefix("@default -- "));
    let lines: Vec<&str> = comment
        .iter()
        .filter(|l| !l.starts_with('@'))
        .copied()
        .collect();
    let whole = lines.join(" ");
    let value = whole.strip_prefix("-- ");
    Entry {
        path,
        text: value.unwrap_or(&whole).to_owned(),
        is_value: value.is_some(),
        default: default.map(ToOwned::to_owned),
    }
}

/// A link to each document that a text names, from the folder of a chart.
fn linked(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let end = word.trim_end_matches(['.', ',', ';', ':', ')']);
        let rest = &word[end.len()..];
        if end.starts_with("docs/") {
            let page = end.split('#').next().unwrap_or(end);
            format!("[{page}](../../{end}){rest}")
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) | Value::Null => "object",
    }
}

/// The table of README.md.
fn table(name: &str) -> String {
    let text = read(name, "values.yaml");
    let values: Value = serde_saphyr::from_str(&text).unwrap();
    let head = "| key | type | default | meaning |\n|---|---|---|---|\n".to_owned();
    let entries = entries(&text);
    let rows = entries.iter().filter(|e| e.is_value).map(|entry| {
        let value = &values[entry.path.split('.').next().unwrap()];
        let value = entry.path.split('.').skip(1).fold(value, |v, key| &v[key]);
        let shown = match (&entry.default, value) {
            (Some(default), _) => default.clone(),
            (None, Value::String(text)) if !text.is_empty() => format!("`{text}`"),
            (None, value) => format!("`{value}`"),
        };
        let (path, kind, text) = (&entry.path, kind(value), linked(&entry.text));
        format!("| `{path}` | {kind} | {shown} | {text} |\n")
    });
    head + &rows.collect::<Vec<String>>().concat()
}

/// README.md with its table made anew.
fn readme(name: &str) -> String {
    let text = read(name, "README.md");
    let (before, rest) = text.split_once(BEGIN).expect("the beginning of the table");
    let (_, after) = rest.split_once(END).expect("the end of the table");
    format!("{before}{BEGIN}\n{}\n{END}{after}", table(name))
}

/// All keys of a schema, and what it says of each.
fn described(schema: &Value, path: &str, out: &mut BTreeMap<String, String>) {
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let text = schema["description"].as_str().unwrap_or_default();
        out.insert(path.clone(), text.to_owned());
        described(schema, &path, out);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            described(&schema[inner], &format!("{path}[]"), out);
        }
    }
}

/// The schema's text with the descriptions of `entries`, each at the beginning of its key. Keys are found by their indentation,
/// so that the order of a file stays, which `serde_json` would lose.
fn schema(text: &str, entries: &[Entry]) -> String {
    let mut out = Vec::new();
    let mut above: Vec<(usize, String)> = Vec::new();
    let mut skip = false;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let opened = line.trim_start().strip_prefix('"');
        let opened = opened.and_then(|l| l.split_once("\": {"));
        if skip && line.trim_start().starts_with("\"description\": \"") {
            skip = false;
            continue;
        }
        skip = false;
        out.push(line.to_owned());
        let Some((key, "")) = opened else { continue };
        above.retain(|(column, _)| *column < indent);
        above.push((indent, key.to_owned()));
        let keys: Vec<&str> = above.iter().map(|(_, key)| key.as_str()).collect();
        // Between two keys stands "properties".
        let is_key = keys
            .chunks(2)
            .all(|pair| pair.len() == 2 && pair[0] == "properties");
        let path = keys
            .iter()
            .skip(1)
            .step_by(2)
            .copied()
            .collect::<Vec<_>>()
            .join(".");
        if let Some(entry) = entries.iter().find(|e| is_key && e.path == path) {
            let text = serde_json::to_string(&entry.text).expect("JSON");
            out.push(format!(
                "{}\"description\": {text},",
                " ".repeat(indent + 2)
            ));
            skip = true;
        }
    }
    out.join("\n") + "\n"
}

/// Makes tables and descriptions anew.
pub(crate) fn write() {
    for name in CHARTS {
        let folder = chart(name);
        std::fs::write(folder.join("README.md"), readme(name)).expect("README.md");
        let text = schema(
            &read(name, "values.schema.json"),
            &entries(&read(name, "values.yaml")),
        );
        std::fs::write(folder.join("values.schema.json"), text).expect("values.schema.json");
    }
}

const FIX: &str = "to fix: UPDATE_EXPECT=1 cargo test -p trimtab-tests --test charts";

#[test]
fn fault_o37_every_value_has_a_comment_and_the_table_is_made_of_them() {
    crate::copies::refresh();
    for name in CHARTS {
        let entries = entries(&read(name, "values.yaml"));
        assert!(entries.iter().any(|e| e.is_value));
        for entry in &entries {
            assert!(
                !entry.text.is_empty(),
                "{name}: {} has no comment",
                entry.path
            );
        }
        let have = read(name, "README.md");
        assert_eq!(have, readme(name), "{name}: README.md is stale; {FIX}");
    }
}

#[test]
fn fault_o37_every_key_of_the_schemas_says_what_it_is() {
    crate::copies::refresh();
    for name in CHARTS {
        let text = read(name, "values.schema.json");
        let mut all = BTreeMap::new();
        described(&serde_json::from_str(&text).unwrap(), "", &mut all);
        for (path, text) in &all {
            let words = text.split_whitespace().count();
            assert!(words >= 2, "{name}: {path} has no description: \"{text}\"");
        }
        let entries = entries(&read(name, "values.yaml"));
        for entry in &entries {
            assert_eq!(
                all.get(&entry.path),
                Some(&entry.text),
                "{name}: {}; {FIX}",
                entry.path
            );
        }
        assert_eq!(schema(&text, &entries), text, "{name}: {FIX}");
        assert!(name != "trimtab" || all.len() > 300, "{}", all.len());
    }
}

/// Comments that a machine reads must be those that people see: a key that is described twice, or below its comment.
#[test]
fn comments_are_read_as_helm_docs_reads_them() {
    let text = "# A group.\ngroup:\n  # -- One | two, see docs/install.md#an-image.\n  # goes on\n  one: \"\"\n  # -- Map.\n  # @default -- much\n  map:\n    # inner\n    a: 1\n# not above\n\n# -- Last.\nlast: [1]\n";
    let entries = entries(text);
    let seen: Vec<(&str, bool, &str)> = entries
        .iter()
        .map(|e| (e.path.as_str(), e.is_value, e.text.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            ("group", false, "A group."),
            (
                "group.one",
                true,
                "One | two, see docs/install.md#an-image. goes on"
            ),
            ("group.map", true, "Map."),
            ("last", true, "Last."),
        ]
    );
    assert_eq!(entries[2].default.as_deref(), Some("much"));
    assert_eq!(
        linked(seen[1].2),
        "One \\| two, see [docs/install.md](../../docs/install.md#an-image). goes on"
    );
}
