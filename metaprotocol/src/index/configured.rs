//! What objects of Redis and Dubbo configure, a line each and without passwords.

use trimtab_crds::dubbo::{Action, DubboAuthorizationPolicySpec};
use trimtab_crds::redis::{
    Auth, FaultType, Mode, RedisDestinationSpec, RedisServiceSpec, RouteDestination,
};

use super::Index;
use crate::object::{Kind, ObjectKey};

impl Index {
    /// What an object configures; none for kinds that are described in another way.
    pub fn configured(&self, key: &ObjectKey) -> Vec<String> {
        let objects = &self.objects;
        let (namespace, name) = (&key.namespace, &key.name);
        match key.kind {
            Kind::RedisService => {
                let object = objects.redis_services.get(namespace, name);
                object.map(|o| redis_service(&o.spec))
            }
            Kind::RedisDestination => {
                let object = objects.redis_destinations.get(namespace, name);
                object.map(|o| redis_destination(&o.spec))
            }
            Kind::DubboAuthorizationPolicy => {
                let object = objects.policies.get(namespace, name);
                object.map(|o| dubbo_policy(&o.spec))
            }
            Kind::MetaRouter | Kind::ApplicationProtocol => None,
        }
        .unwrap_or_default()
    }
}

fn login(who: &str, auth: &Auth) -> String {
    match &auth.secret {
        Some(secret) => format!("{who} with what Secret {} has", secret.name),
        None => format!("{who} with the password in the object"),
    }
}

fn to(destination: &RouteDestination) -> String {
    match destination.port.filter(|port| *port != 0) {
        Some(port) => format!("{}:{port}", destination.host),
        None => destination.host.clone(),
    }
}

fn redis_service(spec: &RedisServiceSpec) -> Vec<String> {
    let mut out = vec![format!("clients of {}", spec.host.join(", "))];
    for (n, route) in spec.redis.iter().enumerate() {
        let key = route.matches.as_ref().and_then(|m| m.key.as_ref());
        let prefix = key.map_or("", |key| &key.prefix);
        let keys = if prefix.is_empty() {
            "all other keys".to_owned()
        } else {
            format!("keys that begin with \"{}\"", prefix.escape_debug())
        };
        let mirrors: Vec<String> = route
            .mirror
            .iter()
            .map(|mirror| format!(", a copy to {}", to(&mirror.route)))
            .collect();
        let way = to(&route.route);
        out.push(format!(
            "spec.redis[{n}]: {keys} go to {way}{}",
            mirrors.concat()
        ));
    }
    if let Some(settings) = &spec.settings {
        let timeout = settings.op_timeout.as_deref();
        out.extend(timeout.map(|timeout| format!("a command may take {timeout}")));
        let auth = settings.auth.as_ref();
        out.extend(auth.map(|auth| login("clients log in", auth)));
    }
    for (n, fault) in spec.faults.iter().enumerate() {
        let share = fault.percentage.map_or(0.0, |p| p.value);
        let what = match fault.r#type {
            FaultType::Delay => "waits",
            FaultType::Error => "fails",
        };
        out.push(format!("spec.faults[{n}]: {share}% of commands {what}"));
    }
    out
}

fn redis_destination(spec: &RedisDestinationSpec) -> Vec<String> {
    let mut out = vec![format!("connections to {}", spec.host)];
    let pool = spec.traffic_policy.as_ref();
    let pool = pool.and_then(|policy| policy.connection_pool.as_ref());
    if let Some(redis) = pool.and_then(|pool| pool.redis.as_ref()) {
        out.push(
            match redis.mode {
                Mode::Proxy => "mode PROXY: the proxy spreads keys over the servers",
                Mode::Cluster => "mode CLUSTER: keys are where the Redis cluster has them",
            }
            .to_owned(),
        );
        let auth = redis.auth.as_ref();
        out.extend(auth.map(|auth| login("proxies log in at the servers", auth)));
    }
    if let Some(tcp) = pool.and_then(|pool| pool.tcp.as_ref()) {
        let most = tcp.max_connections.filter(|most| *most > 0);
        out.extend(most.map(|most| format!("at most {most} connections to a server")));
        let timeout = tcp.connect_timeout.as_deref();
        out.extend(timeout.map(|timeout| format!("a connection may take {timeout}")));
    }
    out
}

fn dubbo_policy(spec: &DubboAuthorizationPolicySpec) -> Vec<String> {
    let what = match spec.action {
        Action::Allow => "ALLOW: calls that match a rule pass, and others need another ALLOW",
        Action::Deny => "DENY: calls that match a rule do not pass",
    };
    let mut out = vec![what.to_owned()];
    if spec.rules.is_empty() {
        out.push("no rules: nothing matches".to_owned());
    }
    for (n, rule) in spec.rules.iter().enumerate() {
        let json = serde_json::to_string(rule).unwrap_or_default();
        out.push(format!("spec.rules[{n}]: {json}"));
    }
    out
}
