//! Sidecars: with entries of one client, and for whole namespaces.

use serde_json::{Value, json};

use super::{ISTIO, Maker};
use crate::random::Random;

/// A Sidecar of Istio's root namespace for a batch of so many meshes.
pub fn of_root(meshes: usize, random: &mut Random) -> Value {
    let mut hosts = vec!["./*".to_owned()];
    for _ in 0..random.between(1, 4) {
        let number = random.below(meshes);
        hosts.push(match random.below(4) {
            0 => "*/*.svc.cluster.local".to_owned(),
            1 => format!("*/*.m{number}.example"),
            2 => format!("m{number}-b/*"),
            _ => format!("*/s0.m{number}-b.svc.cluster.local"),
        });
    }
    hosts.sort();
    hosts.dedup();
    let mut spec = json!({"egress": [{"hosts": hosts}]});
    rest(&mut spec, random);
    json!({"apiVersion": ISTIO, "kind": "Sidecar",
        "metadata": {"name": "default", "namespace": "istio-system"}, "spec": spec})
}

/// What a Sidecar says besides hosts.
fn rest(spec: &mut Value, random: &mut Random) {
    if random.percent(40) {
        spec["ingress"] = json!([{"port": {"number": 9080, "protocol": "HTTP", "name": "http"},
            "defaultEndpoint": "127.0.0.1:8080"}]);
    }
    match random.below(5) {
        0 | 1 => spec["outboundTrafficPolicy"] = json!({"mode": "REGISTRY_ONLY"}),
        2 => spec["outboundTrafficPolicy"] = json!({"mode": "ALLOW_ANY"}),
        _ => {}
    }
}

impl Maker<'_> {
    /// Of several the oldest counts.
    pub(super) fn defaults(&mut self) -> Vec<Value> {
        let count = match self.random.below(10) {
            0..=2 => 1,
            3 => 2,
            _ => 0,
        };
        let namespace = self.namespaces[0].clone();
        let names = ["store", "another"].into_iter().take(count);
        names.map(|name| self.default(&namespace, name)).collect()
    }

    fn default(&mut self, namespace: &str, name: &str) -> Value {
        let mut spec = json!({});
        if self.random.percent(75) {
            let hosts = self.sidecar();
            spec["egress"] = json!([{"hosts": hosts}]);
        }
        rest(&mut spec, self.random);
        json!({"apiVersion": ISTIO, "kind": "Sidecar",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec})
    }

    pub(super) fn sidecar(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        for _ in 0..self.random.between(1, 4) {
            let host = self.any();
            let foreign = self.namespace();
            out.push(match self.random.below(16) {
                0 => format!("{}/*", host.namespace),
                1 => "./*".to_owned(),
                2 => format!("*/{}", host.host),
                3 => format!("*/*.m{}.example", self.number),
                4 => format!("{}/*.svc.cluster.local", host.namespace),
                5 => format!("~{}/{}", host.namespace, host.host),
                6 if self.random.percent(20) => "*/*".to_owned(),
                7 | 8 => format!("{foreign}/{}", host.host),
                9 => format!("{foreign}/*.deep.m{}.example", self.number),
                _ => format!("{}/{}", host.namespace, host.host),
            });
        }
        if out.iter().all(|entry| entry.starts_with('~')) {
            out.push("./*".to_owned());
        }
        out.sort();
        out.dedup();
        out
    }
}
