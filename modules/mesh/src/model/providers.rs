//! What asks for servers of the MeshConfig's extension providers, and for keys of JWTs.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use trimtab_crds::istio;

use super::{Identity, Labels};
use crate::table::{Known, Row};

/// An AuthorizationPolicy that has a provider decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomPolicy {
    /// Which policy.
    pub id: Identity,
    /// Labels of the pods that it is for; empty: all of its namespace.
    pub selector: Labels,
    /// Name of the provider.
    pub provider: Arc<str>,
}

impl Row for CustomPolicy {
    type Object = istio::AuthorizationPolicy;
    type Index = ();

    /// `None`: another action, or for no sidecar.
    fn read(object: &Arc<istio::AuthorizationPolicy>, _: &Known<'_, Self>) -> Option<Self> {
        let spec = &object.spec;
        if spec.action.as_deref() != Some("CUSTOM") {
            return None;
        }
        let provider = spec.provider.as_ref()?.get("name")?.as_str()?;
        Some(Self {
            id: Identity::of(object.as_ref()),
            selector: spec.targets.of_sidecars()?,
            provider: provider.into(),
        })
    }
}

/// A Telemetry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// Which Telemetry.
    pub id: Identity,
    /// Labels of the pods that it is for; empty: all of its namespace.
    pub selector: Labels,
    /// Traces, in order.
    pub tracing: Box<[Report]>,
    /// Access logs, in order.
    pub logging: Box<[Report]>,
    /// Metrics, in order.
    pub metrics: Box<[Report]>,
}

/// One part of a Telemetry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of calls that come in only, or that go out only.
    pub side: Option<Side>,
    /// Names of providers; empty: those that hold without it.
    pub providers: Box<[String]>,
    /// Whether it turns reports off, or on again.
    pub disabled: Option<bool>,
}

/// A side of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who calls.
    Client,
    /// Who is called.
    Server,
}

impl Report {
    fn read(value: &Value, disabled: &str) -> Self {
        let side = match value.pointer("/match/mode").and_then(Value::as_str) {
            Some("CLIENT") => Some(Side::Client),
            Some("SERVER") => Some(Side::Server),
            _ => None,
        };
        let providers = value.get("providers").and_then(Value::as_array);
        let names = providers.into_iter().flatten();
        let names = names.filter_map(|p| Some(p.get("name")?.as_str()?.to_owned()));
        Self {
            side,
            providers: names.collect(),
            disabled: value.get(disabled).and_then(Value::as_bool),
        }
    }

    fn all(values: &[Value], disabled: &str) -> Box<[Self]> {
        values.iter().map(|v| Self::read(v, disabled)).collect()
    }

    /// Whether it is about a side.
    pub fn is_of(&self, side: Side) -> bool {
        self.side.is_none_or(|own| own == side)
    }
}

impl Row for Telemetry {
    type Object = istio::Telemetry;
    type Index = ();

    /// `None`: for no sidecar.
    fn read(object: &Arc<istio::Telemetry>, _: &Known<'_, Self>) -> Option<Self> {
        let spec = &object.spec;
        Some(Self {
            id: Identity::of(object.as_ref()),
            selector: spec.targets.of_sidecars()?,
            tracing: Report::all(&spec.tracing, "disableSpanReporting"),
            logging: Report::all(&spec.access_logging, "disabled"),
            metrics: Report::all(&spec.metrics, ""),
        })
    }
}

/// A RequestAuthentication that says where keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyServers {
    /// Which RequestAuthentication.
    pub id: Identity,
    /// Labels of the pods that it is for; empty: all of its namespace.
    pub selector: Labels,
    /// Hosts of the keys, in lower case.
    pub hosts: BTreeSet<Arc<str>>,
}

impl Row for KeyServers {
    type Object = istio::RequestAuthentication;
    type Index = ();

    /// `None`: it has its keys in itself, or is for no sidecar.
    fn read(object: &Arc<istio::RequestAuthentication>, _: &Known<'_, Self>) -> Option<Self> {
        let spec = &object.spec;
        let rules = spec.jwt_rules.iter();
        let addresses = rules.filter_map(|rule| rule.get("jwksUri")?.as_str());
        let hosts: BTreeSet<Arc<str>> = addresses.filter_map(host).collect();
        let selector = spec.targets.of_sidecars()?;
        (!hosts.is_empty()).then(|| Self {
            id: Identity::of(object.as_ref()),
            selector,
            hosts,
        })
    }
}

/// The host of an address of keys.
fn host(address: &str) -> Option<Arc<str>> {
    let (_, rest) = address.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit('@').next()?;
    let host = authority.split(':').next()?;
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    (!host.is_empty() && !authority.starts_with('[')).then(|| host.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::read;

    fn rows<R: Row<Object: serde::de::DeserializeOwned>>(spec: &Value) -> Vec<Arc<R>> {
        let object = json!({"metadata": {"namespace": "desk", "name": "x"}, "spec": spec});
        read::<R>("", [Arc::new(serde_json::from_value(object).unwrap())])
    }

    #[test]
    fn fault_s3_policies_that_are_for_sidecars_and_have_a_provider() {
        let spec = json!({"action": "CUSTOM", "provider": {"name": "doorman"},
            "selector": {"matchLabels": {"app": "orders"}}});
        let found = rows::<CustomPolicy>(&spec);
        assert_eq!(&*found[0].provider, "doorman");
        assert_eq!(found[0].selector["app"], "orders");
        for none in [
            json!({"action": "ALLOW", "provider": {"name": "doorman"}}),
            json!({"action": "CUSTOM"}),
            json!({"action": "CUSTOM", "provider": {"name": "doorman"}, "targetRefs": [{"name": "gate"}]}),
        ] {
            assert_eq!(rows::<CustomPolicy>(&none), []);
        }
    }

    #[test]
    fn fault_s3_what_a_telemetry_says() {
        let found = rows::<Telemetry>(&json!({
            "tracing": [{"providers": [{"name": "spans"}], "match": {"mode": "CLIENT"}, "disableSpanReporting": true}],
            "accessLogging": [{"disabled": true}, {"providers": [{"name": "a"}, {"name": "b"}]}],
            "metrics": [{"providers": [{"name": "prometheus"}]}],
        }));
        let of = &found[0];
        let first = &of.tracing[0];
        assert!(first.is_of(Side::Client) && !first.is_of(Side::Server));
        assert_eq!(first.disabled, Some(true));
        assert_eq!(of.logging[0].disabled, Some(true));
        assert_eq!(*of.logging[1].providers, ["a".to_owned(), "b".to_owned()]);
        assert_eq!(*of.metrics[0].providers, ["prometheus".to_owned()]);
    }

    #[test]
    fn fault_s3_hosts_of_keys() {
        let found = rows::<KeyServers>(&json!({"jwtRules": [
            {"issuer": "a", "jwksUri": "http://Keys.guard.svc.cluster.local:8080/certs"},
            {"issuer": "b", "jwksUri": "https://login.example/keys?x=1"},
            {"issuer": "c", "jwks": "{}"}, {"issuer": "d", "jwksUri": "keys"}, {"issuer": "e", "jwksUri": "http://[::1]/"}]}));
        let hosts: Vec<&str> = found[0].hosts.iter().map(|h| &**h).collect();
        assert_eq!(hosts, ["keys.guard.svc.cluster.local", "login.example"]);
        assert_eq!(
            rows::<KeyServers>(&json!({"jwtRules": [{"jwks": "{}"}]})),
            []
        );
    }
}
