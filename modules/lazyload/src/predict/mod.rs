//! What istiod gives a sidecar, for the entries of its Sidecar or without one. Pure.
//!
//! [`import`] says which services and routes a proxy gets, and costs what it gives: scopes ask it. [`predict`] says besides
//! what comes of them: clusters, virtual hosts, listeners and names. Both follow istiod 1.30 and 1.31 (`model/sidecar.go`,
//! `networking/core`); `tests/tests/prediction` holds them against both.
//!
//! What istiod decides by the order of a Go map is predicted in one way; [`undecided`] says what that is.
//!
//! Not predicted: inbound configuration, gateways, policy of clusters, endpoints (so no listener for each pod of a headless
//! service), DestinationRules with a `workloadSelector`, egress listeners with a port of their own, services of other
//! clusters.

mod clusters;
mod dns;
mod egress;
mod endpoints;
mod gateway;
mod hosts;
mod import;
mod known;
mod listeners;
mod merge;
mod names;
mod order;
mod route;
mod routes;
mod subsets;
mod unbrought;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::scope::Labels;
use crate::scope::services::Services;

pub use egress::Egress;
pub use import::{Imported, import};
pub use known::Service;
pub use merge::{applies, applies_to_connections, merged};
use order::Decisions;
pub use order::Undecided;
pub use route::Route;
pub use unbrought::unbrought;

/// Whose configuration is predicted.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Labels of the pod; `None`: of any pod, so that rules for other labels count.
    pub labels: Option<&'a Labels>,
    /// The cluster domain.
    pub domain: &'a str,
    /// Istio's root namespace.
    pub root: &'a str,
    /// Which istiod.
    pub release: Release,
}

/// Releases that differ in what a Sidecar brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// It asks each service whether an entry names it, and knows no exclusions.
    V1_30,
    /// It looks exact entries up: of several ServiceEntries with one host in a namespace, or of several addresses of one, it
    /// finds the first.
    #[default]
    V1_31,
}

/// Outbound configuration of a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Names of clusters, `outbound|PORT|SUBSET|HOST`.
    pub clusters: BTreeSet<String>,
    /// Virtual hosts by route configuration, without the one for all other hosts.
    pub routes: BTreeMap<String, Vec<VirtualHost>>,
    /// Chains by listener, `ADDRESS_PORT`, without the one for all other connections.
    pub listeners: BTreeMap<String, BTreeSet<Chain>>,
    /// What the proxy's DNS knows.
    pub names: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// A virtual host.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct VirtualHost {
    /// Host and port.
    pub name: String,
    /// Domains.
    pub domains: BTreeSet<String>,
    /// Routes, in order.
    pub routes: Vec<Action>,
}

/// What a route does with requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Action {
    /// Where they go.
    pub lead: Lead,
    /// Clusters that get copies.
    pub mirrors: Vec<String>,
    /// Host that they get on the way.
    pub authority: Option<String>,
}

/// Where requests or connections go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lead {
    /// To clusters, with their shares; 0 of a single one.
    Clusters(Vec<(String, u32)>),
    /// The client is sent to a host; empty: to the same one.
    Redirect(String),
    /// The proxy answers.
    Response,
    /// The requests are told apart by a route configuration.
    Routes(String),
}

impl Default for Lead {
    fn default() -> Self {
        Self::Clusters(Vec::new())
    }
}

/// A filter chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chain {
    /// Names of the TLS handshake; empty: any.
    pub sni: BTreeSet<String>,
    /// Networks of the destination; empty: any.
    pub networks: BTreeSet<String>,
    /// Only what looks like HTTP.
    pub sniffed: bool,
    /// Where it leads.
    pub lead: Lead,
}

/// Predicts what a proxy gets. `egress`: `None`: there is no Sidecar.
pub fn predict(client: &Client<'_>, egress: Option<&Egress>, services: &dyn Services) -> Given {
    decided(client, egress, services, &Decisions::default())
}

/// What istiod decides by the order of a Go map for such a proxy, and in how many ways each.
pub fn undecided(
    client: &Client<'_>,
    egress: Option<&Egress>,
    services: &dyn Services,
) -> BTreeMap<Undecided, usize> {
    let decisions = Decisions::default();
    import::decided(client, egress, services, &decisions, &mut Unread);
    decisions.into_asked()
}

/// The prediction with one thing that istiod may decide in several ways decided in another than the first.
pub fn otherwise(
    client: &Client<'_>,
    egress: Option<&Egress>,
    services: &dyn Services,
    (what, way): (Undecided, usize),
) -> Given {
    decided(client, egress, services, &Decisions::but(what, way))
}

fn decided(
    client: &Client<'_>,
    egress: Option<&Egress>,
    services: &dyn Services,
    decisions: &Decisions,
) -> Given {
    let imported = import::decided(client, egress, services, decisions, &mut Unread);
    let listeners = listeners::build(client, &imported, services);
    let mut routes = BTreeMap::new();
    for name in listeners::route_names(&listeners) {
        routes.insert(name.clone(), hosts::configuration(client, &imported, &name));
    }
    Given {
        clusters: clusters::names(client, &imported, services),
        routes,
        names: dns::table(&imported),
        listeners,
    }
}

/// Hears what is looked up.
pub trait Reads {
    /// A host, or all under a wildcard.
    fn host(&mut self, host: &str);
    /// A VirtualService.
    fn route(&mut self, namespace: &str, name: &str);
}

/// Nobody wants to know.
#[derive(Debug)]
pub struct Unread;

impl Reads for Unread {
    fn host(&mut self, _: &str) {}

    fn route(&mut self, _: &str, _: &str) {}
}

impl Reads for crate::scope::ScopeReads {
    fn host(&mut self, host: &str) {
        self.hosts.insert(host.to_owned());
    }

    fn route(&mut self, namespace: &str, name: &str) {
        self.routes.insert((namespace.to_owned(), name.to_owned()));
    }
}

/// Name of the cluster of a host.
fn cluster(host: &str, subset: &str, port: u16) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

#[cfg(test)]
mod tests;
