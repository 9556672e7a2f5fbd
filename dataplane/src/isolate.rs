//! Which object makes proxies refuse a resource that is made of several. Pure.
//!
//! A proxy refuses a resource as a whole: of ten services with one route configuration, one bad route stops the changes of
//! all ten. So the one that it is gets left out. What has changed since the resource was accepted last is suspected:
//! first each of them alone is left out, the latest change first; if that is not enough, all of them are, and then halves of
//! them come back, the older ones first, so that of two that cannot be together the later one is blamed. Whatever was
//! accepted before stays in place throughout.
//!
//! An object that was left out is tried again when it changes, and after a pause.

mod search;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use search::{Next, Search};

/// Type URL, name, and the group of proxies that the variant is for; empty: all others.
pub(super) type AggregateKey = (String, String, String);
/// Objects as `Kind namespace/name`, with the number of their last change: a later one has a higher number.
pub(super) type Contributors = BTreeMap<String, u64>;

/// How long proxies may take to answer an attempt.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long others may take to answer what one has refused.
const CONTEST: Duration = Duration::from_secs(1);
/// Pause before the next attempt when the cause may pass by itself.
const PASSING: Duration = Duration::from_secs(30);
/// Pause before the next attempt otherwise: something else may have changed, as the version of the proxies.
const LASTING: Duration = Duration::from_secs(600);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(3600);
/// Pause once no proxy is connected any more that has refused the object.
const GONE: Duration = Duration::from_secs(5);

/// What proxies say to the present content of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is no such resource, or nobody has asked for it.
    Nobody,
    /// Proxies have not answered yet.
    Waits,
    /// A proxy has it.
    Accepted,
    /// Nobody has it, these refuse it, and others have not answered yet.
    Contested(Words),
    /// Nobody has it, and these refuse it.
    Refused(Words),
}

/// What a proxy says against a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// Its node id.
    pub(super) node: String,
    /// Its message.
    pub(super) message: String,
    /// Streams that refuse it.
    pub(super) streams: BTreeSet<u64>,
}

/// A resource as it is served.
#[derive(Clone, Debug)]
pub(super) struct Aggregate {
    pub(super) contributors: Contributors,
    pub(super) verdict: Verdict,
}

/// An object that proxies refuse.
#[derive(Clone, Debug)]
struct Excluded {
    revision: u64,
    key: AggregateKey,
    words: Words,
    retry: Instant,
    attempts: u32,
    /// It is served again to see whether it is accepted now.
    trying: bool,
}

/// The search for what proxies refuse.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    excluded: BTreeMap<String, Excluded>,
    /// What is refused although nothing can be left out: one object alone, or a cause that all have in common.
    shared: BTreeMap<AggregateKey, (Contributors, Words)>,
    search: Option<Search>,
    /// Resources that some refuse and others have not answered, and since when.
    contested: BTreeMap<AggregateKey, Instant>,
    /// Revisions that were accepted together.
    accepted: BTreeMap<AggregateKey, Contributors>,
}

/// What a step has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Other objects are left out than before.
    pub(super) changed: bool,
    /// Objects that are left out now, with what proxies say, attempts and the time that it took.
    pub(super) culprits: Vec<(String, Words, u32, Duration)>,
}

impl Isolation {
    /// Whether an object is left out at this revision.
    pub(super) fn holds(&self, object: &str, revision: u64) -> bool {
        let excluded = self.excluded.get(object);
        let searched = self.search.as_ref().is_some_and(|s| s.holds(object));
        searched || excluded.is_some_and(|e| e.revision == revision && !e.trying)
    }

    /// Resources to look at besides those that are refused.
    pub(super) fn interest(&self) -> BTreeSet<AggregateKey> {
        let trying = self.excluded.values().filter(|e| e.trying);
        let searched = self.search.iter().map(|s| &s.key);
        let keys = trying.map(|e| &e.key).chain(searched);
        keys.chain(self.shared.keys()).cloned().collect()
    }

    /// When something is due without an answer of a proxy.
    pub(super) fn due(&self) -> Option<Instant> {
        let pauses = self.excluded.values().filter(|e| !e.trying);
        let ends = self.search.iter().map(|s| s.since + PATIENCE);
        let contests = self.contested.values().map(|since| *since + CONTEST);
        pauses.map(|e| e.retry).chain(ends).chain(contests).min()
    }

    /// Whether any answer of a proxy may count.
    pub(super) fn is_waiting(&self) -> bool {
        let left_out = !self.excluded.is_empty();
        self.search.is_some() || left_out || !self.shared.is_empty() || !self.contested.is_empty()
    }

    /// Objects that proxies refuse, with their words.
    pub(super) fn blamed(&self) -> BTreeMap<String, Words> {
        let mut out = BTreeMap::new();
        for (contributors, words) in self.shared.values() {
            // What others add to a service is not to blame for its address or its server.
            let is_service = |object: &&String| object.starts_with("Service");
            let none = !contributors.keys().any(|o| is_service(&o));
            let blamed = contributors.keys().filter(|o| none || is_service(o));
            out.extend(blamed.map(|o| (o.clone(), words.clone())));
        }
        let excluded = self.excluded.iter();
        out.extend(excluded.map(|(o, e)| (o.clone(), e.words.clone())));
        out
    }

    /// Proxies have accepted a resource with these contributors.
    pub(super) fn accept(&mut self, key: &AggregateKey, contributors: Contributors) {
        self.accepted.insert(key.clone(), contributors);
    }

    /// Takes over what proxies say. `revisions` are all objects that there are, `aggregates` the resources of
    /// [`Self::interest`] and those that are refused, and `alive` tells which streams are open.
    pub(super) fn step(
        &mut self,
        revisions: &Contributors,
        aggregates: &BTreeMap<AggregateKey, Aggregate>,
        alive: &dyn Fn(u64) -> bool,
        now: Instant,
    ) -> Found {
        let aggregates = &self.decided(aggregates, now);
        let mut found = Found {
            changed: self.forget(revisions, aggregates),
            culprits: Vec::new(),
        };
        self.advance(aggregates, now, &mut found);
        if self.search.is_none() {
            found.changed |= self.retry(alive, now);
            found.changed |= self.begin(aggregates, now);
        }
        found
    }

    /// With a verdict where some refuse and others take too long to answer.
    fn decided(
        &mut self,
        aggregates: &BTreeMap<AggregateKey, Aggregate>,
        now: Instant,
    ) -> BTreeMap<AggregateKey, Aggregate> {
        let mut out = aggregates.clone();
        let mut contested = BTreeMap::new();
        for (key, aggregate) in &mut out {
            let Verdict::Contested(words) = &aggregate.verdict else {
                continue;
            };
            let since = self.contested.get(key).copied().unwrap_or(now);
            if now < since + CONTEST {
                contested.insert(key.clone(), since);
                aggregate.verdict = Verdict::Waits;
            } else {
                aggregate.verdict = Verdict::Refused(words.clone());
            }
        }
        self.contested = contested;
        out
    }

    /// Drops what does not hold any more.
    fn forget(
        &mut self,
        revisions: &Contributors,
        aggregates: &BTreeMap<AggregateKey, Aggregate>,
    ) -> bool {
        let before = self.excluded.len();
        // An object that is tried again and that nobody refuses is well again.
        let accepted = |e: &Excluded, object: &String| {
            let aggregate = aggregates.get(&e.key);
            let taken = aggregate.is_none_or(|a| match a.verdict {
                Verdict::Accepted => a.contributors.get(object) == Some(&e.revision),
                Verdict::Nobody => true,
                _ => false,
            });
            e.trying && taken
        };
        self.excluded
            .retain(|object, e| revisions.get(object) == Some(&e.revision) && !accepted(e, object));
        self.shared.retain(|key, (contributors, _)| {
            let now = aggregates.get(key);
            now.is_some_and(|a| {
                let refused = matches!(a.verdict, Verdict::Refused(_) | Verdict::Waits);
                refused && a.contributors == *contributors
            })
        });
        before != self.excluded.len()
    }

    /// Goes on with the search, if proxies have answered or will not.
    fn advance(
        &mut self,
        aggregates: &BTreeMap<AggregateKey, Aggregate>,
        now: Instant,
        found: &mut Found,
    ) {
        let Some(mut search) = self.search.take() else {
            return;
        };
        let aggregate = aggregates.get(&search.key);
        let is_current = aggregate.is_none_or(|a| search.knows(&a.contributors));
        let verdict = aggregate.map_or(&Verdict::Nobody, |a| &a.verdict);
        let refused = match verdict {
            _ if !is_current => {
                // An object has changed: what was found so far may be about something else.
                found.changed = true;
                return;
            }
            Verdict::Waits if now < search.since + PATIENCE => {
                self.search = Some(search);
                return;
            }
            Verdict::Waits => {
                found.changed = true;
                return;
            }
            Verdict::Refused(words) => Some(words.clone()),
            // Without a resource there is nothing to refuse.
            Verdict::Accepted | Verdict::Nobody | Verdict::Contested(_) => None,
        };
        if let (None, Some(aggregate)) = (&refused, aggregate) {
            self.accept(&search.key, aggregate.contributors.clone());
        }
        found.changed = true;
        match search.take(refused) {
            Next::Attempt => {
                search.since = now;
                self.search = Some(search);
            }
            Next::Found(culprits) if search.is_everyone(&culprits) => {
                let words = search.words.clone();
                self.shared.insert(search.key, (search.contributors, words));
            }
            Next::Found(culprits) => {
                for (object, words) in culprits {
                    let took = now.saturating_duration_since(search.begun);
                    found
                        .culprits
                        .push((object.clone(), words.clone(), search.attempts, took));
                    self.exclude(object, &search, words, now);
                }
            }
        }
    }

    fn exclude(&mut self, object: String, search: &Search, words: Words, now: Instant) {
        let Some(revision) = search.contributors.get(&object).copied() else {
            return;
        };
        let before = self.excluded.get(&object);
        let attempts = before.map_or(0, |e| e.attempts + 1);
        let first = if passes(&words.message) {
            PASSING
        } else {
            LASTING
        };
        let pause = first.saturating_mul(1 << attempts.min(7)).min(LONGEST);
        let excluded = Excluded {
            revision,
            key: search.key.clone(),
            words,
            retry: now + pause,
            attempts,
            trying: false,
        };
        self.excluded.insert(object, excluded);
    }

    /// Serves objects again whose pause is over.
    fn retry(&mut self, alive: &dyn Fn(u64) -> bool, now: Instant) -> bool {
        let mut any = false;
        for excluded in self.excluded.values_mut().filter(|e| !e.trying) {
            if !excluded.words.streams.iter().any(|s| alive(*s)) {
                excluded.retry = excluded.retry.min(now + GONE);
            }
            if excluded.retry <= now {
                excluded.trying = true;
                any = true;
            }
        }
        any
    }

    /// Begins a search in the first resource that is refused and can be searched.
    fn begin(&mut self, aggregates: &BTreeMap<AggregateKey, Aggregate>, now: Instant) -> bool {
        for (key, aggregate) in aggregates {
            let Verdict::Refused(words) = &aggregate.verdict else {
                continue;
            };
            if self.shared.contains_key(key) {
                continue;
            }
            let all = &aggregate.contributors;
            // What does not depend on the content is not found by leaving something out.
            if all.len() < 2 || passes(&words.message) {
                let entry = (all.clone(), words.clone());
                self.shared.insert(key.clone(), entry);
                continue;
            }
            let good = self.accepted.get(key);
            let is_good =
                |object: &&String| good.is_some_and(|g| g.get(*object) == all.get(*object));
            let suspects: BTreeSet<String> = all.keys().filter(|o| !is_good(o)).cloned().collect();
            self.search = Some(Search::new(key, all, &suspects, words, now));
            return true;
        }
        false
    }
}

/// Whether the cause of a refusal may pass without a change of the objects.
fn passes(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    [
        "address already in use",
        "cannot assign requested address",
        "cannot bind",
        "permission denied",
    ]
    .iter()
    .any(|cause| message.contains(cause))
}
