//! The state of each resource at the client, for the admin API.

use super::resource::{Acked, ResourceState};
use super::state::Session;
use crate::info::{Clock, Refusal, ResourceInfo, Stamp};
use crate::table::Table;

impl Session {
    /// Every resource that the client subscribes to or has, sorted by name: O(n log n) in their number.
    pub(crate) fn report(&self, table: &Table, clock: &Clock) -> Vec<ResourceInfo> {
        let info = |name: &str, state: &ResourceState| self.info(name, state, table, clock);
        let mut infos: Vec<ResourceInfo> = self
            .resources
            .iter()
            .map(|(name, state)| info(name, state))
            .collect();
        let baseline = self.baseline.entries(&self.view);
        infos.extend(
            baseline
                .filter(|entry| !self.resources.contains_key(entry.name()))
                .map(|entry| info(entry.name(), &self.baseline_state(entry))),
        );
        infos.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        // A name that several audiences see comes more than once.
        infos.dedup_by(|a, b| a.name == b.name);
        infos
    }

    fn info(
        &self,
        name: &str,
        state: &ResourceState,
        table: &Table,
        clock: &Clock,
    ) -> ResourceInfo {
        let current = table.get(name, &self.view);
        let acked_at = match &state.acked {
            Acked::Response(_) => state.acked_at.map(|at| clock.time(at)),
            Acked::Nothing | Acked::Initial(_) => None,
        };
        ResourceInfo {
            name: name.to_owned(),
            current: current.map(|entry| entry.version().to_owned()),
            sent: state.sent.as_ref().map(|(entry, at)| Stamp {
                version: entry.version().to_owned(),
                at: Some(clock.time(*at)),
            }),
            acked: state.acked.version().map(|version| Stamp {
                version: version.to_owned(),
                at: acked_at,
            }),
            refused: state.refusal.as_ref().map(|refusal| Refusal {
                version: refusal.version.clone(),
                message: refusal.message.clone(),
                at: clock.time(refusal.at),
            }),
        }
    }
}
