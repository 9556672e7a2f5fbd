//! Mistakes in expressions.

use super::scan::{FUNCTIONS, Function};

/// What is wrong with an expression, with the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Nothing is written.
    #[error("the expression is empty: write true for \"always\", or a comparison like {{cpu}}>0.8")]
    Empty,
    /// Over the bound.
    #[error("the expression is longer than {max} bytes: shorten it")]
    TooLong {
        /// The bound.
        max: usize,
    },
    /// A token is wrong.
    #[error("at character {position}: {problem}")]
    Syntax {
        /// From 1.
        position: usize,
        /// What is wrong.
        problem: String,
    },
    /// A call of a function that does not exist.
    #[error("unknown function \"{name}\": known are {}", known_functions())]
    UnknownFunction {
        /// As written.
        name: String,
    },
    /// A metric that no source provides.
    #[error("unknown metric \"{name}\": known here are {known}")]
    UnknownMetric {
        /// As written.
        name: String,
        /// Sorted, separated by commas.
        known: String,
    },
    /// The result has the wrong type.
    #[error("the expression evaluates to {got}, expected {expected}")]
    WrongType {
        /// What came out.
        got: &'static str,
        /// `a number` or `true or false`.
        expected: &'static str,
    },
    /// A part is infinite or not a number, mostly a division by zero.
    #[error("{what}")]
    NotFinite {
        /// Which part, what it gives, and the values used.
        what: String,
    },
}

impl ExpressionError {
    /// PascalCase reason for conditions and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownMetric { .. } => "UnknownMetric",
            Self::NotFinite { .. } => "NotFinite",
            _ => "InvalidExpression",
        }
    }
}

fn known_functions() -> String {
    FUNCTIONS.map(Function::title).join(", ")
}
