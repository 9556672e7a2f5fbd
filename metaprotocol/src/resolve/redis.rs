//! Redis objects as plain types.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::{Resource, ResourceExt};
use trimtab_crds::redis as crd;
use trimtab_kit::problem::Problem;
use trimtab_mesh::model::Identity;

use super::Mesh;
use super::hosts::{Host, HostPort};
use super::owners::not_owner;
use super::router::unsigned;
use crate::input::{
    Credentials, Destination, HostFacts, Protocol, RedisAuth, RedisConnection, RedisDestination,
    RedisFault, RedisFaultKind, RedisMirror, RedisMode, RedisReadPolicy, RedisRoute, RedisService,
    RedisSettings, TcpKeepalive,
};
use crate::owner::Owner;
use crate::span::Span;

/// The RedisService of a port: of those that decide on the host the first in [`order`].
pub(super) fn service(
    mesh: &Mesh,
    host: &Host,
    port: &HostPort,
    facts: &BTreeMap<String, HostFacts>,
) -> Option<RedisService> {
    if port.protocol != Some(Protocol::Redis) {
        return None;
    }
    let found = service_in_force(mesh, host)?;
    let namespace = found.namespace().unwrap_or_default();
    let spec = &found.spec;
    let to = |d: &crd::RouteDestination| Destination {
        host: d.host.clone(),
        subset: String::new(),
        port: Some(target_port(d, port, facts)),
    };
    let routes = spec.redis.iter().map(|route| {
        let key = route.matches.as_ref().and_then(|m| m.key.as_ref());
        let mirrors = route.mirror.iter().map(|mirror| RedisMirror {
            destination: to(&mirror.route),
            percent: mirror.percentage.map(|p| p.value),
            exclude_read_commands: mirror.exclude_read_commands,
        });
        RedisRoute {
            prefix: key.map(|k| k.prefix.clone()).filter(|p| !p.is_empty()),
            remove_prefix: key.is_some_and(|k| k.remove_prefix),
            destination: to(&route.route),
            mirrors: mirrors.collect(),
        }
    });
    let faults = spec.faults.iter().map(|fault| RedisFault {
        kind: match fault.r#type {
            crd::FaultType::Delay => RedisFaultKind::Delay,
            crd::FaultType::Error => RedisFaultKind::Error,
        },
        percent: fault.percentage.map(|p| p.value),
        delay: fault.delay.as_deref().map(Span::new),
        commands: fault.commands.clone(),
    });
    let settings = spec.settings.as_ref();
    Some(RedisService {
        owner: Owner::of("RedisService", found),
        settings: settings
            .map(|s| self::settings(mesh, &namespace, s))
            .unwrap_or_default(),
        routes: routes.collect(),
        faults: faults.collect(),
    })
}

/// Hosts that a RedisService leads to.
pub(super) fn hosts(service: &RedisService) -> impl Iterator<Item = String> + '_ {
    service.routes.iter().flat_map(|route| {
        let mirrors = route.mirrors.iter().map(|m| m.destination.host.clone());
        mirrors.chain([route.destination.host.clone()])
    })
}

/// The port that is written; else the one with the name of the port that is called; else the one with its number.
fn target_port(
    to: &crd::RouteDestination,
    called: &HostPort,
    facts: &BTreeMap<String, HostFacts>,
) -> u16 {
    let written = to
        .port
        .and_then(|p| u16::try_from(p).ok())
        .filter(|p| *p > 0);
    let named = || {
        let ports = &facts.get(&to.host)?.ports;
        ports
            .iter()
            .find(|(_, name)| **name == called.port.name)
            .map(|(number, _)| *number)
    };
    written.or_else(named).unwrap_or(called.port.number)
}

fn settings(mesh: &Mesh, namespace: &str, given: &crd::Settings) -> RedisSettings {
    RedisSettings {
        case_insensitive: given.case_insensitive,
        op_timeout: given.op_timeout.as_deref().map(Span::new),
        enable_command_stats: given.enable_command_stats,
        max_buffer_size_before_flush: unsigned(given.max_buffer_size_before_flush.unwrap_or(0)),
        buffer_flush_timeout: given.buffer_flush_timeout.as_deref().map(Span::new),
        max_upstream_unknown_connections: given.max_upstream_unknown_connections.map(unsigned),
        enable_hashtagging: given.enable_hashtagging,
        enable_redirection: given.enable_redirection,
        read_policy: match given.read_policy {
            crd::ReadPolicy::Master => RedisReadPolicy::Master,
            crd::ReadPolicy::PreferMaster => RedisReadPolicy::PreferMaster,
            crd::ReadPolicy::Replica => RedisReadPolicy::Replica,
            crd::ReadPolicy::PreferReplica => RedisReadPolicy::PreferReplica,
            crd::ReadPolicy::Any => RedisReadPolicy::Any,
        },
        auth: given.auth.as_ref().and_then(|a| auth(mesh, namespace, a)),
    }
}

fn auth(mesh: &Mesh, namespace: &str, given: &crd::Auth) -> Option<RedisAuth> {
    if let Some(secret) = &given.secret {
        let (password, username) = (secret.password_field.clone(), secret.username_field.clone());
        return Some(RedisAuth::Secret {
            resolved: mesh.credentials(
                namespace,
                &secret.name,
                password.as_deref(),
                username.as_deref(),
            ),
            namespace: namespace.to_owned(),
            name: secret.name.clone(),
            password_field: password,
            username_field: username,
        });
    }
    given.plain.as_ref().map(|plain| RedisAuth::Plain {
        credentials: Credentials {
            username: plain.username.clone().unwrap_or_default(),
            password: plain.password.clone(),
        },
    })
}

/// RedisDestinations of these hosts: of those that decide on a host the first in [`order`].
pub(super) fn destinations(
    mesh: &Mesh,
    protocol: &Protocol,
    hosts: &BTreeMap<String, HostFacts>,
    all: &BTreeMap<String, Host>,
) -> BTreeMap<String, RedisDestination> {
    if *protocol != Protocol::Redis {
        return BTreeMap::new();
    }
    let hosts = hosts.keys().filter_map(|name| all.get(name));
    let found = hosts.filter_map(|host| Some((host, destination_in_force(mesh, host)?)));
    found
        .map(|(host, object)| (host.name.clone(), destination(mesh, object)))
        .collect()
}

/// Objects of the host's own namespace go before others, older ones before younger.
fn order<K: Resource>(object: &K, host: &Host) -> impl Ord + use<K> {
    let elsewhere = object.meta().namespace.as_deref() != Some(&host.namespace);
    (elsewhere, Identity::of(object).age())
}

fn service_in_force<'a>(mesh: &'a Mesh, host: &Host) -> Option<&'a crd::RedisService> {
    let objects = mesh.redis_services.iter().map(AsRef::as_ref);
    objects
        .filter(|r| r.spec.host.contains(&host.name))
        .filter(|r| mesh.decides(r.namespace().as_deref(), host))
        .min_by_key(|r| order(*r, host))
}

fn destination_in_force<'a>(mesh: &'a Mesh, host: &Host) -> Option<&'a crd::RedisDestination> {
    let objects = mesh.redis_destinations.iter().map(AsRef::as_ref);
    objects
        .filter(|d| d.spec.host == host.name)
        .filter(|d| mesh.decides(d.namespace().as_deref(), host))
        .min_by_key(|d| order(*d, host))
}

/// Tells the objects that nothing is made of for one of their hosts.
pub(super) fn check(mesh: &Mesh, hosts: &BTreeMap<String, Host>, problems: &mut Vec<Problem>) {
    for object in &mesh.redis_services {
        let owner = Owner::of("RedisService", object.as_ref());
        let named = object.spec.host.iter().enumerate();
        for (i, name) in named.filter(|(_, name)| mesh.tells(name)) {
            let host = redis_host(hosts, name);
            let found = host.and_then(|h| service_in_force(mesh, h));
            let first = found.map(|f| Owner::of("RedisService", f));
            let field = format!("spec.host[{i}]");
            problems.extend(unused(mesh, &owner, field, (name, host), first.as_ref()));
        }
    }
    let destinations = mesh.redis_destinations.iter();
    for object in destinations.filter(|d| mesh.tells(&d.spec.host)) {
        let owner = Owner::of("RedisDestination", object.as_ref());
        let name = &object.spec.host;
        let routed = |r: &Arc<crd::RedisService>| {
            let mut routes = r.spec.redis.iter();
            routes.any(|route| {
                let mut mirrors = route.mirror.iter().map(|m| &m.route);
                route.route.host == *name || mirrors.any(|to| to.host == *name)
            })
        };
        let routed = || mesh.redis_services.iter().any(routed);
        let host = redis_host(hosts, name).or_else(|| hosts.get(name).filter(|_| routed()));
        let found = host.and_then(|h| destination_in_force(mesh, h));
        let first = found.map(|f| Owner::of("RedisDestination", f));
        problems.extend(unused(
            mesh,
            &owner,
            "spec.host",
            (name, host),
            first.as_ref(),
        ));
    }
}

/// A host with a Redis port.
fn redis_host<'a>(hosts: &'a BTreeMap<String, Host>, name: &str) -> Option<&'a Host> {
    let speaks = |h: &&Host| {
        let mut ports = h.ports.iter();
        ports.any(|p| p.protocol == Some(Protocol::Redis))
    };
    hosts.get(name).filter(speaks)
}

/// Why nothing is made of an object for a host; `first` is the object in force.
fn unused(
    mesh: &Mesh,
    owner: &Owner,
    field: impl Into<String>,
    (name, host): (&str, Option<&Host>),
    first: Option<&Owner>,
) -> Option<Problem> {
    let Some(host) = host else {
        return Some(Problem::new(
            owner,
            field,
            "NoHost",
            format!(
                "no Service or ServiceEntry has the host \"{name}\" with a Redis port: name a port of the service like tcp-redis, or correct the host"
            ),
        ));
    };
    if !mesh.decides(Some(&owner.namespace), host) {
        let what = "its Redis settings";
        return Some(not_owner(mesh, owner.clone(), field, what, host));
    }
    let first = first.filter(|first| *first != owner)?;
    Some(Problem::new(
        owner,
        field,
        "Conflict",
        format!(
            "{first} is in force for \"{name}\": put the settings into one of the two and delete the other"
        ),
    ))
}

fn destination(mesh: &Mesh, object: &crd::RedisDestination) -> RedisDestination {
    let pool = object
        .spec
        .traffic_policy
        .as_ref()
        .and_then(|t| t.connection_pool.as_ref());
    let tcp = pool.and_then(|p| p.tcp.as_ref());
    let redis = pool.and_then(|p| p.redis.as_ref());
    let namespace = object.namespace().unwrap_or_default();
    let keepalive = tcp
        .and_then(|t| t.tcp_keepalive.as_ref())
        .map(|k| TcpKeepalive {
            probes: k.probes.map(unsigned),
            time: k.time.as_deref().map(Span::new),
            interval: k.interval.as_deref().map(Span::new),
        });
    RedisDestination {
        owner: Owner::of("RedisDestination", object),
        mode: match redis.map(|r| r.mode).unwrap_or_default() {
            crd::Mode::Proxy => RedisMode::Proxy,
            crd::Mode::Cluster => RedisMode::Cluster,
        },
        auth: redis
            .and_then(|r| r.auth.as_ref())
            .and_then(|a| auth(mesh, &namespace, a)),
        discovery_endpoints: redis
            .map(|r| r.discovery_endpoints.clone())
            .unwrap_or_default(),
        connection: RedisConnection {
            max_connections: tcp
                .and_then(|t| t.max_connections)
                .map(|n| unsigned(n.into())),
            connect_timeout: tcp
                .and_then(|t| t.connect_timeout.as_deref())
                .map(Span::new),
            tcp_keepalive: keepalive,
        },
    }
}
