//! Golden cases and how they are run.

use std::path::{Path, PathBuf};

use serde_json::Value;
use trimtab::migrate::{MigrateArgs, Migration, migrate};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/migrate")
}

/// Names of all cases, sorted.
pub(crate) fn names() -> Vec<String> {
    let entries = std::fs::read_dir(root()).expect("the folder of golden cases");
    let mut names: Vec<String> = entries
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    assert!(names.len() > 10, "{names:?}");
    names
}

/// The input of a case, and which migration it is for.
pub(crate) fn input(name: &str) -> (PathBuf, String) {
    let file = root().join(name).join("in.yaml");
    let text = std::fs::read_to_string(&file).expect("an input");
    let first = text.lines().next().expect("a line");
    let from = first.strip_prefix("# migrate ").expect("the migration");
    (file, from.to_owned())
}

/// Runs the command on a file.
pub(crate) async fn run(from: &str, file: &Path, more: &[&str]) -> Migration {
    let file = file.display().to_string();
    let args = [&[from, "-f", &file], more].concat();
    let args = MigrateArgs::of(&args).expect("arguments");
    migrate(&args)
        .await
        .unwrap_or_else(|e| panic!("{file}: {e:#}"))
}

/// The report of a case as JSON.
pub(crate) async fn report(name: &str) -> Value {
    let (file, from) = input(name);
    let done = run(&from, &file, &["-o", "json"]).await;
    serde_json::from_str(&done.text).expect("JSON")
}
