//! YAML in and out: objects from files and folders, CRD manifests.

mod stream;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::Serialize;
use serde_json::Value;

use crate::config::Config;
use crate::files::{self, Found};

pub use stream::Place;

/// An object and the file that it is in.
#[derive(Clone, Debug)]
pub struct Document {
    /// The file.
    pub file: PathBuf,
    /// Where it is there.
    pub place: Place,
    /// The object.
    pub object: Value,
}

impl Document {
    /// An object that is in no file.
    pub fn new(file: impl Into<PathBuf>, object: Value) -> Self {
        Self {
            file: file.into(),
            place: Place::default(),
            object,
        }
    }

    /// `Kind namespace/name` for messages.
    pub fn title(&self) -> String {
        title(&self.object)
    }

    /// The error with file, object and place.
    pub fn fails(&self, error: &impl Display) -> String {
        let (file, title) = (self.file.display(), self.title());
        match self.place {
            Place { document: 0, .. } => format!("{file}: {title}: {error}"),
            place => format!("{file}: {title}: {error} ({place})"),
        }
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
    /// What was not read and needs no change.
    pub remarks: Vec<String>,
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

/// Reads YAML and JSON files, and standard input for `-`; folders are read recursively, in order of name. Lists are taken
/// apart. What cannot be read does not keep the rest from being read, unless it is one of `paths` itself.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Input> {
    let mut found = Found::default();
    for path in paths {
        found.add(path);
    }
    let mut out = Input {
        remarks: found.skipped,
        ..Input::default()
    };
    for (path, error) in found.unreadable {
        if paths.contains(&path) {
            return Err(error);
        }
        out.refused.push(format!("{error:#}"));
    }
    for file in found.files {
        match read_file(&file) {
            Ok(input) => {
                out.documents.extend(input.documents);
                out.refused.extend(input.refused);
                out.remarks.extend(input.remarks);
            }
            Err(error) => out.refused.push(format!("{error:#}")),
        }
    }
    Ok(out)
}

/// What one file holds.
pub fn read_file(file: &Path) -> anyhow::Result<Input> {
    Ok(input(file, &files::text(file)?))
}

/// The documents of a text that must have no mistake.
pub fn parse(file: &Path, text: &str) -> anyhow::Result<Vec<Document>> {
    input(file, text).complete()
}

/// Parses what one file holds; each document and each item of a list stands for itself.
pub fn input(file: &Path, text: &str) -> Input {
    let mut out = Input::default();
    let mut refuse = |place: Place, error: &str| {
        let error = brief(error);
        out.refused
            .push(format!("{}: {error} ({place})", file.display()));
    };
    for (place, value) in stream::values(text) {
        let value = match value {
            Ok(value) => value,
            Err(error) => {
                refuse(place, &error);
                continue;
            }
        };
        if Config::is_one(&value) {
            out.remarks.push(format!(
                "{}: a configuration and no object: give it with --config",
                file.display()
            ));
            continue;
        }
        let items = match value.get("items") {
            Some(Value::Array(items))
                if value["kind"].as_str().is_some_and(|k| k.ends_with("List")) =>
            {
                items.clone()
            }
            _ => vec![value],
        };
        for mut object in items {
            match identified(&mut object) {
                Ok(()) => out.documents.push(Document {
                    file: file.to_owned(),
                    place,
                    object,
                }),
                Err(error) => refuse(place, &error),
            }
        }
    }
    out
}

/// So much of a message is shown: it may have a text of the file in it, of any length.
const SHOWN: usize = 300;

/// A message, cut.
pub fn brief(text: &str) -> String {
    let length = text.chars().count();
    if length <= SHOWN {
        return text.to_owned();
    }
    let begin: String = text.chars().take(SHOWN).collect();
    format!("{begin}... and {} characters more", length - SHOWN)
}

/// Whether an object has what tells objects apart, and texts where an API server takes nothing else.
fn identified(object: &mut Value) -> Result<(), String> {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        // As with kubectl, no namespace.
        let none = |v: &Value| v.is_null() || v == "";
        if metadata.get("namespace").is_some_and(none) {
            metadata.remove("namespace");
        }
    }
    for field in ["apiVersion", "kind", "metadata.name"] {
        let pointer = format!("/{}", field.replace('.', "/"));
        if object.pointer(&pointer).is_none_or(Value::is_null) {
            let is_named = object.pointer("/metadata/name").is_some();
            let who = Some(title(object)).filter(|_| is_named);
            let who = who.map_or_else(String::new, |title| format!("{title}: "));
            return Err(format!(
                "{who}an object has no {field}: every Kubernetes object needs it"
            ));
        }
    }
    let metadata = &object["metadata"];
    let mut texts = vec![
        ("apiVersion".to_owned(), &object["apiVersion"]),
        ("kind".to_owned(), &object["kind"]),
        ("metadata.name".to_owned(), &metadata["name"]),
    ];
    let namespace = metadata.get("namespace");
    texts.extend(namespace.map(|value| ("metadata.namespace".to_owned(), value)));
    for field in ["labels", "annotations"] {
        let all = metadata[field].as_object().into_iter().flatten();
        texts.extend(all.map(|(key, value)| (format!("metadata.{field}.{key}"), value)));
    }
    match texts.iter().find(|(_, value)| !value.is_string()) {
        Some((field, value)) => Err(format!("{}: {field}: {}", title(object), no_text(value))),
        None => Ok(()),
    }
}

/// What to do about a value that must be a text.
fn no_text(value: &Value) -> String {
    match value {
        Value::Number(number) if !number.is_f64() => {
            format!("must be a string: write \"{number}\"")
        }
        Value::Bool(_) => "must be a string, and YAML reads yes, no, on, off, y and n as true and false: put it in quotes".to_owned(),
        Value::Array(_) | Value::Object(_) => {
            "must be a string, and is a list or a map: write one text".to_owned()
        }
        _ => "must be a string: put it in quotes".to_owned(),
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

/// Whether the file of a CRD is that of the original SmartLimiter API. Its plural is that of the present one, and kubectl takes
/// the plural for this group, which comes first.
pub fn is_first_form(name: &str) -> bool {
    name.starts_with("microservice.netease.com_")
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
