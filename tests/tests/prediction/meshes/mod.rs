//! Small odd meshes, and the Sidecar of one client in each.

mod entries;
mod gateway;
mod routes;
pub mod sidecars;

use serde_json::{Value, json};

use crate::random::Random;

const ISTIO: &str = "networking.istio.io/v1";

/// A mesh of three namespaces, beside others.
#[derive(Clone, Debug, Default)]
pub struct SmallMesh {
    /// Number; it is in all names.
    pub number: usize,
    /// Namespace of the clients.
    pub client: String,
    /// All objects but Sidecars, as they are applied.
    pub objects: Vec<Value>,
    /// Objects that are younger, by a second at least.
    pub later: Vec<Value>,
    /// Sidecars for the whole of the clients' namespace; the first is the oldest.
    pub defaults: Vec<Value>,
    /// Entries of the Sidecar of one client.
    pub entries: Vec<String>,
    /// Hosts that another client calls.
    pub calls: Vec<String>,
}

/// Namespaces of a mesh; the first is the clients'.
pub fn namespaces(number: usize) -> [String; 3] {
    ["a", "b", "c"].map(|part| format!("m{number}-{part}"))
}

/// The mesh of a number.
pub fn small(number: usize, random: &mut Random) -> SmallMesh {
    let mut maker = Maker {
        number,
        namespaces: namespaces(number),
        random,
        hosts: Vec::new(),
        out: Vec::new(),
        later: Vec::new(),
    };
    maker.services();
    maker.entries();
    maker.aliases();
    maker.routes();
    maker.rules();
    maker.gateway_routes();
    let entries = maker.sidecar();
    let calls = maker.calls();
    let defaults = maker.defaults();
    SmallMesh {
        number,
        client: maker.namespaces[0].clone(),
        entries,
        calls,
        defaults,
        objects: maker.out,
        later: maker.later,
    }
}

/// A host that others may name.
#[derive(Clone, Debug)]
#[allow(
    clippy::struct_field_names,
    reason = "an object's name and the host that it gives are two things"
)]
struct Host {
    namespace: String,
    name: String,
    host: String,
    kind: HostKind,
    ports: Vec<(u16, &'static str)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostKind {
    Service,
    Alias,
    Entry,
    /// Of a VirtualService alone.
    Front,
}

struct Maker<'a> {
    number: usize,
    namespaces: [String; 3],
    random: &'a mut Random,
    hosts: Vec<Host>,
    out: Vec<Value>,
    later: Vec<Value>,
}

/// Ports with their protocols, as names of Services' ports begin.
const PORTS: [(u16, &str); 8] = [
    (80, "http"),
    (80, "http"),
    (8080, "http"),
    (8080, "grpc"),
    (5432, "tcp"),
    (443, "tls"),
    (9000, "x"),
    (80, "tcp"),
];

impl Maker<'_> {
    fn one<'b, T>(&mut self, from: &'b [T]) -> &'b T {
        &from[self.random.below(from.len())]
    }

    fn namespace(&mut self) -> String {
        let at = self.random.below(3);
        self.namespaces[at].clone()
    }

    fn object(&mut self, api: &str, kind: &str, namespace: &str, name: &str, spec: &Value) {
        let mut object = json!({"apiVersion": api, "kind": kind,
            "metadata": {"name": name, "namespace": namespace}, "spec": spec});
        if kind == "ServiceEntry" {
            // Two istiods give addresses against each other, and crash.
            object["metadata"]["labels"] =
                json!({"networking.istio.io/enable-autoallocate-ip": "false"});
        }
        if self.random.percent(25) {
            self.later.push(object);
        } else {
            self.out.push(object);
        }
    }

    fn exports(&mut self) -> Option<Vec<String>> {
        match self.random.below(12) {
            0 => Some(vec![".".to_owned()]),
            1 => Some(vec![self.namespaces[0].clone()]),
            2 => Some(self.namespaces[1..].to_vec()),
            3 => Some(vec!["*".to_owned()]),
            5 if self.random.percent(50) => Some(self.namespaces[..2].to_vec()),
            4 if self.random.percent(30) => Some(vec!["~".to_owned()]),
            _ => None,
        }
    }

    fn ports(&mut self) -> Vec<(u16, &'static str)> {
        let mut out = vec![*self.one(&PORTS)];
        if self.random.percent(40) {
            let more = *self.one(&PORTS);
            if out[0].0 != more.0 {
                out.push(more);
            }
        }
        out
    }

    fn services(&mut self) {
        for at in 0..self.random.between(2, 4) {
            let (namespace, name) = (self.namespace(), format!("s{at}"));
            let ports = self.ports();
            let listed: Vec<Value> = ports
                .iter()
                .map(|(port, kind)| json!({"name": format!("{kind}-{port}"), "port": port}))
                .collect();
            let mut object = json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"selector": {"app": name}, "ports": listed}});
            if self.random.percent(10) {
                object["spec"]["clusterIP"] = json!("None");
            }
            if let Some(exports) = self.exports() {
                object["metadata"]["annotations"] =
                    json!({"networking.istio.io/exportTo": exports.join(",")});
            }
            self.out.push(object);
            let host = format!("{name}.{namespace}.svc.cluster.local");
            self.hosts.push(Host {
                namespace,
                name,
                host,
                kind: HostKind::Service,
                ports,
            });
        }
    }

    fn aliases(&mut self) {
        for at in 0..self.random.below(3) {
            let target = self.any();
            if target.host.starts_with('*') {
                continue;
            }
            let (namespace, name) = (self.namespace(), format!("x{at}"));
            let mut spec = json!({"type": "ExternalName", "externalName": target.host});
            if self.random.percent(70) {
                let ports: Vec<Value> = target
                    .ports
                    .iter()
                    .map(|(port, kind)| json!({"name": format!("{kind}-{port}"), "port": port}))
                    .collect();
                spec["ports"] = json!(ports);
            }
            self.object("v1", "Service", &namespace, &name, &spec);
            let host = format!("{name}.{namespace}.svc.cluster.local");
            self.hosts.push(Host {
                namespace,
                name,
                host,
                kind: HostKind::Alias,
                ports: target.ports,
            });
        }
    }

    fn any(&mut self) -> Host {
        let at = self.random.below(self.hosts.len());
        self.hosts[at].clone()
    }

    /// A host that can be a destination.
    fn destination(&mut self, subset: bool) -> Value {
        let host = self.any();
        let name = match self.random.below(20) {
            0 => format!("nowhere.m{}.example", self.number),
            _ => host.host.replace('*', "under"),
        };
        let mut to = json!({"host": name});
        if self.random.percent(40)
            && let Some((port, _)) = host.ports.first()
        {
            to["port"] = json!({"number": port});
        } else if self.random.percent(5) {
            to["port"] = json!({"number": 7777});
        }
        if subset && self.random.percent(15) {
            to["subset"] = json!(*self.one(&["v1", "v2", "all"]));
        }
        to
    }

    fn weighted(&mut self) -> Value {
        let count = self.random.between(1, 2);
        let shares: &[u32] = if count == 1 {
            &[100]
        } else {
            *self.one(&[&[30, 70], &[0, 100], &[100, 0]])
        };
        let routes: Vec<Value> = shares
            .iter()
            .map(|weight| {
                let to = self.destination(true);
                json!({"destination": to, "weight": weight})
            })
            .collect();
        json!(routes)
    }

    fn rules(&mut self) {
        for at in 0..self.random.below(3) {
            let host = self.any();
            let namespace = if self.random.percent(50) {
                host.namespace.clone()
            } else {
                self.namespace()
            };
            let name = match self.random.below(5) {
                0 => format!("*.{}.svc.cluster.local", host.namespace),
                _ => host.host.clone(),
            };
            let subsets = *self.one(&[&["v1"][..], &["v1", "v2"], &["v2", "all"], &[]]);
            let subsets: Vec<Value> = subsets
                .iter()
                .map(|s| match *s {
                    "all" => json!({"name": s}),
                    s => json!({"name": s, "labels": {"version": s}}),
                })
                .collect();
            let mut spec = json!({"host": name, "subsets": subsets});
            if self.random.percent(8) {
                spec["trafficPolicy"] = json!({"loadBalancer": {"simple": "PASSTHROUGH"}});
            }
            if let Some(exports) = self.exports() {
                spec["exportTo"] = json!(exports);
            }
            self.object(
                ISTIO,
                "DestinationRule",
                &namespace,
                &format!("r{at}"),
                &spec,
            );
        }
    }

    fn calls(&mut self) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for _ in 0..self.random.between(1, 3) {
            out.push(self.any().host.replace('*', "under"));
        }
        out.sort();
        out.dedup();
        out
    }
}
