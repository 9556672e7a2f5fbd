//! Proxies without Istio: a plain Envoy gets all of its configuration from Trimtab.
//!
//! [`bootstrap()`] makes the file that such an Envoy starts with. [`discover`] reads what is behind the services of a mesh,
//! [`resources`] makes listeners, clusters, endpoints and routes of it, and [`Served::updates`] says what leads from one
//! state to the next, for [`trimtab_xds::SnapshotCache::update_all`]. All of it is pure.
//!
//! | of a port | gives |
//! |---|---|
//! | any | a cluster `outbound\|PORT\|SUBSET\|HOST` for the service and for each subset, with its endpoints |
//! | HTTP, gRPC | a listener and a route configuration, shared by the HTTP services of one address and port |
//! | TCP, TLS | a listener with a TCP proxy |
//! | a protocol of MetaRouters | a listener with Envoy's filter, and its routes as a resource of their own |
//!
//! Where proxies listen is [`Listen`].

mod bootstrap;
mod clusters;
mod discover;
mod input;
mod limits;
mod listeners;
mod managed;
mod ports;
mod routes;
mod served;
mod virtual_service;
mod wire;

use std::collections::BTreeSet;

use serde_json::Value;
use trimtab_xds::{CDS, EDS, LDS, RDS};

pub use bootstrap::{
    AUTHORITY, AddressError, BootstrapOptions, XDS_CLUSTER, XdsAddress, XdsTls, bootstrap,
};
pub use discover::{Discovered, Surroundings, discover};
pub use input::{
    Balancing, EndpointInput, HttpLimit, HttpMatch, HttpRetries, HttpRoute, Listen, PortInput,
    ServiceInput, Speaks, StandaloneInput,
};
pub use limits::limits;
pub use served::{Opened, Served, TYPES};

use crate::input::ServicePortInput;
use clusters::Made;
use listeners::{Member, Place};
use routes::Known;
use served::PortKey;

/// Everything that proxies are served.
///
/// `before` is what they were served last: a port whose MetaRouter has a mistake, without a good one known, keeps what
/// it had. The same arguments give the same resources with the same versions.
pub fn resources(input: &StandaloneInput, before: Option<&Served>) -> Served {
    let mut out = Served::default();
    let mut hosts = BTreeSet::new();
    let mut services: Vec<&ServiceInput> = input.services.iter().collect();
    services.sort_by(|a, b| a.host.cmp(&b.host));
    services.retain(|s| hosts.insert(s.host.as_str()));
    let places = listeners::places(input, &services, &mut out.problems);
    let mut made: Vec<(Member<'_>, Vec<Made>)> = services
        .iter()
        .flat_map(|s| s.ports.iter().map(move |p| (*s, p)))
        .map(|member| (member, clusters::of_port(member.0, member.1)))
        .collect();
    for place in &places {
        place.open(&mut out);
    }
    let tcp = places.iter().filter(|p| !p.is_http());
    for place in tcp {
        other(&mut out, input, place, &mut made, before);
    }
    for (member, clusters) in &made {
        publish(&mut out, member, clusters);
    }
    let known = Known {
        clusters: made
            .iter()
            .flat_map(|(_, m)| m.iter().map(|c| c.name.as_str()))
            .collect(),
        services: &services,
    };
    for place in places.iter().filter(|p| p.is_http()) {
        http(&mut out, input, place, &known);
    }
    if let Listen::Captured { port } = &input.listen {
        out.put(
            LDS,
            listeners::CAPTURE,
            listeners::capture(*port),
            "trimtab",
            None,
        );
        out.put(
            CDS,
            clusters::PASSTHROUGH,
            clusters::passthrough(),
            "trimtab",
            None,
        );
    }
    out.sort();
    out
}

impl Place<'_> {
    fn open(&self, out: &mut Served) {
        out.opened
            .extend(self.members.iter().map(|(service, port)| Opened {
                host: service.host.clone(),
                port: port.number,
                addresses: self.addresses.clone(),
            }));
    }
}

fn origin(service: &ServiceInput) -> String {
    format!("{}/{}", service.namespace, service.service)
}

fn key((service, port): &Member<'_>) -> PortKey {
    (service.host.clone(), port.number)
}

fn publish(out: &mut Served, member: &Member<'_>, clusters: &[Made]) {
    let (origin, key) = (origin(member.0), key(member));
    for one in clusters {
        // A port that keeps what it had keeps its clusters too.
        if !out.has(CDS, &one.name) {
            out.put(CDS, &one.name, one.cluster.clone(), &origin, Some(&key));
        }
        if let Some(endpoints) = &one.endpoints {
            out.put(EDS, &one.name, endpoints.clone(), &origin, Some(&key));
        }
    }
}

fn http(out: &mut Served, input: &StandaloneInput, place: &Place<'_>, known: &Known<'_>) {
    let all = input.limits.iter();
    let limits: Vec<&HttpLimit> = all
        .filter(|l| place.members.iter().any(|m| routes::applies(l, m)))
        .collect();
    let Some((first, _)) = place.members.first() else {
        return;
    };
    let origin = origin(first);
    let table = routes::configuration(place, known, &limits, &mut out.problems);
    out.put(RDS, &place.name, table, &origin, None);
    let filters = [listeners::http(&place.name, &limits)];
    let listener = listeners::listener(place, &input.listen, &filters);
    out.put(LDS, &place.name, listener, &origin, None);
}

/// A listener of one port that is not HTTP.
fn other(
    out: &mut Served,
    input: &StandaloneInput,
    place: &Place<'_>,
    made: &mut [(Member<'_>, Vec<Made>)],
    before: Option<&Served>,
) {
    let Some(member) = place.members.first() else {
        return;
    };
    let (service, port) = member;
    let key = key(member);
    let filters = if let Speaks::Managed(of) = &port.speaks {
        let mut all = made.iter_mut();
        let own = all.find(|(m, _)| m.0.host == service.host && m.1.number == port.number);
        let clusters = own.map(|(_, clusters)| clusters.as_mut_slice());
        let Some(filters) = protocol(out, of, service, &key, clusters.unwrap_or_default(), before)
        else {
            if let Some(before) = before {
                out.keep(before, &key, &place.name);
            }
            return;
        };
        filters
    } else {
        let own = crate::input::outbound_cluster(port.number, "", &service.host);
        vec![listeners::tcp_proxy(&own)]
    };
    let listener = listeners::listener(place, &input.listen, &filters);
    out.put(LDS, &place.name, listener, &origin(service), Some(&key));
}

/// The network filters of a managed port; `None`: what is in force must stay.
fn protocol(
    out: &mut Served,
    of: &ServicePortInput,
    service: &ServiceInput,
    key: &PortKey,
    clusters: &mut [Made],
    before: Option<&Served>,
) -> Option<Vec<Value>> {
    let last = before.and_then(|b| b.in_force.get(key));
    let made = managed::make(of, last);
    if let Some(router) = made.in_force {
        out.in_force.insert(key.clone(), router);
    }
    for refusal in made.refusals {
        if !out.refusals.contains(&refusal) {
            out.refusals.push(refusal);
        }
    }
    if made.frozen {
        return None;
    }
    for (name, cluster) in clusters::patched(clusters, &made.clusters) {
        out.put(CDS, &name, cluster, &origin(service), Some(key));
    }
    for resource in made.resources {
        out.put_encoded(resource, key);
    }
    Some(made.filters)
}
