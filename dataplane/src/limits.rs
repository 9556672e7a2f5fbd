//! Limits of a SmartLimiter that is delivered by ECDS, from the `EnvoyFilter` that would install them in a mesh.

use std::collections::BTreeMap;

use kube::ResourceExt;
use serde_json::Value;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_kit::envoyfilter::PatchContext;
use trimtab_kit::problem::Problem;

use crate::input::HttpLimit;

/// Reads the limits that `filter` installs for a service with this host, and what of it is not done without Istio.
///
/// A proxy without Istio stands in front of the service's servers, so that what is meant for their sidecars is done
/// there: as one limit for all servers behind it, and not for each. A limit of callers is taken when it is for `host`.
pub fn limits(host: &str, filter: &EnvoyFilter) -> (Vec<HttpLimit>, Vec<Problem>) {
    let mut reader = Reader {
        host,
        filter,
        names: Vec::new(),
        actions: BTreeMap::new(),
        problems: Vec::new(),
    };
    for (index, patch) in filter.spec.config_patches.iter().enumerate() {
        reader.patch(index, patch);
    }
    let mut out = Vec::new();
    if reader.actions.is_empty() {
        reader.actions.insert(None, Vec::new());
    }
    for (port, actions) in &reader.actions {
        for (i, name) in reader.names.iter().enumerate() {
            out.push(HttpLimit {
                host: host.to_owned(),
                port: *port,
                filter: name.clone(),
                // Descriptors of a call are for all filters.
                actions: if i == 0 { actions.clone() } else { Vec::new() },
            });
        }
    }
    (out, reader.problems)
}

struct Reader<'a> {
    host: &'a str,
    filter: &'a EnvoyFilter,
    names: Vec<String>,
    actions: BTreeMap<Option<u16>, Vec<Vec<Value>>>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn patch(&mut self, index: usize, patch: &Value) {
        let value = &patch["patch"]["value"];
        if patch["match"]["context"] == PatchContext::Gateway.as_str() {
            return self.not_done(
                index,
                "limits of gateways are not done: let the limiter select the service",
            );
        }
        match patch["applyTo"].as_str() {
            Some("HTTP_FILTER") if !value["config_discovery"].is_null() => {
                let name = value["name"].as_str().unwrap_or_default().to_owned();
                if !self.names.contains(&name) {
                    self.names.push(name);
                }
            }
            Some("HTTP_FILTER") => {
                self.not_done(index, "the buckets are in the object: deliver the limiter by ECDS");
            }
            Some("VIRTUAL_HOST") => self.host(index, patch, &value["rate_limits"]),
            // The only one that sidecars have for calls to their own service.
            Some("HTTP_ROUTE") if inbound_default(patch) => {
                self.host(index, patch, &value["route"]["rate_limits"]);
            }
            _ => self.not_done(index, "limits of single routes and bodies of answers are not done: remove the route or the body from the limiter"),
        }
    }

    fn host(&mut self, index: usize, patch: &Value, limits: &Value) {
        let vhost = patch["match"]["routeConfiguration"]["vhost"]["name"].as_str();
        let (name, port) = match vhost {
            None => (self.host, None),
            Some(text) => {
                let separator = if text.starts_with("inbound|") {
                    '|'
                } else {
                    ':'
                };
                let (name, port) = text.rsplit_once(separator).unwrap_or((text, ""));
                let inbound = name == "inbound|http";
                (if inbound { self.host } else { name }, port.parse().ok())
            }
        };
        if name != self.host {
            return self.not_done(index, "limits of callers are done for the service itself only: write a limiter for the service that is called");
        }
        let limits = limits.as_array();
        let actions = limits
            .into_iter()
            .flatten()
            .filter_map(|l| l["actions"].as_array().cloned());
        self.actions.entry(port).or_default().extend(actions);
    }

    fn not_done(&mut self, index: usize, text: &str) {
        let namespace = self.filter.metadata.namespace.clone().unwrap_or_default();
        let object = format!("EnvoyFilter {namespace}/{}", self.filter.name_any());
        let field = format!("spec.configPatches[{index}]");
        self.problems
            .push(Problem::new(object, field, "NotSupported", text));
    }
}

fn inbound_default(patch: &Value) -> bool {
    let inbound = patch["match"]["context"] == PatchContext::SidecarInbound.as_str();
    inbound && patch["match"]["routeConfiguration"]["vhost"]["route"]["name"] == "default"
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trimtab_crds::istio::EnvoyFilterSpec;

    use super::*;

    fn read(patches: &Value) -> (Vec<HttpLimit>, Vec<Problem>) {
        let spec = EnvoyFilterSpec {
            config_patches: patches.as_array().unwrap().clone(),
            ..EnvoyFilterSpec::default()
        };
        limits("a.shop.svc.cluster.local", &EnvoyFilter::new("a", spec))
    }

    fn host(name: &str) -> Value {
        let context = if name.starts_with("inbound") {
            "SIDECAR_INBOUND"
        } else {
            "SIDECAR_OUTBOUND"
        };
        json!({"applyTo": "VIRTUAL_HOST", "match": {"context": context, "routeConfiguration": {"vhost": {"name": name}}},
            "patch": {"operation": "MERGE", "value": {"rate_limits": [{"actions": [{"remote_address": {}}]}]}}})
    }

    #[test]
    fn ports_are_told_by_virtual_hosts_and_all_filters_are_there() {
        let filter = |name: &str| {
            json!({"applyTo": "HTTP_FILTER", "match": {"context": "SIDECAR_INBOUND"},
                "patch": {"operation": "INSERT_BEFORE", "value": {"name": name, "config_discovery": {}}}})
        };
        let (found, problems) = read(&json!([
            host("inbound|http|80"),
            host("a.shop.svc.cluster.local:81"),
            filter("x"),
            filter("y"),
            filter("x")
        ]));
        assert_eq!(problems, []);
        let seen: Vec<_> = found
            .iter()
            .map(|l| (l.port, l.filter.as_str(), l.actions.len()))
            .collect();
        assert_eq!(
            seen,
            [
                (Some(80), "x", 1),
                (Some(80), "y", 0),
                (Some(81), "x", 1),
                (Some(81), "y", 0)
            ]
        );
    }

    #[test]
    fn what_is_not_done_is_said() {
        for patch in [
            host("other.shop.svc.cluster.local:80"),
            json!({"applyTo": "HTTP_ROUTE", "match": {"context": "SIDECAR_INBOUND"}}),
            json!({"applyTo": "HTTP_FILTER", "match": {"context": "GATEWAY"}}),
            json!({"applyTo": "HTTP_FILTER", "patch": {"value": {"name": "x", "typed_config": {}}}}),
        ] {
            let (found, problems) = read(&json!([patch]));
            assert_eq!((found.len(), problems.len()), (0, 1), "{patch}");
        }
    }
}
