//! What proxies said to resources: from each of their answers, and now and then from the server's own books, which know
//! who has gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use trimtab_xds::{Delivery, NodeInfo};

use super::{Engine, ResourceKey};
use crate::object::ObjectKey;
use crate::status::Answer;

/// What a proxy said last to one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    holds: Option<String>,
    /// Version and words.
    refuses: Option<(String, String)>,
}

/// Answers by resource and node.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    said: HashMap<ResourceKey, BTreeMap<String, Said>>,
    /// Resources with answers that no status tells of yet.
    fresh: BTreeSet<ResourceKey>,
}

impl Proxies {
    pub(super) fn forget(&mut self, key: &ResourceKey) {
        self.said.remove(key);
        self.fresh.remove(key);
    }

    /// By node, what it said to the present `versions` of some resources.
    pub(super) fn answers<'a>(
        &self,
        versions: impl Iterator<Item = (&'a ResourceKey, String)>,
    ) -> BTreeMap<String, Answer> {
        let mut out: BTreeMap<String, Answer> = BTreeMap::new();
        for (key, version) in versions {
            for (node, said) in self.said.get(key).into_iter().flatten() {
                let answer = match (&said.refuses, &said.holds) {
                    (Some((refused, words)), _) if *refused == version => {
                        Answer::Refuses(words.clone())
                    }
                    (_, Some(held)) if *held == version => Answer::Holds,
                    _ => Answer::Waits,
                };
                let worse = match (out.get(node), &answer) {
                    (None, _) | (_, Answer::Refuses(_)) => true,
                    (Some(Answer::Holds), other) => *other != Answer::Holds,
                    _ => false,
                };
                if worse {
                    out.insert(node.clone(), answer);
                }
            }
        }
        out
    }
}

impl Engine {
    /// Takes one answer over. Statuses follow with [`Engine::flush`], so that a roll-out is not a write for each proxy.
    pub(super) fn answered(&self, delivery: Delivery) {
        let mut inner = self.inner.lock();
        match delivery {
            Delivery::Acked {
                node,
                type_url,
                name,
                version,
                ..
            } => {
                let key = (type_url, name);
                if !inner.resources.contains_key(&key) {
                    return;
                }
                let proxies = &mut inner.proxies;
                let said = proxies.said.entry(key.clone()).or_default();
                let said = said.entry(node).or_default();
                said.refuses.take_if(|(refused, _)| *refused == version);
                said.holds = Some(version);
                proxies.fresh.insert(key);
            }
            Delivery::Nacked {
                node,
                type_url,
                name: Some(name),
                version,
                message,
                origin,
                ..
            } => {
                let key = (type_url, name);
                if !inner.resources.contains_key(&key) {
                    return;
                }
                tracing::warn!(%node, object = %origin, %message, "a proxy refused routes and keeps the last good ones");
                let proxies = &mut inner.proxies;
                let said = proxies.said.entry(key.clone()).or_default();
                said.entry(node).or_default().refuses = Some((version, message));
                proxies.fresh.insert(key);
            }
            Delivery::Nacked {
                node,
                type_url,
                message,
                ..
            } => {
                tracing::warn!(%node, %type_url, %message, "a proxy refused a response and does not say for which resource");
            }
            Delivery::Left { .. } | Delivery::Closed { .. } => {}
        }
    }

    /// Takes the server's books over: they also know who has gone, and what was missed.
    pub(super) fn recount(&self, nodes: &[NodeInfo]) {
        let mut now: HashMap<ResourceKey, BTreeMap<String, Said>> = HashMap::new();
        let mut inner = self.inner.lock();
        for node in nodes {
            for subscription in &node.subscriptions {
                for resource in &subscription.resources {
                    let key = (subscription.type_url.clone(), resource.name.clone());
                    if !inner.resources.contains_key(&key) {
                        continue;
                    }
                    let refuses = resource.refused.as_ref();
                    let said = Said {
                        holds: resource.acked.as_ref().map(|s| s.version.clone()),
                        refuses: refuses.map(|r| (r.version.clone(), r.message.clone())),
                    };
                    now.entry(key).or_default().insert(node.id.clone(), said);
                }
            }
        }
        let proxies = &mut inner.proxies;
        let keys = proxies.said.keys().chain(now.keys());
        let changed: Vec<ResourceKey> = keys
            .filter(|k| proxies.said.get(*k) != now.get(*k))
            .cloned()
            .collect();
        proxies.fresh.extend(changed);
        proxies.said = now;
    }

    /// Has the statuses written that answers have changed.
    pub(super) fn flush(&self) {
        let mut inner = self.inner.lock();
        let fresh = std::mem::take(&mut inner.proxies.fresh);
        let hosts: BTreeSet<String> = fresh
            .iter()
            .filter_map(|k| inner.resources.get(k).cloned())
            .collect();
        let objects: BTreeSet<ObjectKey> = hosts
            .iter()
            .filter_map(|h| inner.hosts.get(h))
            .flat_map(|h| h.objects.iter().cloned())
            .collect();
        drop(inner);
        for object in objects {
            self.queue.push(super::WorkItem::Status(object));
        }
    }
}
