//! Dependencies that objects declare, before the first call. Pure.
//!
//! | object | hint |
//! |---|---|
//! | pod template | host names in values of `env` and in `args` and `command` that are services of the mesh |
//! | AuthorizationPolicy | service accounts and namespaces that may call the workloads it selects |

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde_json::Value;

use super::Rules;
use super::expand::{UNKNOWN, expanded};
use super::host::{Target, target};
use crate::object::Directory;

/// Hosts that one template may declare.
const MOST_NAMES: usize = 1000;
/// Pieces that are looked up for one template, at most.
const MOST_PIECES: usize = 4000;
/// Containers that Istio's injector adds; what they name is no call of the workload.
const INJECTED: [&str; 3] = ["istio-proxy", "istio-init", "istio-validation"];

/// What a pod's containers name in environment, arguments and commands, hosts or not: the part of a template that is kept.
///
/// Names with a dot count wherever they are (`b.a`, `b.a.svc`, `kafka-0.kafka.a.svc.cluster.local:9092,...`); a name of one
/// label must stand before a port or after `://`, since any word could be the name of a service.
pub fn template_names(spec: &PodSpec) -> BTreeSet<String> {
    let texts: Vec<String> = containers(spec).flat_map(container_texts).collect();
    let pieces = texts.iter().flat_map(|text| names(text));
    pieces
        .take(MOST_PIECES)
        .map(str::to_ascii_lowercase)
        .collect()
}

/// The services that a workload in `namespace` means by these names, sorted. Only names and addresses that the mesh knows
/// count.
pub fn template_hosts<'a>(
    names: impl IntoIterator<Item = &'a String>,
    namespace: &str,
    directory: &dyn Directory,
    rules: &Rules,
) -> BTreeSet<Arc<str>> {
    let mut hosts = BTreeSet::new();
    for name in names {
        if hosts.len() >= MOST_NAMES {
            break;
        }
        match target(name) {
            Some(Target::Name(name, _)) => {
                hosts.extend(directory.host_of_name(&name, namespace));
            }
            Some(Target::Address(address, Some(port))) if is_service_like(address) => {
                hosts.extend(directory.hosts_at(address, port));
            }
            _ => {}
        }
    }
    hosts.retain(|host| !rules.is_fallback(host));
    hosts
}

fn is_service_like(address: IpAddr) -> bool {
    !address.is_loopback() && !address.is_unspecified()
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let all = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    all.filter(|container| !INJECTED.contains(&container.name.as_str()))
}

/// Values of `env`, and `args` and `command`, as the container gets them; without long ones.
fn container_texts(container: &Container) -> Vec<String> {
    let mut known = HashMap::new();
    let mut out = Vec::new();
    for variable in container.env.iter().flatten() {
        // A value from elsewhere is not known.
        let value = variable.value.as_ref();
        let value = value.and_then(|text| expanded(text, &known));
        out.extend(value.clone());
        known.insert(variable.name.as_str(), value);
    }
    let args = container.args.iter().chain(&container.command).flatten();
    out.extend(args.filter_map(|text| expanded(text, &known)));
    out
}

fn items(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

/// Pieces of a text that may be hosts, with their ports. A piece with something unknown in it is none.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let is_host =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | UNKNOWN);
    text.split(move |c| !is_host(c))
        .scan(0, move |at, piece| {
            // How the text goes on before the piece tells whether it is a URL's host.
            let before = &text[..*at];
            *at += piece.len();
            *at += text[*at..].chars().next().map_or(0, char::len_utf8);
            let after_scheme = before.ends_with("://") || before.ends_with('@');
            Some(candidate(piece, after_scheme))
        })
        .flatten()
}

fn candidate(piece: &str, after_scheme: bool) -> Option<&str> {
    if piece.contains(UNKNOWN) {
        return None;
    }
    let piece = piece.trim_matches(|c| matches!(c, ':' | '.'));
    let (name, port) = piece.split_once(':').unwrap_or((piece, ""));
    let has_port = port.parse::<u16>().is_ok();
    let host = if port.is_empty() || has_port {
        piece
    } else {
        name
    };
    (!name.is_empty() && (name.contains('.') || has_port || after_scheme)).then_some(host)
}

/// Who may call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Workloads of a service account.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// All workloads of a namespace.
    Namespace(String),
}

/// What an AuthorizationPolicy allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyHint {
    /// Namespace of the policy, and of the workloads unless it is the root namespace.
    pub namespace: String,
    /// Labels of the workloads that may be called; empty: all.
    pub selector: BTreeMap<String, String>,
    /// Services that may be called, from `targetRefs`; empty: those of the selected workloads.
    pub services: BTreeSet<String>,
    /// Who may call them.
    pub sources: BTreeSet<Source>,
}

/// What an AuthorizationPolicy says about who calls whom. `None`: nothing, since it denies, names nobody, or names
/// everybody.
///
/// Read are `principals` (`TRUST_DOMAIN/ns/NAMESPACE/sa/NAME`), `serviceAccounts` (`NAME` or `NAMESPACE/NAME`) and
/// `namespaces` of `rules[].from[].source`. Patterns with `*` are no hints, except `TRUST_DOMAIN/ns/NAMESPACE/*`.
pub fn policy_hint(policy: &Value) -> Option<PolicyHint> {
    let action = policy.pointer("/spec/action").and_then(Value::as_str);
    if !matches!(action, None | Some("ALLOW")) {
        return None;
    }
    let namespace = policy.pointer("/metadata/namespace")?.as_str()?;
    let from = items(policy.pointer("/spec/rules")).flat_map(|rule| items(rule.get("from")));
    let mut sources = BTreeSet::new();
    for source in from.filter_map(|from| from.get("source")) {
        let texts = |key: &str| items(source.get(key)).filter_map(Value::as_str);
        sources.extend(texts("principals").filter_map(principal));
        sources.extend(texts("serviceAccounts").filter_map(|text| account(text, namespace)));
        let plain = texts("namespaces").filter(|text| is_name(text));
        sources.extend(plain.map(|text| Source::Namespace(text.to_owned())));
    }
    let labels = policy.pointer("/spec/selector/matchLabels");
    let labels = labels.and_then(Value::as_object).into_iter().flatten();
    let selector =
        labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    let refs = items(policy.pointer("/spec/targetRefs"));
    let services = refs
        .filter(|target| target.get("kind").and_then(Value::as_str) == Some("Service"))
        .filter_map(|target| target.get("name")?.as_str().map(str::to_owned));
    (!sources.is_empty()).then(|| PolicyHint {
        namespace: namespace.to_owned(),
        selector: selector.collect(),
        services: services.collect(),
        sources,
    })
}

fn principal(text: &str) -> Option<Source> {
    let text = text.strip_prefix("spiffe://").unwrap_or(text);
    let (_, rest) = text.split_once("/ns/")?;
    let (namespace, rest) = rest.split_once('/')?;
    if !is_name(namespace) {
        return None;
    }
    let name = rest.strip_prefix("sa/").unwrap_or(rest);
    if name == "*" {
        return Some(Source::Namespace(namespace.to_owned()));
    }
    (rest != name && is_name(name)).then(|| Source::ServiceAccount {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

fn account(text: &str, own: &str) -> Option<Source> {
    let (namespace, name) = text.split_once('/').unwrap_or((own, text));
    (is_name(namespace) && is_name(name)).then(|| Source::ServiceAccount {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(['*', '/'])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::learn::testing::small;

    fn hosts_of(spec: Value) -> BTreeSet<Arc<str>> {
        let names = template_names(&serde_json::from_value(spec).unwrap());
        template_hosts(&names, "shop", &small(), &Rules::default())
    }

    fn hosts(value: &str) -> Vec<String> {
        let spec = json!({"containers": [{"name": "a", "env": [{"name": "X", "value": value}]}]});
        let hosts = hosts_of(spec);
        let names = hosts
            .iter()
            .map(|h| h.trim_end_matches(".svc.cluster.local").to_owned());
        names.collect()
    }

    #[test]
    fn names_of_services_are_found_in_all_kinds_of_strings() {
        for (value, expected) in [
            ("http://a:8080/path?x=b.shop", &["a.shop", "b.shop"][..]),
            ("redis://user:secret@redis.data.svc:6379/0", &["redis.data"]),
            (
                "a.shop:9092,b.shop.svc.cluster.local:9092",
                &["a.shop", "b.shop"],
            ),
            ("--upstream=redis.data", &["redis.data"]),
            ("host=redis.data;port=6379", &["redis.data"]),
            ("b:80", &["b.shop"]),
            ("jdbc:mysql://a/db", &["a.shop"]),
            ("10.1.0.1:80", &["a.shop"]),
            ("See a.shop.", &["a.shop"]),
            ("über://a.shop→b.shop", &["a.shop", "b.shop"]),
            // Words are no names, and names of others are no services.
            ("a", &[]),
            ("a b and -a", &[]),
            ("https://example.com/a", &[]),
            ("127.0.0.1:80", &[]),
            ("10.1.0.1", &[]),
            ("http://global-sidecar.shop", &[]),
            // What is not known is no name, nor is what stands beside it.
            ("http://a.$(PLACE):80", &[]),
            ("http://$$(SHOP).shop:80,b.shop", &["b.shop"]),
        ] {
            assert_eq!(hosts(value), expected, "{value}");
        }
        assert!(hosts(&"a.shop ".repeat(3000)).is_empty());
    }

    #[test]
    fn fault_s22_references_to_variables_are_replaced_as_kubernetes_does() {
        let spec = json!({"containers": [{
            "name": "app",
            "env": [
                {"name": "EARLY", "value": "http://b.$(PLACE):80"},
                {"name": "PLACE", "value": "shop"},
                {"name": "A", "value": "http://a.$(PLACE):80"},
                {"name": "SECRET", "valueFrom": {}},
                {"name": "NOT", "value": "http://b.$$(PLACE):80,http://b.$(SECRET)"},
                {"name": "DATA", "value": "data"},
            ],
            "args": ["--redis=redis.$(DATA):6379"],
        }]});
        let expected = ["a.shop.svc.cluster.local", "redis.data.svc.cluster.local"];
        assert_eq!(hosts_of(spec), expected.map(Arc::from).into());
    }

    #[test]
    fn all_containers_but_those_of_istio_are_read() {
        let spec = json!({
            "initContainers": [
                {"name": "wait", "command": ["wait", "b:80"]},
                {"name": "istio-init", "args": ["a.shop"]},
            ],
            "containers": [
                {"name": "app", "args": ["--redis", "redis.data:6379"], "env": [{"name": "P", "valueFrom": {}}]},
                {"name": "istio-proxy", "env": [{"name": "CA", "value": "a.shop:15012"}]},
            ],
        });
        let expected = ["b.shop.svc.cluster.local", "redis.data.svc.cluster.local"];
        assert_eq!(hosts_of(spec), expected.map(Arc::from).into());
        assert!(hosts_of(json!({"containers": []})).is_empty());
    }

    fn policy(action: &str, source: &Value) -> Value {
        json!({
            "metadata": {"namespace": "shop", "name": "p"},
            "spec": {
                "action": action,
                "selector": {"matchLabels": {"app": "a"}},
                "rules": [{"from": [{"source": source}]}],
            },
        })
    }

    #[test]
    fn policies_tell_who_may_call() {
        let account = |namespace: &str, name: &str| Source::ServiceAccount {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let source = json!({
            "principals": [
                "cluster.local/ns/web/sa/front", "spiffe://td/ns/web/sa/other", "cluster.local/ns/all/*",
                "*", "*/ns/*/sa/x", "cluster.local/ns/web/sa/x*", "nonsense",
            ],
            "serviceAccounts": ["own", "web/third"],
            "namespaces": ["jobs", "team-*"],
        });
        let hint = policy_hint(&policy("ALLOW", &source)).unwrap();
        let expected = [
            account("web", "front"),
            account("web", "other"),
            account("web", "third"),
            account("shop", "own"),
            Source::Namespace("all".to_owned()),
            Source::Namespace("jobs".to_owned()),
        ];
        assert_eq!(hint.sources, expected.into());
        assert_eq!(hint.selector["app"], "a");
        assert_eq!((hint.namespace.as_str(), hint.services.len()), ("shop", 0));

        assert_eq!(policy_hint(&policy("DENY", &source)), None);
        assert_eq!(
            policy_hint(&policy("ALLOW", &json!({"ipBlocks": ["10.0.0.0/8"]}))),
            None
        );
        let mut targeted = policy("ALLOW", &source);
        targeted["spec"]["targetRefs"] =
            json!([{"kind": "Service", "name": "a"}, {"kind": "Gateway", "name": "g"}]);
        assert_eq!(
            policy_hint(&targeted).unwrap().services,
            ["a".to_owned()].into()
        );
    }

    #[test]
    fn other_shapes_are_no_hints() {
        for object in [json!(null), json!({}), json!({"spec": []})] {
            assert_eq!(policy_hint(&object), None);
        }
    }
}
