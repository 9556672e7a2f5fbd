//! From what a fence names and learned to the hosts that its proxies get. Pure: time comes in as an argument.
//!
//! [`compute`] gives the scope of one fence, [`merge`] what is written when several fences are on one workload, and
//! [`role`] which of them writes it. Entries are exact, `namespace/host`, which istiod looks up instead of scanning, except
//! where a ServiceEntry has a wildcard itself, or the user writes a namespace or a wildcard of one.
//!
//! What is called must be in scope what it is without a Sidecar. How istiod reads entries, and where that is minded:
//!
//! | rule | room |
//! |---|---|
//! | a service is imported by an entry of its namespace | `hosts` |
//! | so is a VirtualService, by any host that it has in common with the entry | `routes` |
//! | its destinations have clusters without entries, but nothing else | `routes` |
//! | an ExternalName is a name of its target, and of itself only as a destination | `aliases` |
//! | listeners come from services that entries import | `routes`, `neighbours` |
//! | of several services of a host an exact entry finds one | `several` |

mod aliases;
mod builder;
mod compute;
mod domains;
mod hosts;
mod imported;
mod leads;
mod merge;
mod named;
pub mod names;
mod neighbours;
mod remarks;
mod required;
mod routes;
pub mod services;
mod settings;
mod several;
pub mod size;
mod strategy;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use thiserror::Error;
use trimtab_crds::fence::{DependencyState, Domain, ScopeSize, ServiceFenceSpec};

use crate::object::{Evidence, FenceKey};

pub use compute::compute;
pub(crate) use merge::contains;
pub use merge::{Claim, Role, Union, merge, role};
pub use required::Required;
pub use services::{Labels, Services};
pub use settings::Settings;
pub(crate) use settings::once;

/// Entry of a scope that imports nothing.
pub const NOTHING: &str = "~/*";
/// Entry of a scope that imports the whole mesh.
pub const EVERYTHING: &str = "*/*";

/// A learned dependency of one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Host, as the directory gave it: a full name, or the wildcard of a ServiceEntry.
    pub host: Arc<str>,
    /// What became of it. `Unresolved`: the mesh did not know it when it was called; it counts as `Active` once it does.
    pub state: DependencyState,
    /// How it is known.
    pub evidence: BTreeSet<Evidence>,
    /// Last call.
    pub last_seen: Option<Timestamp>,
}

/// What a scope is made from, besides the mesh.
#[derive(Clone, Copy, Debug)]
pub struct ScopeInput<'a> {
    /// The fence; its namespace is the client's.
    pub fence: &'a FenceKey,
    /// What the user wrote.
    pub spec: &'a ServiceFenceSpec,
    /// When the fence was made: `auto` counts from there until the first call.
    pub created: Option<Timestamp>,
    /// Of all callers; a host may be there several times, then its best state counts.
    pub learned: &'a [Learned],
    /// `domains` of the last scope, or of the stored status.
    pub before: &'a BTreeMap<String, Domain>,
    /// `fading` of the last scope; empty after a restart: the grace begins anew.
    pub fading: &'a BTreeMap<String, Timestamp>,
    /// The time.
    pub now: Timestamp,
    /// Configuration.
    pub settings: &'a Settings,
    /// Hosts that the pods need whatever they call.
    pub required: &'a [Required],
}

/// The scope of one fence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Entries of the Sidecar, `namespace/host`, with why each is there. Never empty: [`NOTHING`] stands for none.
    pub entries: BTreeMap<String, BTreeSet<Reason>>,
    /// Dependencies in Slime's form.
    pub domains: BTreeMap<String, Domain>,
    /// Dependencies that nothing names any more, and since when; to be given back as [`ScopeInput::fading`].
    pub fading: BTreeMap<String, Timestamp>,
    /// Named or learned hosts for which there is no service that the namespace may see.
    pub unresolved: BTreeSet<String>,
    /// What the user should know.
    pub warnings: BTreeSet<Warning>,
    /// When the scope changes by itself.
    pub next: Option<Timestamp>,
    /// What istiod will import.
    pub imports: Imports,
    /// Size of the imports against what the namespace gets without a Sidecar.
    pub size: ScopeSize,
    /// Of learned hosts, those under which calls to them are counted besides.
    pub counted: BTreeMap<String, BTreeSet<String>>,
    /// What was looked up: when none of it changes, the scope stays as it is, sizes excepted.
    pub consulted: ScopeReads,
}

/// Prediction of what istiod imports for a list of entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imports {
    /// `namespace/host` of services, with their estimated bytes.
    pub services: BTreeMap<String, u64>,
    /// `namespace/name` of VirtualServices, with the estimated bytes of their rules.
    pub routes: BTreeMap<String, u64>,
}

/// What a scope was computed from: how [`crate::mesh::Index::scope`] knows which fences an event touches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeReads {
    /// Hosts, also those that do not exist; a wildcard stands for all hosts under it.
    pub hosts: BTreeSet<String>,
    /// Namespaces whose whole content counts.
    pub namespaces: BTreeSet<String>,
    /// Label selectors of Services.
    pub selectors: BTreeSet<Labels>,
    /// VirtualServices by namespace and name.
    pub routes: BTreeSet<(String, String)>,
    /// Namespaces of which it counts whether they are there.
    pub spaces: BTreeSet<String>,
    /// Listeners that matter, whoever gives them.
    pub listeners: BTreeSet<services::Listener>,
}

/// Why an entry is in a scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Istio's or Trimtab's own namespace.
    Essential,
    /// Carries unknown calls.
    Fallback,
    /// `stableHost` of the configuration, as written.
    Stable(String),
    /// `spec.host`, as written.
    Static(String),
    /// `spec.namespaceSelector`: the namespace.
    Namespace(String),
    /// `spec.labelSelector`: the selector.
    Label(String),
    /// Learned: the host and its evidence.
    Learned(String, BTreeSet<Evidence>),
    /// Nothing names the dependency any more; it stays for the grace.
    Fading(String),
    /// Alias of a host.
    Alias(String),
    /// A VirtualService or another object with routes (`Kind namespace/name`) of a host.
    Route(String, String),
    /// The host that an ExternalName stands for.
    Target(String),
    /// Gives the listener of a host that no service has.
    Listener(String),
    /// Its connections on a port would go to a host without an address.
    Neighbour(String, u16),
    /// An object that changes proxies names a cluster of the host: kind, namespace and name.
    Filter(String),
    /// The server of an extension provider: the provider, and who asks for it.
    Provider(String, String),
    /// Keys of JWTs, which proxies fetch: the RequestAuthentication.
    Keys(String),
    /// Only the proxies' DNS may know its name.
    Dns,
    /// TCP of a port that is HTTP in every scope.
    TcpPort(u16),
    /// The egress proxy of the Sidecar that is inherited.
    EgressProxy(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Essential => write!(f, "essential"),
            Self::Fallback => write!(f, "fallback"),
            Self::Stable(text) => write!(f, "stableHost {text}"),
            Self::Static(text) => write!(f, "spec.host {text}"),
            Self::Namespace(text) => write!(f, "spec.namespaceSelector {text}"),
            Self::Label(text) => write!(f, "spec.labelSelector {text}"),
            Self::Learned(host, evidence) => {
                let names: Vec<&str> = evidence.iter().map(|e| e.as_str()).collect();
                write!(f, "learned {host} ({})", names.join(", "))
            }
            Self::Fading(text) => write!(f, "leaving: {text}"),
            Self::Alias(of) => write!(f, "alias of {of}"),
            Self::Route(route, of) => write!(f, "{route} of {of}"),
            Self::Target(of) => write!(f, "ExternalName {of}"),
            Self::Listener(of) => write!(f, "gives the listener of {of}"),
            Self::Neighbour(of, port) => {
                write!(f, "TCP port {port}, whose connections {of} would take")
            }
            Self::Filter(object) => write!(f, "cluster of {object}"),
            Self::Provider(name, of) => write!(f, "provider {name} of {of}"),
            Self::Keys(object) => write!(f, "keys of {object}"),
            Self::Dns => write!(f, "DNS: only Istio's DNS may know this name"),
            Self::TcpPort(port) => write!(f, "TCP of port {port}, which the fallback has as HTTP"),
            Self::EgressProxy(of) => write!(f, "egressProxy of Sidecar {of}"),
        }
    }
}

/// What a user should know of a scope. The message names the object and the fix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Warning {
    /// Not a host name.
    #[error(
        "{field} \"{host}\" is not a host: write a name without port, for example reviews.default.svc.cluster.local"
    )]
    Refused {
        /// Where it stands.
        field: &'static str,
        /// The text.
        host: String,
    },
    /// A static host that matches nothing.
    #[error(
        "{field} \"{host}\": there is no such service, so that nothing is imported: correct the name"
    )]
    Unknown {
        /// Where it stands.
        field: &'static str,
        /// The text.
        host: String,
    },
    /// Everything is imported.
    #[error("{field} \"*/*\" imports the whole mesh: name namespaces or hosts")]
    Everything {
        /// Where it stands.
        field: &'static str,
    },
    /// A strategy that cannot be timed.
    #[error("spec.host \"{host}\": {what}, so that it never expires: set a valid time")]
    Untimed {
        /// The dependency.
        host: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A selector without labels.
    #[error("spec.labelSelector[{index}] has no labels and selects nothing: add labels")]
    EmptySelector {
        /// Which one.
        index: usize,
    },
    /// A service that this namespace may not see.
    #[error("{host} is not exported to {client}: change exportTo of {object}")]
    HiddenService {
        /// Host.
        host: String,
        /// The client's namespace.
        client: String,
        /// Kind, namespace and name.
        object: String,
    },
    /// A DestinationRule that this namespace may not see.
    #[error(
        "DestinationRule {rule} of {host} is not exported to {client}, so that its policy does not apply to these calls: \
         change its exportTo"
    )]
    HiddenRule {
        /// Namespace and name.
        rule: String,
        /// Host.
        host: String,
        /// The client's namespace.
        client: String,
    },
    /// A host in several namespaces.
    #[error(
        "{host} is in the namespaces {all}; {chosen} is taken: write namespace/host in spec.host to take another"
    )]
    Duplicate {
        /// Host.
        host: String,
        /// All visible namespaces.
        all: String,
        /// The one taken.
        chosen: String,
    },
    /// A host that the pods' proxies ask is none of the mesh.
    #[error(
        "{of}: there is no service {host}, so that proxies have no cluster for it: write the full host of a service"
    )]
    NoCluster {
        /// Who names it.
        of: String,
        /// Host.
        host: String,
    },
    /// ExternalNames in a circle.
    #[error("{host}: the ExternalName leads back to itself: name a service in externalName")]
    Circle {
        /// The first.
        host: String,
    },
    /// A destination that Istio cannot resolve.
    #[error(
        "{route} leads to {host}, an ExternalName of the ExternalName {target}: Istio follows one step only, so that these \
         calls fail: name the service itself"
    )]
    AliasOfAlias {
        /// Kind, namespace and name.
        route: String,
        /// The destination.
        host: String,
        /// What it stands for.
        target: String,
    },
    /// A host of a VirtualService alone that no listener takes.
    #[error(
        "{host} is a host of {route} alone, and none of its destinations has an HTTP port, so that no listener takes its \
         calls: add a ServiceEntry for {host}"
    )]
    NoListener {
        /// The host.
        host: String,
        /// Kind, namespace and name.
        route: String,
    },
    /// A host of which istiod finds one service of several by an exact entry.
    #[error(
        "{host} {why}, of which istiod 1.31 finds one by an entry of the namespace: it is imported from any namespace, for which \
         istiod goes through all services: write one ServiceEntry, with one address, for each host to avoid that"
    )]
    Wide {
        /// The host.
        host: String,
        /// What it has several of.
        why: String,
    },
    /// The same of a namespace that istiod does not take by itself.
    #[error(
        "{host} {why}, of which istiod 1.31 finds one by an entry of namespace {namespace}, and without a Sidecar takes \
         another namespace: write one ServiceEntry, with one address, for the host in {namespace}"
    )]
    OneOfSeveral {
        /// The host.
        host: String,
        /// What it has several of.
        why: String,
        /// The namespace.
        namespace: String,
    },
    /// A host of any namespace that none has.
    #[error(
        "{field} \"{text}\": no namespace has such a host: it is imported if istiod has it from another cluster or registry: \
         correct the name"
    )]
    Nowhere {
        /// Where it stands.
        field: &'static str,
        /// The text.
        text: String,
    },
    /// A namespace that is not there.
    #[error(
        "{field} \"{text}\": there is no namespace {namespace}: it is imported if istiod has it from another cluster or registry, \
         and else nothing is: correct the name"
    )]
    NoNamespace {
        /// Where it stands.
        field: &'static str,
        /// The text.
        text: String,
        /// The namespace in it.
        namespace: String,
    },
    /// A full name of a Service that is not there, in a namespace that is.
    #[error(
        "{field} \"{text}\": namespace {namespace} has no Service {service}: the entry imports it once it is made: correct the \
         name if another is meant"
    )]
    NoService {
        /// Where it stands.
        field: &'static str,
        /// The text.
        text: String,
        /// Name of the Service.
        service: String,
        /// Its namespace.
        namespace: String,
    },
    /// A host with a namespace that has no such host.
    #[error(
        "{field} \"{text}\": namespace {namespace} has no such host{}: it is imported if istiod has it there from another \
         cluster or registry: correct the name",
        elsewhere_text(.elsewhere)
    )]
    NotInNamespace {
        /// Where it stands.
        field: &'static str,
        /// The text.
        text: String,
        /// The namespace in it.
        namespace: String,
        /// Namespaces that have the host.
        elsewhere: Vec<String>,
    },
    /// A selector that selects nothing.
    #[error("spec.labelSelector[{index}] ({labels}) selects no Service: correct the labels")]
    NothingSelected {
        /// Which one.
        index: usize,
        /// Its labels.
        labels: String,
    },
    /// A namespace of the configuration that is not there.
    #[error(
        "lazyload.{key} \"{namespace}\": there is no such namespace: correct the configuration"
    )]
    NoConfiguredNamespace {
        /// Key of the configuration.
        key: String,
        /// The namespace.
        namespace: String,
    },
    /// A domain of a dispatch that is the name of a Service that is not there.
    #[error("lazyload.{key} \"{domain}\": there is no such Service: correct the configuration")]
    NoDispatched {
        /// Key of the configuration.
        key: String,
        /// The domain.
        domain: String,
    },
    /// A rule of `domainAliases` that matches no host.
    #[error(
        "lazyload.domainAliases[{index}]: pattern \"{pattern}\" matches no host of the mesh exactly once, so that it has no \
         effect: correct the pattern"
    )]
    UnusedAlias {
        /// Which one.
        index: usize,
        /// The pattern.
        pattern: String,
    },
}

fn elsewhere_text(namespaces: &[String]) -> String {
    match namespaces {
        [] => String::new(),
        some => format!(" ({} has it)", some.join(", ")),
    }
}

#[cfg(test)]
mod tests;
