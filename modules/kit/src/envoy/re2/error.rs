//! What is wrong with an expression, and what to write in its place.

use std::fmt;

use super::MAX_PROGRAM;

/// Kind of a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `a**`.
    RepeatedRepeat,
    /// `*` at the start.
    NothingToRepeat,
    /// A bound over 1000, or `{3,1}`.
    RepeatSize,
    /// The product of nested bounds.
    RepeatProduct,
    /// An escape.
    Escape,
    /// A group of Unicode.
    UnicodeGroup,
    /// `[z-a]`, `[[:foo:]]`.
    Range,
    /// No `]`.
    MissingBracket,
    /// No `)`.
    MissingParenthesis,
    /// No `(`.
    UnexpectedParenthesis,
    /// The name of a group.
    GroupName,
    /// `(?` with something else.
    GroupKind,
    /// Groups in groups.
    TooDeep,
    /// The program.
    TooLarge {
        /// Instructions.
        size: u64,
    },
}

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegexError {
    /// Kind.
    pub fault: Fault,
    /// The part of the expression; may be empty.
    pub part: String,
}

impl RegexError {
    pub(super) fn new(fault: Fault, part: impl Into<String>) -> Self {
        let part = part.into();
        Self { fault, part }
    }
}

/// Backslashes stay as they are: they are a part of the expression.
fn shown(part: &str) -> String {
    let mut out = String::new();
    for c in part.chars() {
        if c.is_control() {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
    out
}

impl std::error::Error for RegexError {}

impl fmt::Display for RegexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = shown(&self.part);
        match self.fault {
            Fault::RepeatedRepeat => write!(
                f,
                "bad repetition operator {part}: a repetition cannot be repeated: keep one, or put parentheses around the inner one"
            ),
            Fault::NothingToRepeat => write!(
                f,
                "{part} repeats nothing: write what comes before it, or a backslash in front if the sign itself is meant"
            ),
            Fault::RepeatSize => write!(
                f,
                "invalid repetition size {part}: bounds go up to 1000, the smaller one first"
            ),
            Fault::RepeatProduct => write!(
                f,
                "invalid repetition size {part}: with the repetitions inside it asks for more than 1000 copies: make the bounds smaller, or use * or +"
            ),
            Fault::Escape => write!(
                f,
                "{part} is no escape of RE2: escape only signs; letters have \\d \\w \\s \\b \\A \\z, and bytes \\x00 to \\xff"
            ),
            Fault::UnicodeGroup => write!(
                f,
                "{part} names no group of Unicode that RE2 knows: write a general category such as \\p{{Lu}}, or a script such as \\p{{Greek}}"
            ),
            Fault::Range => write!(
                f,
                "invalid range {part} in a class: the lower end comes first; a - that is meant as such stands last or after a backslash; RE2 has no operators between classes"
            ),
            Fault::MissingBracket => write!(f, "the class {part} has no end: add ], or write \\["),
            Fault::MissingParenthesis => {
                write!(f, "a group has no end: add ), or write \\( for the sign")
            }
            Fault::UnexpectedParenthesis => {
                write!(f, "a ) has no beginning: remove it, or write \\)")
            }
            Fault::GroupName => write!(
                f,
                "{part} is no name of a group: use letters, digits and _, as in (?P<name>...)"
            ),
            Fault::GroupKind => write!(
                f,
                "{part} is not in RE2: there are (?:...), (?P<name>...) and the flags i, m, s and U, and no look-around"
            ),
            Fault::TooDeep => write!(f, "more than 1000 groups in each other: make it flatter"),
            Fault::TooLarge { size } => write!(
                f,
                "its program has {size} instructions and proxies take {MAX_PROGRAM}: make bounds or classes smaller, or split it"
            ),
        }
    }
}
