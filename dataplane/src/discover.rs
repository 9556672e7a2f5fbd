//! From the objects of a mesh to the input of proxies without Istio.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use serde_json::Value;
use trimtab_crds::istio::{DestinationRule, ServiceEntry, Sidecar, VirtualService};
use trimtab_kit::problem::Problem;
use trimtab_mesh::DEFAULT_DOMAIN;
use trimtab_mesh::names::{full_host, service_host};
use trimtab_metaprotocol::input::{ServicePortInput, Source};
use trimtab_metaprotocol::owner::Owner;
use trimtab_metaprotocol::resolve::Mesh;

use crate::input::{
    EndpointInput, FallbackInput, HttpLimit, Listen, PortInput, ServiceInput, Speaks,
    StandaloneInput,
};
use crate::ports::{balancing, not_followed, of_entry_port, of_service_port};
use crate::{served, sidecar, virtual_service};

/// Label of an EndpointSlice with the name of its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What proxies without Istio need besides the [`Mesh`].
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Where proxies listen.
    pub listen: Listen,
    /// Labels of pods by namespace and name, for subsets and Sidecars. An endpoint that names no pod of these has the
    /// labels of its EndpointSlice, so that slices written by hand can tell versions apart.
    pub pod_labels: BTreeMap<(String, String), BTreeMap<String, String>>,
    /// Addresses of pods by namespace and name.
    pub pod_addresses: BTreeMap<(String, String), IpAddr>,
    /// What the proxies of pods see.
    pub sidecars: Vec<Sidecar>,
    /// Where calls to hosts go that a pod's proxy does not see; absent: proxies of pods see all, too.
    pub fallback: Option<FallbackInput>,
    /// Routes of HTTP services.
    pub virtual_services: Vec<VirtualService>,
    /// Limits of HTTP calls.
    pub limits: Vec<HttpLimit>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Discovered {
    /// The input of [`crate::resources`].
    pub input: StandaloneInput,
    /// What is wrong between objects, and what is not done without Istio.
    pub problems: Vec<Problem>,
}

/// Reads all services with their endpoints. Pure.
pub fn discover(mesh: &Mesh, around: &Surroundings) -> Discovered {
    let resolved = mesh.resolve();
    let mut reader = Reader {
        mesh,
        around,
        managed: resolved
            .inputs
            .into_iter()
            .map(|i| ((i.host.clone(), i.port.number), i))
            .collect(),
        problems: resolved.problems,
    };
    let mut services = BTreeMap::new();
    for service in &mesh.services {
        if let Some(read) = reader.service(service) {
            services.insert(read.host.clone(), read);
        }
    }
    let mut entries: Vec<&ServiceEntry> = mesh.service_entries.iter().collect();
    entries.sort_by_key(|e| age(*e));
    for entry in entries {
        for read in reader.entry(entry) {
            services.entry(read.host.clone()).or_insert(read);
        }
    }
    reader.rules(&mut services);
    reader.routes(&mut services);
    let sidecars = sidecar::Reader {
        around,
        services: &services,
        domain: domain_of(mesh),
        root: &mesh.settings.root_namespace,
    };
    let pods = sidecars.pods(&mut reader.problems);
    served::sort(&mut reader.problems);
    Discovered {
        input: StandaloneInput {
            listen: around.listen.clone(),
            services: services.into_values().collect(),
            limits: around.limits.clone(),
            fallback: around.fallback.clone(),
            pods,
        },
        problems: reader.problems,
    }
}

struct Reader<'a> {
    mesh: &'a Mesh,
    around: &'a Surroundings,
    managed: BTreeMap<(String, u16), ServicePortInput>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn domain(&self) -> &str {
        domain_of(self.mesh)
    }

    fn service(&mut self, service: &Service) -> Option<ServiceInput> {
        let spec = service.spec.as_ref()?;
        let (namespace, name) = (service.namespace()?, service.name_any());
        if spec.type_.as_deref() == Some("ExternalName") {
            self.not_done(
                "Service",
                service,
                "spec.type",
                "ExternalName is not served: write a ServiceEntry with resolution DNS",
            );
            return None;
        }
        let host = service_host(&name, &namespace, self.domain());
        let slices: Vec<&EndpointSlice> = self
            .mesh
            .endpoint_slices
            .iter()
            .filter(|s| {
                s.namespace().as_deref() == Some(&namespace)
                    && s.labels().get(SERVICE_NAME) == Some(&name)
            })
            .collect();
        let mut ports = Vec::new();
        for (i, port) in spec.ports.iter().flatten().enumerate() {
            if port.protocol.as_deref().is_some_and(|p| p != "TCP") {
                self.not_done(
                    "Service",
                    service,
                    &format!("spec.ports[{i}].protocol"),
                    "only TCP is served: remove the port, or reach it without a proxy",
                );
                continue;
            }
            let Ok(number) = u16::try_from(port.port) else {
                continue;
            };
            ports.push(PortInput {
                number,
                speaks: self.speaks(&host, number, of_service_port(port)),
                endpoints: self.endpoints(&slices, port.name.as_deref().unwrap_or_default()),
            });
        }
        let addresses = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let vips: BTreeSet<IpAddr> = addresses.filter_map(|a| a.parse().ok()).collect();
        Some(ServiceInput {
            aliases: vec![
                format!("{name}.{namespace}.svc"),
                format!("{name}.{namespace}"),
                name.clone(),
            ],
            host,
            namespace,
            service: name,
            source: Source::Service,
            vips: vips.into_iter().collect(),
            ports,
            ..ServiceInput::default()
        })
    }

    /// What the port speaks: a protocol of MetaRouters, else what its name and `appProtocol` say.
    fn speaks(&self, host: &str, number: u16, plain: Speaks) -> Speaks {
        let managed = self.managed.get(&(host.to_owned(), number));
        managed.map_or(plain, |input| Speaks::Managed(Box::new(input.clone())))
    }

    /// Ready endpoints of the port with this name.
    fn endpoints(&self, slices: &[&EndpointSlice], port_name: &str) -> Vec<EndpointInput> {
        let mut out = BTreeSet::new();
        for slice in slices {
            let mut ports = slice.ports.iter().flatten();
            let port = ports.find(|p| p.name.as_deref().unwrap_or_default() == port_name);
            let Some(port) = port
                .and_then(|p| p.port)
                .and_then(|p| u16::try_from(p).ok())
            else {
                continue;
            };
            let ready = |e: &&Endpoint| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
            for endpoint in slice.endpoints.iter().filter(ready) {
                let labels = self.labels(slice, endpoint);
                out.extend(endpoint.addresses.iter().map(|address| EndpointInput {
                    address: address.clone(),
                    port,
                    labels: labels.clone(),
                    weight: None,
                }));
            }
        }
        out.into_iter().collect()
    }

    fn labels(&self, slice: &EndpointSlice, endpoint: &Endpoint) -> BTreeMap<String, String> {
        let of_pod = endpoint.target_ref.as_ref().and_then(|to| {
            let namespace = to.namespace.clone().or_else(|| slice.namespace())?;
            self.around.pod_labels.get(&(namespace, to.name.clone()?))
        });
        of_pod.unwrap_or_else(|| slice.labels()).clone()
    }

    fn entry(&mut self, entry: &ServiceEntry) -> Vec<ServiceInput> {
        let spec = &entry.spec;
        let resolution = spec.resolution.as_deref().unwrap_or("NONE");
        if !matches!(resolution, "STATIC" | "DNS" | "DNS_ROUND_ROBIN") {
            self.not_done("ServiceEntry", entry, "spec.resolution", "a proxy without Istio must know where servers are: use STATIC with endpoints, or DNS");
            return Vec::new();
        }
        if spec.workload_selector.is_some() {
            self.not_done(
                "ServiceEntry",
                entry,
                "spec.workloadSelector",
                "endpoints are not selected without Istio: write spec.endpoints",
            );
        }
        let vips: BTreeSet<IpAddr> = spec
            .addresses
            .iter()
            .filter_map(|a| {
                a.trim_end_matches("/32")
                    .trim_end_matches("/128")
                    .parse()
                    .ok()
            })
            .collect();
        let mut out = Vec::new();
        for host in &spec.hosts {
            if host.starts_with('*') && spec.endpoints.is_empty() && resolution != "STATIC" {
                self.not_done(
                    "ServiceEntry",
                    entry,
                    "spec.hosts",
                    "nobody can resolve a name with a wildcard: write spec.endpoints",
                );
                continue;
            }
            let ports = spec.ports.iter().filter_map(|port| {
                let number = small(&port["number"])?;
                let speaks = self.speaks(host, number, of_entry_port(port));
                let endpoints = entry_endpoints(entry, host, port, number, resolution);
                Some(PortInput {
                    number,
                    speaks,
                    endpoints,
                })
            });
            let ports = ports.collect();
            out.push(ServiceInput {
                host: host.clone(),
                namespace: entry.namespace().unwrap_or_default(),
                service: entry.name_any(),
                source: Source::ServiceEntry,
                vips: vips.iter().copied().collect(),
                ports,
                ..ServiceInput::default()
            });
        }
        out
    }

    /// Subsets and balancing. Of several DestinationRules for a host, those in its namespace come first, then the older
    /// ones; the first to name a subset or a policy decides it.
    fn rules(&mut self, services: &mut BTreeMap<String, ServiceInput>) {
        let mut rules: Vec<(bool, String, &DestinationRule)> = self
            .mesh
            .destination_rules
            .iter()
            .map(|rule| {
                let host = full_host(
                    &rule.spec.host,
                    &rule.namespace().unwrap_or_default(),
                    self.domain(),
                );
                let own = services.get(&host).map(|s| s.namespace.clone());
                (rule.namespace() != own, host, rule)
            })
            .collect();
        rules.sort_by_key(|(foreign, _, rule)| (*foreign, age(*rule)));
        let mut balanced = BTreeSet::new();
        for (_, host, rule) in rules {
            let Some(service) = services.get_mut(&host) else {
                continue;
            };
            for field in not_followed(rule) {
                let text =
                    "this is not followed without Istio: remove it, or serve the host in a mesh";
                self.not_done("DestinationRule", rule, &field, text);
            }
            for subset in &rule.spec.subsets {
                service
                    .subsets
                    .entry(subset.name.clone())
                    .or_insert_with(|| subset.labels.clone());
            }
            let policy = rule
                .spec
                .traffic_policy
                .as_ref()
                .map(|p| &p["loadBalancer"]);
            if let Some(found) = policy.and_then(balancing)
                && balanced.insert(host)
            {
                service.balancing = found;
            }
        }
    }

    /// Routes of VirtualServices for sidecars; of several for one host the oldest is in force.
    fn routes(&mut self, services: &mut BTreeMap<String, ServiceInput>) {
        let mut objects: Vec<&VirtualService> = self.around.virtual_services.iter().collect();
        objects.sort_by_key(|v| age(*v));
        for object in objects {
            let spec = &object.spec;
            if !spec.gateways.is_empty() && !spec.gateways.iter().any(|g| g == "mesh") {
                continue;
            }
            if !spec.tcp.is_empty() || !spec.tls.is_empty() {
                self.not_done(
                    "VirtualService",
                    object,
                    "spec.tcp",
                    "rules for TCP and TLS are not followed without Istio: remove tcp and tls",
                );
            }
            let owner = owner("VirtualService", object);
            let full = |host: &str| full_host(host, &owner.namespace, self.domain());
            let mut problems = Vec::new();
            let routes = virtual_service::routes(object, &owner, &full, &mut problems);
            let hosts: BTreeSet<String> = spec.hosts.iter().map(|h| full(h)).collect();
            self.problems.append(&mut problems);
            for host in hosts {
                let Some(service) = services.get_mut(&host) else {
                    continue;
                };
                if let Some(first) = &service.route_owner {
                    self.problems.push(Problem::new(&owner, "spec.hosts", "Conflict", format!(
                        "{first} is in force for \"{host}\": put the rules into one of the two and delete the other"
                    )));
                    continue;
                }
                service.routes.clone_from(&routes);
                service.route_owner = Some(owner.clone());
            }
        }
    }

    fn not_done<K: ResourceExt>(&mut self, kind: &str, object: &K, field: &str, text: &str) {
        self.problems.push(Problem::new(
            owner(kind, object),
            field,
            "NotSupported",
            text,
        ));
    }
}

fn domain_of(mesh: &Mesh) -> &str {
    match mesh.domain.as_str() {
        "" => DEFAULT_DOMAIN,
        domain => domain,
    }
}

pub(super) fn owner<K: ResourceExt>(kind: &str, object: &K) -> Owner {
    Owner {
        kind: kind.to_owned(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        generation: object.meta().generation.unwrap_or_default(),
    }
}

/// Oldest first, then by name; an object without a time is new.
pub(super) fn age<K: ResourceExt>(object: &K) -> (bool, Option<jiff::Timestamp>, String, String) {
    let created = object.creation_timestamp().map(|t| t.0);
    (
        created.is_none(),
        created,
        object.namespace().unwrap_or_default(),
        object.name_any(),
    )
}

fn small(value: &Value) -> Option<u16> {
    value
        .as_u64()
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0)
}

/// Endpoints of a port of a ServiceEntry; with DNS and none written, the host itself.
fn entry_endpoints(
    entry: &ServiceEntry,
    host: &str,
    port: &Value,
    number: u16,
    resolution: &str,
) -> Vec<EndpointInput> {
    let target = small(&port["targetPort"]).unwrap_or(number);
    let name = port["name"].as_str().unwrap_or_default();
    let one = |endpoint: &Value| {
        let address = endpoint["address"]
            .as_str()
            .filter(|a| !a.is_empty() && !a.starts_with("unix:"))?;
        let labels = endpoint["labels"].as_object().into_iter().flatten();
        Some(EndpointInput {
            address: address.to_owned(),
            port: small(&endpoint["ports"][name]).unwrap_or(target),
            labels: labels
                .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                .collect(),
            weight: endpoint["weight"]
                .as_u64()
                .and_then(|w| u32::try_from(w).ok()),
        })
    };
    if entry.spec.endpoints.is_empty() && resolution != "STATIC" {
        return vec![EndpointInput {
            address: host.to_owned(),
            port: target,
            ..EndpointInput::default()
        }];
    }
    let all: BTreeSet<EndpointInput> = entry.spec.endpoints.iter().filter_map(one).collect();
    all.into_iter().collect()
}
