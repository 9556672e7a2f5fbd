//! What is wrong with a user's object, for all modules the same: which field, and what to change. Pure.

use std::fmt;

use serde::Serialize;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The object as `Kind namespace/name`; empty: the one that the problem was found in, which is told beside it.
    pub object: String,
    /// Path of the field, e.g. `spec.routes[0].match.attributes.method`.
    pub field: String,
    /// PascalCase, bounded: condition reason, event reason, metric label.
    pub reason: &'static str,
    /// What is wrong and what to change.
    pub message: String,
}

impl Problem {
    /// A problem of `field` of `object`.
    pub fn new(
        object: impl fmt::Display,
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            object: object.to_string(),
            field: field.into(),
            reason,
            message: message.into(),
        }
    }

    /// A problem of `field` of the only object that is looked at.
    pub fn of_field(
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self::new("", field, reason, message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.object.is_empty() {
            write!(f, "{}: ", self.object)?;
        }
        write!(f, "{}: {}", self.field, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_told_where_it_is_known() {
        let problem = Problem::new("Service shop/web", "spec.ports", "NoPorts", "add one");
        assert_eq!(problem.to_string(), "Service shop/web: spec.ports: add one");
        let problem = Problem::of_field("spec.ports", "NoPorts", "add one");
        assert_eq!(problem.to_string(), "spec.ports: add one");
    }
}
