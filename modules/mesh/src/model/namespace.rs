//! Namespaces.

use std::sync::Arc;

use k8s_openapi::api::core::v1;
use kube::ResourceExt;
use trimtab_crds::ACCEPT_OBJECTS_LABEL;
use trimtab_crds::fence::LAZY_XDS_ANNOTATION;

use super::capture::DATAPLANE_MODE;
use super::{Labels, annotations};
use crate::table::{Known, Row};

/// A Namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Labels.
    pub labels: Labels,
    /// Annotations that modules read.
    pub annotations: Labels,
}

impl Namespace {
    /// What it asks Istio to do with the traffic of its pods: `ambient`, or nothing.
    pub fn dataplane_mode(&self) -> Option<&str> {
        self.labels.get(DATAPLANE_MODE).map(String::as_str)
    }

    /// Whether it wants no objects for services of other namespaces.
    pub fn is_closed(&self) -> bool {
        let label = self.labels.get(ACCEPT_OBJECTS_LABEL);
        label.is_some_and(|value| value == "false")
    }
}

impl Row for Namespace {
    type Object = v1::Namespace;
    type Index = ();

    fn read(object: &Arc<v1::Namespace>, _: &Known<'_, Self>) -> Option<Self> {
        Some(Self {
            labels: object.labels().clone().into_iter().collect(),
            annotations: annotations(object.as_ref(), &[LAZY_XDS_ANNOTATION]),
        })
    }
}
