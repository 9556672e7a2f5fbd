//! Answers by resource and stream.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use trimtab_xds::{Culprit, Delivery, NodeInfo};
use xxhash_rust::xxh3::xxh3_64;

use super::{Answer, Changed, Outcome, Part, Programmed, ResourceKey, Words};

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Hash of the version.
    pub(super) version: u64,
    pub(super) words: Arc<str>,
    /// It is this resource that is bad.
    pub(super) sure: bool,
}

/// What a stream said last to one resource; versions as hashes, since there is one of these for each that a proxy has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) holds: Option<u64>,
    pub(super) refuses: Option<Box<Refused>>,
}

#[derive(Debug)]
struct Stream {
    node: Arc<str>,
    resources: HashSet<Arc<ResourceKey>>,
}

/// All answers.
#[derive(Debug, Default)]
pub(super) struct Book {
    said: HashMap<Arc<ResourceKey>, BTreeMap<u64, Said>>,
    streams: HashMap<u64, Stream>,
    pub(super) programmed: Programmed,
    /// Objects by the resources that they have a part in.
    objects: HashMap<ResourceKey, BTreeSet<String>>,
    changed: Changed,
}

fn hash(version: &str) -> u64 {
    xxh3_64(version.as_bytes())
}

impl Book {
    pub(super) fn is_open(&self, stream: u64) -> bool {
        self.streams.contains_key(&stream)
    }

    pub(super) fn program(&mut self, programmed: Programmed) {
        let before = std::mem::replace(&mut self.programmed, programmed);
        let Programmed { parts, blamed } = &self.programmed;
        let blame = before.blamed.keys().chain(blamed.keys());
        let changed = blame.filter(|o| before.blamed.get(*o) != blamed.get(*o));
        let part = before.parts.keys().chain(parts.keys());
        let changed = changed.chain(part.filter(|o| before.parts.get(*o) != parts.get(*o)));
        self.changed.objects.extend(changed.cloned());
        self.objects.clear();
        for (object, parts) in parts {
            for part in parts {
                let key = (part.type_url.clone(), part.name.clone());
                self.objects.entry(key).or_default().insert(object.clone());
            }
        }
    }

    pub(super) fn changed(&mut self) -> Changed {
        let mut out = std::mem::take(&mut self.changed);
        let objects = out.resources.iter().filter_map(|key| self.objects.get(key));
        out.objects.extend(objects.flatten().cloned());
        out
    }

    pub(super) fn about(&self, part: &Part) -> usize {
        let versions: Vec<u64> = part.versions.iter().map(|v| hash(v)).collect();
        let key = (part.type_url.clone(), part.name.clone());
        let said = self.said.get(&key).into_iter().flatten();
        said.filter(|(_, said)| {
            let refused = said.refuses.as_ref().map(|r| r.version);
            let mut about = [said.holds, refused].into_iter().flatten();
            about.any(|v| versions.contains(&v))
        })
        .count()
    }

    pub(super) fn of<'a>(&self, parts: impl IntoIterator<Item = &'a Part>) -> Outcome {
        // By node and type, what each stream says.
        let mut all: BTreeMap<&str, BTreeMap<&str, BTreeMap<u64, Answer<'_>>>> = BTreeMap::new();
        for part in parts {
            let key = (part.type_url.clone(), part.name.clone());
            let versions: Vec<u64> = part.versions.iter().map(|v| hash(v)).collect();
            for (stream, said) in self.said.get(&key).into_iter().flatten() {
                let Some(known) = self.streams.get(stream) else {
                    continue;
                };
                let of_node = all.entry(&known.node).or_default();
                let of_type = of_node.entry(&part.type_url).or_default();
                let answer = said.answer(&versions);
                let worst = of_type.entry(*stream).or_insert(answer);
                *worst = answer.max(*worst);
            }
        }
        let mut out = Outcome::default();
        for (node, types) in all {
            let most = types.values().map(BTreeMap::len).max().unwrap_or_default();
            for place in 0..most {
                let of_proxy = types.values().filter_map(|t| t.iter().nth(place));
                out.add(node, of_proxy);
            }
        }
        out
    }

    /// Takes an answer over; false if it says nothing new.
    pub(super) fn take(&mut self, answer: &Delivery) -> bool {
        match answer {
            Delivery::Acked {
                stream,
                node,
                type_url,
                name,
                version,
                ..
            } => {
                let said = self.entry(*stream, node, type_url, name);
                let version = hash(version);
                let new = Said {
                    holds: Some(version),
                    refuses: said.refuses.take().filter(|r| r.version != version),
                };
                *said = new;
                true
            }
            Delivery::Nacked {
                stream,
                node,
                type_url,
                name: Some(name),
                version,
                message,
                culprit,
                ..
            } => {
                let refused = Refused {
                    version: hash(version),
                    words: message.as_str().into(),
                    sure: *culprit == Culprit::Known,
                };
                let said = self.entry(*stream, node, type_url, name);
                said.refuses = Some(Box::new(refused));
                true
            }
            // No content is to blame.
            Delivery::Nacked { .. } => false,
            Delivery::Left {
                stream,
                type_url,
                name,
                ..
            } => self.leave(*stream, &(type_url.clone(), name.clone())),
            Delivery::Closed { stream, .. } => self.close(*stream),
        }
    }

    /// What a stream said to a resource, which will be changed.
    fn entry(&mut self, stream: u64, node: &str, type_url: &str, name: &str) -> &mut Said {
        let key = (type_url.to_owned(), name.to_owned());
        self.changed.resources.insert(key.clone());
        let known = self.said.get_key_value(&key);
        let key = known.map_or_else(|| Arc::new(key), |(key, _)| key.clone());
        let open = self.streams.entry(stream).or_insert_with(|| Stream {
            node: node.into(),
            resources: HashSet::new(),
        });
        open.resources.insert(key.clone());
        self.said.entry(key).or_default().entry(stream).or_default()
    }

    fn leave(&mut self, stream: u64, key: &ResourceKey) -> bool {
        let known = self.streams.get_mut(&stream);
        if !known.is_some_and(|s| s.resources.remove(key)) {
            return false;
        }
        self.unsay(stream, key);
        true
    }

    fn unsay(&mut self, stream: u64, key: &ResourceKey) {
        self.changed.resources.insert(key.clone());
        if let Some(said) = self.said.get_mut(key) {
            said.remove(&stream);
            if said.is_empty() {
                self.said.remove(key);
            }
        }
    }

    fn close(&mut self, stream: u64) -> bool {
        let Some(closed) = self.streams.remove(&stream) else {
            return false;
        };
        for key in &closed.resources {
            self.unsay(stream, key);
        }
        true
    }

    pub(super) fn recount(&mut self, nodes: &[NodeInfo]) {
        let pending = std::mem::take(&mut self.changed.resources);
        let before = std::mem::take(&mut self.said);
        self.streams.clear();
        for node in nodes {
            for subscription in &node.subscriptions {
                for resource in &subscription.resources {
                    // What there is not for a proxy it need not have.
                    if resource.current.is_none() && resource.acked.is_none() {
                        continue;
                    }
                    let stream = subscription.stream;
                    let said = self.entry(stream, &node.id, &subscription.type_url, &resource.name);
                    said.holds = resource.acked.as_ref().map(|s| hash(&s.version));
                    said.refuses = resource.refused.as_ref().map(|r| {
                        Box::new(Refused {
                            version: hash(&r.version),
                            words: r.message.as_str().into(),
                            sure: r.culprit == Culprit::Known,
                        })
                    });
                }
            }
        }
        // Only what differs is a change.
        let said = &self.said;
        let differs = |key: &ResourceKey| before.get(key) != said.get(key);
        let known = before.keys().chain(said.keys()).filter(|key| differs(key));
        let changed: BTreeSet<ResourceKey> = known.map(|key| key.as_ref().clone()).collect();
        self.changed.resources = pending;
        self.changed.resources.extend(changed);
    }
}

impl Outcome {
    /// Adds what the streams of one proxy say.
    fn add<'a>(&mut self, node: &str, streams: impl Iterator<Item = (&'a u64, &'a Answer<'a>)>) {
        let mut worst = Answer::Holds;
        for (stream, answer) in streams {
            worst = worst.max(*answer);
            if matches!(answer, Answer::Refuses(_)) {
                self.streams.insert(*stream);
            }
        }
        self.proxies += 1;
        let words = match worst {
            Answer::Holds => {
                self.holding += 1;
                return;
            }
            Answer::Waits => return,
            Answer::Suspects(words) => {
                self.suspecting += 1;
                words
            }
            Answer::Refuses(words) => {
                self.refusing += 1;
                words
            }
        };
        // A proxy that is sure says more.
        if self.words.is_none() || (matches!(worst, Answer::Refuses(_)) && self.refusing == 1) {
            self.words = Some(Words {
                node: node.to_owned(),
                message: words.to_owned(),
            });
        }
    }
}
