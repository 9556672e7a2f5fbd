//! Conditions of statuses, for all modules the same. Pure: the time comes in as an argument.
//!
//! A module says what holds as [`Draft`]s, [`stamp`] makes metav1 conditions of them. The same drafts at the same generation
//! give the conditions that were there before, so that a status without changes can be compared and left unwritten.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message of a condition, in characters: every watcher of the kind gets it with every event.
pub const MAX_MESSAGE: usize = 1024;
/// Remarks that [`listed`] shows.
const MAX_LISTED: usize = 5;

/// What a condition says, before it is known since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Type of the condition.
    pub kind: &'static str,
    /// `True` or `False`; `None`: `Unknown`.
    pub status: Option<bool>,
    /// PascalCase, from a bounded set.
    pub reason: String,
    /// What is wrong and what to change; of any length.
    pub message: String,
}

impl Draft {
    /// A draft.
    pub fn new(kind: &'static str, status: bool, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: Some(status),
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    /// A draft of what is not known.
    pub fn unknown(kind: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            status: None,
            ..Self::new(kind, false, reason, message)
        }
    }

    /// A draft of what was not looked at, because of what `message` says.
    pub fn not_evaluated(kind: &'static str, message: impl Into<String>) -> Self {
        Self::unknown(kind, "NotEvaluated", message)
    }

    /// Whether it says that something is wrong.
    pub fn is_false(&self) -> bool {
        self.status == Some(false)
    }

    fn stamped(self, generation: i64, before: &[Condition], now: Timestamp) -> Condition {
        let status = match self.status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let same = |c: &&Condition| c.type_ == self.kind && c.status == status;
        let since = before.iter().find(same).map(|c| &c.last_transition_time);
        Condition {
            type_: self.kind.to_owned(),
            status: status.to_owned(),
            reason: self.reason,
            message: shorten(&self.message, MAX_MESSAGE),
            observed_generation: Some(generation),
            last_transition_time: since.cloned().unwrap_or_else(|| Time(whole_seconds(now))),
        }
    }
}

/// The conditions of an object at `generation`.
///
/// A condition that has the status that it has in `before` keeps the time from there, whatever its reason and message
/// were; one with another status, or a new one, changes `now`.
pub fn stamp(
    drafts: impl IntoIterator<Item = Draft>,
    generation: i64,
    before: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    drafts
        .into_iter()
        .map(|draft| draft.stamped(generation, before, now))
        .collect()
}

/// Times have whole seconds at an API server: more would never be equal to what comes back.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// At most `max` characters; a longer text ends in `…`.
pub fn shorten(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let kept = text.chars().take(max.saturating_sub(1));
    kept.chain(['…']).collect()
}

/// Several remarks in one message: the first of them, and how many more there are.
pub fn listed<T: AsRef<str>>(remarks: &[T]) -> String {
    let mut shown: Vec<&str> = remarks.iter().take(MAX_LISTED).map(T::as_ref).collect();
    let more = remarks.len().saturating_sub(MAX_LISTED);
    let rest = format!("and {more} more");
    if more > 0 {
        shown.push(&rest);
    }
    shown.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_time_moves_with_the_status_only() {
        let draft = |status, reason: &str| [Draft::new("Ready", status, reason, "m")];
        let first = stamp(draft(true, "A"), 1, &[], at(1));
        let second = stamp(draft(true, "B"), 2, &first, at(9));
        assert_eq!(second[0].last_transition_time.0, at(1));
        assert_eq!(
            (second[0].reason.as_str(), second[0].observed_generation),
            ("B", Some(2))
        );
        let third = stamp(draft(false, "B"), 2, &second, at(9));
        assert_eq!(third[0].last_transition_time.0, at(9));
        let other = [Draft::new("Applied", false, "B", "m")];
        let other = stamp(other, 2, &first, at(5));
        assert_eq!(other[0].last_transition_time.0, at(5), "another type");
    }

    #[test]
    fn fault_l15_what_was_not_looked_at_is_unknown() {
        let made = stamp([Draft::not_evaluated("Applied", "m")], 1, &[], at(1));
        let told = (made[0].status.as_str(), made[0].reason.as_str());
        assert_eq!(told, ("Unknown", "NotEvaluated"));
        let later = stamp([Draft::unknown("Applied", "NoPods", "m")], 2, &made, at(9));
        assert_eq!(later[0].last_transition_time.0, at(1));
    }

    #[test]
    fn times_have_whole_seconds() {
        let now = Timestamp::new(7, 999_999_999).unwrap();
        let made = stamp([Draft::new("Ready", true, "A", "m")], 1, &[], now);
        assert_eq!(made[0].last_transition_time.0, at(7));
    }

    #[test]
    fn messages_are_bounded_in_characters() {
        let draft = |length| [Draft::new("Ready", true, "A", "é".repeat(length))];
        let message = |length| stamp(draft(length), 1, &[], at(1)).remove(0).message;
        assert_eq!(message(MAX_MESSAGE), "é".repeat(MAX_MESSAGE));
        let cut = message(MAX_MESSAGE + 1);
        assert_eq!(cut.chars().count(), MAX_MESSAGE);
        assert!(cut.ends_with("é…"));
        assert_eq!(shorten("abc", 2), "a…");
    }

    #[test]
    fn a_list_says_how_much_it_leaves_out() {
        let remarks = ["a", "b", "c", "d", "e", "f", "g"];
        assert_eq!(listed(&remarks[..0]), "");
        assert_eq!(listed(&remarks[..5]), "a; b; c; d; e");
        assert_eq!(listed(&remarks), "a; b; c; d; e; and 2 more");
    }
}
