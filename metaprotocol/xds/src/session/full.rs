//! State of the world for listeners and clusters: a message lists everything, and what it lacks is removed.
//!
//! A refused content must therefore be replaced by the one before, or left out, in every later message. A message that
//! was refused for one of several news is repeated without the one that the client names, or with half of the news,
//! until the bad one is alone. A message costs O(resources that the stream sees), as the protocol demands.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::plan::Verdict;
use super::{Action, Held, Item, Part, Push, Session};
use crate::table::Table;

impl Session {
    pub(super) fn next_full(&mut self, table: &Table, now: Instant) -> Option<Arc<Push>> {
        let (news, removed) = self.drain(table);
        let news = self.choose(news, removed.is_empty());
        if news.is_empty() && removed.is_empty() && !self.greet {
            return None;
        }
        self.greet = false;
        let items = self.everything(news);
        Some(self.dispatch(items, removed, now))
    }

    fn drain(&mut self, table: &Table) -> (Vec<Item>, Vec<Arc<str>>) {
        let mut news = Vec::new();
        let mut removed = Vec::new();
        while let Some(name) = self.queue.pop_front() {
            match self.decide(&name, table) {
                Verdict::Skip => {}
                Verdict::Remove => removed.push(name),
                Verdict::Send {
                    entry,
                    fallback,
                    owed,
                } => news.push(Item {
                    entry,
                    fallback,
                    owed,
                    part: Part::News,
                }),
            }
        }
        (news, removed)
    }

    /// The news of this message; the others wait for the answer to it.
    fn choose(&mut self, news: Vec<Item>, nothing_else: bool) -> Vec<Item> {
        let alone = |item: &Item| self.known.get(item.name()).is_some_and(|known| known.alone);
        let (mut suspects, mut chosen): (Vec<_>, Vec<_>) = news.into_iter().partition(alone);
        let mut later = chosen.split_off(self.trial.min(chosen.len()));
        if chosen.is_empty() && nothing_else && !self.greet && !suspects.is_empty() {
            chosen.push(suspects.remove(0));
        }
        later.append(&mut suspects);
        for item in later.into_iter().rev() {
            self.put_back(self.shared(item.name()), item.owed);
        }
        chosen
    }

    /// The news, and of everything else what the client holds; sorted by name.
    fn everything(&self, news: Vec<Item>) -> Vec<Item> {
        let mut chosen: HashMap<Arc<str>, Item> = news
            .into_iter()
            .map(|item| (self.shared(item.name()), item))
            .collect();
        let held = |known: &super::Known| match &known.held {
            Held::Has(entry) => Some(Arc::clone(entry)),
            _ => None,
        };
        let mut items: Vec<Item> = self
            .known
            .iter()
            .filter_map(|(name, known)| {
                chosen.remove(name).or_else(|| {
                    held(known).map(|entry| Item {
                        entry,
                        fallback: false,
                        owed: false,
                        part: Part::Repeated,
                    })
                })
            })
            .collect();
        items.sort_unstable_by(|a, b| a.entry.key().cmp(b.entry.key()));
        items
    }

    /// A refused message with more than one difference: the next ones find out which was bad.
    pub(super) fn suspect(&mut self, push: &Push, message: &str) {
        let news: Vec<&Item> = push.items.iter().filter(|item| item.is_fresh()).collect();
        let named: Vec<bool> = news
            .iter()
            .map(|item| mentions(message, item.name()))
            .collect();
        self.unsure = true;
        let hinted = named.iter().any(|named| *named);
        for (item, named) in news.iter().zip(&named) {
            if let Some(known) = self.known.get_mut(item.name()) {
                known.alone |= *named || news.len() == 1;
                // It may have been applied or not: only an acknowledged message can tell.
                known.owed = true;
            }
        }
        if !hinted {
            self.trial = (news.len() / 2).max(1);
        }
    }

    pub(super) fn widen_trial(&mut self) {
        self.trial = self.trial.saturating_mul(2);
    }

    /// Files the refusal of a full message.
    pub(super) fn reject_full(&mut self, push: &Push, message: String, actions: &mut Vec<Action>) {
        let mut news = push.items.iter().filter(|item| item.is_fresh());
        // What was left out may still be held: a message without anything new must be accepted to be sure.
        self.unsure |= !push.removed.is_empty();
        self.greet |= self.unsure && push.items.iter().any(Item::is_fresh);
        match (news.next(), news.next()) {
            (None, _) => {
                let name = match push.removed.as_slice() {
                    [only] => Some(only.to_string()),
                    _ => None,
                };
                actions.push(Action::RejectedEmpty {
                    name,
                    version: push.version.clone(),
                    message,
                });
            }
            (Some(item), None) if push.removed.is_empty() => {
                self.widen_trial();
                if item.fallback {
                    self.reject_fallback(item, message, actions);
                } else {
                    self.reject_one(item, message, actions);
                }
            }
            _ => {
                self.suspect(push, &message);
                self.greet = true;
            }
        }
    }
}

/// Whether a text of Envoy speaks of this resource, as in `Error adding/updating listener(s) NAME: reason`. It only
/// decides the order of the attempts, so a mistake costs a message and nothing else.
fn mentions(message: &str, name: &str) -> bool {
    if name.is_empty() {
        return false;
    }
    let part = |c: char| c.is_alphanumeric() || "_-./|~".contains(c);
    message.match_indices(name).any(|(start, found)| {
        let before = message
            .get(..start)
            .and_then(|text| text.chars().next_back());
        let after = message
            .get(start + found.len()..)
            .and_then(|text| text.chars().next());
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    use super::mentions;

    #[test]
    fn a_name_counts_only_as_a_whole_word() {
        let text = "Error adding/updating listener(s) shop: bad address, outbound|80||a.b: no";
        assert!(mentions(text, "shop"));
        assert!(mentions(text, "outbound|80||a.b"));
        assert!(!mentions(text, "outbound|80||a"));
        assert!(!mentions(text, "sho"));
        assert!(!mentions(text, ""));
        assert!(
            !mentions("ünlike", "nlike"),
            "letters of other scripts are letters"
        );
    }
}
