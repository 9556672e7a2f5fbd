//! CRD manifests from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{istio, limiter};

/// Our CRDs with their file names in `crds/manifests/`, sorted by name.
pub fn trimtab_crds() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        (
            "microservice.netease.com_smartlimiters.yaml",
            limiter::first_form::SmartLimiter::crd(),
        ),
        (
            "microservice.slime.io_smartlimiters.yaml",
            limiter::v1alpha2::SmartLimiter::crd(),
        ),
    ]
}

/// Open CRDs of the Istio kinds, for the embedded API. A cluster has Istio's own.
pub fn istio_crds() -> Vec<CustomResourceDefinition> {
    vec![
        istio::DestinationRule::crd(),
        istio::EnvoyFilter::crd(),
        istio::ServiceEntry::crd(),
    ]
}
