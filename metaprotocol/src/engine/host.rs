//! What was made of one host.

use std::collections::{BTreeMap, BTreeSet};

use trimtab_crds::istio::{EnvoyFilter, VirtualService};
use trimtab_kit::answers::Part;
use trimtab_kit::generated::owner_name;
use trimtab_kit::problem::Problem;

use super::ResourceKey;
use crate::index::{Name, ResolvedHost};
use crate::input::{Router, ServicePortInput};
use crate::object::{Kind, ObjectKey, ServiceKey};
use crate::output::{Refusal, Translation, XdsResource};
use crate::owner::Owner;
use crate::translate::translate;
use crate::validate::NO_ADDRESS;

/// One host.
#[derive(Clone, Debug, Default)]
pub(super) struct HostState {
    /// Whose the generated objects are; `None`: there is no layer-7 port.
    pub owner: Option<ServiceKey>,
    pub ports: BTreeMap<u16, PortState>,
    /// What is wrong between objects.
    pub problems: Vec<Problem>,
    /// The router to go back to.
    pub last_good: Option<Router>,
    /// Users' objects that have a part in it.
    pub objects: BTreeSet<ObjectKey>,
    /// What the xDS server has of it.
    pub resources: BTreeMap<ResourceKey, XdsResource>,
}

/// One port.
#[derive(Clone, Debug)]
pub(super) struct PortState {
    pub input: ServicePortInput,
    pub made: Translation,
    pub virtual_services: Vec<VirtualService>,
    /// Resources of the port: those that were made, and while it is frozen those from before.
    resources: BTreeMap<ResourceKey, XdsResource>,
}

impl PortState {
    fn new(input: ServicePortInput, old: Option<&Self>, plain: bool) -> Self {
        if let Some(old) = old
            && old.input == input
        {
            return old.clone();
        }
        let mut made = translate(&input);
        if plain {
            made.refusals.retain(|r| r.problem.reason != NO_ADDRESS);
        }
        let made_now = made.resources.iter().cloned();
        let mut resources: BTreeMap<ResourceKey, XdsResource> = made_now
            .map(|r| ((r.type_url.clone(), r.name.clone()), r))
            .collect();
        if made.retained {
            for (key, resource) in old.iter().flat_map(|o| &o.resources) {
                resources
                    .entry(key.clone())
                    .or_insert_with(|| resource.clone());
            }
        }
        let objects = made.virtual_services.iter();
        let virtual_services = objects
            .filter_map(|v| serde_json::from_value(v.clone()).ok())
            .collect();
        Self {
            input,
            made,
            virtual_services,
            resources,
        }
    }
}

impl HostState {
    /// Translates what has changed since `old`.
    pub(super) fn new(resolved: ResolvedHost, old: Option<&Self>, plain: bool) -> Self {
        let ResolvedHost {
            inputs,
            problems,
            named,
        } = resolved;
        let mut out = Self {
            problems,
            objects: named.into_iter().collect(),
            owner: inputs.first().map(|input| ServiceKey {
                kind: input.source.as_str().to_owned(),
                namespace: input.namespace.clone(),
                name: owner_name(&input.service),
            }),
            ..Self::default()
        };
        for input in inputs {
            out.objects.extend(objects(&input));
            let number = input.port.number;
            let before = old.and_then(|o| o.ports.get(&number));
            out.ports
                .insert(number, PortState::new(input, before, plain));
        }
        let before = old.and_then(|o| o.last_good.as_ref());
        out.last_good = last_good(&out.ports, before);
        let resources = out.ports.values().flat_map(|p| &p.resources);
        out.resources = resources.map(|(k, r)| (k.clone(), r.clone())).collect();
        out
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.objects.is_empty()
    }

    pub(super) fn retained(&self) -> bool {
        self.ports.values().any(|p| p.made.retained)
    }

    pub(super) fn filters(&self) -> impl Iterator<Item = &EnvoyFilter> {
        self.ports.values().flat_map(|p| &p.made.envoy_filters)
    }

    pub(super) fn virtual_services(&self) -> impl Iterator<Item = &VirtualService> {
        self.ports.values().flat_map(|p| &p.virtual_services)
    }

    /// Names of the routes of ports that are left as they are although nobody knows how they are.
    pub(super) fn unknown_routes(&self) -> Vec<String> {
        let ports = self.ports.values();
        let unknown = ports.filter(|p| p.made.retained && p.resources.is_empty());
        unknown.map(|p| p.input.route_name()).collect()
    }

    /// Its resources as they are served.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part> {
        let resources = self.resources.values();
        resources.map(|r| Part::new(&r.type_url, &r.name, &r.version()))
    }

    pub(super) fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        self.ports.values().flat_map(|p| &p.made.refusals)
    }

    /// The router whose routes proxies follow, as far as is known.
    pub(super) fn in_force(&self) -> Option<&Router> {
        let written = self.router().filter(|_| !self.retained());
        self.last_good.as_ref().or(written)
    }

    /// The router for this host; its routes may be refused.
    pub(super) fn router(&self) -> Option<&Router> {
        self.ports.values().find_map(|p| p.input.router.as_ref())
    }

    /// Kind and name of the objects that must exist.
    pub(super) fn desired(&self) -> Vec<(&'static str, Name)> {
        let filters = self.filters().map(|f| ("EnvoyFilter", name(&f.metadata)));
        let services = self.virtual_services();
        let services = services.map(|v| ("VirtualService", name(&v.metadata)));
        filters.chain(services).collect()
    }

    /// Whether nothing has to be written that was not before.
    pub(super) fn same_objects(&self, other: &Self) -> bool {
        self.retained() == other.retained()
            && self.filters().eq(other.filters())
            && self.virtual_services().eq(other.virtual_services())
    }
}

fn name(meta: &kube::core::ObjectMeta) -> Name {
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// A router is good to go back to when all ports have taken it.
fn last_good(ports: &BTreeMap<u16, PortState>, before: Option<&Router>) -> Option<Router> {
    let first = ports.values().next()?;
    first.input.router.as_ref()?;
    let taken = first.made.in_force.as_ref();
    let same = |p: &PortState| p.made.in_force.as_ref() == taken;
    let all = taken.filter(|_| ports.values().all(same));
    all.or(before).cloned()
}

fn objects(input: &ServicePortInput) -> BTreeSet<ObjectKey> {
    let key = |kind, owner: &Owner| ObjectKey {
        kind,
        namespace: owner.namespace.clone(),
        name: owner.name.clone(),
    };
    let router = input.router.iter();
    let router = router.filter(|r| r.owner.kind == Kind::MetaRouter.as_str());
    let router = router.map(|r| key(Kind::MetaRouter, &r.owner));
    let redis = input.redis.iter();
    let redis = redis.map(|r| key(Kind::RedisService, &r.owner));
    let destinations = input.redis_destinations.values();
    let destinations = destinations.map(|d| key(Kind::RedisDestination, &d.owner));
    let policies = input.dubbo_policies.iter();
    let policies = policies.map(|p| key(Kind::DubboAuthorizationPolicy, &p.owner));
    router
        .chain(redis)
        .chain(destinations)
        .chain(policies)
        .collect()
}
