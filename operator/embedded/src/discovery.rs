//! What the API serves: `/version`, `/api`, `/apis` and the resource lists.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, Request, header};
use serde_json::{Value, json};

use crate::kinds::{Registry, Resource, Version};
use crate::reply::Reply;

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers requests that are not about objects; `None` if the path is unknown.
pub(crate) fn answer(registry: &Registry, request: &Request<Bytes>) -> Option<Reply> {
    if request.method() != Method::GET {
        return None;
    }
    let accept = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let aggregated = accept.contains("as=APIGroupDiscoveryList") && accept.contains("v=v2");
    let parts: Vec<&str> = request
        .uri()
        .path()
        .split('/')
        .filter(|p| !p.is_empty())
        .collect();
    let value = match parts.as_slice() {
        [] => json!({ "paths": ["/api", "/apis", "/version", "/healthz", "/readyz", "/livez"] }),
        ["healthz" | "readyz" | "livez"] => {
            let mut reply = Reply::new(200, Bytes::from_static(b"ok"));
            reply.content_type = "text/plain";
            return Some(reply);
        }
        ["version"] => version(),
        ["api"] if aggregated => return Some(aggregate(registry, str::is_empty)),
        ["apis"] if aggregated => return Some(aggregate(registry, |group| !group.is_empty())),
        ["api"] => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1" }],
        }),
        ["apis"] => group_list(registry),
        ["apis", group] => group_of(registry, group)?,
        ["api", version] => resource_list(registry, "", version)?,
        ["apis", group, version] => resource_list(registry, group, version)?,
        ["openapi", "v3"] => crate::openapi::index(registry),
        ["openapi", "v3", "api", version] => crate::openapi::document(registry, "", version)?,
        ["openapi", "v3", "apis", group, version] => {
            crate::openapi::document(registry, group, version)?
        }
        _ => return None,
    };
    Some(Reply::json(200, &value))
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "33", "gitVersion": concat!("v1.33.0+trimtab.", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "", "goVersion": "", "compiler": "rustc",
        "platform": "embedded",
    })
}

/// Versions by group, newest first.
fn groups(registry: &Registry) -> BTreeMap<&str, Vec<&str>> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for resource in registry.all() {
        let versions = groups.entry(resource.group()).or_default();
        for version in &resource.versions {
            if !versions.contains(&version.name.as_str()) {
                versions.push(&version.name);
            }
        }
    }
    for versions in groups.values_mut() {
        versions.sort_by_key(|v| std::cmp::Reverse(priority(v)));
    }
    groups
}

/// Kubernetes version order: stable before beta before alpha, then the numbers.
pub(crate) fn priority(version: &str) -> (u8, u64, u64) {
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    for (stability, word) in [(2, "beta"), (1, "alpha")] {
        if let Some((major, minor)) = rest.split_once(word) {
            return (
                stability,
                major.parse().unwrap_or(0),
                minor.parse().unwrap_or(0),
            );
        }
    }
    rest.parse().map_or((0, 0, 0), |major| (3, major, 0))
}

fn group_value(group: &str, versions: &[&str]) -> Value {
    let listed: Vec<Value> = versions
        .iter()
        .map(|v| json!({ "groupVersion": format!("{group}/{v}"), "version": v }))
        .collect();
    json!({ "name": group, "versions": listed, "preferredVersion": listed.first() })
}

fn group_list(registry: &Registry) -> Value {
    let groups: Vec<Value> = groups(registry)
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_value(group, versions))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

fn group_of(registry: &Registry, group: &str) -> Option<Value> {
    let versions = groups(registry).remove(group)?;
    let mut value = group_value(group, &versions);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

fn served<'a>(
    registry: &'a Registry,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = (&'a Resource, &'a Version)> {
    registry
        .all()
        .filter(move |r| r.group() == group)
        .filter_map(move |r| r.version(version).map(|v| (r.as_ref(), v)))
}

fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for (resource, served) in served(registry, group, version) {
        let plural = &*resource.id.plural;
        resources.push(json!({
            "name": plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": VERBS, "shortNames": resource.short_names,
            "categories": resource.categories,
        }));
        if served.status {
            resources.push(json!({
                "name": format!("{plural}/status"), "singularName": "", "namespaced": resource.namespaced,
                "kind": resource.kind, "verbs": ["get", "patch", "update"],
            }));
        }
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    (!resources.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
        })
    })
}

fn aggregate(registry: &Registry, wanted: impl Fn(&str) -> bool) -> Reply {
    let items: Vec<Value> = groups(registry)
        .iter()
        .filter(|(group, _)| wanted(group))
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = served(registry, group, version)
                        .map(|(resource, served)| aggregated_resource(resource, served))
                        .collect();
                    json!({ "version": version, "freshness": "Current", "resources": resources })
                })
                .collect();
            json!({ "metadata": { "name": group, "creationTimestamp": null }, "versions": versions })
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    let mut reply = Reply::json(200, &list);
    reply.content_type = AGGREGATED;
    reply
}

fn aggregated_resource(resource: &Resource, served: &Version) -> Value {
    let kind = json!({ "group": resource.group(), "version": served.name, "kind": resource.kind });
    let mut value = json!({
        "resource": &*resource.id.plural, "responseKind": kind,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": VERBS, "shortNames": resource.short_names,
        "categories": resource.categories,
    });
    if served.status {
        value["subresources"] = json!([{
            "subresource": "status", "responseKind": kind, "verbs": ["get", "patch", "update"],
        }]);
    }
    value
}
