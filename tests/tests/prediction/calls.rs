//! What becomes of a call, by the configuration that a proxy has.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use trimtab_lazyload::predict::{Action, Chain, Given, Lead, VirtualHost};
use trimtab_lazyload::scope::Services;
use trimtab_lazyload::scope::services::HostEntry;
use trimtab_mesh::Protocol::{Auto, Tcp, Tls};

/// A call: to a host, at the address that DNS gives for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    pub host: String,
    pub address: Option<IpAddr>,
    pub port: u16,
    /// Whether it is HTTP; else TLS or TCP.
    pub http: bool,
}

/// What becomes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    listener: Option<String>,
    /// Of HTTP: the routes of the virtual host.
    routes: Vec<Action>,
    /// Else: where the connection goes.
    lead: Option<Lead>,
    /// Clusters that it may go to and that are missing.
    missing: BTreeSet<String>,
}

impl Answer {
    /// Whether calls fail, as they lead where there is no cluster.
    pub fn fails(&self) -> bool {
        !self.missing.is_empty()
    }
}

/// The host behind an ExternalName.
fn behind(services: &dyn Services, host: &str) -> String {
    let mut of = host.to_owned();
    for _ in 0..8 {
        let target = services.host(&of).iter().find_map(|e| e.target.clone());
        let Some(target) = target else { break };
        of = target.to_string();
    }
    of
}

/// Whether the client's namespace has a service of the host of a call, or of one to which the call goes, that it may not see.
/// No entry imports that one, and any VirtualService of the mesh that leads there brings it.
pub fn is_hidden(services: &dyn Services, client: &str, answer: &Answer, call: &Call) -> bool {
    let leads = answer
        .routes
        .iter()
        .map(|route| &route.lead)
        .chain(&answer.lead);
    let clusters = leads.flat_map(|lead| match lead {
        Lead::Clusters(clusters) => clusters.as_slice(),
        _ => &[],
    });
    let clusters = clusters.map(|(name, _)| name);
    let copies = answer.routes.iter().flat_map(|route| &route.mirrors);
    let hosts = clusters
        .chain(copies)
        .filter_map(|name| name.rsplit('|').next());
    let hidden = |host: &str| {
        let entries = services.host(host);
        let mut own = entries.iter().filter(|e| *e.namespace == *client);
        own.any(|e| !e.exports.visible(&e.namespace, client))
    };
    hosts.chain([&*behind(services, &call.host)]).any(hidden)
}

/// Calls to a host, at the addresses and ports of what a client sees of it, and of the wildcards that it is under.
pub fn calls(services: &dyn Services, client: &str, host: &str) -> BTreeSet<Call> {
    let of = behind(services, host);
    let mut entries = services.host(&of);
    if of == host {
        entries.extend(services.covering(host));
    }
    entries.retain(|e| e.exports.visible(&e.namespace, client));
    // Of a host in several namespaces istiod takes one.
    let all = entries.clone();
    entries.retain(|e| {
        let of_host = all.iter().filter(|o| o.host == e.host);
        let best = of_host.min_by_key(|o| o.preference(client));
        best.is_some_and(|best| best.namespace == e.namespace)
    });
    let call = |address, port, http| Call {
        host: host.to_owned(),
        address,
        port,
        http,
    };
    if entries.is_empty() {
        return BTreeSet::from([call(None, 80, true)]);
    }
    let mut out = BTreeSet::new();
    for entry in &entries {
        let addresses = entry.addresses.iter().map(|net| Some(net.addr()));
        let none = entry.addresses.is_empty().then_some(None);
        for address in addresses.chain(none) {
            for port in &entry.ports {
                let (http, other) = match port.protocol {
                    Auto => (true, true),
                    Tcp | Tls => (false, true),
                    _ => (true, false),
                };
                let kinds = [(http, true), (other, false)].into_iter().filter(|k| k.0);
                out.extend(kinds.map(|k| call(address, port.number, k.1)));
            }
        }
    }
    out
}

/// Whether another host has the listener on which the connections of a call come, too: one without an address, or with a
/// range that the call's address is in. One of both has them, and which one depends on what else is imported.
pub fn is_shared(services: &dyn Services, client: &str, answer: &Answer, call: &Call) -> bool {
    let shared = answer.listener.as_deref() == Some(&format!("0.0.0.0_{}", call.port));
    let within = |net: &IpNet| {
        let range = net.prefix_len() < net.max_prefix_len();
        range && call.address.is_some_and(|a| net.contains(&a))
    };
    let has = |e: &Arc<HostEntry>| {
        let mut ports = e.ports.iter().filter(|p| p.number == call.port);
        let open = e.addresses.is_empty() || e.addresses.iter().any(within);
        open && e.target.is_none() && ports.any(|p| !p.protocol.is_http())
    };
    let mut others = services
        .all()
        .into_iter()
        .filter(|e| *e.host != *call.host && e.exports.visible(&e.namespace, client));
    shared && !call.http && others.any(|e| has(&e))
}

/// What a proxy does with a call; the default: it does not know of it.
pub fn answer(given: &Given, call: &Call) -> Answer {
    let own = call
        .address
        .map(|address| format!("{address}_{}", call.port));
    let shared = format!("0.0.0.0_{}", call.port);
    let names = own.into_iter().chain([shared]);
    let mut found = names.filter_map(|name| Some((given.listeners.get(&name)?, name)));
    let Some((chains, listener)) = found.next() else {
        return Answer::default();
    };
    let mut out = Answer {
        listener: Some(listener),
        ..Answer::default()
    };
    if call.http {
        let Some(Lead::Routes(name)) = chains.iter().find(|c| c.sniffed).map(|c| &c.lead) else {
            return Answer::default();
        };
        let hosts = given.routes.get(name).map_or(&[][..], Vec::as_slice);
        out.routes = virtual_host(hosts, &call.host)
            .map(|host| host.routes.clone())
            .unwrap_or_default();
    } else {
        out.lead = connection(chains, call).cloned();
    }
    // Whether a listener hands it to the route for all other hosts, or there is none, it goes on as it came.
    if out.routes.is_empty() && out.lead.is_none() {
        return Answer::default();
    }
    let leads = out.routes.iter().map(|route| &route.lead).chain(&out.lead);
    let clusters = leads.filter_map(|lead| match lead {
        Lead::Clusters(clusters) => Some(clusters.iter().map(|(name, _)| name)),
        _ => None,
    });
    let copies = out.routes.iter().flat_map(|route| &route.mirrors);
    let missing = clusters
        .flatten()
        .chain(copies)
        .filter(|name| !given.clusters.contains(*name));
    out.missing = missing.cloned().collect();
    out
}

fn virtual_host<'a>(hosts: &'a [VirtualHost], name: &str) -> Option<&'a VirtualHost> {
    let best = |host: &'a VirtualHost| {
        let fit = host
            .domains
            .iter()
            .filter_map(|domain| match domain.strip_prefix('*') {
                Some(suffix) if name.ends_with(suffix) => Some((0, domain.len())),
                None if domain == name => Some((1, domain.len())),
                _ => None,
            });
        Some((fit.max()?, host))
    };
    let found = hosts.iter().filter_map(best).max_by_key(|(fit, _)| *fit);
    found.map(|(_, host)| host)
}

/// The most specific network counts first, then the name.
fn connection<'a>(chains: &'a BTreeSet<Chain>, call: &Call) -> Option<&'a Lead> {
    let fit = |chain: &Chain| {
        let networks = chain
            .networks
            .iter()
            .filter_map(|text| text.parse::<ipnet::IpNet>().ok());
        let length = networks
            .filter(|net| call.address.is_some_and(|a| net.contains(&a)))
            .map(|net| net.prefix_len() + 1)
            .max();
        let length = if chain.networks.is_empty() {
            Some(0)
        } else {
            length
        }?;
        let names = chain
            .sni
            .iter()
            .filter_map(|name| match name.strip_prefix('*') {
                Some(suffix) if call.host.ends_with(suffix) => Some(name.len()),
                None if *name == call.host => Some(usize::MAX),
                _ => None,
            });
        let name = if chain.sni.is_empty() {
            Some(0)
        } else {
            names.max()
        }?;
        Some((length, name))
    };
    let tcp = chains.iter().filter(|chain| !chain.sniffed);
    let found = tcp
        .filter_map(|chain| Some((fit(chain)?, &chain.lead)))
        .max_by_key(|(fit, _)| *fit);
    found.map(|(_, lead)| lead)
}
