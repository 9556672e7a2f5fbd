//! From ServiceEntries to services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use trimtab_crds::istio::{ServiceEntryEndpoint, ServiceEntryPort};
use trimtab_kit::problem::Problem;
use trimtab_mesh::model::{ServiceEntry, port_protocol};
use trimtab_metaprotocol::input::Source;
use trimtab_metaprotocol::owner::Owner;

use super::Reader;
use crate::host::is_host;
use crate::input::{EndpointInput, PortInput, ServiceInput};
use crate::ports::speaks;

impl Reader<'_> {
    pub(super) fn entry(&mut self, entry: &ServiceEntry) -> Vec<ServiceInput> {
        let spec = &entry.spec;
        let resolution = spec.resolution.as_deref().unwrap_or("NONE");
        if !matches!(resolution, "STATIC" | "DNS" | "DNS_ROUND_ROBIN") {
            self.not_done(Owner::of_row("ServiceEntry", &entry.id), "spec.resolution", "a proxy without Istio must know where servers are: use STATIC with endpoints, or DNS");
            return Vec::new();
        }
        if spec.workload_selector.is_some() {
            self.not_done(
                Owner::of_row("ServiceEntry", &entry.id),
                "spec.workloadSelector",
                "endpoints are not selected without Istio: write spec.endpoints",
            );
        }
        self.entry_addresses(entry, resolution);
        let vips: BTreeSet<IpAddr> = entry.addresses().collect();
        let mut out = Vec::new();
        for host in &spec.hosts {
            let host = &host.to_ascii_lowercase();
            if !is_host(host) {
                self.problems.push(Problem::new(
                    Owner::of_row("ServiceEntry", &entry.id),
                    "spec.hosts",
                    "InvalidHost",
                    format!(
                        "\"{}\" is no DNS name: write for example api.example.com or *.example.com",
                        host.escape_debug()
                    ),
                ));
                continue;
            }
            if host.starts_with('*') && spec.endpoints.is_empty() && resolution != "STATIC" {
                self.not_done(
                    Owner::of_row("ServiceEntry", &entry.id),
                    "spec.hosts",
                    "nobody can resolve a name with a wildcard: write spec.endpoints",
                );
                continue;
            }
            let ports = spec.ports.iter().filter_map(|port| {
                let number = port.number()?;
                let speaks = self.speaks(host, number, speaks(port_protocol(port)));
                let endpoints = entry_endpoints(entry, host, port, resolution);
                Some(PortInput {
                    number,
                    speaks,
                    endpoints,
                })
            });
            let ports = ports.collect();
            out.push(ServiceInput {
                host: host.clone(),
                namespace: entry.id.namespace.to_string(),
                service: entry.id.name.to_string(),
                source: Source::ServiceEntry,
                vips: vips.iter().copied().collect(),
                ports,
                ..ServiceInput::default()
            });
        }
        out
    }

    /// Says which endpoints are left out: istiod's webhook refuses such objects.
    fn entry_addresses(&mut self, entry: &ServiceEntry, resolution: &str) {
        for (i, endpoint) in entry.spec.endpoints.iter().enumerate() {
            let address = &endpoint.address;
            if !is_served(address, resolution) {
                let text = match resolution {
                    _ if address.starts_with("unix:") => {
                        "Unix sockets are not served: write an IP address".to_owned()
                    }
                    "STATIC" => format!(
                        "\"{}\" is no IP address, as resolution STATIC needs it: write an IP address, or resolution DNS",
                        address.escape_debug()
                    ),
                    _ => format!(
                        "\"{}\" is no IP address and no DNS name: write one of both",
                        address.escape_debug()
                    ),
                };
                self.not_done(
                    Owner::of_row("ServiceEntry", &entry.id),
                    &format!("spec.endpoints[{i}].address"),
                    &text,
                );
            }
        }
    }
}

/// Whether a proxy can reach an address: names are for DNS alone.
fn is_served(address: &str, resolution: &str) -> bool {
    address.parse::<IpAddr>().is_ok()
        || (resolution != "STATIC"
            && is_host(&address.to_ascii_lowercase())
            && !address.starts_with('*'))
}

/// Endpoints of a port of a ServiceEntry; with DNS and none written, the host itself.
fn entry_endpoints(
    entry: &ServiceEntry,
    host: &str,
    port: &ServiceEntryPort,
    resolution: &str,
) -> Vec<EndpointInput> {
    let Some(target) = port.target().or(port.number()) else {
        return Vec::new();
    };
    let endpoints = &entry.spec.endpoints;
    if endpoints.is_empty() && resolution != "STATIC" {
        return vec![EndpointInput {
            address: host.to_owned(),
            port: target,
            ..EndpointInput::default()
        }];
    }
    let reachable = |e: &&ServiceEntryEndpoint| is_served(&e.address, resolution);
    let one = |endpoint: &ServiceEntryEndpoint| EndpointInput {
        address: endpoint.address.clone(),
        port: endpoint.port(&port.name).unwrap_or(target),
        labels: endpoint.labels.clone(),
        weight: endpoint.weight,
    };
    let all: BTreeSet<EndpointInput> = endpoints.iter().filter(reachable).map(one).collect();
    all.into_iter().collect()
}
