//! CRD manifests from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceSubresourceStatus, CustomResourceSubresources,
    JSONSchemaProps,
};
use kube::CustomResourceExt;
use serde_json::json;

use crate::{dubbo, fence, gateway_api, istio, limiter, metaprotocol, redis};

/// Our CRDs with their file names in `crds/manifests/`, sorted by name.
pub fn trimtab_crds() -> Vec<(&'static str, CustomResourceDefinition)> {
    let mut crds = vec![
        (
            "dubbo.aeraki.io_dubboauthorizationpolicies.yaml",
            dubbo::DubboAuthorizationPolicy::crd(),
        ),
        (
            "metaprotocol.aeraki.io_applicationprotocols.yaml",
            metaprotocol::ApplicationProtocol::crd(),
        ),
        (
            "metaprotocol.aeraki.io_metarouters.yaml",
            metaprotocol::MetaRouter::crd(),
        ),
        (
            "microservice.netease.com_smartlimiters.yaml",
            limiter::first_form::SmartLimiter::crd(),
        ),
        (
            "microservice.slime.io_servicefences.yaml",
            fence::ServiceFence::crd(),
        ),
        (
            "microservice.slime.io_smartlimiters.yaml",
            limiter::v1alpha2::SmartLimiter::crd(),
        ),
        (
            "redis.aeraki.io_redisdestinations.yaml",
            redis::RedisDestination::crd(),
        ),
        (
            "redis.aeraki.io_redisservices.yaml",
            redis::RedisService::crd(),
        ),
    ];
    for (_, crd) in &mut crds {
        keep_old_status(crd);
    }
    crds
}

/// Exports of objects carry the status that Slime or another version wrote. It is replaced anyway, so it is no reason for
/// kubectl to refuse the object.
fn keep_old_status(crd: &mut CustomResourceDefinition) {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut();
        let root = schema.and_then(|s| s.open_api_v3_schema.as_mut());
        let properties = root.and_then(|s| s.properties.as_mut());
        if let Some(status) = properties.and_then(|p| p.get_mut("status")) {
            status.x_kubernetes_preserve_unknown_fields = Some(true);
        }
    }
}

/// Open CRDs of the Istio kinds, for the embedded API, in the versions that Istio serves. A cluster has Istio's own.
pub fn istio_crds() -> Vec<CustomResourceDefinition> {
    let read = [
        istio::AuthorizationPolicy::crd(),
        with_status(istio::DestinationRule::crd()),
        istio::EnvoyFilter::crd(),
        istio::Gateway::crd(),
        istio::RequestAuthentication::crd(),
        with_status(istio::ServiceEntry::crd()),
        istio::Sidecar::crd(),
        istio::Telemetry::crd(),
        istio::TrafficExtension::crd(),
        with_status(istio::VirtualService::crd()),
        istio::WasmPlugin::crd(),
    ];
    read.into_iter()
        .map(istio::as_served)
        .chain(istio::unread_crds())
        .collect()
}

/// Open CRDs of the kinds of the Gateway API that are read, for the embedded API. The others of its group are not known here.
pub fn gateway_api_crds() -> Vec<CustomResourceDefinition> {
    let read = [gateway_api::GrpcRoute::crd(), gateway_api::HttpRoute::crd()];
    let read = read.into_iter().map(with_status);
    read.map(gateway_api::as_served).collect()
}

/// Istio's types have a status of any form, which the rest of Trimtab does not read.
fn with_status(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        version.subresources = Some(CustomResourceSubresources {
            status: Some(CustomResourceSubresourceStatus(json!({}))),
            ..CustomResourceSubresources::default()
        });
        let schema = version.schema.as_mut();
        if let Some(root) = schema.and_then(|s| s.open_api_v3_schema.as_mut()) {
            let status = JSONSchemaProps {
                type_: Some("object".to_owned()),
                x_kubernetes_preserve_unknown_fields: Some(true),
                ..JSONSchemaProps::default()
            };
            let properties = root.properties.get_or_insert_default();
            properties.insert("status".to_owned(), status);
        }
    }
    crd
}

#[cfg(test)]
mod tests {
    /// An API server takes no reference to another schema, nor to the same one.
    #[test]
    fn schemas_stand_for_themselves() {
        let others = super::istio_crds()
            .into_iter()
            .chain(super::gateway_api_crds());
        for crd in others {
            let text = serde_json::to_string(&crd).unwrap();
            assert!(!text.contains("$ref"), "{text}");
        }
    }
}
