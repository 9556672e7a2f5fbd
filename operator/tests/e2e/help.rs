//! What `--help` says, and how the program logs.

use std::process::{Command, Output};

use crate::support::trimtab;

fn help(arguments: &[&str]) -> String {
    let output = Command::new(trimtab())
        .args(arguments)
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn fault_o29_help_is_for_users() {
    let whole = help(&[]);
    for word in [
        "Exit codes",
        "RUST_LOG",
        "docs/",
        "trimtab run --standalone",
    ] {
        assert!(whole.contains(word), "{whole}");
    }
    assert!(!whole.contains("module host"), "{whole}");
    let (_, commands) = whole.split_once("Commands:\n").unwrap();
    let commands = commands.lines().take_while(|l| !l.is_empty());
    let commands: Vec<&str> = commands
        .filter_map(|l| l.split_whitespace().next())
        .filter(|c| *c != "help")
        .collect();
    assert!(commands.len() > 8, "{whole}");
    for command in commands {
        let text = help(&[command]);
        let (_, example) = text.split_once("Example").expect("an example");
        assert!(example.contains(&format!("trimtab {command}")), "{text}");
    }
}

/// A run that ends at once: the folder is not there.
fn run(levels: &str, config: &str) -> Output {
    let name = format!("trimtab-log-{}-{}.yaml", std::process::id(), config.len());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, config).unwrap();
    let output = Command::new(trimtab())
        .args(["run", "--standalone", "/nonexistent", "--config"])
        .arg(&file)
        .env("RUST_LOG", levels)
        .output()
        .unwrap();
    std::fs::remove_file(file).unwrap();
    output
}

#[test]
fn fault_o28_a_word_that_is_no_level_is_said_and_counts_as_not_set() {
    for levels in ["verbose", "warning", "info,debugg"] {
        let output = run(levels, "{}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            text.contains("WARN") && text.contains("is no level"),
            "{text}"
        );
    }
    let output = run("info", "log: {level: loud}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("log.level: \"loud\" is no level"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn fault_o28_lines_are_json_where_that_is_asked_for() {
    let output = run("verbose", "log: {format: json}");
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().next().unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["level"], "WARN", "{line}");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("is no level"), "{line}");
}
