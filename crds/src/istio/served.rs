//! The versions in which Istio serves its kinds, and the kinds that Trimtab does not read.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionSpec,
    CustomResourceDefinitionVersion, CustomResourceValidation, JSONSchemaProps,
};
use kube::core::ObjectMeta;

/// Group, kind, plural, versions; the first is the stored one.
const UNREAD: [(&str, &str, &str, &[&str]); 4] = [
    (
        "networking.istio.io",
        "ProxyConfig",
        "proxyconfigs",
        &["v1beta1"],
    ),
    (
        "networking.istio.io",
        "WorkloadEntry",
        "workloadentries",
        &["v1", "v1beta1", "v1alpha3"],
    ),
    (
        "networking.istio.io",
        "WorkloadGroup",
        "workloadgroups",
        &["v1", "v1beta1", "v1alpha3"],
    ),
    (
        "security.istio.io",
        "PeerAuthentication",
        "peerauthentications",
        &["v1", "v1beta1"],
    ),
];

/// Versions of the kinds that Trimtab reads, besides the one of their type.
fn other_versions(crd: &CustomResourceDefinition) -> &'static [&'static str] {
    match (crd.spec.group.as_str(), crd.spec.names.kind.as_str()) {
        (_, "EnvoyFilter") | ("extensions.istio.io", _) => &[],
        ("telemetry.istio.io", _) => &["v1", "v1alpha1"],
        ("security.istio.io", _) => &["v1", "v1beta1"],
        _ => &["v1", "v1beta1", "v1alpha3"],
    }
}

/// The CRD of a type as Istio has it: all its versions mean the same, and there is a status.
pub(crate) fn as_served(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let Some(mut typed) = crd.spec.versions.pop() else {
        return crd;
    };
    let schema = typed
        .schema
        .as_mut()
        .and_then(|s| s.open_api_v3_schema.as_mut());
    if let Some(properties) = schema.and_then(|s| s.properties.as_mut()) {
        properties.insert("status".to_owned(), open());
    }
    let others = other_versions(&crd).iter().filter(|v| **v != typed.name);
    let others: Vec<CustomResourceDefinitionVersion> = others
        .map(|name| CustomResourceDefinitionVersion {
            name: (*name).to_owned(),
            storage: false,
            ..typed.clone()
        })
        .collect();
    crd.spec.versions = vec![typed];
    crd.spec.versions.extend(others);
    crd
}

/// CRDs of the kinds that nobody here reads, so that folders may hold them.
pub(crate) fn unread_crds() -> impl Iterator<Item = CustomResourceDefinition> {
    UNREAD.iter().map(|(group, kind, plural, versions)| {
        let version = |(i, name): (usize, &&str)| CustomResourceDefinitionVersion {
            name: (*name).to_owned(),
            served: true,
            storage: i == 0,
            schema: Some(CustomResourceValidation {
                open_api_v3_schema: Some(open()),
            }),
            ..CustomResourceDefinitionVersion::default()
        };
        CustomResourceDefinition {
            metadata: ObjectMeta {
                name: Some(format!("{plural}.{group}")),
                ..ObjectMeta::default()
            },
            spec: CustomResourceDefinitionSpec {
                group: (*group).to_owned(),
                names: CustomResourceDefinitionNames {
                    kind: (*kind).to_owned(),
                    plural: (*plural).to_owned(),
                    singular: Some(kind.to_lowercase()),
                    ..CustomResourceDefinitionNames::default()
                },
                scope: "Namespaced".to_owned(),
                versions: versions.iter().enumerate().map(version).collect(),
                ..CustomResourceDefinitionSpec::default()
            },
            ..CustomResourceDefinition::default()
        }
    })
}

fn open() -> JSONSchemaProps {
    JSONSchemaProps {
        type_: Some("object".to_owned()),
        x_kubernetes_preserve_unknown_fields: Some(true),
        ..JSONSchemaProps::default()
    }
}
