//! Meshes in short lines, for the fence `home/web`.
//!
//! ```text
//! calls HOST...            hosts of the spec
//! learned HOST...          hosts of the status
//! namespaces NAME...       namespaceSelector
//! config YAML              configuration
//! fallback HOST            host of the fallback
//! service NS/NAME PORT...  ports are NAME:NUMBER, an address is @ADDRESS
//! alias NS/NAME TARGET     an ExternalName
//! entry NS/NAME HOST RESOLUTION PORT...  ports are PROTOCOL:NUMBER, addresses are @ADDRESS
//! http NS/NAME HOST -> DESTINATION...    a VirtualService; also tcp and tls
//! yaml OBJECT              anything else
//! = ENTRY...               what is in scope, and nothing else
//! ! TEXT                   a remark has this
//! ```

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use trimtab_lazyload::object::FenceKey;
use trimtab_lazyload::scope::Scope;

use crate::mesh::{Followed, Mesh};

/// A mesh and what is expected of it.
#[derive(Default)]
pub struct Case {
    pub mesh: Mesh,
    hosts: Vec<String>,
    learned: Vec<String>,
    namespaces: Vec<String>,
    wanted: Option<BTreeSet<String>>,
    remarks: Vec<String>,
}

/// Checks each of several cases, with empty lines between them.
#[track_caller]
pub fn check(text: &str) {
    let mut any = false;
    for text in text.trim().split("\n\n") {
        let case = Case::of(text);
        let scope = case.scope();
        let wanted = case.wanted.as_ref().expect("a line =");
        let warnings: Vec<String> = scope.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(&entries(&scope), wanted, "{text}\n{warnings:#?}");
        for remark in &case.remarks {
            let told = warnings.iter().any(|w| w.contains(remark));
            assert!(told, "{text}\n{warnings:#?}");
        }
        any = true;
    }
    assert!(any, "no case");
}

/// The objects of some lines.
pub fn object(line: &str) -> Value {
    let (kind, rest) = line.split_once(' ').expect("a kind");
    let (of, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    match kind {
        "service" => service(of, rest),
        "alias" => alias(of, rest),
        "entry" => entry(of, rest),
        "http" | "tcp" | "tls" => route(of, kind, rest),
        "yaml" => {
            let text = line.trim_start_matches("yaml ");
            serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{line}: {e}"))
        }
        _ => panic!("what is {line}"),
    }
}

fn named(kind: &str, of: &str, spec: Value) -> Value {
    let (namespace, name) = of.split_once('/').expect("a namespace");
    let mut out = json!({"kind": kind, "metadata": {"namespace": namespace, "name": name}});
    out["spec"] = spec;
    out
}

/// Ports and addresses.
fn words(rest: &str) -> (Vec<(&str, u16)>, Vec<&str>) {
    let (addresses, ports): (Vec<&str>, Vec<&str>) =
        rest.split_whitespace().partition(|w| w.starts_with('@'));
    let ports = ports.into_iter().map(|text| {
        let (name, number) = text.split_once(':').expect("a port");
        (name, number.parse().expect("a number"))
    });
    let addresses = addresses.into_iter().map(|a| &a[1..]);
    (ports.collect(), addresses.collect())
}

fn service(of: &str, rest: &str) -> Value {
    let (ports, addresses) = words(rest);
    let port = |(name, number): (&str, u16)| json!({"name": name, "port": number});
    let ports: Vec<Value> = ports.into_iter().map(port).collect();
    let mut spec = json!({"selector": {"app": "x"}, "ports": ports});
    if let Some(address) = addresses.first() {
        spec["clusterIP"] = json!(address);
    }
    named("Service", of, spec)
}

fn alias(of: &str, target: &str) -> Value {
    let ports = json!([{"name": "http", "port": 80}]);
    let spec = json!({"type": "ExternalName", "externalName": target, "ports": ports});
    named("Service", of, spec)
}

fn entry(of: &str, rest: &str) -> Value {
    let (host, rest) = rest.split_once(' ').expect("a host");
    let (resolution, rest) = rest.split_once(' ').expect("a resolution");
    let (ports, addresses) = words(rest);
    let port = |(protocol, number): (&str, u16)| {
        let name = format!("p-{number}");
        json!({"name": name, "number": number, "protocol": protocol})
    };
    let ports: Vec<Value> = ports.into_iter().map(port).collect();
    let mut spec = json!({"hosts": [host], "ports": ports, "addresses": addresses});
    spec["resolution"] = json!(resolution);
    named("ServiceEntry", of, spec)
}

fn route(of: &str, kind: &str, rest: &str) -> Value {
    let (host, to) = rest.split_once(" -> ").expect("destinations");
    let to: Vec<&str> = to.split_whitespace().collect();
    let one = |host: &&str| json!({"destination": {"host": host}, "weight": 100 / to.len()});
    let routes: Vec<Value> = to.iter().map(one).collect();
    let mut rule = json!({"route": routes});
    if kind == "tls" {
        rule["match"] = json!([{"port": 443, "sniHosts": [host]}]);
    }
    let mut spec = json!({"hosts": [host]});
    spec[kind] = json!([rule]);
    named("VirtualService", of, spec)
}

pub fn web() -> FenceKey {
    FenceKey {
        namespace: "home".to_owned(),
        name: "web".to_owned(),
    }
}

pub fn scope(mesh: &Mesh, index: &Followed) -> Scope {
    mesh.part(index, &web()).expect("the fence").scope
}

/// Entries, with the domain of the cluster left out.
pub fn entries(scope: &Scope) -> BTreeSet<String> {
    let short = |entry: &String| entry.replace(".svc.cluster.local", ".svc");
    scope.entries.keys().map(short).collect()
}

impl Case {
    pub fn of(text: &str) -> Self {
        let mut case = Self::default();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
            case.line(line);
        }
        let hosts = case.hosts.iter().map(|h| (h.clone(), json!({})));
        let hosts: Map<String, Value> = hosts.collect();
        let learned = case.learned.iter();
        let learned: Vec<Value> = learned
            .map(|h| json!({"host": h, "caller": "web"}))
            .collect();
        case.mesh.objects.push(json!({
            "kind": "ServiceFence",
            "metadata": {"namespace": "home", "name": "web", "uid": "u"},
            "spec": {"enable": true, "host": hosts, "namespaceSelector": case.namespaces},
            "status": {"dependencies": learned},
        }));
        case
    }

    fn line(&mut self, line: &str) {
        let (kind, rest) = line.split_once(' ').expect("a kind");
        let words = || rest.split_whitespace().map(ToOwned::to_owned);
        match kind {
            "calls" => self.hosts.extend(words()),
            "learned" => self.learned.extend(words()),
            "namespaces" => self.namespaces.extend(words()),
            "config" => {
                let config = serde_saphyr::from_str(rest);
                self.mesh.setup.config = config.unwrap_or_else(|e| panic!("{line}: {e}"));
            }
            "fallback" => self.mesh.setup.fallback.extend(words()),
            "=" => self.wanted = Some(words().collect()),
            "!" => self.remarks.push(rest.to_owned()),
            _ => self.mesh.objects.push(object(line)),
        }
    }

    pub fn scope(&self) -> Scope {
        scope(&self.mesh, &self.mesh.index())
    }
}
