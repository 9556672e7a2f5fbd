//! The quickstart, whole.

// Helpers outside of #[test] functions fail the test by panicking too.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// An empty folder of this test.
fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("quickstart-{name}"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn the_limit_comes_on_is_obeyed_follows_and_goes_off() {
    let dir = folder("whole");
    let plot = dir.join("plot.svg");
    let output = Command::new(env!("CARGO_BIN_EXE_quickstart"))
        .args(["--for", "40s", "--plot"])
        .arg(&plot)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for want in [
        "the limit came on",
        "15 each",
        "10 each",
        "it was obeyed",
        "it went off",
    ] {
        assert!(
            text.lines()
                .any(|l| l.contains(want) && l.trim_start().starts_with("yes")),
            "{want}: {text}"
        );
    }
    assert!(std::fs::read_to_string(plot).unwrap().contains("<svg"));
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn without_envoy_it_says_so_and_simulates() {
    let dir = folder("simulated");
    let output = Command::new(env!("CARGO_BIN_EXE_quickstart"))
        .args(["--for", "30s", "--plot"])
        .arg(dir.join("plot.svg"))
        .env("ENVOY_BIN", "/nonexistent/envoy")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.contains("missing: ") && text.contains("SIMULATED"),
        "{text}"
    );
    assert!(text.contains("10 per pod with pod=3"), "{text}");
    let _ = std::fs::remove_dir_all(dir);
}
