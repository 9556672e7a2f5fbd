//! ServiceEntries.

use serde_json::{Value, json};

use super::{Host, HostKind, ISTIO, Maker};

impl Maker<'_> {
    fn entry_host(&mut self, at: usize) -> String {
        let number = self.number;
        match self.random.below(7) {
            0 => format!("*.m{number}.example"),
            1 => format!("*.deep.m{number}.example"),
            2 => format!("e0.m{number}.example"),
            3 | 4 => self.any().host.replace('*', "under"),
            _ => format!("e{at}.deep.m{number}.example"),
        }
    }

    /// Namespaces of this mesh alone, so that what istiod does not decide is not undecided for clients of all meshes.
    fn within(&mut self) -> Vec<String> {
        let count = self.random.between(1, 3);
        self.namespaces[..count].to_vec()
    }

    pub(super) fn entries(&mut self) {
        for at in 0..self.random.below(5) {
            let (mut namespace, name) = (self.namespace(), format!("e{at}"));
            let mut host = self.entry_host(at);
            let before = self.hosts.iter().filter(|h| h.kind == HostKind::Entry);
            let before: Vec<Host> = before.cloned().collect();
            if self.random.percent(15)
                && let Some(other) = before.last()
            {
                (namespace, host) = (other.namespace.clone(), other.host.clone());
            }
            let ports = self.ports();
            let mut spec = self.entry(at, &host, &ports);
            let again = before
                .iter()
                .any(|h| h.namespace == namespace && h.host == host);
            let several = spec["addresses"]
                .as_array()
                .is_some_and(|all| all.len() > 1);
            if again || several {
                spec["exportTo"] = json!(self.within());
            } else if let Some(exports) = self.exports() {
                spec["exportTo"] = json!(exports);
            }
            self.object(ISTIO, "ServiceEntry", &namespace, &name, &spec);
            let ports = ports
                .into_iter()
                .map(|(n, kind)| (n, if kind == "x" { "tcp" } else { kind }))
                .collect();
            self.hosts.push(Host {
                namespace,
                name,
                host,
                kind: HostKind::Entry,
                ports,
            });
        }
    }

    fn entry(&mut self, at: usize, host: &str, ports: &[(u16, &'static str)]) -> Value {
        let listed: Vec<Value> = ports
            .iter()
            .map(|(number, kind)| {
                let protocol = match *kind {
                    "x" => "TCP".to_owned(),
                    kind => kind.to_uppercase(),
                };
                json!({"number": number, "name": format!("{kind}-{number}"), "protocol": protocol})
            })
            .collect();
        let resolution = if host.starts_with('*') {
            "NONE"
        } else {
            *self.one(&["NONE", "STATIC", "DNS", "DNS"])
        };
        let mut spec = json!({"hosts": [host], "ports": listed, "resolution": resolution, "location": "MESH_EXTERNAL"});
        let block = self.number % 200;
        match self.random.below(8) {
            0 | 1 => spec["addresses"] = json!([format!("10.200.{block}.{at}")]),
            2 => {
                let both = [
                    format!("10.201.{block}.{at}"),
                    format!("10.202.{block}.{at}"),
                ];
                spec["addresses"] = json!(both);
            }
            3 if resolution != "DNS" => {
                spec["addresses"] = json!([format!("10.203.{block}.0/24")]);
            }
            _ => {}
        }
        if resolution == "STATIC" || resolution == "DNS" && self.random.percent(40) {
            let ends: Vec<Value> = (0..self.random.between(1, 2))
                .map(|end| {
                    let mut out = json!({"address": format!("10.204.{block}.{}", at * 2 + end)});
                    if self.random.percent(60) {
                        out["labels"] = json!({"version": *self.one(&["v1", "v2"])});
                    }
                    out
                })
                .collect();
            spec["endpoints"] = json!(ends);
        }
        spec
    }
}
