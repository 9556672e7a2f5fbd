//! CRDs, and kinds that modules write.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::ApiResource;
use kube::{Api, Client, Resource as _, ResourceExt};
use serde_json::Value;
use trimtab_crds::limiter::first_form;

use super::super::facts::{Asked, Crd, FoundCrd};
use super::api::{ask, maybe};

/// Our CRDs, as this program has them and as the cluster has them.
pub(super) async fn crds(client: &Client) -> Asked<Vec<Crd>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    // The chart installs it for those who have such objects only.
    let rare = first_form::SmartLimiter::group(&());
    let mut out = Vec::new();
    for (_, wanted) in trimtab_crds::manifests::trimtab_crds() {
        let found = ask(api.get_opt(&wanted.name_any())).await?;
        if found.is_none() && wanted.spec.group == rare {
            continue;
        }
        out.push(Crd {
            name: wanted.name_any(),
            wanted: served(&wanted),
            found: found.map(|found| FoundCrd {
                served: served(&found),
                lacks: lacks(&wanted, &found),
            }),
        });
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

fn served(crd: &CustomResourceDefinition) -> BTreeSet<String> {
    let versions = crd.spec.versions.iter().filter(|version| version.served);
    versions.map(|version| version.name.clone()).collect()
}

/// What the schemas of the versions that both have say in one and not in the other.
fn lacks(wanted: &CustomResourceDefinition, found: &CustomResourceDefinition) -> Vec<String> {
    let mut out = BTreeSet::new();
    for version in &wanted.spec.versions {
        let other = found.spec.versions.iter().find(|v| v.name == version.name);
        let Some(other) = other else { continue };
        out.extend(statements(version).difference(&statements(other)).cloned());
    }
    out.into_iter().collect()
}

/// Fields, allowed values and rules of a version.
fn statements(
    version: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionVersion,
) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let schema = version
        .schema
        .as_ref()
        .and_then(|s| s.open_api_v3_schema.as_ref());
    let schema = serde_json::to_value(schema).unwrap_or_default();
    collect("", &schema, &mut out);
    out
}

fn collect(path: &str, schema: &Value, out: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let below = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        out.insert(below.clone());
        collect(&below, field, out);
    }
    for value in schema["enum"].as_array().into_iter().flatten() {
        out.insert(format!("{path}: {value}"));
    }
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        out.insert(format!(
            "rule of {path}: {}",
            rule["rule"].as_str().unwrap_or_default()
        ));
    }
    for (below, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[below].is_object() {
            collect(&format!("{path}{mark}"), &schema[below], out);
        }
    }
}

/// Which kinds of others, that modules write, the cluster serves.
pub(super) async fn kinds(
    client: &Client,
    outputs: &[&ApiResource],
) -> Asked<BTreeMap<String, bool>> {
    let own: BTreeSet<String> = trimtab_crds::manifests::trimtab_crds()
        .into_iter()
        .map(|(_, crd)| crd.spec.group)
        .collect();
    let mut out = BTreeMap::new();
    for resource in outputs.iter().filter(|r| !own.contains(&r.group)) {
        let name = format!("{}.{}", resource.plural, resource.group);
        if resource.group.is_empty() || out.contains_key(&name) {
            continue;
        }
        let listed = maybe(client.list_api_group_resources(&resource.api_version)).await?;
        let served = listed.is_some_and(|l| l.resources.iter().any(|r| r.name == resource.plural));
        out.insert(name, served);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_values_and_rules_of_a_newer_schema_are_missed() {
        let (_, new) = trimtab_crds::manifests::trimtab_crds().remove(5);
        assert_eq!(new.name_any(), "smartlimiters.microservice.slime.io");
        assert!(lacks(&new, &new).is_empty());
        let mut old = serde_json::to_value(&new).unwrap();
        let at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let fields = old.pointer_mut(at).unwrap().as_object_mut().unwrap();
        assert!(fields.remove("delivery").is_some());
        let old: CustomResourceDefinition = serde_json::from_value(old).unwrap();
        let missed = lacks(&new, &old);
        assert!(missed.contains(&"spec.delivery".to_owned()), "{missed:?}");
        assert!(
            missed.contains(&"spec.delivery: \"ECDS\"".to_owned()),
            "{missed:?}"
        );
        assert!(lacks(&old, &new).is_empty());
    }
}
