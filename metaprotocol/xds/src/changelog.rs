//! A bounded, append-only log of which names changed.
//!
//! A stream keeps one number, its cursor, and reads only what came after it. The log drops its oldest entries; a
//! stream whose cursor is older than what is left compares its own subscription with the table instead.

use std::collections::VecDeque;
use std::sync::Arc;

/// Entries kept by default: more than a busy second, yet a few hundred kilobytes at most.
const CAPACITY: usize = 4096;

/// The names that changed, oldest first; a position is a `u64` that never repeats.
#[derive(Debug)]
pub(crate) struct ChangeLog {
    base: u64,
    names: VecDeque<Arc<str>>,
    capacity: usize,
}

impl Default for ChangeLog {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl ChangeLog {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            base: 0,
            names: VecDeque::new(),
            capacity: capacity.max(1),
        }
    }

    /// Position after the newest entry.
    pub(crate) fn head(&self) -> u64 {
        self.base + self.names.len() as u64
    }

    /// Adds names; of more than fit only the last are kept.
    pub(crate) fn extend<'a>(&mut self, names: impl ExactSizeIterator<Item = &'a str>) {
        let skip = names.len().saturating_sub(self.capacity);
        let drop = (self.names.len() + names.len() - skip).saturating_sub(self.capacity);
        self.names.drain(..drop);
        self.base += (drop + skip) as u64;
        self.names.extend(names.skip(skip).map(Arc::from));
    }

    /// The names after `cursor`, or `None` if some of them were dropped.
    pub(crate) fn since(&self, cursor: u64) -> Option<impl Iterator<Item = &Arc<str>>> {
        let skip = usize::try_from(cursor.checked_sub(self.base)?).ok()?;
        Some(self.names.iter().skip(skip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(log: &ChangeLog, cursor: u64) -> Option<Vec<String>> {
        log.since(cursor)
            .map(|names| names.map(ToString::to_string).collect())
    }

    #[test]
    fn a_cursor_sees_only_what_came_after_it() {
        let mut log = ChangeLog::default();
        log.extend(["a"].into_iter());
        let cursor = log.head();
        assert_eq!(since(&log, cursor), Some(vec![]));
        log.extend(["b"].into_iter());
        log.extend(["a"].into_iter());
        assert_eq!(
            since(&log, cursor),
            Some(vec!["b".to_owned(), "a".to_owned()])
        );
    }

    #[test]
    fn a_cursor_before_the_compaction_point_must_rescan() {
        let mut log = ChangeLog::with_capacity(2);
        for name in ["a", "b", "c"] {
            log.extend([name].into_iter());
        }
        assert_eq!(since(&log, 0), None);
        assert_eq!(since(&log, 1), Some(vec!["b".to_owned(), "c".to_owned()]));
        assert_eq!(log.head(), 3, "positions never repeat");
        log.extend(["d", "e", "f"].into_iter());
        assert_eq!((log.head(), since(&log, 3)), (6, None));
        assert_eq!(since(&log, 4), Some(vec!["e".to_owned(), "f".to_owned()]));
    }
}
