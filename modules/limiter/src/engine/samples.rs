//! What samples change: readings of expressions, and ticks of laws.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use trimtab_kit::sources::Samples;

use super::entry::{Brought, Entry, Moved};
use super::{BATCH, Cause, Engine, Pushes, SampleRequests, sample_key};
use crate::index::LimiterKey;

impl Engine {
    /// Takes over the samples of one tick of one source and decides the limiters that they concern.
    pub fn apply_samples(&self, book: &SampleRequests, samples: Samples) {
        let touched = by_owner(samples);
        for batch in touched.chunks(BATCH) {
            let mut pushes = Pushes::default();
            let mut entries = self.entries.lock();
            let settings = self.settings.lock().clone();
            let mut waiting: Vec<(&LimiterKey, Moved)> = Vec::new();
            for (id, of_owner) in batch {
                let Some((key, set)) = book.owners.get(*id) else {
                    continue;
                };
                let Some(entry) = entries.get_mut(key) else {
                    continue;
                };
                let mut moved = Moved::Nothing;
                if !Arc::ptr_eq(&entry.input.settings, &settings) {
                    entry.input.settings = settings.clone();
                    moved = Moved::State;
                }
                let rows = book.sample_requests.get(*id).is_some_and(|r| r.rows);
                moved = moved.max(self.observe(key, set, entry, of_owner, rows));
                match waiting.last_mut() {
                    Some((last, most)) if *last == key => *most = moved.max(*most),
                    _ => waiting.push((key, moved)),
                }
            }
            for (key, moved) in waiting {
                if let Some(entry) = entries.get_mut(key) {
                    self.step(key, entry, Cause::Samples(moved), &mut pushes);
                }
            }
            self.push(pushes);
            drop(entries);
        }
    }

    /// Takes over the samples of one demand. Says what they change.
    fn observe(
        &self,
        key: &LimiterKey,
        set: &str,
        entry: &mut Entry,
        samples: &[Brought],
        for_law: bool,
    ) -> Moved {
        let now = self.clock.monotonic();
        let mut moved = Moved::Nothing;
        let mut cells = self.sampler.lock();
        let sample_key = sample_key(key, set);
        for (name, sample, _) in samples {
            let sample = sample.clone();
            let by = entry.observe(&mut cells, &sample_key, set, name, sample, now);
            moved = moved.max(by);
            entry.forget_optional(set, name);
        }
        drop(cells);
        // Another replica's law decides, and this one's would not know what is in force.
        if for_law && self.leads.load(Ordering::Relaxed) {
            let at = (self.clock.now(), now);
            moved = moved.max(entry.measure(set, samples.to_vec(), at));
        }
        moved
    }
}

/// Samples by the number of their demand.
fn by_owner(samples: Samples) -> Vec<(usize, Vec<Brought>)> {
    let Samples {
        values, mut rows, ..
    } = samples;
    let mut out: BTreeMap<usize, Vec<Brought>> = BTreeMap::new();
    for (key, sample) in values {
        let rows = rows.remove(&key);
        let (id, name) = key;
        let of_owner = out.entry(id.0 as usize).or_default();
        of_owner.push((name, sample, rows));
    }
    out.into_iter().collect()
}
