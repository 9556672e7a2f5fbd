//! Clusters (`networking/core/cluster.go`).

use std::collections::BTreeSet;

use super::import::{Imported, Service};
use super::subsets::subsets;
use super::{Client, cluster};
use crate::scope::services::{Protocol, Resolution, Services};

/// Names of the outbound clusters of services.
pub(super) fn names(
    client: &Client<'_>,
    imported: &Imported,
    services: &dyn Services,
) -> BTreeSet<String> {
    let known = imported.known.iter();
    let known = known.filter(|s| s.entry.resolution != Resolution::Alias);
    known
        .flat_map(|service| of_service(client, service, services))
        .collect()
}

fn of_service(client: &Client<'_>, service: &Service, services: &dyn Services) -> Vec<String> {
    let host = &**service.host();
    let for_any_host = host.starts_with('*') && service.entry.resolution == Resolution::DynamicDns;
    let named = if for_any_host {
        BTreeSet::new()
    } else {
        subsets(client, service, services)
    };
    let carried = service.ports.iter().filter(|port| {
        !for_any_host
            || matches!(
                port.protocol,
                Protocol::Http | Protocol::Http2 | Protocol::Tls
            )
    });
    let of_port = |port: u16| {
        let all = std::iter::once("").chain(named.iter().map(String::as_str));
        all.map(move |subset| cluster(host, subset, port))
            .collect::<Vec<_>>()
    };
    carried.flat_map(|port| of_port(port.number)).collect()
}
