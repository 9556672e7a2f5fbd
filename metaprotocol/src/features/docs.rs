//! The table as a page of the documentation.

use std::fmt::Write as _;

use super::{Feature, Support, Target, support};

const HEAD: &str = "# MetaProtocol: features of each proxy

This page is generated from the table that Trimtab decides by (`metaprotocol/src/features/`).
`UPDATE_EXPECT=1 cargo test -p trimtab-metaprotocol --test features` writes it anew.

Where a router asks for something that the proxies cannot do, its status says so. Routes are applied without the part
that is missing, except where calls would then go elsewhere than written (matches, weights): then none of the router's
routes is applied and the last good ones stay.

";

/// The page `docs/metaprotocol-features.md`.
pub fn document() -> String {
    let mut out = String::from(HEAD);
    let mut notes: Vec<String> = Vec::new();
    header(&mut out);
    for feature in Feature::ALL {
        let _ = write!(out, "| {} |", feature.title());
        for target in Target::ALL {
            let cell = match support(feature, target) {
                Support::Yes => "yes".to_owned(),
                Support::NotApplicable => "–".to_owned(),
                Support::Partly(note) => format!("yes [{}]", number(&mut notes, note)),
                Support::No { reason, fix } => {
                    let note = format!("{reason}: {fix}");
                    format!("no [{}]", number(&mut notes, &note))
                }
            };
            let _ = write!(out, " {cell} |");
        }
        out.push('\n');
    }
    out.push_str("\n## Notes\n\n");
    for (i, note) in notes.iter().enumerate() {
        let _ = writeln!(out, "{}. {note}.", i + 1);
    }
    out
}

fn header(out: &mut String) {
    out.push_str("| feature |");
    for target in Target::ALL {
        let _ = write!(out, " {} |", target.title());
    }
    out.push_str("\n|---|");
    out.push_str(&"---|".repeat(Target::ALL.len()));
    out.push('\n');
}

/// Number of a note, in order of first use.
fn number(notes: &mut Vec<String>, note: &str) -> usize {
    if let Some(i) = notes.iter().position(|n| n == note) {
        return i + 1;
    }
    notes.push(note.to_owned());
    notes.len()
}
