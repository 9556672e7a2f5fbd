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

/// Reads YAML and JSON files; folders are read recursively, in order of name. Lists are taken apart.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
    let mut out = Vec::new();
    for file in files(paths)? {
        out.extend(read_file(&file)?);
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

/// The documents of one file.
pub fn read_file(file: &Path) -> anyhow::Result<Vec<Document>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    parse(file, &text)
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

/// Parses the documents of one file.
pub fn parse(file: &Path, text: &str) -> anyhow::Result<Vec<Document>> {
    let values: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|e| anyhow::anyhow!("{}: not YAML: {e}", file.display()))?;
    let mut out = Vec::new();
    for value in values {
        if value.is_null() {
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
        for object in items {
            for pointer in ["/apiVersion", "/kind", "/metadata/name"] {
                if !object.pointer(pointer).is_some_and(Value::is_string) {
                    bail!(
                        "{}: an object has no {}: every Kubernetes object needs it",
                        file.display(),
                        pointer.trim_start_matches('/').replace('/', ".")
                    );
                }
            }
            out.push(Document {
                file: file.to_owned(),
                object,
            });
        }
    }
    Ok(out)
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
