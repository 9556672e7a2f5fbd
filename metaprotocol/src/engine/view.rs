//! What the JSON API and the commands show.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use trimtab_crds::metaprotocol::MetaRouterStatus;
use trimtab_kit::module::Finding;
use trimtab_kit::problem::Problem;

use super::Engine;
use super::host::{HostState, PortState};
use crate::input::{Router, ServicePortInput};
use crate::object::{Kind, ObjectKey};
use crate::output::XdsResource;
use crate::owner::Owner;
use crate::status::{delivery_name, is_remark};

/// One host with layer-7 ports.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostView {
    /// Host.
    pub host: String,
    /// `Service` or `ServiceEntry`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The MetaRouter in force, as `namespace/name`; another kind stands before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<String>,
    /// Layer-7 ports.
    pub ports: Vec<PortView>,
    /// What is wrong, a line each.
    pub problems: Vec<String>,
    /// Whether outputs are left as they are because of it.
    pub retained: bool,
}

/// One port.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortView {
    /// Number.
    pub number: u16,
    /// Name.
    pub name: String,
    /// What proxies run, and how routes reach them.
    pub programs: Vec<String>,
    /// EnvoyFilters and VirtualServices as `namespace/name`.
    pub objects: Vec<String>,
    /// What the xDS server has.
    pub resources: Vec<ResourceView>,
}

/// One xDS resource.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceView {
    /// Type URL.
    pub type_url: String,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
}

/// A MetaRouter with all that calls through it depend on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouterView {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The host and what is made of it; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostView>,
    /// Whether it is the router in force for its host.
    pub in_force: bool,
    /// The routes that proxies follow; absent: all calls go to the service itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Router>,
    /// Inputs of the host's ports, for bug reports; their form is not stable. Passwords are not in them.
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub inputs: Vec<ServicePortInput>,
    /// Its status.
    #[schemars(with = "Option<MetaRouterStatus>")]
    pub status: Value,
}

/// A MetaRouter in a list.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouterSummary {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The host that it is for.
    pub host: String,
    /// Whether it is the router in force for its host.
    pub in_force: bool,
    /// What proxies run, and how routes reach them.
    pub programs: BTreeSet<String>,
    /// What is wrong with the host's objects, a line each.
    pub problems: Vec<String>,
    /// Whether outputs are left as they are because of it.
    pub retained: bool,
    /// Its status.
    #[schemars(with = "Option<MetaRouterStatus>")]
    pub status: Value,
}

/// `namespace/name` of a MetaRouter; another kind stands before it.
fn in_short(owner: &Owner) -> String {
    if owner.kind == Kind::MetaRouter.as_str() {
        format!("{}/{}", owner.namespace, owner.name)
    } else {
        owner.to_string()
    }
}

/// Whether the MetaRouter is the one in force.
fn is_router(state: &HostState, namespace: &str, name: &str) -> bool {
    let router = state.router();
    router.is_some_and(|r| in_short(&r.owner) == format!("{namespace}/{name}"))
}

pub(super) fn port_view(port: &PortState) -> PortView {
    let programs = port.made.programs.iter();
    let programs =
        programs.map(|p| format!("{} by {}", p.target.title(), delivery_name(p.delivery)));
    let name = |meta: &kube::core::ObjectMeta| {
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        format!("{}/{}", text(&meta.namespace), text(&meta.name))
    };
    let filters = port.made.envoy_filters.iter().map(|f| name(&f.metadata));
    let services = port.virtual_services.iter().map(|v| name(&v.metadata));
    let resources = port.made.resources.iter().map(|r| ResourceView {
        type_url: r.type_url.clone(),
        name: r.name.clone(),
        version: r.version(),
    });
    PortView {
        number: port.input.port.number,
        name: port.input.port.name.clone(),
        programs: programs.collect(),
        objects: filters.chain(services).collect(),
        resources: resources.collect(),
    }
}

fn host_view(host: &str, state: &HostState) -> HostView {
    let mut problems: Vec<String> = state.problems.iter().map(ToString::to_string).collect();
    for refusal in state.refusals() {
        let line = refusal.problem.to_string();
        if !problems.contains(&line) {
            problems.push(line);
        }
    }
    let owner = state.owner.as_ref();
    let input = state.ports.values().next().map(|p| &p.input);
    HostView {
        host: host.to_owned(),
        kind: owner.map(|o| o.kind.clone()).unwrap_or_default(),
        namespace: owner.map(|o| o.namespace.clone()).unwrap_or_default(),
        name: input.map(|i| i.service.clone()).unwrap_or_default(),
        router: state.router().map(|r| in_short(&r.owner)),
        ports: state.ports.values().map(port_view).collect(),
        problems,
        retained: state.retained(),
    }
}

impl Engine {
    /// All hosts, sorted.
    pub fn views(&self) -> Vec<HostView> {
        let inner = self.inner.lock();
        let hosts = inner.hosts.iter();
        hosts.map(|(name, state)| host_view(name, state)).collect()
    }

    /// All MetaRouters, sorted.
    pub fn router_summaries(&self) -> Vec<RouterSummary> {
        let keys: BTreeSet<ObjectKey> = self.index.objects(Kind::MetaRouter).into_iter().collect();
        let summary = |key: ObjectKey| {
            let seen = self.index.seen(&key)?;
            let host = seen.names.first().cloned().unwrap_or_default();
            let inner = self.inner.lock();
            let state = inner.hosts.get(&host);
            let in_force = state.is_some_and(|s| is_router(s, &key.namespace, &key.name));
            let view = state.map(|s| host_view(&host, s));
            drop(inner);
            let (ports, problems, retained) =
                view.map_or_else(<_>::default, |v| (v.ports, v.problems, v.retained));
            Some(RouterSummary {
                namespace: key.namespace,
                name: key.name,
                host,
                in_force,
                programs: ports.into_iter().flat_map(|p| p.programs).collect(),
                problems,
                retained,
                status: seen.status,
            })
        };
        keys.into_iter().filter_map(summary).collect()
    }

    /// A MetaRouter; `None`: there is none.
    pub fn router_view(&self, namespace: &str, name: &str) -> Option<RouterView> {
        let key = ObjectKey {
            kind: Kind::MetaRouter,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let seen = self.index.seen(&key)?;
        let inner = self.inner.lock();
        let host = seen.names.first()?;
        let state = inner.hosts.get(host);
        let in_force = state.is_some_and(|s| is_router(s, namespace, name));
        let ports = state.into_iter().flat_map(|s| s.ports.values());
        Some(RouterView {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            host: state.map(|s| host_view(host, s)),
            in_force,
            routes: state.and_then(|s| s.in_force().cloned()),
            inputs: ports.map(|p| p.input.clone()).collect(),
            status: seen.status,
        })
    }

    /// What is wrong with objects of users, sorted; without an object for a host also with what it leads to.
    pub fn findings(&self) -> Vec<Finding> {
        let mut problems: Vec<Problem> = Vec::new();
        for state in self.inner.lock().hosts.values() {
            problems.extend(state.problems.iter().cloned());
            problems.extend(state.refusals().map(|r| r.problem.clone()));
        }
        for key in Kind::ALL
            .into_iter()
            .flat_map(|kind| self.index.objects(kind))
        {
            if let Some(seen) = self.index.seen(&key) {
                let refusals = self.facts(&key, &seen).refusals.into_iter();
                problems.extend(refusals.map(|r| r.problem));
            }
        }
        let finding = |p: &Problem| Finding {
            refused: !is_remark(p.reason),
            message: p.to_string(),
        };
        let findings: BTreeSet<Finding> = problems.iter().map(finding).collect();
        findings.into_iter().collect()
    }

    /// Resources of the xDS server as documents, sorted by type and name.
    pub fn resources(&self) -> Vec<Value> {
        let inner = self.inner.lock();
        let states = inner.hosts.values();
        let all: BTreeMap<_, _> = states.flat_map(|s| &s.resources).collect();
        all.into_values().map(document).collect()
    }

    /// Counts for metrics.
    pub fn tally(&self) -> Tally {
        let inner = self.inner.lock();
        let mut out = Tally {
            hosts: inner.hosts.values().filter(|h| h.owner.is_some()).count(),
            ..Tally::default()
        };
        for state in inner.hosts.values() {
            out.retained += usize::from(state.retained());
            for program in state.ports.values().flat_map(|p| &p.made.programs) {
                let key = (program.target.title(), delivery_name(program.delivery));
                *out.ports.entry(key).or_default() += 1;
            }
            let problems = state.problems.iter();
            let refusals = state.refusals().map(|r| &r.problem);
            for problem in problems.chain(refusals) {
                *out.problems.entry(problem.reason).or_default() += 1;
            }
        }
        out
    }
}

/// A resource in a form that people can read.
fn document(resource: &XdsResource) -> Value {
    let content: Value = serde_json::from_str(&resource.canonical).unwrap_or(Value::Null);
    json!({
        "kind": "XdsResource",
        "typeUrl": resource.type_url,
        "name": resource.name,
        "version": resource.version(),
        "origin": resource.origin,
        "content": content,
    })
}

/// Counts of hosts, ports and problems.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Hosts with layer-7 ports.
    pub hosts: usize,
    /// Hosts whose outputs are left as they are.
    pub retained: usize,
    /// Ports by filter and delivery.
    pub ports: BTreeMap<(&'static str, &'static str), usize>,
    /// Problems by reason.
    pub problems: BTreeMap<&'static str, usize>,
}
