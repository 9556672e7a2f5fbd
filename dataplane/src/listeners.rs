//! Where proxies listen, and what is done with connections.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value, json};
use trimtab_kit::envoyfilter::typed_struct;
use trimtab_kit::problem::Problem;

use crate::address::socket;
use crate::clusters::PASSTHROUGH;
use crate::input::{HttpLimit, Listen, PortInput, ServiceInput};

const CONNECTION_MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const TCP_PROXY: &str =
    "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const LOCAL_RATE_LIMIT: &str =
    "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
/// The listener that redirected connections arrive at.
pub(super) const CAPTURE: &str = "capture";

/// A port of a service.
pub(super) type Member<'a> = (&'a ServiceInput, &'a PortInput);

/// One listener and the ports that it serves: several of HTTP, or one of another protocol.
pub(super) struct Place<'a> {
    /// Of the listener and, for HTTP, of its routes.
    pub(super) name: String,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) members: Vec<Member<'a>>,
}

impl Place<'_> {
    pub(super) fn is_http(&self) -> bool {
        self.members.iter().all(|(_, port)| port.speaks.is_http())
    }
}

/// Gives every port its place; the ports that have none are reported.
pub(super) fn places<'a>(
    listen: &Listen,
    services: &[&'a ServiceInput],
    problems: &mut Vec<Problem>,
) -> Vec<Place<'a>> {
    let mut out: Vec<Place<'a>> = Vec::new();
    let mut taken: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    let ports = services
        .iter()
        .flat_map(|s| s.ports.iter().map(move |p| (*s, p)));
    for (service, port) in ports {
        let addresses = match addresses(listen, service, port) {
            Ok(addresses) => addresses,
            Err(problem) => {
                problems.push(*problem);
                continue;
            }
        };
        let held = addresses.iter().find_map(|a| Some((a, *taken.get(a)?)));
        match held {
            None => {
                taken.extend(addresses.iter().map(|a| (*a, out.len())));
                out.push(Place {
                    name: addresses.first().map(name).unwrap_or_default(),
                    addresses,
                    members: vec![(service, port)],
                });
            }
            Some((address, index)) => {
                let place = &mut out[index];
                let shared = place.is_http() && port.speaks.is_http();
                if shared && place.addresses == addresses {
                    place.members.push((service, port));
                } else {
                    problems.push(conflict(service, port, *address, &place.members));
                }
            }
        }
    }
    out
}

fn addresses(
    listen: &Listen,
    service: &ServiceInput,
    port: &PortInput,
) -> Result<Vec<SocketAddr>, Box<Problem>> {
    let problem = |reason, text: String| {
        let object = format!(
            "{} {}/{}",
            service.source.as_str(),
            service.namespace,
            service.service
        );
        Err(Box::new(Problem::new(object, "spec.ports", reason, text)))
    };
    match listen {
        Listen::Address {
            address,
            port_offset,
        } => match port.number.checked_add(*port_offset) {
            Some(number) if number > 0 => Ok(vec![SocketAddr::new(*address, number)]),
            _ => problem(
                "PortOutOfRange",
                format!(
                    "port {} and the offset {port_offset} give no port: use a smaller offset",
                    port.number
                ),
            ),
        },
        Listen::Addresses | Listen::Captured { .. } if service.vips.is_empty() => problem(
            "NoAddress",
            format!(
                "{} has no address to listen on: give the ServiceEntry spec.addresses, or let proxies listen on one address",
                service.host
            ),
        ),
        Listen::Addresses | Listen::Captured { .. } => {
            let mut all: Vec<IpAddr> = service.vips.clone();
            all.sort_unstable();
            all.dedup();
            Ok(all
                .into_iter()
                .map(|ip| SocketAddr::new(ip, port.number))
                .collect())
        }
    }
}

fn conflict(
    service: &ServiceInput,
    port: &PortInput,
    address: SocketAddr,
    held_by: &[Member<'_>],
) -> Problem {
    let holder = held_by
        .first()
        .map_or("another service", |(s, _)| s.host.as_str());
    Problem::new(
        format!(
            "{} {}/{}",
            service.source.as_str(),
            service.namespace,
            service.service
        ),
        "spec.ports",
        "PortConflict",
        format!(
            "{address} serves {holder} already, so that port {} of {} is not served: use another port, or let proxies listen on the addresses of services",
            port.number, service.host
        ),
    )
}

/// Name of the listener of an address, and of its routes.
pub(super) fn name(address: &SocketAddr) -> String {
    format!("{}_{}", address.ip(), address.port())
}

/// The listener of a place with these network filters.
pub(super) fn listener(place: &Place<'_>, listen: &Listen, filters: &[Value]) -> Value {
    let mut addresses = place
        .addresses
        .iter()
        .map(|a| socket(&a.ip().to_string(), a.port()));
    let mut out = Map::new();
    out.insert("name".into(), json!(place.name));
    out.insert("address".into(), addresses.next().unwrap_or_default());
    let more: Vec<Value> = addresses.map(|a| json!({"address": a})).collect();
    if !more.is_empty() {
        out.insert("additional_addresses".into(), json!(more));
    }
    out.insert("traffic_direction".into(), json!("OUTBOUND"));
    if matches!(listen, Listen::Captured { .. }) {
        out.insert("bind_to_port".into(), json!(false));
    }
    out.insert("filter_chains".into(), json!([{"filters": filters}]));
    Value::Object(out)
}

/// The listener that hands redirected connections to the one of the address that was called.
pub(super) fn capture(port: u16) -> Value {
    json!({
        "name": CAPTURE,
        "address": socket("0.0.0.0", port),
        "use_original_dst": true,
        "traffic_direction": "OUTBOUND",
        "filter_chains": [{"filters": [tcp_proxy(PASSTHROUGH)]}],
    })
}

/// Bytes to a cluster, with so many attempts to connect, and a log of connections.
pub(super) fn tcp(cluster: &str, attempts: Option<usize>, log: Option<Value>) -> Value {
    let mut config = json!({"stat_prefix": cluster, "cluster": cluster});
    if let Some(attempts) = attempts {
        config["max_connect_attempts"] = json!(attempts);
    }
    if let Some(log) = log {
        config["access_log"] = json!([log]);
        // A connection may be open for days.
        config["access_log_options"] = json!({"flush_access_log_on_connected": true});
    }
    filter("envoy.filters.network.tcp_proxy", TCP_PROXY, &config)
}

/// Bytes to a cluster.
pub(super) fn tcp_proxy(cluster: &str) -> Value {
    tcp(cluster, None, None)
}

fn filter(name: &str, type_url: &str, config: &Value) -> Value {
    json!({"name": name, "typed_config": typed_struct(type_url, config)})
}

/// HTTP by the routes with the name of the place, with a log of calls.
pub(super) fn http(name: &str, limits: &[&HttpLimit], log: Option<Value>) -> Value {
    let mut filters: Vec<Value> = Vec::new();
    for limit in limits {
        // Several ports may have the same limit, and a filter must be there once.
        let one = limit_filter(&limit.filter);
        if !filters.contains(&one) {
            filters.push(one);
        }
    }
    filters.push(json!({"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}));
    let source = json!({"ads": {}, "resource_api_version": "V3"});
    let mut config = json!({
        "stat_prefix": name,
        "rds": {"config_source": source, "route_config_name": name},
        "http_filters": filters,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        // Limits by address go by the connection, and not by what a caller writes.
        "use_remote_address": true,
        "skip_xff_append": true,
        "server_header_transformation": "PASS_THROUGH",
    });
    if let Some(log) = log {
        config["access_log"] = json!([log]);
        // A stream may be open for days.
        config["access_log_options"] = json!({"flush_access_log_on_new_request": true});
    }
    filter(
        "envoy.filters.network.http_connection_manager",
        CONNECTION_MANAGER,
        &config,
    )
}

/// A filter whose buckets come over the stream. A listener does not wait for them.
fn limit_filter(name: &str) -> Value {
    json!({
        "name": name,
        "config_discovery": {
            "config_source": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
            "default_config": {"@type": LOCAL_RATE_LIMIT, "stat_prefix": "standalone"},
            "apply_default_config_without_warming": true,
            "type_urls": [LOCAL_RATE_LIMIT],
        },
    })
}
