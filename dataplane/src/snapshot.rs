//! What every proxy is served: most of them all, and those of some pods a part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use trimtab_kit::problem::Problem;
use trimtab_xds::{Audience, CDS, EDS, Scope, Scoped, Update};

use crate::fallback::{FALLBACK_GROUP, FallbackPath};
use crate::input::{FallbackInput, Listen, PodInput, StandaloneInput};
use crate::isolate::AggregateKey;
use crate::make::{Side, make};
use crate::served::{Item, NOT_ENCODABLE, Served, TYPES};

/// A cluster goes this long after the last route to it, which has reached every proxy that follows by then.
pub const LINGER: Duration = Duration::from_secs(5);

/// Type and name.
type Key = (String, String);

/// What proxies of some groups are served.
#[derive(Clone, Debug, Default)]
struct Part {
    /// All of the proxies' groups.
    groups: BTreeSet<String>,
    served: Served,
    /// Clusters and endpoints that nothing leads to any more, and since when.
    leaving: BTreeMap<Key, Instant>,
}

/// Content of a name, and who sees it.
#[derive(Clone, Debug, PartialEq)]
struct Variant {
    item: Arc<Item>,
    scope: Scope,
}

/// What every proxy is served: those of a pod with a Sidecar what it lets them see, fallback proxies all with their
/// access logs, and the others all.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    everyone: Served,
    /// By the first group.
    parts: BTreeMap<String, Part>,
    resources: BTreeMap<Key, Vec<Variant>>,
    /// What it was made of.
    input: StandaloneInput,
}

/// Makes everything that is served; `before` is what was served last, and `now` decides what of it is kept for a while.
///
/// The scope of one pod costs what that pod is served; services and limits cost what all pods are served.
pub fn snapshot(input: &StandaloneInput, before: Option<&Snapshot>, now: Instant) -> Snapshot {
    let unchanged = before.filter(|b| alike(&b.input, input));
    let everyone = unchanged.map_or_else(
        || {
            let everything = Side::everything(input.listen.clone());
            make(input, &everything, before.map(|b| &b.everyone), None)
        },
        |b| b.everyone.clone(),
    );
    let old_pods = unchanged.into_iter().flat_map(|b| &b.input.pods);
    let old_pods: BTreeMap<String, &PodInput> = old_pods.map(|p| (p.group(), p)).collect();
    let known = |side: &Side<'_>, first: &str| {
        let pod = side.part.as_ref().map(|(pod, _)| *pod);
        let same = pod.is_none() || pod == old_pods.get(first).copied();
        unchanged.filter(|_| same)?.parts.get(first)
    };
    let mut parts = BTreeMap::new();
    for (groups, side) in fallbacks(input).chain(pods(input)) {
        let Some(first) = groups.first().cloned() else {
            continue;
        };
        if parts.contains_key(&first) {
            continue;
        }
        let old = before.and_then(|b| b.parts.get(&first));
        let served = known(&side, &first).map_or_else(
            || make(input, &side, old.map(|o| &o.served), Some(&everyone)),
            Part::needed,
        );
        let mut part = Part {
            groups,
            served,
            leaving: BTreeMap::new(),
        };
        if let Some(old) = old {
            part.linger(old, now);
        }
        parts.insert(first, part);
    }
    Snapshot {
        resources: variants(&everyone, &parts),
        everyone,
        parts,
        input: input.clone(),
    }
}

/// Whether all is alike but what pods see.
fn alike(a: &StandaloneInput, b: &StandaloneInput) -> bool {
    let StandaloneInput {
        listen,
        services,
        limits,
        fallback,
        pods: _,
    } = a;
    (listen, services, limits, fallback) == (&b.listen, &b.services, &b.limits, &b.fallback)
}

fn offset(listen: &Listen) -> u16 {
    match listen {
        Listen::Address { port_offset, .. } => *port_offset,
        Listen::Addresses | Listen::Captured { .. } => 0,
    }
}

fn fallbacks(input: &StandaloneInput) -> impl Iterator<Item = (BTreeSet<String>, Side<'_>)> {
    let list: Vec<_> = input.fallback.iter().collect();
    let all = list.into_iter().flat_map(|f: &FallbackInput| {
        let addresses = f.addresses.iter().enumerate();
        addresses.map(move |(i, a)| (i, *a, f.access_log.as_ref()))
    });
    all.map(|(i, address, access_log)| {
        let mut groups = BTreeSet::from([format!("{FALLBACK_GROUP}/{address}")]);
        if i == 0 {
            groups.insert(FALLBACK_GROUP.to_owned());
        }
        let side = Side {
            access_log,
            ..Side::everything(Listen::Address {
                address,
                port_offset: offset(&input.listen),
            })
        };
        (groups, side)
    })
}

fn pods(input: &StandaloneInput) -> impl Iterator<Item = (BTreeSet<String>, Side<'_>)> {
    let pods = input.fallback.as_ref().map(|f| (f, &input.pods));
    let pods = pods
        .into_iter()
        .flat_map(|(f, all)| all.iter().map(move |p| (f, p)));
    pods.map(|(fallback, pod): (_, &PodInput)| {
        let port_offset = offset(&input.listen);
        let side = Side {
            part: Some((pod, FallbackPath::new(fallback, pod, port_offset))),
            ..Side::everything(Listen::Address {
                address: pod.address,
                port_offset,
            })
        };
        (BTreeSet::from([pod.group()]), side)
    })
}

impl Part {
    /// What it was served without what is only kept for a while.
    fn needed(&self) -> Served {
        let mut out = self.served.clone();
        out.items.retain(|key, _| !self.leaving.contains_key(key));
        out
    }

    /// Keeps clusters that have just lost their last route, with their endpoints: proxies hear of clusters first.
    fn linger(&mut self, before: &Self, now: Instant) {
        for (key, item) in &before.served.items {
            let of_clusters = key.0 == CDS || key.0 == EDS;
            if !of_clusters || self.served.items.contains_key(key) {
                continue;
            }
            let since = before.leaving.get(key).copied().unwrap_or(now);
            if now.saturating_duration_since(since) < LINGER {
                self.served.items.insert(key.clone(), Arc::clone(item));
                self.leaving.insert(key.clone(), since);
            }
        }
    }
}

/// A content and the groups that have it in common.
type Shared<'a> = (&'a Arc<Item>, BTreeSet<&'a String>);

fn audiences<'a>(groups: impl IntoIterator<Item = &'a String>) -> BTreeSet<Audience> {
    let groups = groups.into_iter().cloned();
    groups.map(Audience::Group).collect()
}

/// All contents of all names: one for each group of proxies that have it in common, and last that of all others.
fn variants(everyone: &Served, parts: &BTreeMap<String, Part>) -> BTreeMap<Key, Vec<Variant>> {
    let mut special: BTreeMap<&Key, Vec<Shared<'_>>> = BTreeMap::new();
    for part in parts.values() {
        for (key, item) in &part.served.items {
            let known = special.entry(key).or_default();
            match known.iter_mut().find(|(other, _)| *other == item) {
                Some((_, groups)) => groups.extend(&part.groups),
                None => known.push((item, part.groups.iter().collect())),
            }
        }
    }
    let apart = audiences(parts.values().flat_map(|p| &p.groups));
    let rest = if apart.is_empty() {
        Scope::All
    } else {
        Scope::Except(Arc::new(apart))
    };
    let mut out: BTreeMap<Key, Vec<Variant>> = BTreeMap::new();
    for (key, list) in special {
        let all = list.into_iter().map(|(item, groups)| Variant {
            item: Arc::clone(item),
            scope: Scope::Only(Arc::new(audiences(groups))),
        });
        out.insert(key.clone(), all.collect());
    }
    for (key, item) in &everyone.items {
        out.entry(key.clone()).or_default().push(Variant {
            item: Arc::clone(item),
            scope: rest.clone(),
        });
    }
    out
}

impl Snapshot {
    /// What proxies are served that see all, with what is wrong in the objects.
    pub fn everyone(&self) -> &Served {
        &self.everyone
    }

    /// What is wrong between objects, and what could not be encoded for some proxies only.
    pub fn problems(&self) -> Vec<Problem> {
        let mut out = self.everyone.problems.clone();
        // The rest is wrong for all, and said once.
        let own = self.parts.values().flat_map(|p| &p.served.problems);
        for problem in own.filter(|p| p.reason == NOT_ENCODABLE) {
            if !out.contains(problem) {
                out.push(problem.clone());
            }
        }
        out
    }

    /// The groups that are served something of their own, sorted.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        let all: BTreeSet<&String> = self.parts.values().flat_map(|p| &p.groups).collect();
        all.into_iter().map(String::as_str)
    }

    /// What the proxies of a group are served, if that is something of their own.
    pub fn of_group(&self, group: &str) -> Option<&Served> {
        let mut parts = self.parts.values();
        let part = parts.find(|p| p.groups.contains(group))?;
        Some(&part.served)
    }

    /// Everything that is served, by type, name and the first group that it is for; empty: all others.
    pub(super) fn aggregates(&self) -> impl Iterator<Item = (AggregateKey, &Arc<Item>)> {
        let all = std::iter::once(("", &self.everyone));
        let parts = self
            .parts
            .iter()
            .map(|(group, p)| (group.as_str(), &p.served));
        all.chain(parts).flat_map(|(group, served)| {
            let items = served.items.iter();
            items.map(move |((url, name), item)| {
                ((url.clone(), name.clone(), group.to_owned()), item)
            })
        })
    }

    /// When something goes that is only kept for a while; [`snapshot`] must be called then.
    pub fn due(&self) -> Option<Instant> {
        let all = self.parts.values().flat_map(|p| p.leaving.values());
        all.min().map(|since| *since + LINGER)
    }

    /// What leads from `before` to this, as [`Served::updates`]. Only real changes are in it.
    pub fn updates(&self, before: Option<&Self>) -> Vec<Update> {
        let of = |type_url: &str| {
            let ours = self.resources.iter().filter(|(key, _)| key.0 == type_url);
            let changed = ours.filter(|(key, variants)| {
                before.and_then(|b| b.resources.get(*key)) != Some(*variants)
            });
            let set = changed.flat_map(|(key, variants)| {
                variants.iter().map(|v| Scoped {
                    resource: v.item.resource(&key.1),
                    scope: v.scope.clone(),
                })
            });
            let old = before.into_iter().flat_map(|b| b.resources.keys());
            let gone = old.filter(|key| key.0 == type_url && !self.resources.contains_key(*key));
            Update {
                type_url: type_url.to_owned(),
                set: set.collect(),
                remove: gone.map(|key| key.1.clone()).collect(),
            }
        };
        TYPES.iter().map(|t| of(t)).collect()
    }
}
