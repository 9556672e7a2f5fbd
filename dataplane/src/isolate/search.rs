//! One search: which of the suspects must be left out so that a resource is accepted.

use std::collections::BTreeSet;
use std::time::Instant;

use super::{AggregateKey, Contributors, Words};

/// Suspects that are each left out alone before groups are: nothing is lost meanwhile.
const MOST_SINGLES: usize = 16;
/// Attempts after which the search is given up.
const MOST_ATTEMPTS: u32 = 256;

/// What is being tried.
#[derive(Debug)]
enum Attempt {
    /// Without one suspect, by its place.
    Single(usize),
    /// Without any suspect.
    Without,
    /// With what has been cleared and one group more.
    With(Vec<String>),
}

/// What follows an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another attempt.
    Attempt,
    /// What must be left out, with what proxies say against it.
    Found(Vec<(String, Words)>),
}

/// A search.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) key: AggregateKey,
    /// All objects of the resource.
    pub(super) contributors: Contributors,
    /// What proxies said to the whole.
    pub(super) words: Words,
    pub(super) begun: Instant,
    /// Since when the present attempt is under way.
    pub(super) since: Instant,
    pub(super) attempts: u32,
    /// The latest change first.
    suspects: Vec<String>,
    attempt: Attempt,
    /// Groups that are not tried yet; the last one is next.
    groups: Vec<Vec<String>>,
    cleared: BTreeSet<String>,
    culprits: Vec<(String, Words)>,
}

impl Search {
    pub(super) fn new(
        key: &AggregateKey,
        contributors: &Contributors,
        suspects: &BTreeSet<String>,
        words: &Words,
        now: Instant,
    ) -> Self {
        let suspects = if suspects.is_empty() {
            latest_first(contributors, |_| true)
        } else {
            latest_first(contributors, |object| suspects.contains(object))
        };
        Self {
            key: key.clone(),
            contributors: contributors.clone(),
            words: words.clone(),
            begun: now,
            since: now,
            attempts: 1,
            suspects,
            attempt: Attempt::Single(0),
            groups: Vec::new(),
            cleared: BTreeSet::new(),
            culprits: Vec::new(),
        }
    }

    /// Whether an object is left out in the present attempt.
    pub(super) fn holds(&self, object: &str) -> bool {
        match &self.attempt {
            Attempt::Single(at) => self.suspects.get(*at).is_some_and(|s| s == object),
            Attempt::Without => self.suspects.iter().any(|s| s == object),
            Attempt::With(group) => {
                self.suspects.iter().any(|s| s == object)
                    && !self.cleared.contains(object)
                    && !group.iter().any(|o| o == object)
            }
        }
    }

    /// Whether the search is about these objects: what is left out may be missing, or have an older revision.
    pub(super) fn knows(&self, contributors: &Contributors) -> bool {
        contributors.iter().all(|(object, revision)| {
            self.holds(object) || self.contributors.get(object) == Some(revision)
        })
    }

    /// Whether these are all objects of the resource.
    pub(super) fn is_everyone(&self, culprits: &[(String, Words)]) -> bool {
        culprits.len() == self.contributors.len()
    }

    /// Takes the answer to the present attempt over; `None`: it was accepted.
    pub(super) fn take(&mut self, refused: Option<Words>) -> Next {
        self.attempts += 1;
        let attempt = std::mem::replace(&mut self.attempt, Attempt::Without);
        if self.attempts > MOST_ATTEMPTS {
            return self.give_up();
        }
        match (attempt, refused) {
            (Attempt::Single(at), None) => {
                let latest = self.suspects.get(at).cloned();
                let words = self.words.clone();
                return Next::Found(latest.into_iter().map(|o| (o, words.clone())).collect());
            }
            // While this is refused, proxies keep all that they have.
            (Attempt::Single(at), Some(_)) if at + 1 < self.singles() => {
                self.attempt = Attempt::Single(at + 1);
                return Next::Attempt;
            }
            // Without all of it nothing would be left to refuse.
            (Attempt::Single(_), Some(_)) if self.suspects.len() == self.contributors.len() => {
                self.groups = vec![self.suspects.clone()];
                return self.halve();
            }
            (Attempt::Single(_), Some(_)) if self.suspects.len() > 1 => return Next::Attempt,
            // What was accepted before is refused now.
            (Attempt::Single(_) | Attempt::Without, Some(_)) => {
                self.suspects = latest_first(&self.contributors, |_| true);
                self.groups = vec![self.suspects.clone()];
                return self.halve();
            }
            (Attempt::Without, None) => {
                self.groups = vec![self.suspects.clone()];
                return self.halve();
            }
            (Attempt::With(group), None) => self.cleared.extend(group),
            (Attempt::With(mut group), Some(words)) if group.len() == 1 => {
                let only = group.pop();
                self.culprits.extend(only.map(|object| (object, words)));
            }
            (Attempt::With(group), Some(_)) => {
                self.groups.push(group);
                return self.halve();
            }
        }
        self.go_on()
    }

    /// How many suspects are left out alone: all of few, else the latest.
    fn singles(&self) -> usize {
        if self.suspects.len() <= MOST_SINGLES {
            self.suspects.len()
        } else {
            1
        }
    }

    /// A proxy that refuses whatever it gets says nothing about an object.
    fn give_up(&self) -> Next {
        let all = self.contributors.keys();
        Next::Found(all.map(|o| (o.clone(), self.words.clone())).collect())
    }

    /// Splits the next group, and tries the older half.
    fn halve(&mut self) -> Next {
        if let Some(mut group) = self.groups.pop() {
            let older = group.split_off(group.len() / 2);
            self.groups.push(group);
            self.groups.push(older);
        }
        self.go_on()
    }

    fn go_on(&mut self) -> Next {
        while let Some(group) = self.groups.pop() {
            if !group.is_empty() {
                self.attempt = Attempt::With(group);
                return Next::Attempt;
            }
        }
        Next::Found(std::mem::take(&mut self.culprits))
    }
}

fn latest_first(contributors: &Contributors, of: impl Fn(&String) -> bool) -> Vec<String> {
    let mut out: Vec<(&u64, &String)> = contributors
        .iter()
        .filter(|(object, _)| of(object))
        .map(|(object, revision)| (revision, object))
        .collect();
    out.sort_unstable_by(|a, b| b.cmp(a));
    out.into_iter().map(|(_, object)| object.clone()).collect()
}
