//! YAML in and out: objects from files and folders, CRD manifests.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::Value;

/// An object and the file that it is in.
#[derive(Clone, Debug)]
pub struct Document {
    /// The file.
    pub file: PathBuf,
    /// The object.
    pub object: Value,
}

impl Document {
    /// `Kind namespace/name` for messages.
    pub fn title(&self) -> String {
        title(&self.object)
    }
}

/// `Kind namespace/name` of an object.
pub fn title(object: &Value) -> String {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("?")
    };
    let namespace = object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
        .unwrap_or("default");
    format!("{} {namespace}/{}", text("/kind"), text("/metadata/name"))
}

/// What files hold.
#[derive(Debug, Default)]
pub struct Input {
    /// The objects, in order.
    pub documents: Vec<Document>,
    /// What is no object: file, object as far as it has a name, and what to change.
    pub refused: Vec<String>,
}

impl Input {
    /// Puts objects that name no namespace into this one.
    pub fn place(&mut self, namespace: &str) {
        for document in &mut self.documents {
            if let Some(metadata) = document.object["metadata"].as_object_mut() {
                metadata
                    .entry("namespace")
                    .or_insert_with(|| namespace.into());
            }
        }
    }

    /// The objects of a text that must have no mistake.
    pub fn complete(self) -> anyhow::Result<Vec<Document>> {
        match self.refused.as_slice() {
            [] => Ok(self.documents),
            refused => bail!("{}", refused.join("\n")),
        }
    }
}

/// Reads YAML and JSON files; folders are read recursively, in order of name. Lists are taken apart. What cannot be read
/// does not keep the rest from being read.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Input> {
    let mut out = Input::default();
    for file in files(paths)? {
        match read_file(&file) {
            Ok(input) => {
                out.documents.extend(input.documents);
                out.refused.extend(input.refused);
            }
            Err(error) => out.refused.push(format!("{error:#}")),
        }
    }
    Ok(out)
}

/// The files that [`read`] reads, in order.
pub fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Found::default();
    for path in paths {
        collect(path, &mut found);
        if let Some((_, error)) = found.unreadable.pop() {
            return Err(error);
        }
    }
    Ok(found.files)
}

/// What is in a folder.
#[derive(Debug, Default)]
pub struct Found {
    /// Files of objects, in order.
    pub files: Vec<PathBuf>,
    /// Files and folders that cannot be looked at: what they hold is not known.
    pub unreadable: Vec<(PathBuf, anyhow::Error)>,
}

/// Looks through a folder. It is an error only when the folder itself cannot be read.
pub fn look(dir: &Path) -> anyhow::Result<Found> {
    let mut found = Found::default();
    collect(dir, &mut found);
    match found.unreadable.pop_if(|(path, _)| path == dir) {
        Some((_, error)) => Err(error),
        None => Ok(found),
    }
}

/// What one file holds.
pub fn read_file(file: &Path) -> anyhow::Result<Input> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(input(file, &text))
}

fn collect(path: &Path, found: &mut Found) {
    if let Err(error) = collected(path, found) {
        let error = error.context(format!("cannot read {}", path.display()));
        found.unreadable.push((path.to_owned(), error));
    }
}

fn collected(path: &Path, found: &mut Found) -> anyhow::Result<()> {
    if !std::fs::metadata(path)?.is_dir() {
        found.files.push(path.to_owned());
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        entries.push(entry?.path());
    }
    entries.sort();
    for entry in entries {
        let extension = entry.extension();
        let yaml = extension.is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        // What cannot be looked at may be a folder.
        let folder = std::fs::metadata(&entry).map_or(extension.is_none(), |m| m.is_dir());
        if folder || yaml {
            collect(&entry, found);
        }
    }
    Ok(())
}

/// The documents of a text that must have no mistake.
pub fn parse(file: &Path, text: &str) -> anyhow::Result<Vec<Document>> {
    input(file, text).complete()
}

/// Parses what one file holds; each document and each item of a list stands for itself.
pub fn input(file: &Path, text: &str) -> Input {
    let mut out = Input::default();
    for value in values(text) {
        let value = match value {
            Ok(Value::Null) => continue,
            Ok(value) => value,
            Err(error) => {
                out.refused.push(format!("{}: {error}", file.display()));
                continue;
            }
        };
        let items = match value.get("items") {
            Some(Value::Array(items))
                if value["kind"].as_str().is_some_and(|k| k.ends_with("List")) =>
            {
                items.clone()
            }
            _ => vec![value],
        };
        for object in items {
            match identified(&object) {
                Ok(()) => out.documents.push(Document {
                    file: file.to_owned(),
                    object,
                }),
                Err(error) => out.refused.push(format!("{}: {error}", file.display())),
            }
        }
    }
    out
}

/// Whether an object has what tells objects apart.
fn identified(object: &Value) -> Result<(), String> {
    for (pointer, field) in [
        ("/apiVersion", "apiVersion"),
        ("/kind", "kind"),
        ("/metadata/name", "metadata.name"),
        ("/metadata/namespace", "metadata.namespace"),
    ] {
        match object.pointer(pointer) {
            Some(Value::String(_)) => {}
            None if field == "metadata.namespace" => {}
            None | Some(Value::Null) => {
                return Err(format!(
                    "{}: an object has no {field}: every Kubernetes object needs it",
                    title(object)
                ));
            }
            Some(other) => {
                return Err(format!(
                    "{}: {field} must be a string: quote it, for example \"{other}\"",
                    title(object)
                ));
            }
        }
    }
    Ok(())
}

/// The documents of a YAML stream. One that is not YAML, or that has a key twice, does not take the others along.
fn values(text: &str) -> Vec<Result<Value, String>> {
    if let Ok(values) = serde_saphyr::from_multiple(text) {
        return values.into_iter().map(Ok).collect();
    }
    let mut out = Vec::new();
    for (line, part) in parts(text) {
        match serde_saphyr::from_multiple(part) {
            Ok(values) => out.extend(values.into_iter().map(Ok)),
            Err(_) => out.push(Err(mistake(line, part))),
        }
    }
    out
}

/// The documents of a stream as text, each with the number of lines before it. A line that begins with `---` begins a
/// document wherever it stands, also within a block.
fn parts(text: &str) -> Vec<(usize, &str)> {
    let mut out = Vec::new();
    let (mut start, mut first, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.strip_prefix("---");
        if marker.is_some_and(|rest| {
            rest.trim_start_matches([' ', '\t']) != rest || rest.trim().is_empty()
        }) && at > start
        {
            out.push((first, &text[start..at]));
            (start, first) = (at, number);
        }
        at += line.len();
    }
    out.push((first, &text[start..]));
    out
}

/// What is wrong with a document that begins after `line` lines.
fn mistake(line: usize, part: &str) -> String {
    // Empty lines in front, so that the message counts the lines of the file.
    let whole = format!("{}{part}", "\n".repeat(line));
    let plain = serde_saphyr::options! { with_snippet: false };
    let error = serde_saphyr::from_multiple_with_options::<Value>(&whole, plain);
    let error = error.err().map(|e| e.to_string()).unwrap_or_default();
    // This part of the message is for programmers.
    let error = error.replace(", set DuplicateKeyPolicy in Options if acceptable", "");
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
    };
    match serde_saphyr::from_multiple_with_options::<Value>(part, options) {
        Ok(values) => {
            let object = values.iter().find(|v| !v.is_null());
            let title = object.map_or_else(|| "a document".to_owned(), title);
            format!("{title}: a key is written twice, keep one: {error}")
        }
        Err(_) => format!("not YAML: {error}"),
    }
}

/// As YAML.
pub fn yaml(value: &impl Serialize) -> anyhow::Result<String> {
    // Through JSON: Value sorts its keys, so the bytes do not depend on field order.
    let value = serde_json::to_value(value)?;
    Ok(serde_saphyr::to_string(&value)?)
}

/// The CRD manifests: file name and content.
pub fn crds() -> anyhow::Result<Vec<(&'static str, String)>> {
    trimtab_crds::manifests::trimtab_crds()
        .into_iter()
        .map(|(name, crd)| {
            Ok((
                name,
                format!(
                    "# Generated by `trimtab crds --write`; do not edit.\n{}",
                    yaml(&crd)?
                ),
            ))
        })
        .collect()
}

/// Compares the manifests in `dir` with what the types say.
pub fn check_crds(dir: &Path) -> anyhow::Result<()> {
    for (name, want) in crds()? {
        let path = dir.join(name);
        let have = std::fs::read_to_string(&path).unwrap_or_default();
        if have != want {
            bail!(
                "{} is stale: run `trimtab crds --write {}`",
                path.display(),
                dir.display()
            );
        }
    }
    Ok(())
}

/// Writes the manifests to `dir`.
pub fn write_crds(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    for (name, text) in crds()? {
        std::fs::write(dir.join(name), text)?;
    }
    Ok(())
}
