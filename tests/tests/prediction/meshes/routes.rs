//! VirtualServices and delegates.

use serde_json::{Value, json};

use super::{Host, HostKind, ISTIO, Maker};

impl Maker<'_> {
    fn http_match(&mut self) -> Value {
        let mut out = json!({});
        match self.random.below(5) {
            0 => out["uri"] = json!({"prefix": "/"}),
            1 => out["uri"] = json!({"prefix": *self.one(&["/a", "/a/b", "/c"])}),
            2 => out["uri"] = json!({"exact": *self.one(&["/a", "/a/b/c"])}),
            3 => out["headers"] = json!({"x": {"exact": "1"}}),
            _ => {}
        }
        match self.random.below(8) {
            0 | 1 => out["sourceNamespace"] = json!(self.namespace()),
            2 => out["sourceLabels"] = json!({"app": *self.one(&["client", "other"])}),
            3 => out["port"] = json!(*self.one(&[80, 8080])),
            4 => out["gateways"] = json!([*self.one(&["mesh", "other/gate"])]),
            _ => {}
        }
        if out == json!({}) {
            json!({"uri": {"prefix": "/d"}})
        } else {
            out
        }
    }

    fn http_rule(&mut self, delegates: &[(String, String)]) -> Value {
        let mut rule = json!({});
        let matches: Vec<Value> = (0..self.random.below(3))
            .map(|_| self.http_match())
            .collect();
        if !matches.is_empty() {
            rule["match"] = json!(matches);
        }
        let shape = self.random.below(12);
        match shape {
            0 => rule["redirect"] = json!({"authority": format!("away.m{}.example", self.number)}),
            1 => rule["directResponse"] = json!({"status": 418}),
            2 | 3 if !delegates.is_empty() => {
                let (namespace, name) = self.one(delegates).clone();
                rule["delegate"] = json!({"namespace": namespace, "name": name});
                return rule;
            }
            _ => rule["route"] = self.weighted(),
        }
        if shape > 3 {
            let one = self.random.percent(15);
            if one {
                rule["mirror"] = self.destination(false);
                if self.random.percent(40) {
                    rule["mirrorPercentage"] = json!({"value": *self.one(&[0, 50])});
                }
            }
            if !one && self.random.percent(15) {
                let to = self.destination(false);
                rule["mirrors"] = json!([{"destination": to}]);
            }
            if self.random.percent(10) {
                rule["rewrite"] = json!({"authority": "other.example"});
            }
            if self.random.percent(20) {
                rule["timeout"] = json!("5s");
            }
        }
        rule
    }

    fn route_hosts(&mut self) -> Vec<String> {
        let number = self.number;
        let host = self.any();
        match self.random.below(12) {
            0 => vec![format!("*.{}.svc.cluster.local", host.namespace)],
            1 => vec![format!("*.m{number}.example")],
            2 => vec![format!("front.m{number}.example")],
            3 => vec![host.host.replace('*', "under")],
            4 => vec![host.host.clone(), format!("front2.m{number}.example")],
            _ => vec![host.host.clone()],
        }
    }

    pub(super) fn routes(&mut self) {
        let mut delegates = Vec::new();
        for at in 0..self.random.below(3) {
            let (namespace, name) = (self.namespace(), format!("d{at}"));
            let rules: Vec<Value> = (0..self.random.between(1, 2))
                .map(|_| self.http_rule(&[]))
                .collect();
            let mut spec = json!({"http": rules});
            if let Some(exports) = self.exports() {
                spec["exportTo"] = json!(exports);
            }
            self.object(ISTIO, "VirtualService", &namespace, &name, &spec);
            delegates.push((namespace, name));
        }
        for at in 0..self.random.below(4) {
            let (namespace, name) = (self.namespace(), format!("v{at}"));
            let hosts = self.route_hosts();
            for host in &hosts {
                if !self.hosts.iter().any(|h| h.host == *host) {
                    let (host, ports) = (host.replace('*', "any"), vec![(80, "http")]);
                    self.hosts.push(Host {
                        namespace: namespace.clone(),
                        name: name.clone(),
                        host,
                        kind: HostKind::Front,
                        ports,
                    });
                }
            }
            let mut spec = json!({"hosts": hosts});
            match self.random.below(6) {
                0 => spec["tcp"] = self.tcp_rules(),
                1 => spec["tls"] = self.tls_rules(&hosts),
                _ => {
                    let rules: Vec<Value> = (0..self.random.between(1, 3))
                        .map(|_| self.http_rule(&delegates))
                        .collect();
                    spec["http"] = json!(rules);
                }
            }
            if self.random.percent(10) {
                spec["gateways"] = json!([*self.one(&["mesh", "other/gate"])]);
            }
            if let Some(exports) = self.exports() {
                spec["exportTo"] = json!(exports);
            }
            self.object(ISTIO, "VirtualService", &namespace, &name, &spec);
        }
    }

    fn tcp_rules(&mut self) -> Value {
        let mut rule = json!({});
        rule["route"] = self.weighted();
        match self.random.below(5) {
            0 => rule["match"] = json!([{"port": 5432}]),
            1 => rule["match"] = json!([{"sourceNamespace": self.namespace()}]),
            2 => rule["match"] = json!([{"destinationSubnets": ["10.9.0.0/16"]}]),
            3 => {
                rule["match"] = json!([{"sourceLabels": {"app": *self.one(&["client", "other"])}}]);
            }
            _ => {}
        }
        json!([rule])
    }

    fn tls_rules(&mut self, hosts: &[String]) -> Value {
        let mut of_rule = json!({"sniHosts": hosts});
        match self.random.below(4) {
            0 => of_rule["port"] = json!(443),
            1 => of_rule["sourceNamespace"] = json!(self.namespace()),
            _ => {}
        }
        let routes = self.weighted();
        json!([{"match": [of_rule], "route": routes}])
    }
}
