//! Every folder of `examples/` is accepted as it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::repository;

/// The folder and those in it.
fn folders(folder: &Path, found: &mut Vec<PathBuf>) {
    found.push(folder.to_owned());
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|p| p.is_dir()) {
        folders(path, found);
    }
}

/// Translates; exit code and what was said.
fn translate(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_trimtab"))
        .arg("translate")
        .args(args)
        .current_dir(repository())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn fault_o15_every_folder_of_examples_is_translated() {
    let mut all = Vec::new();
    folders(&repository().join("examples"), &mut all);
    assert!(all.len() > 5, "{all:?}");
    for folder in all {
        let name = folder.display().to_string();
        let (code, said) = translate(&["-f", &name]);
        assert_eq!(code, Some(0), "{name}: {said}");
        assert!(!said.contains("refused:"), "{name}: {said}");
    }
}

#[test]
fn fault_o15_every_limiter_of_examples_is_accepted_alone() {
    let folder = repository().join("examples/limiter");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().path().display().to_string();
        let (code, said) = translate(&["-f", &name]);
        assert_eq!(code, Some(0), "{name}: {said}");
        assert!(said.contains("Limiting"), "{name}: {said}");
    }
}

/// No placeholders, and the folders of the index are those that there are.
#[test]
fn fault_o15_the_index_of_examples_is_complete_and_its_commands_work() {
    let index = std::fs::read_to_string(repository().join("examples/README.md")).unwrap();
    let rows: Vec<Vec<&str>> = index
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('`').collect())
        .collect();
    let named: Vec<&str> = rows.iter().map(|row| row[1]).collect();
    for entry in std::fs::read_dir(repository().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            !path.is_dir() || named.contains(&name.as_str()),
            "examples/README.md has no row for {name}"
        );
    }
    let mut tried = 0;
    for command in rows.iter().filter_map(|row| row.get(3)) {
        let Some(args) = command.strip_prefix("trimtab translate ") else {
            continue;
        };
        let args: Vec<&str> = args.split_whitespace().collect();
        let (code, said) = translate(&args);
        assert_eq!(code, Some(0), "{command}: {said}");
        tried += 1;
    }
    assert!(tried >= 4, "{index}");
}
