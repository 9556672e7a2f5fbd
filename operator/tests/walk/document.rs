//! A document as what a reader does with it: save files, run commands, look at what they print.

use std::path::Path;
use std::process::Command;

/// Before the name of a file that the next block is.
const SAVE: &str = "ave this as `";

pub(crate) struct Document {
    /// Its path in the repository.
    pub(crate) name: String,
    pub(crate) parts: Vec<Part>,
}

pub(crate) enum Part {
    /// A block that the reader saves: the paragraph before it says "Save this as `NAME`".
    File {
        name: String,
        text: String,
    },
    Block(Block),
    /// A block of kind `sh back`: the way back from the step above it.
    Back(Block),
}

pub(crate) struct Block {
    /// The heading above it.
    pub(crate) heading: String,
    /// Line of the document.
    pub(crate) line: usize,
    pub(crate) commands: Vec<String>,
    /// The block of kind `text` that follows: what is printed.
    pub(crate) shown: Option<String>,
}

/// The path of a document in the repository.
pub(crate) fn name(root: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(root).expect("in the repository");
    inside.display().to_string()
}

impl Document {
    pub(crate) fn read(root: &Path, path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("a document");
        Self {
            name: name(root, path),
            parts: parts(&text),
        }
    }

    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.parts.iter().filter_map(|part| match part {
            Part::Block(block) => Some(block),
            Part::File { .. } | Part::Back(_) => None,
        })
    }

    /// The ways back, in the order of their steps.
    pub(crate) fn ways_back(&self) -> impl DoubleEndedIterator<Item = &Block> {
        self.parts.iter().filter_map(|part| match part {
            Part::Back(block) => Some(block),
            Part::File { .. } | Part::Block(_) => None,
        })
    }

    /// Whether commands speak to a cluster: helm, and kubectl without `--server`.
    pub(crate) fn needs_cluster(&self) -> bool {
        let mut commands = self.blocks().flat_map(|b| &b.commands);
        commands
            .any(|c| c.starts_with("helm ") || (c.contains("kubectl ") && !c.contains("--server ")))
    }
}

fn parts(text: &str) -> Vec<Part> {
    let mut out: Vec<Part> = Vec::new();
    let mut heading = String::new();
    let mut paragraph = String::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let trimmed = line.trim_start();
        let Some(kind) = trimmed.strip_prefix("```") else {
            if let Some(title) = line.strip_prefix('#') {
                title
                    .trim_start_matches('#')
                    .trim()
                    .clone_into(&mut heading);
            }
            if line.is_empty() && !paragraph.ends_with(":\n") {
                paragraph.clear();
            } else if !line.is_empty() {
                paragraph.push_str(line);
                paragraph.push('\n');
            }
            continue;
        };
        let indent = line.len() - trimmed.len();
        let body: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line.get(indent..).unwrap_or_default())
            .take_while(|line| !line.starts_with("```"))
            .collect();
        let body = body.join("\n");
        let file = paragraph.split(SAVE).nth(1);
        let file = file.and_then(|rest| rest.split('`').next());
        let block = || Block {
            heading: heading.clone(),
            line: number + 1,
            commands: commands(&body),
            shown: None,
        };
        match kind {
            "sh" => out.push(Part::Block(block())),
            "sh back" => out.push(Part::Back(block())),
            "text" => match out.last_mut() {
                Some(Part::Block(block)) if block.shown.is_none() => block.shown = Some(body),
                _ => panic!("line {}: no command prints this", number + 1),
            },
            _ => out.extend(file.map(|name| Part::File {
                name: name.to_owned(),
                text: body,
            })),
        }
        paragraph.clear();
    }
    out
}

/// The commands of a block: lines, taken together until the shell has a whole one.
fn commands(body: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut open = String::new();
    for line in body.lines() {
        if open.is_empty() && (line.trim().is_empty() || line.starts_with('#')) {
            continue;
        }
        open.push_str(line);
        if is_whole(&open) {
            out.push(std::mem::take(&mut open));
        } else {
            open.push('\n');
        }
    }
    assert!(open.is_empty(), "no command ends here: {open}");
    assert!(!out.is_empty(), "a block without commands");
    out
}

/// An open quote is an error of the shell, an open here-document a warning; a line that goes on ends with a backslash.
fn is_whole(text: &str) -> bool {
    let checked = Command::new("bash").args(["-n", "-c", text]).output();
    let checked = checked.expect("bash");
    !text.ends_with('\\') && checked.status.success() && checked.stderr.is_empty()
}
