//! Routes of the Gateway API whose parents are Services.

use serde_json::json;

use super::{Host, HostKind, Maker};

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

impl Maker<'_> {
    pub(super) fn gateway_routes(&mut self) {
        let parents: Vec<Host> = self
            .hosts
            .iter()
            .filter(|h| h.kind == HostKind::Service)
            .cloned()
            .collect();
        for at in 0..self.random.below(3) {
            let parent = self.one(&parents).clone();
            let backend = self.one(&parents).clone();
            let owner = if self.random.percent(60) {
                parent.namespace.clone()
            } else {
                self.namespace()
            };
            let mut reference = json!({"group": "", "kind": "Service", "name": parent.name, "namespace": parent.namespace});
            let port = parent.ports[0].0;
            if self.random.percent(40) {
                reference["port"] = json!(port);
            }
            let to = |weight: u32| json!({"name": backend.name, "namespace": backend.namespace, "port": backend.ports[0].0, "weight": weight});
            let mut rule = json!({"backendRefs": [to(1)]});
            if self.random.percent(30) {
                rule["backendRefs"] = json!([to(1), {"name": parent.name, "namespace": parent.namespace, "port": port, "weight": 3}]);
            }
            // istiod joins routes of both kinds.
            let grpc = self.random.percent(30);
            if self.random.percent(30) {
                let backend =
                    json!({"name": parent.name, "namespace": parent.namespace, "port": port});
                rule["filters"] =
                    json!([{"type": "RequestMirror", "requestMirror": {"backendRef": backend}}]);
            }
            let path = self.random.pick(&["/", "/g", "/g/h"]);
            if grpc {
                if self.random.percent(50) {
                    rule["matches"] =
                        json!([{"method": {"type": "Exact", "service": "G", "method": "H"}}]);
                }
            } else {
                // As the API server defaults it.
                rule["matches"] = json!([{"path": {"type": "PathPrefix", "value": path}}]);
            }
            let kind = if grpc { "GRPCRoute" } else { "HTTPRoute" };
            let spec = json!({"parentRefs": [reference], "rules": [rule]});
            self.object(GATEWAY_API, kind, &owner, &format!("g{at}"), &spec);
        }
    }
}
