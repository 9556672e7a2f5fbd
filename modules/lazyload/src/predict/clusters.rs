//! Clusters (`networking/core/cluster.go`).

use std::collections::BTreeSet;

use super::import::Imported;
use super::known::Service;
use super::subsets::{Subset, subsets};
use super::{Client, cluster, endpoints};
use crate::scope::Labels;
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
        Vec::new()
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
    // Endpoints of DNS come with the cluster, which is none without.
    let is_dns = service.entry.resolution == Resolution::Dns;
    let of_port = |port: u16| {
        let ends = is_dns.then(|| endpoints::of_port(&service.entry, port, services));
        let ends = ends.flatten();
        let has = |labels: &Labels| {
            let all = ends.as_ref();
            all.is_none_or(|all| all.iter().any(|of| is_within(labels, &of.labels)))
        };
        let mut out = Vec::new();
        if has(&Labels::new()) {
            out.push(cluster(host, "", port));
            let there = |subset: &&Subset| subset.passes || has(&subset.labels);
            let there = named.iter().filter(there);
            out.extend(there.map(|subset| cluster(host, &subset.name, port)));
        }
        out
    };
    carried.flat_map(|port| of_port(port.number)).collect()
}

fn is_within(labels: &Labels, of: &Labels) -> bool {
    labels.iter().all(|(k, v)| of.get(k) == Some(v))
}
