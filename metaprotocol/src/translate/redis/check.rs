//! Checks of a RedisService and of the RedisDestination of its host.

use std::collections::BTreeSet;
use std::time::Duration;

use trimtab_kit::envoy::is_duration;
use trimtab_kit::problem::Problem;

use super::{cluster, prefix};
use crate::input::{Destination, RedisFaultKind, RedisMode, RedisService, ServicePortInput};
use crate::owner::Owner;
use crate::span::Span;

/// Envoy's bound.
const PREFIX_BYTES: usize = 1000;

/// What is wrong.
#[derive(Default)]
pub(super) struct Diagnostics {
    /// Cannot be applied: nothing is changed.
    pub(super) invalid: Vec<Problem>,
    /// Is applied, but surely not meant.
    pub(super) doubtful: Vec<Problem>,
}

impl Diagnostics {
    fn invalid(
        &mut self,
        owner: &Owner,
        field: String,
        reason: &'static str,
        text: impl Into<String>,
    ) {
        self.invalid.push(Problem::new(owner, field, reason, text));
    }

    fn doubtful(
        &mut self,
        owner: &Owner,
        field: String,
        reason: &'static str,
        text: impl Into<String>,
    ) {
        self.doubtful.push(Problem::new(owner, field, reason, text));
    }

    fn span(&mut self, owner: &Owner, field: String, span: Option<&Span>, least: Duration) {
        let Some(span) = span else { return };
        match span.get() {
            Ok(d) if !is_duration(*d) => self.invalid(
                owner,
                field,
                "InvalidDuration",
                format!("\"{span}\" is longer than proxies can count: write 2562047h at most"),
            ),
            Ok(d) if *d >= least => {}
            Ok(_) => self.invalid(
                owner,
                field,
                "InvalidDuration",
                format!("\"{span}\" is too short: write at least {least:?}"),
            ),
            Err(error) => self.invalid(owner, field, "InvalidDuration", error.to_string()),
        }
    }

    fn percent(&mut self, owner: &Owner, field: String, percent: Option<f64>) {
        if percent.is_some_and(|p| !(p > 0.0 && p <= 100.0)) {
            self.invalid(
                owner,
                field,
                "InvalidPercentage",
                "is not a percentage: write a number above 0, at most 100, or remove it for 100",
            );
        }
    }
}

/// Both objects.
pub(super) fn check(input: &ServicePortInput) -> Diagnostics {
    let mut out = Diagnostics::default();
    settings(&mut out, input);
    routes(&mut out, input);
    faults(&mut out, input);
    destination(&mut out, input);
    out
}

fn settings(out: &mut Diagnostics, input: &ServicePortInput) {
    let Some(service) = &input.redis else { return };
    let (owner, of) = (&service.owner, &service.settings);
    let field = |name: &str| format!("spec.settings.{name}");
    let least = Duration::from_millis(1);
    out.span(owner, field("opTimeout"), of.op_timeout.as_ref(), least);
    out.span(
        owner,
        field("bufferFlushTimeout"),
        of.buffer_flush_timeout.as_ref(),
        Duration::ZERO,
    );
    if of.buffer_flush_timeout.is_some() && of.max_buffer_size_before_flush == 0 {
        let text = "has no effect without settings.maxBufferSizeBeforeFlush: set both";
        out.doubtful(owner, field("bufferFlushTimeout"), "NoEffect", text);
    }
}

fn routes(out: &mut Diagnostics, input: &ServicePortInput) {
    let Some(service) = &input.redis else { return };
    let owner = &service.owner;
    let mut seen = BTreeSet::new();
    let mut rest = 0;
    for (i, route) in service.routes.iter().enumerate() {
        let field = format!("spec.redis[{i}]");
        match prefix(route) {
            Some(prefix) => {
                let field = format!("{field}.match.key.prefix");
                let fresh = seen.insert(known_as(service, prefix));
                prefixed(out, owner, field, prefix, fresh);
            }
            None => rest += 1,
        }
        reference(
            out,
            owner,
            &format!("{field}.route"),
            input,
            &route.destination,
        );
        for (j, mirror) in route.mirrors.iter().enumerate() {
            let field = format!("{field}.mirror[{j}]");
            reference(
                out,
                owner,
                &format!("{field}.route"),
                input,
                &mirror.destination,
            );
            out.percent(owner, format!("{field}.percentage"), mirror.percent);
        }
    }
    if rest > 1 {
        let text = format!(
            "{rest} routes have no prefix, and the last of them is used: remove the others"
        );
        out.doubtful(owner, "spec.redis".to_owned(), "Unreachable", text);
    }
}

/// A prefix as Envoy compares it with others.
fn known_as(service: &RedisService, prefix: &str) -> String {
    if service.settings.case_insensitive {
        prefix.to_lowercase()
    } else {
        prefix.to_owned()
    }
}

fn prefixed(out: &mut Diagnostics, owner: &Owner, field: String, prefix: &str, fresh: bool) {
    if prefix.len() > PREFIX_BYTES {
        let text = format!("is longer than {PREFIX_BYTES} bytes: shorten it");
        out.invalid(owner, field, "InvalidPrefix", text);
    } else if !fresh {
        let text =
            format!("\"{prefix}\" is the prefix of another route too: remove one of the two");
        out.invalid(owner, field, "DuplicatePrefix", text);
    }
}

/// Whether a destination is there. It is used as written: other routes work, and it works when it comes.
fn reference(
    out: &mut Diagnostics,
    owner: &Owner,
    field: &str,
    input: &ServicePortInput,
    to: &Destination,
) {
    if to.host.is_empty() {
        out.invalid(
            owner,
            format!("{field}.host"),
            "NoDestination",
            "leads nowhere: name a host",
        );
        return;
    }
    let port = to.port.unwrap_or(input.port.number);
    match input.hosts.get(&to.host) {
        // The service's own port needs no facts.
        _ if to.host == input.host && port == input.port.number => {}
        None => out.doubtful(
            owner,
            format!("{field}.host"),
            "UnknownHost",
            format!(
                "no Service or ServiceEntry has the host \"{}\": create it, or correct the name",
                to.host
            ),
        ),
        Some(facts) if !facts.ports.contains_key(&port) => out.doubtful(
            owner,
            format!("{field}.port"),
            "UnknownPort",
            format!("{} has no port {port}: write one that it has", to.host),
        ),
        Some(_) => {}
    }
}

fn faults(out: &mut Diagnostics, input: &ServicePortInput) {
    let Some(service) = &input.redis else { return };
    let owner = &service.owner;
    for (i, fault) in service.faults.iter().enumerate() {
        let field = format!("spec.faults[{i}]");
        out.percent(owner, format!("{field}.percentage"), fault.percent);
        let delay = format!("{field}.delay");
        out.span(
            owner,
            delay.clone(),
            fault.delay.as_ref(),
            Duration::from_millis(1),
        );
        if fault.kind == RedisFaultKind::Delay && fault.delay.is_none() {
            let text = "a fault of type DELAY needs one: write for example 100ms";
            out.invalid(owner, delay, "NoDelay", text);
        }
        if fault.commands.iter().any(String::is_empty) {
            let text = "a command has no name: write it, or remove the list for all commands";
            out.invalid(owner, format!("{field}.commands"), "InvalidCommand", text);
        }
    }
}

fn destination(out: &mut Diagnostics, input: &ServicePortInput) {
    let Some(destination) = input.redis_destinations.get(&input.host) else {
        return;
    };
    let owner = &destination.owner;
    let pool = |name: &str| format!("spec.trafficPolicy.connectionPool.{name}");
    let connection = &destination.connection;
    let least = Duration::from_millis(1);
    out.span(
        owner,
        pool("tcp.connectTimeout"),
        connection.connect_timeout.as_ref(),
        least,
    );
    if let Some(keepalive) = &connection.tcp_keepalive {
        let second = Duration::from_secs(1);
        out.span(
            owner,
            pool("tcp.tcpKeepalive.time"),
            keepalive.time.as_ref(),
            second,
        );
        out.span(
            owner,
            pool("tcp.tcpKeepalive.interval"),
            keepalive.interval.as_ref(),
            second,
        );
    }
    let is_cluster = destination.mode == RedisMode::Cluster;
    if connection.max_connections.is_some() && !is_cluster {
        let text = "istiod's cluster has a limit of its own, and the first one holds: set connectionPool.tcp.maxConnections in a DestinationRule of the host";
        out.doubtful(owner, pool("tcp.maxConnections"), "NotSupported", text);
    }
    if !is_cluster && !destination.discovery_endpoints.is_empty() {
        let text = "are used with mode CLUSTER only: set the mode, or remove them";
        out.doubtful(owner, pool("redis.discoveryEndpoints"), "NoEffect", text);
    }
    for (i, endpoint) in destination.discovery_endpoints.iter().enumerate() {
        if cluster::endpoint(endpoint, input.port.number).is_none() {
            let text = format!(
                "\"{endpoint}\" is not an address: write host or host:port, with IPv6 addresses in brackets"
            );
            let field = pool(&format!("redis.discoveryEndpoints[{i}]"));
            out.invalid(owner, field, "InvalidEndpoint", text);
        }
    }
}
