//! What proxies say to the resources that are served, and which objects those are made of.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use trimtab_kit::answers::{Answers, Part};
use trimtab_xds::EDS;

use crate::Snapshot;
use crate::isolate::{Aggregate, AggregateKey, Contributors, Verdict, Words};
use crate::objects::Chosen;

/// One resource of the snapshot.
struct Resource {
    part: Part,
    /// Versions that other proxies are served under the same name.
    others: BTreeSet<String>,
    contributors: Contributors,
    verdict: OnceCell<Verdict>,
}

/// All resources of a snapshot with what proxies say to them.
pub(super) struct Verdicts<'a> {
    answers: &'a Answers,
    resources: BTreeMap<AggregateKey, Resource>,
}

impl<'a> Verdicts<'a> {
    pub(super) fn new(
        snapshot: Option<&Snapshot>,
        chosen: Option<&Chosen>,
        answers: &'a Answers,
    ) -> Self {
        let mut resources = BTreeMap::new();
        let mut versions: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
        let all: Vec<_> = snapshot
            .into_iter()
            .flat_map(Snapshot::aggregates)
            .collect();
        for ((type_url, name, _), item) in &all {
            let known = versions
                .entry((type_url.as_str(), name.as_str()))
                .or_default();
            known.insert(item.version().to_owned());
        }
        for (key, item) in &all {
            let (type_url, name, _) = key;
            let mut others = versions
                .get(&(type_url.as_str(), name.as_str()))
                .cloned()
                .unwrap_or_default();
            others.remove(item.version());
            let contributors = chosen.map(|c| c.contributors(type_url, &item.hosts));
            let resource = Resource {
                part: Part::new(type_url, name, item.version()),
                others,
                contributors: contributors.unwrap_or_default(),
                verdict: OnceCell::new(),
            };
            resources.insert(key.clone(), resource);
        }
        Self { answers, resources }
    }

    fn verdict<'b>(&self, resource: &'b Resource) -> &'b Verdict {
        resource.verdict.get_or_init(|| self.look(resource))
    }

    fn look(&self, resource: &Resource) -> Verdict {
        let outcome = self.answers.of([&resource.part]);
        if outcome.holding > 0 {
            return Verdict::Accepted;
        }
        let elsewhere = if resource.others.is_empty() {
            0
        } else {
            self.answers.about(&Part {
                versions: resource.others.clone(),
                ..resource.part.clone()
            })
        };
        let waiting = (outcome.proxies - outcome.refusing).saturating_sub(elsewhere);
        match outcome.words {
            Some(words) if outcome.refusing > 0 => {
                let words = Words {
                    node: words.node,
                    message: words.message,
                    streams: outcome.streams,
                };
                if waiting > 0 {
                    Verdict::Contested(words)
                } else {
                    Verdict::Refused(words)
                }
            }
            _ if waiting > 0 => Verdict::Waits,
            _ => Verdict::Nobody,
        }
    }

    /// What resources that proxies have accepted are made of.
    pub(super) fn accepted(&self) -> impl Iterator<Item = (&AggregateKey, Contributors)> {
        let all = self.resources.iter();
        all.filter(|(_, r)| *self.verdict(r) == Verdict::Accepted)
            .map(|(key, r)| (key, r.contributors.clone()))
    }

    /// Objects of which proxies have accepted all that is made of them.
    pub(super) fn good(&self) -> BTreeSet<String> {
        let (mut good, mut bad) = (BTreeSet::new(), BTreeSet::new());
        for resource in self.resources.values() {
            match self.verdict(resource) {
                Verdict::Nobody => {}
                Verdict::Accepted => good.extend(resource.contributors.keys()),
                _ => bad.extend(resource.contributors.keys()),
            }
        }
        good.difference(&bad).map(|o| (*o).clone()).collect()
    }

    /// Resources that are refused, or are asked for.
    pub(super) fn interesting(
        &self,
        keys: &BTreeSet<AggregateKey>,
    ) -> BTreeMap<AggregateKey, Aggregate> {
        let all = self.resources.iter();
        let some = all.filter(|(key, resource)| {
            let refused = |v: &Verdict| matches!(v, Verdict::Refused(_) | Verdict::Contested(_));
            keys.contains(*key) || refused(self.verdict(resource))
        });
        some.map(|(key, resource)| {
            let aggregate = Aggregate {
                contributors: resource.contributors.clone(),
                verdict: self.verdict(resource).clone(),
            };
            (key.clone(), aggregate)
        })
        .collect()
    }
}

/// The resources that each object has a part in, endpoints aside: they come and go with the servers.
pub(super) fn parts(
    snapshot: Option<&Snapshot>,
    chosen: Option<&Chosen>,
) -> BTreeMap<String, Vec<Part>> {
    let mut out: BTreeMap<String, BTreeMap<(String, String), Part>> = BTreeMap::new();
    let (Some(snapshot), Some(chosen)) = (snapshot, chosen) else {
        return BTreeMap::new();
    };
    for ((type_url, name, _), item) in snapshot.aggregates() {
        if type_url == EDS {
            continue;
        }
        for object in chosen.contributors(&type_url, &item.hosts).into_keys() {
            let parts = out.entry(object).or_default();
            let part = parts
                .entry((type_url.clone(), name.clone()))
                .or_insert_with(|| Part::new(&type_url, &name, item.version()));
            part.versions.insert(item.version().to_owned());
        }
    }
    out.into_iter()
        .map(|(object, parts)| (object, parts.into_values().collect()))
        .collect()
}
