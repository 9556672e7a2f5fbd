//! What a session knows about each resource at its client, for the admin view.

use std::sync::Arc;
use std::time::Instant;

use super::{Held, Known, Session};
use crate::table::Table;

/// One resource at one client; times are those that the session was given.
#[derive(Debug)]
pub(crate) struct ResourceState {
    pub(crate) name: Arc<str>,
    /// Version that the client should hold.
    pub(crate) current: Option<String>,
    pub(crate) sent: Option<(String, Instant)>,
    /// The time is missing if the client only announced it when it connected.
    pub(crate) acked: Option<(String, Option<Instant>)>,
    pub(crate) refused: Option<(String, String, Instant)>,
}

impl Session {
    /// Every resource that the client asked for or holds, sorted by name: O(n log n) in their number.
    pub(crate) fn resources(&self, table: &Table) -> Vec<ResourceState> {
        let mut states: Vec<ResourceState> = self
            .known
            .iter()
            .map(|(name, known)| self.state_of(Arc::clone(name), known, table))
            .collect();
        let calm = self.calm.entries(&self.view);
        states.extend(
            calm.filter(|entry| !self.known.contains_key(entry.name()))
                .map(|entry| self.state_of(entry.name().into(), &self.calm_known(entry), table)),
        );
        states.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        // A name that several audiences see comes more than once.
        states.dedup_by(|a, b| a.name == b.name);
        states
    }

    fn state_of(&self, name: Arc<str>, known: &Known, table: &Table) -> ResourceState {
        let current = table.get(&name, &self.view);
        ResourceState {
            current: current.map(|entry| entry.version().to_owned()),
            name,
            sent: known
                .sent
                .as_ref()
                .map(|(entry, at)| (entry.version().to_owned(), *at)),
            acked: match &known.held {
                Held::Nothing => None,
                Held::Announced(version) => Some((version.clone(), None)),
                Held::Has(entry) => Some((entry.version().to_owned(), known.acked)),
            },
            refused: known
                .refusal
                .as_ref()
                .map(|r| (r.version.clone(), r.message.clone(), r.at)),
        }
    }
}
