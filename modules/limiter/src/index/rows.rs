//! What is kept of limiters, in either form.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::{LimiterSpec, LimiterStatus, first_form, v1alpha2};
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL};
use trimtab_kit::generated::REVISION_LABEL;
use trimtab_mesh::table::{Known, Row};

use super::{Form, LimiterObject};
use crate::decide::bucket::Bucket;
use crate::owner::Owner;
use crate::translate::default_limits;

/// A limiter of `microservice.slime.io/v1alpha2`.
#[derive(Debug, PartialEq)]
pub struct V1alpha2(pub(super) LimiterObject);

/// A limiter of the first form.
#[derive(Debug, PartialEq)]
pub struct FirstForm(pub(super) LimiterObject);

impl Row for V1alpha2 {
    type Object = v1alpha2::SmartLimiter;
    type Index = ();

    fn read(object: &Arc<v1alpha2::SmartLimiter>, _: &Known<'_, Self>) -> Option<Self> {
        let (spec, status) = ((&object.spec).into(), object.status.as_ref());
        Some(Self(read(object.as_ref(), Form::V1alpha2, spec, status)))
    }
}

impl Row for FirstForm {
    type Object = first_form::SmartLimiter;
    type Index = ();

    fn read(object: &Arc<first_form::SmartLimiter>, _: &Known<'_, Self>) -> Option<Self> {
        let (spec, status) = ((&object.spec).into(), object.status.as_ref());
        Some(Self(read(object.as_ref(), Form::First, spec, status)))
    }
}

/// The limits in the default configurations of a generated EnvoyFilter, by descriptor.
#[derive(Debug, PartialEq)]
pub struct DefaultLimits(pub(super) BTreeMap<String, Bucket>);

impl Row for DefaultLimits {
    type Object = EnvoyFilter;
    type Index = ();

    fn read(object: &Arc<EnvoyFilter>, _: &Known<'_, Self>) -> Option<Self> {
        let manager = object.labels().get(MANAGED_BY_LABEL);
        let ours = manager.map(String::as_str) == Some(MANAGED_BY);
        ours.then(|| default_limits(object)).flatten().map(Self)
    }
}

fn read<K: ResourceExt>(
    object: &K,
    form: Form,
    spec: LimiterSpec,
    status: Option<&LimiterStatus>,
) -> LimiterObject {
    let owner = Owner {
        api_version: form.api_version().to_owned(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        generation: object.meta().generation.unwrap_or_default(),
        revision: object.labels().get(REVISION_LABEL).cloned(),
    };
    let status = Arc::new(status.cloned().unwrap_or_default());
    LimiterObject {
        owner,
        spec: Arc::new(spec),
        latest: status.clone(),
        status,
        undecodable: None,
    }
}
