//! Reads the sources of the repository.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(super) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Wakes a task, and does nothing by itself: allowed where state is kept.
pub(super) const WAKES: &str = "use tokio::sync::Notify;";

pub(super) fn sources(path: &Path, out: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        entries.sort();
        for entry in entries {
            sources(&entry, out);
        }
    } else if path.extension().is_some_and(|e| e == "rs") {
        out.push(path.to_owned());
    }
}

/// Lines of `text` that are code and mention one of `words`; comments may speak of anything, and [`WAKES`] is no effect.
pub(super) fn mentions<'a>(text: &'a str, words: &[&str]) -> Vec<&'a str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//") && *line != WAKES)
        .filter(|line| words.iter().any(|w| line.contains(w)))
        .collect()
}

/// Files of a folder, without tests, that mention one of `words` in code.
pub(super) fn files_that_mention(folder: &str, words: &[&str]) -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&repository().join(folder), &mut files);
    let mut out = BTreeSet::new();
    files.retain(|file| file.file_name().is_some_and(|name| name != "tests.rs"));
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        if !mentions(code, words).is_empty() {
            let name = file.strip_prefix(repository()).unwrap();
            out.insert(name.to_string_lossy().into_owned());
        }
    }
    out
}
