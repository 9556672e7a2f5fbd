//! Limiters whose routes are in one configuration of the same pods: a change of one may fill the buckets of the other.

use std::collections::{BTreeMap, BTreeSet};

use trimtab_crds::limiter::{Delivery, LimiterSpec, Target};
use trimtab_mesh::model::{Labels, selects};

use super::{Index, LimiterKey, State};

/// A limiter as its neighbours see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Namespace of its pods; `*`: all.
    scope: String,
    selector: Labels,
    /// Sides and ports of its rules.
    ports: BTreeSet<Side>,
    delivery: Option<Delivery>,
    /// Whether a rule has strategy `adaptive`.
    adaptive: bool,
}

/// A route configuration of a proxy: whether it is for calls that leave, and the port; 0: each.
type Side = (bool, u16);

impl Place {
    pub(super) fn new(scope: &str, selector: &Labels, spec: &LimiterSpec) -> Self {
        Self {
            scope: scope.to_owned(),
            selector: selector.clone(),
            ports: sides(spec),
            delivery: spec.delivery,
            adaptive: (spec.sets.values().flatten())
                .any(|d| d.action.strategy.as_deref() == Some("adaptive")),
        }
    }

    /// Labels of its pods.
    pub(super) fn selector(&self) -> &Labels {
        &self.selector
    }

    fn meets(&self, other: &Self) -> bool {
        let pairs = self.ports.iter();
        let mut pairs = pairs.flat_map(|own| other.ports.iter().map(move |port| (own, port)));
        pairs.any(|(a, b)| a.0 == b.0 && (a.1 == b.1 || a.1 == 0 || b.1 == 0))
    }

    /// Whether both are for one side of proxies: their filters are in the same listeners, whatever the port.
    fn faces(&self, other: &Self) -> bool {
        self.ports
            .iter()
            .any(|own| other.ports.iter().any(|port| own.0 == port.0))
    }
}

fn sides(spec: &LimiterSpec) -> BTreeSet<Side> {
    let mut out = BTreeSet::new();
    for descriptor in spec.sets.values().flatten() {
        let target = descriptor.target.as_ref().or(spec.target.as_ref());
        let target = target.cloned().unwrap_or_default();
        let port = target.port.and_then(|p| u16::try_from(p).ok());
        let port = port.unwrap_or_default();
        if target.is_outbound() {
            out.extend(hosts(&target).map(|host| (true, port_of(host).unwrap_or(port))));
        } else {
            out.insert((false, port));
        }
    }
    out
}

/// Virtual hosts that a target names.
fn hosts(target: &Target) -> impl Iterator<Item = &str> {
    let routes = target
        .route
        .iter()
        .map(|r| r.split('/').next().unwrap_or(r));
    routes.chain(target.host.iter().map(String::as_str))
}

/// The port at the end of a virtual host's name.
fn port_of(host: &str) -> Option<u16> {
    host.rsplit_once(':')?.1.parse().ok()
}

impl Index {
    /// The other limiters with filters in the listeners of a limiter's pods.
    pub(crate) fn same_listeners(&self, key: &LimiterKey) -> BTreeSet<LimiterKey> {
        let state = self.state.lock();
        let place = state.registered.get(key).map(|r| &r.place);
        let found = place.map(|place| state.near(key, place, Place::faces));
        found.unwrap_or_default().into_keys().collect()
    }
}

impl State {
    /// Limiters of pods and ports of a place, other than the one of `key`.
    pub(super) fn neighbours(
        &self,
        key: &LimiterKey,
        place: &Place,
    ) -> BTreeMap<LimiterKey, Option<Delivery>> {
        self.near(key, place, Place::meets)
    }

    /// The first of `others`, before `key`, that limits by strategy `adaptive`.
    pub(super) fn adaptive_before<'a>(
        &self,
        key: &LimiterKey,
        mut others: impl Iterator<Item = &'a LimiterKey>,
    ) -> Option<String> {
        let is_adaptive = |other: &LimiterKey| {
            let found = self.registered.get(other);
            found.is_some_and(|r| r.place.adaptive)
        };
        let first = others.find(|other| *other < key && is_adaptive(other))?;
        Some(format!("{}/{}", first.namespace, first.name))
    }

    /// Limiters of pods of a place for which `near` holds, other than the one of `key`.
    fn near(
        &self,
        key: &LimiterKey,
        place: &Place,
        near: impl Fn(&Place, &Place) -> bool,
    ) -> BTreeMap<LimiterKey, Option<Delivery>> {
        let mut out = BTreeMap::new();
        for (namespace, labels) in self.targets.groups(&place.scope, &place.selector) {
            for pair in labels.iter().flat_map(|(label, value)| {
                [&*namespace, "*"].map(|scope| (scope.to_owned(), label.clone(), value.clone()))
            }) {
                for other in self.by_pair.get(&pair).into_iter().flatten() {
                    let Some(found) = self.registered.get(other) else {
                        continue;
                    };
                    if other != key
                        && selects(&found.place.selector, &labels)
                        && near(&found.place, place)
                    {
                        out.insert(other.clone(), found.place.delivery);
                    }
                }
            }
        }
        out
    }
}
