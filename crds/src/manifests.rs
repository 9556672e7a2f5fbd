//! CRD manifests from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{dubbo, fence, istio, limiter, metaprotocol, redis};

/// Our CRDs with their file names in `crds/manifests/`, sorted by name.
pub fn trimtab_crds() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
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
    ]
}

/// Open CRDs of the Istio kinds, for the embedded API. A cluster has Istio's own.
pub fn istio_crds() -> Vec<CustomResourceDefinition> {
    vec![
        istio::AuthorizationPolicy::crd(),
        istio::DestinationRule::crd(),
        istio::EnvoyFilter::crd(),
        istio::Gateway::crd(),
        istio::ServiceEntry::crd(),
        istio::Sidecar::crd(),
        istio::VirtualService::crd(),
    ]
}
