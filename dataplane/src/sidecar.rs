//! What a pod's `Sidecar` lets its proxy see.
//!
//! The rules are Istio's: <https://istio.io/latest/docs/reference/config/networking/sidecar/>.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kube::ResourceExt;
use trimtab_crds::istio::Sidecar;
use trimtab_kit::problem::Problem;

use trimtab_mesh::model::Identity;
use trimtab_mesh::names::full_host;
use trimtab_metaprotocol::owner::Owner;

use crate::discover::StandaloneObjects;
use crate::input::{AppProtocol, Listen, PodInput, ServiceInput};

/// Namespace whose Sidecar is for all namespaces without one, unless the settings name another; as in Istio.
const ROOT: &str = "istio-system";

/// One imported host, `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Import {
    /// `None`: every namespace.
    namespace: Option<String>,
    /// A host, `*`, or a host whose first label is `*`.
    name: String,
}

impl Import {
    fn namespace(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|n| n == namespace)
    }
}

/// Whether all hosts that `host` stands for are among those that `pattern` stands for.
fn subset(host: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(rest) => host == pattern || host.ends_with(rest),
        None => host == pattern,
    }
}

/// Reason of a Sidecar that no proxy can be narrowed by.
pub(super) const NOT_FOLLOWED: &str = "NotFollowed";

/// Reads Sidecars for pods.
pub(super) struct Reader<'a> {
    pub(super) around: &'a StandaloneObjects,
    pub(super) services: &'a BTreeMap<String, ServiceInput>,
    pub(super) domain: &'a str,
    pub(super) root: &'a str,
}

impl Reader<'_> {
    /// The pods that have a Sidecar, by namespace and name, and what of their Sidecars is not done.
    pub(super) fn pods(&self, problems: &mut Vec<Problem>) -> Vec<PodInput> {
        let all = self.around.sidecars.iter();
        let mut sidecars: Vec<&Sidecar> = all.map(AsRef::as_ref).collect();
        sidecars.sort_by_key(|s| Identity::of(*s).age());
        for sidecar in &sidecars {
            not_followed(sidecar, problems);
        }
        let missing = match (&self.around.fallback, &self.around.listen) {
            (None, _) => Some(
                "Sidecars are followed only where calls to other hosts can go through a fallback proxy: start trimtab run --standalone with --fallback",
            ),
            (_, Listen::Addresses | Listen::Captured { .. }) => Some(
                "Sidecars are followed only where proxies listen on one address: the others see all services",
            ),
            _ => None,
        };
        if let Some(text) = missing {
            let of = |s: &&Sidecar| {
                Problem::new(Owner::of("Sidecar", *s), "spec.egress", NOT_FOLLOWED, text)
            };
            problems.extend(sidecars.iter().map(of));
            return Vec::new();
        }
        let mut out = Vec::new();
        for ((namespace, name), labels) in &self.around.pod_labels {
            let Some(sidecar) = self.choose(&sidecars, namespace, name, labels, problems) else {
                continue;
            };
            match self.address((namespace, name), &out) {
                Ok(address) => out.push(PodInput {
                    namespace: namespace.clone(),
                    name: name.clone(),
                    address,
                    hosts: self.visible(&imports(sidecar, namespace)),
                }),
                Err(problem) => problems.push(*problem),
            }
        }
        out
    }

    /// Where the proxy of a pod listens: on an address of its own, from which a fallback proxy can be reached.
    fn address(
        &self,
        (namespace, name): (&String, &String),
        others: &[PodInput],
    ) -> Result<IpAddr, Box<Problem>> {
        let problem = |reason, text: String| {
            let pod = format!("Pod {namespace}/{name}");
            let text = format!("{text}; until then its proxy sees all services");
            Err(Box::new(Problem::new(pod, "status.podIP", reason, text)))
        };
        let key = (namespace.clone(), name.clone());
        let Some(address) = self.around.pod_addresses.get(&key).copied() else {
            return problem("NoAddress", "the pod has no address: write it".to_owned());
        };
        let fallbacks = self.around.fallback.iter().flat_map(|f| &f.addresses);
        if fallbacks.clone().any(|a| *a == address) {
            let text = format!("{address} is a fallback proxy's: give the pod another one");
            return problem("AddressInUse", text);
        }
        if let Some(other) = others.iter().find(|o| o.address == address) {
            let other = other.group();
            let text = format!("{address} is the address of {other}, too: give each its own");
            return problem("AddressInUse", text);
        }
        if !fallbacks.clone().any(|a| a.is_ipv4() == address.is_ipv4()) {
            let text = format!(
                "no fallback proxy can be reached from {address}: start one on an address of its family"
            );
            return problem("NoFallback", text);
        }
        Ok(address)
    }

    /// The Sidecar in force: one that selects the pod, then one for its namespace, then one for all; each the oldest.
    fn choose<'b>(
        &self,
        sidecars: &[&'b Sidecar],
        namespace: &str,
        name: &str,
        labels: &BTreeMap<String, String>,
        problems: &mut Vec<Problem>,
    ) -> Option<&'b Sidecar> {
        let selector = |s: &Sidecar| {
            let labels = s.spec.workload_selector.as_ref().map(|w| w.labels.clone());
            labels.filter(|l| !l.is_empty())
        };
        let of = |s: &Sidecar, wanted: &str| s.namespace().as_deref() == Some(wanted);
        let selecting = sidecars.iter().filter(|s| {
            of(s, namespace)
                && selector(s)
                    .is_some_and(|wanted| wanted.iter().all(|(k, v)| labels.get(k) == Some(v)))
        });
        let of_namespace = |wanted: String| {
            let all = sidecars.iter();
            all.filter(move |s| of(s, &wanted) && selector(s).is_none())
        };
        let root = match self.root {
            "" => ROOT,
            root => root,
        };
        let mut selecting = selecting.peekable();
        if selecting.peek().is_none() {
            let mut rest = of_namespace(namespace.to_owned()).chain(of_namespace(root.to_owned()));
            return rest.next().copied();
        }
        let first = selecting.next().copied()?;
        for other in selecting {
            problems.push(Problem::new(
                Owner::of("Sidecar", *other),
                "spec.workloadSelector",
                "Conflict",
                format!(
                    "{} is in force for the pod {namespace}/{name}: let each pod be selected by one Sidecar",
                    Owner::of("Sidecar", first)
                ),
            ));
        }
        Some(first)
    }

    /// The hosts that imports give: those of services, those that imported VirtualServices lead to, and those that the
    /// routes of all these lead to, so that no route lacks its cluster.
    fn visible(&self, imports: &[Import]) -> BTreeSet<String> {
        let imported = |namespace: &str, host: &str| {
            let mut all = imports.iter();
            all.any(|i| i.namespace(namespace) && subset(host, &i.name))
        };
        let own = self.services.values();
        let own = own.filter(|s| imported(&s.namespace, &s.host));
        let mut queue: Vec<String> = own.map(|s| s.host.clone()).collect();
        for object in &self.around.virtual_services {
            let namespace = object.namespace().unwrap_or_default();
            let gateways = &object.spec.gateways;
            let for_mesh = gateways.is_empty() || gateways.iter().any(|g| g == "mesh");
            let meets = |host: &str| {
                let mut all = imports.iter().filter(|i| i.namespace(&namespace));
                all.any(|i| subset(host, &i.name) || subset(&i.name, host))
            };
            let full = |host: &str| full_host(host, &namespace, self.domain);
            if for_mesh && object.spec.hosts.iter().any(|h| meets(&full(h))) {
                let to = object.spec.destinations();
                queue.extend(to.map(|d| full(&d.host)));
            }
        }
        let mut out = BTreeSet::new();
        while let Some(host) = queue.pop() {
            let Some(service) = self.services.get(&host) else {
                continue;
            };
            if out.insert(host) {
                queue.extend(leads_to(service));
            }
        }
        out
    }
}

/// The hosts of a Sidecar as the namespace of a pod sees them. Without `egress` it is all.
fn imports(sidecar: &Sidecar, namespace: &str) -> Vec<Import> {
    if sidecar.spec.egress.is_empty() {
        return vec![Import {
            namespace: None,
            name: "*".to_owned(),
        }];
    }
    let hosts = sidecar.spec.egress.iter().flat_map(|e| &e.hosts);
    let one = |text: &String| {
        let (space, name) = text.split_once('/')?;
        let space = match space {
            "*" => None,
            "." => Some(namespace.to_owned()),
            none if none.starts_with('~') => return None,
            other => Some(other.to_owned()),
        };
        is_name(name).then(|| Import {
            namespace: space,
            name: name.to_owned(),
        })
    };
    hosts.filter_map(one).collect()
}

/// A wildcard stands for whole labels at the left.
fn is_name(name: &str) -> bool {
    let rest = name.strip_prefix('*').unwrap_or(name);
    let whole = rest.len() == name.len() || rest.is_empty() || rest.starts_with('.');
    whole && !name.is_empty() && !rest.contains('*')
}

fn leads_to(service: &ServiceInput) -> Vec<String> {
    let mut out = Vec::new();
    for route in &service.routes {
        let to = route.destinations.iter().map(|d| &d.destination);
        let mirror = route.mirror.iter().map(|m| &m.destination);
        out.extend(to.chain(mirror).map(|d| d.host.clone()));
    }
    for port in &service.ports {
        if let AppProtocol::Managed(input) = &port.speaks {
            let redis = input.redis_destinations.keys();
            out.extend(input.hosts.keys().chain(redis).cloned());
        }
    }
    out
}

fn not_followed(sidecar: &Sidecar, problems: &mut Vec<Problem>) {
    let mut say = |field: String, reason, text: &str| {
        problems.push(Problem::new(
            Owner::of("Sidecar", sidecar),
            field,
            reason,
            text,
        ));
    };
    let other = "proxies without Istio do not follow this: remove it";
    let spec = &sidecar.spec;
    let fields = [
        ("ingress", !spec.ingress.is_empty()),
        (
            "outboundTrafficPolicy",
            spec.outbound_traffic_policy.is_some(),
        ),
    ];
    for (field, _) in fields.iter().filter(|(_, there)| *there) {
        say(format!("spec.{field}"), "NotSupported", other);
    }
    for field in spec.others.keys() {
        say(format!("spec.{field}"), "NotSupported", other);
    }
    for (i, egress) in spec.egress.iter().enumerate() {
        let text = "hosts are seen on all ports and addresses of theirs: remove it";
        let fields = [
            ("port", egress.port.is_some()),
            ("bind", egress.bind.is_some()),
            ("captureMode", egress.capture_mode.is_some()),
        ];
        for (field, _) in fields.iter().filter(|(_, there)| *there) {
            say(format!("spec.egress[{i}].{field}"), "NotSupported", text);
        }
        for (j, host) in egress.hosts.iter().enumerate() {
            let field = format!("spec.egress[{i}].hosts[{j}]");
            match host.split_once('/') {
                Some((space, _)) if space.len() > 1 && space.starts_with('~') => say(
                    field,
                    "NotSupported",
                    "exclusions are not followed, and the hosts stay visible: import fewer hosts instead",
                ),
                Some((space, name)) if !space.is_empty() && is_name(name) => {}
                _ => say(
                    field,
                    "Invalid",
                    &format!(
                        "\"{host}\" is left out: write NAMESPACE/HOST, where the namespace may be *, . or ~, and the host * or begin with *."
                    ),
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_labels_at_the_left() {
        for (host, pattern, expected) in [
            ("a.shop", "*", true),
            ("a.shop", "a.shop", true),
            ("a.shop", "*.shop", true),
            ("shop", "*.shop", false),
            ("xshop", "*.shop", false),
            ("*.a.shop", "*.shop", true),
            ("*.shop", "*.a.shop", false),
            ("*.shop", "*.shop", true),
            ("*", "*", true),
        ] {
            assert_eq!(subset(host, pattern), expected, "{host} in {pattern}");
        }
        for (name, expected) in [
            ("*", true),
            ("*.a", true),
            ("a.b", true),
            ("*a", false),
            ("a.*", false),
            ("*.*", false),
            ("", false),
        ] {
            assert_eq!(is_name(name), expected, "{name}");
        }
    }
}
