//! Everything that one kind of proxy is served.

use std::collections::BTreeSet;

use serde_json::Value;
use trimtab_metaprotocol::input::ServicePortInput;
use trimtab_xds::{CDS, EDS, LDS, RDS};

use crate::address::XdsAddress;
use crate::clusters::{self, Made};
use crate::fallback::{self, FallbackPath};
use crate::input::{AppProtocol, HttpLimit, Listen, PodInput, ServiceInput, StandaloneInput};
use crate::listeners::{self, Member, Place};
use crate::managed;
use crate::routes::{self, Known};
use crate::served::{For, Opened, PortKey, Served};

/// What sets one kind of proxy apart from the others.
pub(super) struct Side<'a> {
    /// Where it listens.
    pub(super) listen: Listen,
    /// The pod whose hosts it sees, and the way to the others; `None`: it sees all.
    pub(super) part: Option<(&'a PodInput, FallbackPath)>,
    /// Where its access logs go.
    pub(super) access_log: Option<&'a XdsAddress>,
}

impl Side<'_> {
    /// A proxy that sees all.
    pub(super) fn everything(listen: Listen) -> Self {
        Self {
            listen,
            part: None,
            access_log: None,
        }
    }

    fn sees(&self, (service, _): &Member<'_>) -> bool {
        self.part
            .as_ref()
            .is_none_or(|(pod, _)| pod.hosts.contains(&service.host))
    }

    fn fallback_path(&self) -> Option<&FallbackPath> {
        self.part.as_ref().map(|(_, fallback_path)| fallback_path)
    }
}

/// What proxies of this kind are served. `before` is what they were served last, and `good` has the MetaRouters to go
/// back to where that has none.
pub(super) fn make(
    input: &StandaloneInput,
    side: &Side<'_>,
    before: Option<&Served>,
    good: Option<&Served>,
) -> Served {
    let mut hosts = BTreeSet::new();
    let mut services: Vec<&ServiceInput> = input.services.iter().collect();
    services.sort_by(|a, b| a.host.cmp(&b.host));
    services.retain(|s| hosts.insert(s.host.as_str()));
    let mut out = Served::default();
    let places = listeners::places(&side.listen, &services, &mut out.problems);
    let made: Vec<(Member<'_>, Vec<Made>)> = services
        .iter()
        .flat_map(|s| s.ports.iter().map(move |p| (*s, p)))
        .filter(|member| side.sees(member))
        .map(|member| (member, clusters::of_port(member.0, member.1)))
        .collect();
    let mut maker = Maker {
        input,
        side,
        before,
        good,
        made,
        out,
    };
    maker.all(&places, &services);
    let mut out = maker.out;
    out.sort();
    out
}

struct Maker<'a> {
    input: &'a StandaloneInput,
    side: &'a Side<'a>,
    before: Option<&'a Served>,
    good: Option<&'a Served>,
    made: Vec<(Member<'a>, Vec<Made>)>,
    out: Served,
}

fn origin(service: &ServiceInput) -> String {
    format!(
        "{} {}/{}",
        service.source.as_str(),
        service.namespace,
        service.service
    )
}

fn key((service, port): &Member<'_>) -> PortKey {
    (service.host.clone(), port.number)
}

impl<'a> Maker<'a> {
    fn all(&mut self, places: &[Place<'a>], services: &[&'a ServiceInput]) {
        for place in places {
            let opened = place.members.iter().map(|(service, port)| Opened {
                host: service.host.clone(),
                port: port.number,
                addresses: place.addresses.clone(),
            });
            self.out.opened.extend(opened);
        }
        for place in places.iter().filter(|p| !p.is_http()) {
            self.other(place);
        }
        self.publish();
        let made = std::mem::take(&mut self.made);
        let known = Known {
            clusters: made
                .iter()
                .flat_map(|(_, m)| m.iter().map(|c| c.name.as_str()))
                .collect(),
            services,
        };
        for place in places.iter().filter(|p| p.is_http()) {
            self.http(place, &known);
        }
        if let Listen::Captured { port } = &self.side.listen {
            self.ours(LDS, listeners::CAPTURE, listeners::capture(*port));
            self.ours(CDS, clusters::PASSTHROUGH, clusters::passthrough());
        }
        if let Some(address) = self.side.access_log {
            let cluster = fallback::access_log_cluster(address);
            self.ours(CDS, fallback::ACCESS_LOG_CLUSTER, cluster);
        }
    }

    /// What is of no object.
    fn ours(&mut self, type_url: &str, name: &str, content: Value) {
        self.out.put(type_url, name, content, "trimtab", For::Proxy);
    }

    fn publish(&mut self) {
        for (member, clusters) in &self.made {
            let (origin, key) = (origin(member.0), key(member));
            for one in clusters {
                // A port that keeps what it had keeps its clusters too.
                if !self.out.has(CDS, &one.name) {
                    self.out.put(
                        CDS,
                        &one.name,
                        one.cluster.clone(),
                        &origin,
                        For::Port(&key),
                    );
                }
                if let Some(endpoints) = &one.endpoints {
                    self.out
                        .put(EDS, &one.name, endpoints.clone(), &origin, For::Port(&key));
                }
            }
        }
    }

    fn http(&mut self, place: &Place<'a>, known: &Known<'_>) {
        let all = self.input.limits.iter();
        let limits: Vec<&HttpLimit> = all
            .filter(|l| place.members.iter().any(|m| routes::applies(l, m)))
            .collect();
        let Some((first, port)) = place.members.first() else {
            return;
        };
        let origin = origin(first);
        let seen = |member: &Member<'_>| self.side.sees(member);
        let mut table = routes::configuration(place, &seen, known, &limits, &mut self.out.problems);
        let alone = place.members.len() == 1 && place.members.iter().all(seen);
        if let Some(fallback_path) = self.side.fallback_path() {
            if let (false, Some(hosts)) = (alone, table["virtual_hosts"].as_array_mut()) {
                hosts.push(fallback_path.virtual_host(port.number, &limits));
            }
            // It is there even where nothing leads to it, so that it is no change when something does.
            let name = fallback::cluster_of(port.number);
            let cluster = fallback_path.cluster(&name, port.number);
            self.ours(CDS, &name, cluster);
        }
        let hosts: BTreeSet<String> = place
            .members
            .iter()
            .filter(|member| seen(member))
            .map(|(service, _)| service.host.clone())
            .collect();
        let of = For::Hosts(hosts.clone());
        self.out.put(RDS, &place.name, table, &origin, of);
        let log = self.side.access_log;
        let log = log.map(|_| fallback::access_log(None, port.number));
        let filters = [listeners::http(&place.name, &limits, log)];
        let listener = listeners::listener(place, &self.side.listen, &filters);
        self.out
            .put(LDS, &place.name, listener, &origin, For::Hosts(hosts));
    }

    /// A listener of one port that is not HTTP.
    fn other(&mut self, place: &Place<'a>) {
        let Some(member) = place.members.first() else {
            return;
        };
        let (service, port) = *member;
        let (origin, key) = (origin(service), key(member));
        let log = self.side.access_log;
        let log = log.map(|_| fallback::access_log(Some(&service.host), port.number));
        let mut of_listener = None;
        let filters = match &port.speaks {
            AppProtocol::Managed(of) if self.side.sees(member) => {
                let Some(filters) = self.protocol(of, service, &key) else {
                    if let Some(before) = self.before {
                        self.out.keep(before, &key, &place.name);
                    }
                    return;
                };
                // Not every filter writes a log of its own.
                of_listener = log;
                filters
            }
            speaks => {
                let managed = matches!(speaks, AppProtocol::Managed(_));
                let name = if managed {
                    fallback::cluster_of(port.number)
                } else {
                    trimtab_metaprotocol::input::outbound_cluster(port.number, "", &service.host)
                };
                if let (Some(fallback_path), false) =
                    (self.side.fallback_path(), self.side.sees(member))
                {
                    // In the place of the service's own cluster, so that the listener need not know.
                    let cluster = if managed || clusters::is_by_name(port) {
                        fallback_path.cluster(&name, port.number)
                    } else {
                        let of = fallback::cluster_of(port.number);
                        let endpoints = fallback_path.endpoints(&of, port.number);
                        self.out.put(EDS, &of, endpoints, "trimtab", For::Proxy);
                        fallback_path.cluster_in_place(&name, port.number)
                    };
                    self.out.put(CDS, &name, cluster, &origin, For::Port(&key));
                }
                let attempts = self.side.fallback_path().map(FallbackPath::attempts);
                vec![listeners::tcp(&name, attempts, log)]
            }
        };
        let mut listener = listeners::listener(place, &self.side.listen, &filters);
        if let Some(log) = of_listener {
            listener["access_log"] = Value::from(vec![log]);
        }
        self.out
            .put(LDS, &place.name, listener, &origin, For::Port(&key));
    }

    /// The network filters of a managed port; `None`: what is in force must stay.
    fn protocol(
        &mut self,
        of: &ServicePortInput,
        service: &ServiceInput,
        key: &PortKey,
    ) -> Option<Vec<Value>> {
        let known = [self.before, self.good].into_iter().flatten();
        let last = known.into_iter().find_map(|s| s.in_force.get(key));
        let made = managed::make(of, last);
        if let Some(router) = made.in_force {
            self.out.in_force.insert(key.clone(), router);
        }
        for refusal in made.refusals {
            if !self.out.refusals.contains(&refusal) {
                self.out.refusals.push(refusal);
            }
        }
        if made.retained {
            return None;
        }
        let mut all = self.made.iter_mut();
        let own = all.find(|(m, _)| m.0.host == service.host && m.1.number == of.port.number);
        let clusters = own.map(|(_, clusters)| clusters.as_mut_slice());
        for (name, cluster) in clusters::patched(clusters.unwrap_or_default(), &made.clusters) {
            self.out
                .put(CDS, &name, cluster, &origin(service), For::Port(key));
        }
        for resource in made.resources {
            self.out.put_encoded(resource, key);
        }
        Some(made.filters)
    }
}
