//! Configuration of the fallback: a stock Envoy, no control plane.
//!
//! ```text
//! HTTP listener: destination from Slime-Orig-Dest -> refuse the node's own addresses -> complete a short host -> there
//!                without the header -> the host by DNS
//! TCP listener:  destination from the PROXY protocol header -> refuse the node's own addresses -> there
//! ```
//!
//! The fallback's own Istio sidecar catches what leaves, so that the mesh's routes, policies and mTLS hold on that leg.
//!
//! # What the access log says
//!
//! HTTP: one entry when a request ends, and for one that takes longer than half a second an entry about half a second after
//! its start (once or twice), so that a stream that lasts for days is learned at once. Their metadata `trimtab` has
//! `destination` (`ip:port` as the application called it), `source` (`namespace/pod`) and `source_namespace`, as far as the
//! caller's proxy sent them; `-` is a part that it did not know. `request.authority` is the host after completion.
//! TCP: one entry when the connection to the destination is made, one at its end; `downstream_remote_address` is the caller,
//! `downstream_local_address` the destination, the custom tag `sni` the server name of a TLS connection.

mod clusters;
mod http;
mod logs;
mod tcp;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trimtab_crds::Duration;

use super::{NAME, TCP_PORT};

/// Namespace of the metadata in access log entries.
pub const METADATA: &str = "trimtab";
/// `log_name` of HTTP entries.
pub const HTTP_LOG: &str = "trimtab-fallback-http";
/// `log_name` of TCP entries.
pub const TCP_LOG: &str = "trimtab-fallback-tcp";
/// Path of the liveness probe, as Slime's.
pub const LIVE: &str = "/healthz/live";
/// Path of the readiness probe, as Slime's.
pub const READY: &str = "/healthz/ready";

/// Where the parts of the fallback listen, and whom it tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProxyOptions {
    /// HTTP of all ports.
    pub http: SocketAddr,
    /// TCP with a PROXY protocol header; absent: closed.
    pub tcp: Option<SocketAddr>,
    /// Probes, and `/metrics` for Prometheus.
    pub probe: SocketAddr,
    /// Envoy's admin interface. It can do anything to the proxy: keep it on loopback.
    pub admin: SocketAddr,
    /// `host:port` of Trimtab's access log server; empty: no access logs.
    pub access_log: String,
    /// How long entries are gathered, for example `200ms`.
    pub access_log_flush: Duration,
    /// Destinations that are refused with 403, or by closing the connection: CIDR ranges. The default is what means another
    /// machine on each machine, with it the admin interfaces of both proxies of the pod.
    pub refuse: Vec<String>,
}

impl ProxyOptions {
    /// Checks what types cannot say. The error names the key and the fix.
    pub fn check(&self) -> Result<(), String> {
        for range in &self.refuse {
            if range.parse::<ipnet::IpNet>().is_err() {
                return Err(format!(
                    "refuse: \"{range}\" is not a range of addresses: write for example 10.0.0.0/8"
                ));
            }
        }
        let port = |at: &str| at.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        if !self.access_log.is_empty() && port(&self.access_log).is_none_or(|p: u16| p == 0) {
            return Err(format!(
                "accessLog: \"{}\" has no port: write host:port",
                self.access_log
            ));
        }
        if !self.admin.ip().is_loopback() {
            return Err(format!(
                "admin: {} can be reached from outside: use 127.0.0.1",
                self.admin
            ));
        }
        if self.access_log_flush.is_zero() {
            return Err(
                "accessLogFlush: 0s would flush without a pause: write for example 200ms"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Where TCP is taken unless the options say otherwise.
    pub fn tcp_address(ip: IpAddr) -> SocketAddr {
        SocketAddr::new(ip, TCP_PORT)
    }
}

impl Default for ProxyOptions {
    fn default() -> Self {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            http: SocketAddr::new(any, 15080),
            tcp: None,
            probe: SocketAddr::new(any, 18181),
            admin: SocketAddr::from(([127, 0, 0, 1], 15082)),
            access_log: String::new(),
            access_log_flush: Duration::from_millis(200),
            refuse: [
                "0.0.0.0/8",
                "127.0.0.0/8",
                "169.254.0.0/16",
                "::/127",
                "::ffff:0.0.0.0/96",
                "fe80::/10",
                "fd00:ec2::254/128",
            ]
            .map(str::to_owned)
            .to_vec(),
        }
    }
}

/// The bootstrap configuration, of options that [`ProxyOptions::check`] accepts.
pub fn bootstrap(options: &ProxyOptions) -> Value {
    let mut listeners = vec![http::listener(options), http::probe_listener(options)];
    let mut clusters = vec![
        clusters::destination(),
        clusters::by_name(),
        clusters::admin(options.admin),
    ];
    if let Some(at) = options.tcp {
        listeners.push(tcp::listener(options, at));
        clusters.push(clusters::tcp_destination());
    }
    if !options.access_log.is_empty() {
        clusters.push(clusters::access_log(&options.access_log));
    }
    json!({
        "node": {"id": NAME, "cluster": NAME},
        "admin": {"address": address(options.admin)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}

fn address(at: SocketAddr) -> Value {
    let mut socket = json!({"address": at.ip().to_string(), "port_value": at.port()});
    if at.is_ipv6() && at.ip().is_unspecified() {
        socket["ipv4_compat"] = json!(true);
    }
    json!({"socket_address": socket})
}

/// `refuse` as Envoy's ranges.
fn ranges(options: &ProxyOptions) -> Vec<Value> {
    options
        .refuse
        .iter()
        .filter_map(|text| text.parse::<ipnet::IpNet>().ok())
        .map(|net| json!({"address_prefix": net.network().to_string(), "prefix_len": net.prefix_len()}))
        .collect()
}
