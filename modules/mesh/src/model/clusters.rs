//! Clusters that objects name which change proxies by themselves: istiod imports no service for that.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use trimtab_crds::istio::{EnvoyFilter, PolicyTargets, TrafficExtension, WasmPlugin};

use super::{Identity, Labels};
use crate::table::{Known, Row};

/// Begin of the name of a cluster of istiod's: `outbound|PORT|SUBSET|HOST`.
const OUTBOUND: &str = "outbound|";
/// Contexts of patches that are not for sidecars.
const OTHERS: [&str; 2] = ["GATEWAY", "WAYPOINT"];

/// What an object names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clusters {
    /// Which object.
    pub id: Identity,
    /// Its kind.
    pub kind: &'static str,
    /// Labels of the pods that it is for; empty: all of its namespace.
    pub selector: Labels,
    /// Hosts of the clusters, in lower case.
    pub hosts: BTreeSet<Arc<str>>,
}

/// An EnvoyFilter that names clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterClusters(pub Clusters);

/// A WasmPlugin whose configuration names clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginClusters(pub Clusters);

/// A TrafficExtension that names clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionClusters(pub Clusters);

impl Row for FilterClusters {
    type Object = EnvoyFilter;
    type Index = ();

    /// `None`: it names none, or is for no sidecar.
    fn read(object: &Arc<EnvoyFilter>, _: &Known<'_, Self>) -> Option<Self> {
        let spec = &object.spec;
        let targets = spec.others.get("targetRefs").and_then(Value::as_array);
        if targets.is_some_and(|targets| !targets.is_empty()) {
            return None;
        }
        let mut hosts = BTreeSet::new();
        for patch in &spec.config_patches {
            let text = |pointer: &str| patch.pointer(pointer).and_then(Value::as_str);
            let elsewhere = text("/match/context").is_some_and(|c| OTHERS.contains(&c));
            if !elsewhere && text("/patch/operation") != Some("REMOVE") {
                collect(patch.pointer("/patch/value"), &mut hosts);
            }
        }
        let selector = spec.workload_selector.as_ref();
        (!hosts.is_empty()).then(|| {
            Self(Clusters {
                id: Identity::of(object.as_ref()),
                kind: "EnvoyFilter",
                selector: selector.map(|s| s.labels.clone()).unwrap_or_default(),
                hosts,
            })
        })
    }
}

impl Row for PluginClusters {
    type Object = WasmPlugin;
    type Index = ();

    fn read(object: &Arc<WasmPlugin>, _: &Known<'_, Self>) -> Option<Self> {
        let spec = &object.spec;
        let values = spec.plugin_config.iter();
        let id = Identity::of(object.as_ref());
        Some(Self(extension(id, "WasmPlugin", &spec.targets, values)?))
    }
}

impl Row for ExtensionClusters {
    type Object = TrafficExtension;
    type Index = ();

    fn read(object: &Arc<TrafficExtension>, _: &Known<'_, Self>) -> Option<Self> {
        let spec = &object.spec;
        let values = spec.lua.iter().chain(&spec.wasm);
        let id = Identity::of(object.as_ref());
        Some(Self(extension(
            id,
            "TrafficExtension",
            &spec.targets,
            values,
        )?))
    }
}

fn extension<'a>(
    id: Identity,
    kind: &'static str,
    targets: &PolicyTargets,
    values: impl Iterator<Item = &'a Value>,
) -> Option<Clusters> {
    let mut hosts = BTreeSet::new();
    for value in values {
        collect(Some(value), &mut hosts);
    }
    let selector = targets.of_sidecars()?;
    (!hosts.is_empty()).then_some(Clusters {
        id,
        kind,
        selector,
        hosts,
    })
}

/// The hosts of all clusters in the texts of a value.
fn collect(value: Option<&Value>, out: &mut BTreeSet<Arc<str>>) {
    match value {
        Some(Value::String(text)) => hosts(text, out),
        Some(Value::Array(items)) => items.iter().for_each(|item| collect(Some(item), out)),
        Some(Value::Object(map)) => map.values().for_each(|item| collect(Some(item), out)),
        _ => {}
    }
}

/// The hosts of the clusters that a text names; it may be a program.
fn hosts(text: &str, out: &mut BTreeSet<Arc<str>>) {
    for (at, _) in text.match_indices(OUTBOUND) {
        let rest = &text[at + OUTBOUND.len()..];
        let mut parts = rest.splitn(3, '|');
        let (Some(port), Some(subset), Some(host)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let of_host = |c: char| c.is_ascii_alphanumeric() || ".*-_".contains(c);
        let end = host.find(|c| !of_host(c)).unwrap_or(host.len());
        let host = host[..end].trim_end_matches('.').to_ascii_lowercase();
        let number = port.parse::<u16>().is_ok();
        if number && subset.chars().all(of_host) && !host.is_empty() {
            out.insert(host.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::read;

    fn filter(spec: &Value) -> Vec<String> {
        let object = json!({"metadata": {"namespace": "desk", "name": "f"}, "spec": spec});
        let object = Arc::new(serde_json::from_value(object).unwrap());
        let rows = read::<FilterClusters>("", [object]);
        let hosts = rows.iter().flat_map(|row| &row.0.hosts);
        hosts.map(ToString::to_string).collect()
    }

    fn patch(context: &str, operation: &str, value: &Value) -> Value {
        json!({"configPatches": [{"applyTo": "HTTP_FILTER",
            "match": {"context": context, "cluster": {"name": "outbound|1||match.only"}},
            "patch": {"operation": operation, "value": value}}]})
    }

    #[test]
    fn fault_s3_clusters_of_filters_are_found_wherever_they_stand() {
        let deep = json!({"typed_per_filter_config": {"x": [{"cluster": "outbound|9191||quota.guard.svc.cluster.local"}]}});
        let lua = json!({"inline_code": "local h = request_handle:httpCall(\"outbound|80|v1|a-b.guard.svc.cluster.local\", {})\nx('outbound|443||*.Example.com')"});
        assert_eq!(
            filter(&patch("SIDECAR_INBOUND", "INSERT_BEFORE", &deep)),
            ["quota.guard.svc.cluster.local"]
        );
        assert_eq!(
            filter(&patch("ANY", "MERGE", &lua)),
            ["*.example.com", "a-b.guard.svc.cluster.local"]
        );
        for none in [
            patch("GATEWAY", "MERGE", &deep),
            patch("ANY", "REMOVE", &deep),
            patch("ANY", "MERGE", &json!({"cluster": "outbound|x||a.b"})),
            patch("ANY", "MERGE", &json!({"cluster": "inbound|80||a.b"})),
            patch("ANY", "MERGE", &json!({"cluster": "outbound|80|a.b"})),
            json!({"targetRefs": [{"name": "g"}], "configPatches": patch("ANY", "MERGE", &deep)["configPatches"]}),
        ] {
            assert_eq!(filter(&none), [""; 0], "{none}");
        }
    }

    #[test]
    fn fault_s3_plugins_and_extensions_name_clusters_too() {
        let object = json!({"metadata": {"namespace": "desk", "name": "p"}, "spec": {
            "selector": {"matchLabels": {"app": "orders"}},
            "pluginConfig": {"upstream": "outbound|80||plugin.guard.svc.cluster.local"}}});
        let object = Arc::new(serde_json::from_value(object).unwrap());
        let rows = read::<PluginClusters>("", [object]);
        assert_eq!(rows[0].0.selector["app"], "orders");
        assert_eq!(rows[0].0.hosts.len(), 1);
        let object = json!({"metadata": {"namespace": "desk", "name": "p"}, "spec": {
            "lua": {"inlineCode": "c = 'outbound|80||lua.guard.svc.cluster.local'"}}});
        let object = Arc::new(serde_json::from_value(object).unwrap());
        assert_eq!(read::<ExtensionClusters>("", [object])[0].0.hosts.len(), 1);
    }
}
