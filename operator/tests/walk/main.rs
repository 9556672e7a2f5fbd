//! The documents, as a reader pastes them: every command block in order in a fresh folder, with the real programs, and what
//! they print against what is shown. And every folder of `examples/`.
//!
//! The documents name fixed ports, so a walk runs in a network of its own (`unshare`). Where the system allows none, it runs
//! in that of the machine, where the ports must be free.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail the test"
)]

mod document;
mod elsewhere;
mod examples;
mod network;
mod session;
mod shown;
mod ways_back;

use std::path::{Path, PathBuf};
use std::time::Instant;

use trimtab_cluster::Cluster;

use document::{Block, Document, Part};
use session::Session;

/// The root of the repository.
fn repository() -> PathBuf {
    let operator = Path::new(env!("CARGO_MANIFEST_DIR"));
    operator.parent().expect("the workspace").to_owned()
}

/// README, docs, and what stands beside charts and examples.
fn documents() -> Vec<Document> {
    let root = repository();
    let mut found = vec![root.join("README.md")];
    for folder in ["docs", "charts", "examples"] {
        collect(&root.join(folder), &mut found);
    }
    let all = found.iter().map(|path| Document::read(&root, path));
    all.filter(|document| document.blocks().next().is_some())
        .collect()
}

/// Whether a document is walked: all are, unless `TRIMTAB_WALK` names one.
fn chosen(document: &Document) -> bool {
    std::env::var("TRIMTAB_WALK").map_or(true, |only| only == document.name)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "md") {
            found.push(path);
        }
    }
}

/// Runs a document from the first block to the last; each mistake is one line.
fn walk(document: &Document, session: &mut Session) -> Vec<String> {
    prepare(document, session);
    parts(document, &document.parts, session)
}

/// What is there before the page begins.
fn prepare(document: &Document, session: &mut Session) {
    for command in elsewhere::before(&document.name) {
        let (code, output) = session.ask(command, |code, _| code == 0);
        assert_eq!(code, 0, "{}: before: {command}\n{output}", document.name);
    }
}

/// Runs some parts of a document.
fn parts(document: &Document, parts: &[Part], session: &mut Session) -> Vec<String> {
    let mut failed = Vec::new();
    for part in parts {
        match part {
            // Another walk takes them.
            Part::Back(_) => {}
            Part::File { name, text } => session.write(name, text),
            Part::Block(block) => {
                if elsewhere::section(&document.name, &block.heading).is_none()
                    && let Err(error) = run(document, block, session)
                {
                    failed.push(format!("{}:{}: {error}", document.name, block.line));
                }
            }
        }
    }
    failed
}

/// Runs the commands of a block; an error says which line did not do what the page says.
fn run(document: &Document, block: &Block, session: &mut Session) -> Result<(), String> {
    let mut printed = String::new();
    let last = block.commands.len() - 1;
    for (i, command) in block.commands.iter().enumerate() {
        let command = match elsewhere::line(&document.name, command) {
            Some(line) => match line.instead {
                Some(instead) => instead,
                None => continue,
            },
            None => command,
        };
        let shown = block.shown.as_deref().filter(|_| i == last);
        let before = printed.clone();
        let right = |code: i32, output: &str| {
            code == 0 && shown.is_none_or(|s| shown::is_in(s, &format!("{before}{output}")))
        };
        let begin = Instant::now();
        let (code, output) = session.ask(command, right);
        println!("{}: {command}: {:.1?}", document.name, begin.elapsed());
        if code != 0 {
            return Err(format!("{command}\nexit code {code}:\n{output}"));
        }
        printed.push_str(&output);
        if let Some(shown) = shown.filter(|s| !shown::is_in(s, &printed)) {
            return Err(format!(
                "{command}\nthe page shows:\n{shown}\nprinted was:\n{printed}"
            ));
        }
    }
    Ok(())
}

#[test]
fn fault_o15_blocks_work_when_pasted() {
    if !network::own("fault_o15_blocks_work_when_pasted") {
        return;
    }
    let all = documents();
    let alone: Vec<&Document> = all.iter().filter(|d| !d.needs_cluster()).collect();
    assert!(alone.iter().any(|d| d.name == "docs/standalone.md"));
    let alone = alone.into_iter().filter(|d| chosen(d));
    let failed: Vec<String> = alone
        .flat_map(|document| walk(document, &mut Session::start(&document.name, None)))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_o15_blocks_for_a_cluster_work_when_pasted() {
    if !network::own("fault_o15_blocks_for_a_cluster_work_when_pasted") {
        return;
    }
    let all = documents();
    let clustered: Vec<&Document> = all.iter().filter(|d| d.needs_cluster()).collect();
    assert!(clustered.iter().any(|d| d.name == "README.md"));
    let mut failed = Vec::new();
    for document in clustered.into_iter().filter(|d| chosen(d)) {
        // One each: what a page installs is not there for the next.
        let cluster = Cluster::without_trimtab().await.unwrap();
        let namespace = ["create", "namespace", "istio-system"];
        cluster.kubectl(&namespace, "").await.unwrap();
        let mut session = Session::start(&document.name, Some(cluster.kubeconfig()));
        failed.extend(tokio::task::block_in_place(|| walk(document, &mut session)));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn fault_o15_what_is_not_run_is_in_a_document() {
    let all = documents();
    let find = |name: &str| {
        let found = all.iter().find(|d| d.name == name);
        found.unwrap_or_else(|| panic!("there is no document {name} with commands"))
    };
    for line in elsewhere::LINES {
        let document = find(line.document);
        let there = document
            .blocks()
            .chain(document.ways_back())
            .any(|b| b.commands.iter().any(|c| c == line.command));
        assert!(
            there,
            "{} has no line {}: take it out of the list",
            line.document, line.command
        );
        assert!(!line.reason.is_empty());
    }
    for (name, heading, reason) in elsewhere::SECTIONS {
        let there = find(name).blocks().any(|b| b.heading == *heading);
        assert!(there, "{name} has no commands under {heading}: {reason}");
    }
    for (name, _) in elsewhere::BEFORE {
        find(name);
    }
}

/// The blocks are found, whatever stands around them: a page could lose them to a new spelling otherwise.
#[test]
fn every_block_that_looks_like_commands_is_walked() {
    let all = documents();
    for folder in ["docs", "charts", "examples"] {
        let mut found = Vec::new();
        collect(&repository().join(folder), &mut found);
        for path in found {
            let text = std::fs::read_to_string(&path).unwrap();
            for info in ["bash", "shell", "console", "zsh"] {
                let fence = format!("```{info}");
                assert!(
                    !text.contains(&fence),
                    "{}: write ```sh instead of {fence}",
                    path.display()
                );
            }
            let blocks = text.matches("```sh\n").count();
            let name = document::name(&repository(), &path);
            let walked = all.iter().find(|d| d.name == name);
            assert_eq!(walked.map_or(0, |d| d.blocks().count()), blocks, "{name}");
        }
    }
}
